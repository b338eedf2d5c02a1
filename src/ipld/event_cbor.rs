//! The event block in DAG-CBOR, written and read field by field.
//!
//! The derived forms of [`Envelope`] say what a block is; what is here gives the same bytes and accepts no others, in a
//! fraction of the time, because the order of the fields is known. Tests hold the two together.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use super::canonical::{MAX_DEPTH, Reader, is_before};
use super::cbor_writer::{NULL, head, text};
use super::codec;
use crate::clock::Timestamp;
use crate::event::{Envelope, Metadata, parse_uuid};
use crate::subject::{AggregateId, AggregateType, ContextName, EventType};

/// A map of fourteen entries, and the key of the first. All keys are in canonical order below.
const ID: &[u8] = b"\xae\x62id";
const DATA: &[u8] = b"\x64data";
const TYPE: &[u8] = b"\x64type";
const FORMAT: &[u8] = b"\x66format";
const SCHEMA: &[u8] = b"\x66schema";
const CONTEXT: &[u8] = b"\x67context";
const VERSION: &[u8] = b"\x67version";
const EVENT_ID: &[u8] = b"\x68event_id";
const METADATA: &[u8] = b"\x68metadata";
const PREVIOUS: &[u8] = b"\x68previous";
const AGGREGATE: &[u8] = b"\x69aggregate";
const OCCURRED_AT: &[u8] = b"\x6boccurred_at";
const CAUSATION_ID: &[u8] = b"\x6ccausation_id";
const CORRELATION_ID: &[u8] = b"\x6ecorrelation_id";

/// More than the fields without data and metadata take, most of the time.
const USUAL_BYTES: usize = 640;

/// Writes the block. The second value is where the data lies in it.
pub(super) fn write<D: Serialize>(
    envelope: &Envelope<&D>,
) -> Result<(Vec<u8>, std::ops::Range<usize>), String> {
    let mut out = Vec::with_capacity(USUAL_BYTES);
    out.extend_from_slice(ID);
    text(&mut out, envelope.id.as_str());
    out.extend_from_slice(DATA);
    let start = out.len();
    let mut out = codec::append_cbor(out, envelope.data).map_err(|error| error.to_string())?;
    let data = start..out.len();
    field(&mut out, TYPE, envelope.event_type.as_str());
    out.extend_from_slice(FORMAT);
    head(&mut out, 0, envelope.format.into());
    out.extend_from_slice(SCHEMA);
    head(&mut out, 0, envelope.schema_version.into());
    field(&mut out, CONTEXT, envelope.context.as_str());
    out.extend_from_slice(VERSION);
    head(&mut out, 0, envelope.version);
    out.extend_from_slice(EVENT_ID);
    uuid(&mut out, &envelope.event_id);
    out.extend_from_slice(METADATA);
    metadata(&mut out, &envelope.metadata);
    out.extend_from_slice(PREVIOUS);
    match &envelope.previous {
        Some(cid) => {
            out.extend_from_slice(&[0xd8, 42]);
            head(&mut out, 2, cid.encoded_len() as u64 + 1);
            out.push(0);
            cid.write_bytes(&mut out).map_err(|e| e.to_string())?;
        }
        None => out.push(NULL),
    }
    field(&mut out, AGGREGATE, envelope.aggregate.as_str());
    out.extend_from_slice(OCCURRED_AT);
    head(&mut out, 0, envelope.occurred_at.as_micros());
    out.extend_from_slice(CAUSATION_ID);
    match &envelope.causation_id {
        Some(id) => uuid(&mut out, id),
        None => out.push(NULL),
    }
    out.extend_from_slice(CORRELATION_ID);
    uuid(&mut out, &envelope.correlation_id);
    Ok((out, data))
}

/// Reads a block that is exactly an event in canonical form; `None` for anything else, whatever is wrong with it.
pub(super) fn read(bytes: &[u8]) -> Option<Envelope<()>> {
    let mut reader = Reader::new(bytes);
    let id = AggregateId::from_escaped(keyed(&mut reader, ID)?.text().ok()?).ok()?;
    keyed(&mut reader, DATA)?.value(MAX_DEPTH - 1).ok()?;
    let event_type = EventType::new(keyed(&mut reader, TYPE)?.text().ok()?).ok()?;
    let format = u32::try_from(keyed(&mut reader, FORMAT)?.unsigned().ok()?).ok()?;
    let schema_version = u32::try_from(keyed(&mut reader, SCHEMA)?.unsigned().ok()?).ok()?;
    let context = ContextName::new(keyed(&mut reader, CONTEXT)?.text().ok()?).ok()?;
    let version = keyed(&mut reader, VERSION)?.unsigned().ok()?;
    let event_id = parse_uuid(keyed(&mut reader, EVENT_ID)?.text().ok()?)?;
    let metadata = read_metadata(keyed(&mut reader, METADATA)?)?;
    let place = keyed(&mut reader, PREVIOUS)?;
    let previous = if place.null() { None } else { Some(place.link().ok()?) };
    let aggregate = AggregateType::new(keyed(&mut reader, AGGREGATE)?.text().ok()?).ok()?;
    let occurred_at = Timestamp::from_micros(keyed(&mut reader, OCCURRED_AT)?.unsigned().ok()?);
    let place = keyed(&mut reader, CAUSATION_ID)?;
    let causation_id = if place.null() { None } else { Some(parse_uuid(place.text().ok()?)?) };
    let correlation_id = parse_uuid(keyed(&mut reader, CORRELATION_ID)?.text().ok()?)?;
    reader.end().ok()?;
    Some(Envelope {
        format,
        context,
        aggregate,
        id,
        version,
        event_type,
        schema_version,
        event_id,
        occurred_at,
        correlation_id,
        causation_id,
        metadata,
        previous,
        data: (),
    })
}

/// The bytes of the data within a block that [`read`] accepts.
pub(super) fn data(bytes: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader::new(bytes);
    keyed(&mut reader, ID)?.text().ok()?;
    keyed(&mut reader, DATA)?.value(MAX_DEPTH - 1).ok()
}

fn keyed<'r, 'a>(reader: &'r mut Reader<'a>, key: &[u8]) -> Option<&'r mut Reader<'a>> {
    reader.expect(key).ok()?;
    Some(reader)
}

fn read_metadata(reader: &mut Reader<'_>) -> Option<Metadata> {
    let mut entries = BTreeMap::new();
    let mut last: Option<&str> = None;
    for _ in 0..reader.map().ok()? {
        let (name, value) = (reader.text().ok()?, reader.text().ok()?);
        if last.is_some_and(|last| !is_before(last, name)) {
            return None;
        }
        last = Some(name);
        entries.insert(name.to_owned(), value.to_owned());
    }
    Some(Metadata::stored(entries))
}

fn metadata(out: &mut Vec<u8>, metadata: &Metadata) {
    let mut entries: Vec<(&str, &str)> = metadata.iter().collect();
    entries.sort_unstable_by_key(|(name, _)| (name.len(), *name));
    head(out, 5, entries.len() as u64);
    for (name, value) in entries {
        text(out, name);
        text(out, value);
    }
}

fn field(out: &mut Vec<u8>, key: &[u8], value: &str) {
    out.extend_from_slice(key);
    text(out, value);
}

fn uuid(out: &mut Vec<u8>, id: &Uuid) {
    text(out, id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
}
