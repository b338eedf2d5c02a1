//! Events to write and read.

use cid::Cid;
use cim_persistence::clock::Timestamp;
use cim_persistence::event::{DomainEvent, Envelope, Metadata};
use cim_persistence::ipld::{BlockError, BlockFormat, Codec, Hash, decode_data, decode_event};
use cim_persistence::subject::{AggregateId, AggregateType, ContextName, EventType};
use ipld_core::ipld::Ipld;
use serde::{Deserialize, Serialize};
use uuid::{Uuid, uuid};

pub(crate) const CODECS: [Codec; 2] = [Codec::DagCbor, Codec::DagJson];
pub(crate) const HASHES: [Hash; 2] = [Hash::Sha2, Hash::Blake3];

pub(crate) const EVENT_ID: Uuid = uuid!("0192e4a0-7c1a-7b3e-8f00-0123456789ab");

pub(crate) fn formats() -> impl Iterator<Item = (Codec, Hash)> {
    CODECS.into_iter().flat_map(|codec| HASHES.map(|hash| (codec, hash)))
}

pub(crate) const fn format((codec, hash): (Codec, Hash)) -> BlockFormat {
    BlockFormat::Ipld(codec, hash)
}

/// The first event of an order.
pub(crate) fn first<D>(data: D) -> Envelope<D> {
    Envelope {
        format: Envelope::FORMAT,
        context: ContextName::new("sales").unwrap(),
        aggregate: AggregateType::new("order").unwrap(),
        id: AggregateId::new("42").unwrap(),
        version: 1,
        event_type: EventType::new("placed").unwrap(),
        schema_version: 1,
        event_id: EVENT_ID,
        occurred_at: Timestamp::from_micros(1_732_180_000_000_000),
        correlation_id: EVENT_ID,
        causation_id: None,
        metadata: Metadata::default(),
        previous: None,
        data,
    }
}

pub(crate) fn with_data<O, D>(envelope: Envelope<O>, data: D) -> Envelope<D> {
    Envelope {
        format: envelope.format,
        context: envelope.context,
        aggregate: envelope.aggregate,
        id: envelope.id,
        version: envelope.version,
        event_type: envelope.event_type,
        schema_version: envelope.schema_version,
        event_id: envelope.event_id,
        occurred_at: envelope.occurred_at,
        correlation_id: envelope.correlation_id,
        causation_id: envelope.causation_id,
        metadata: envelope.metadata,
        previous: envelope.previous,
        data,
    }
}

/// Any event at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Any(pub(crate) Ipld);

impl DomainEvent for Any {
    fn event_type(&self) -> &'static str {
        "any"
    }
}

/// Reads an event with its data.
pub(crate) fn read(bytes: &[u8], cid: &Cid) -> Result<Envelope<Any>, BlockError> {
    let envelope = decode_event(bytes, Some(cid))?;
    let data = decode_data(bytes, Codec::of_cid(cid))?;
    Ok(with_data(envelope, data))
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}
