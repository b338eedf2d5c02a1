//! State and snapshots as they are kept in a bucket.

use std::collections::BTreeSet;

use cid::Cid;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::Aggregate;
use super::loaded::Loaded;
use crate::backend::Position;
use crate::clock::Timestamp;
use crate::event::{Metadata, SchemaVersion, Tag};
use crate::ipld::{self, Block, BlockFormat};
use crate::state::{InvalidKey, Key};
use crate::store::Head;
use crate::subject::{AggregateId, AggregateType, ContextName};

/// The record of one aggregate: what its events up to a version add up to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record<S> {
    format: u32,
    context: ContextName,
    aggregate: AggregateType,
    id: AggregateId,
    version: u64,
    position: Position,
    head: Option<Cid>,
    schema: SchemaVersion,
    modified: Timestamp,
    metadata: Metadata,
    tags: BTreeSet<Tag>,
    deleted: bool,
    state: S,
}

const FORMAT: u32 = 1;

/// The key of current state.
pub(super) fn state_key(aggregate: &AggregateType, id: &AggregateId) -> Result<Key, InvalidKey> {
    Key::new(format!("{aggregate}.{}", id.as_str()))
}

/// The key of a snapshot.
pub(super) fn snapshot_key(
    aggregate: &AggregateType,
    id: &AggregateId,
    version: u64,
) -> Result<Key, InvalidKey> {
    Key::new(format!("{aggregate}.{}.{version}", id.as_str()))
}

/// Writes a record as a block.
pub(super) fn encode<A: Aggregate>(
    format: BlockFormat,
    context: &ContextName,
    aggregate: &AggregateType,
    id: &AggregateId,
    loaded: &Loaded<A>,
) -> Result<Block, String> {
    let record = Record {
        format: FORMAT,
        context: context.clone(),
        aggregate: aggregate.clone(),
        id: id.clone(),
        version: loaded.head.version,
        position: loaded.head.position,
        head: loaded.head.cid,
        schema: A::STATE_VERSION,
        modified: loaded.modified,
        metadata: loaded.metadata.clone(),
        tags: loaded.tags.clone(),
        deleted: loaded.deleted,
        state: &loaded.state,
    };
    Block::encode(format, &record)
}

/// Reads a record of this aggregate back; the reason where it is not one that can be used.
pub(super) fn decode<A: Aggregate>(
    bytes: &[u8],
    context: &ContextName,
    aggregate: &AggregateType,
    id: &AggregateId,
) -> Result<Loaded<A>, String> {
    // State of another version may have another shape: then the header alone says so.
    let record: Record<A> = match ipld::decode_any(bytes) {
        Ok(record) => record,
        Err(reason) => {
            let header: Record<IgnoredAny> = ipld::decode_any(bytes)?;
            check(&header, A::STATE_VERSION, context, aggregate, id)?;
            return Err(reason);
        }
    };
    check(&record, A::STATE_VERSION, context, aggregate, id)?;
    Ok(Loaded {
        state: record.state,
        head: Head { version: record.version, position: record.position, cid: record.head },
        modified: record.modified,
        metadata: record.metadata,
        tags: record.tags,
        deleted: record.deleted,
    })
}

fn check<S>(
    record: &Record<S>,
    schema: SchemaVersion,
    context: &ContextName,
    aggregate: &AggregateType,
    id: &AggregateId,
) -> Result<(), String> {
    if record.format != FORMAT || record.schema != schema {
        return Err(format!("it has schema {}, not {schema}", record.schema));
    }
    if record.context != *context || record.aggregate != *aggregate || record.id != *id {
        return Err(format!("it is of {}/{}/{}", record.context, record.aggregate, record.id));
    }
    Ok(())
}

/// Whether a record takes the place of what is stored under its key: of a record of an earlier version, or of the same
/// version in an earlier shape, and of anything that is no record of the same aggregate.
pub(super) fn replaces(new: &[u8], stored: &[u8]) -> bool {
    let header = |bytes| ipld::decode_any::<Record<IgnoredAny>>(bytes);
    let (Ok(new), Ok(stored)) = (header(new), header(stored)) else { return true };
    let same =
        (&new.context, &new.aggregate, &new.id) == (&stored.context, &stored.aggregate, &stored.id);
    !same || (new.version, new.schema) > (stored.version, stored.schema)
}
