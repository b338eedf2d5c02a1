//! State and snapshots as they are kept in a bucket.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use cid::Cid;
use ipld_core::ipld::Ipld;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::Aggregate;
use super::loaded::Loaded;
use crate::backend::Position;
use crate::clock::Timestamp;
use crate::event::{Metadata, SchemaVersion, Tag};
use crate::evolution::Kind;
use crate::ipld::{self, Block, BlockFormat};
use crate::state::Key;
use crate::store::{Context, Head};
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
    #[serde(deserialize_with = "Metadata::deserialize_stored")]
    metadata: Metadata,
    tags: BTreeSet<Tag>,
    deleted: bool,
    state: S,
}

const FORMAT: u32 = 1;

/// Why a record cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// Another release wrote it, and no upcasters lead from its shape to that of this one. It counts as absent.
    OtherShape(String),
    /// It belongs to another aggregate, or it cannot be read although its shape is known.
    Wrong(String),
}

/// The key of current state.
pub(super) fn state_key(aggregate: &AggregateType, id: &AggregateId) -> Key {
    Key::joined(&[aggregate.as_str(), id.as_str()])
}

/// The key of a snapshot.
pub(super) fn snapshot_key(aggregate: &AggregateType, id: &AggregateId, version: u64) -> Key {
    let mut digits = itoa::Buffer::new();
    Key::joined(&[aggregate.as_str(), id.as_str(), digits.format(version)])
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

/// Reads a record of this aggregate back. One of an earlier shape is changed into the newest, where upcasters lead there.
pub(super) fn decode<A: Aggregate>(
    bytes: &[u8],
    context: &Context,
    aggregate: &AggregateType,
    id: &AggregateId,
) -> Result<Loaded<A>, Unusable> {
    let reason = match ipld::decode_any::<Record<A>>(bytes) {
        Ok(record) if record.schema == A::STATE_VERSION => {
            check(&record, context, aggregate, id)?;
            return Ok(loaded(record.parted()));
        }
        Ok(record) => other_schema::<A, _>(&record),
        Err(reason) => reason,
    };
    // State of another version may have another shape: then the header alone says so.
    let header: Record<IgnoredAny> = ipld::decode_any(bytes).map_err(Unusable::Wrong)?;
    check(&header, context, aggregate, id)?;
    if header.schema == A::STATE_VERSION {
        return Err(Unusable::Wrong(reason));
    }
    let path = context.evolution().and_then(|evolution| {
        evolution.path(Kind::State, aggregate.as_str(), header.schema, A::STATE_VERSION)
    });
    let path = path.ok_or_else(|| Unusable::OtherShape(other_schema::<A, _>(&header)))?;
    let changed = changed(bytes, |state| path.take(state).map_err(|error| error.to_string()));
    changed.map(loaded).map_err(Unusable::Wrong)
}

/// A record with its state as upcasters make it.
fn changed<A: Aggregate>(
    bytes: &[u8],
    upcast: impl FnOnce(Ipld) -> Result<Ipld, String>,
) -> Result<(Record<()>, A), String> {
    let (record, state) = ipld::decode_any::<Record<Ipld>>(bytes)?.parted();
    let state = upcast(state)?;
    let state = ipld::from_value(ipld::codec_of_any(bytes), &state).map_err(|e| e.to_string())?;
    Ok((record, state))
}

fn loaded<A>((record, state): (Record<()>, A)) -> Loaded<A> {
    Loaded {
        state,
        head: Head { version: record.version, position: record.position, cid: record.head },
        modified: record.modified,
        metadata: record.metadata,
        tags: record.tags,
        deleted: record.deleted,
        state_cid: OnceLock::new(),
    }
}

fn other_schema<A: Aggregate, S>(record: &Record<S>) -> String {
    format!("it has schema {}, not {}", record.schema, A::STATE_VERSION)
}

fn check<S>(
    record: &Record<S>,
    context: &Context,
    aggregate: &AggregateType,
    id: &AggregateId,
) -> Result<(), Unusable> {
    if record.format != FORMAT {
        let reason = format!("it has format {}, not {FORMAT}", record.format);
        return Err(Unusable::OtherShape(reason));
    }
    let context = context.scheme().context();
    if record.context != *context || record.aggregate != *aggregate || record.id != *id {
        let reason = format!("it is of {}/{}/{}", record.context, record.aggregate, record.id);
        return Err(Unusable::Wrong(reason));
    }
    Ok(())
}

impl<S> Record<S> {
    /// The state apart from what is said of it.
    fn parted(self) -> (Record<()>, S) {
        let Self {
            format,
            context,
            aggregate,
            id,
            version,
            position,
            head,
            schema,
            modified,
            metadata,
            tags,
            deleted,
            state,
        } = self;
        let record = Record {
            format,
            context,
            aggregate,
            id,
            version,
            position,
            head,
            schema,
            modified,
            metadata,
            tags,
            deleted,
            state: (),
        };
        (record, state)
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_are_what_a_bucket_takes(
            aggregate in "[A-Za-z0-9_-]{1,64}", id in r"\PC{1,32}", version: u64,
        ) {
            let (aggregate, id) = (AggregateType::new(aggregate)?, AggregateId::new(id)?);
            let state = state_key(&aggregate, &id);
            let snapshot = snapshot_key(&aggregate, &id, version);
            prop_assert_eq!(Key::new(format!("{state}.{version}")), Ok(snapshot));
            prop_assert_eq!(Key::new(format!("{aggregate}.{}", id.as_str())), Ok(state));
        }
    }
}
