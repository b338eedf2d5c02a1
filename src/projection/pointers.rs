//! The pointers of a projection: for each type of models which generation readers see, and which one is being built.
//!
//! A version of a projection may keep other types than the version before. So the pointers of all types count that any
//! version of it keeps or has kept.

use std::collections::BTreeSet;

use futures::future::try_join_all;

use super::error::ProjectionError;
use super::records::{FORMAT, Held, put, read};
use super::{Declared, Projection};
use crate::backend::BackendError;
use crate::event::NonEmpty;
use crate::read_model::layout::{self, Pointer};
use crate::state::{Expected, Key, KeyValue};

/// A type of models of a projection.
pub(super) struct Kept {
    /// Where its pointer lies.
    pub(super) key: Key,
    /// What this version says of it; nothing of a type that only other versions keep.
    pub(super) declared: Option<Declared>,
    pub(super) pointer: Held<Pointer>,
}

/// The types of a projection, those that this version keeps first. A round trip for each of these and two more.
pub(super) async fn kept<P: Projection>(
    bucket: &dyn KeyValue,
) -> Result<Vec<Kept>, ProjectionError> {
    let mut kept = Vec::new();
    for kind in P::models() {
        let key = layout::pointer_key(kind.model)?;
        let (revision, record) = read::<Pointer>(bucket, &key).await?;
        let record = record.unwrap_or_else(|| Pointer {
            format: FORMAT,
            projection: P::NAME.to_owned(),
            generation: None,
            schema_version: kind.schema_version,
            building: None,
            retired: BTreeSet::new(),
        });
        if record.projection != P::NAME {
            return Err(ProjectionError::OwnedByAnother {
                model_type: kind.model.to_owned(),
                owner: record.projection,
            });
        }
        kept.push(Kept { key, declared: Some(kind), pointer: Held { record, revision } });
    }
    if kept.is_empty() {
        return Err(ProjectionError::Definition { reason: "it keeps no models".to_owned() });
    }
    let mut others = bucket.keys(layout::POINTERS).await?;
    others.retain(|key| kept.iter().all(|known| known.key != *key));
    kept.extend(of_projection(bucket, P::NAME, others).await?);
    Ok(kept)
}

/// The generation that readers see of any type that a projection keeps or has kept, by its name alone.
pub(super) async fn visible_of(
    bucket: &dyn KeyValue,
    name: &str,
) -> Result<Option<u64>, ProjectionError> {
    let all = bucket.keys(layout::POINTERS).await?;
    Ok(visible(&of_projection(bucket, name, all).await?))
}

/// Those of the pointers that are a projection's.
async fn of_projection(
    bucket: &dyn KeyValue,
    name: &str,
    keys: Vec<Key>,
) -> Result<Vec<Kept>, ProjectionError> {
    let found = keys.into_iter().map(|key| of_name(bucket, name, key));
    Ok(try_join_all(found).await?.into_iter().flatten().collect())
}

async fn of_name(
    bucket: &dyn KeyValue,
    name: &str,
    key: Key,
) -> Result<Option<Kept>, ProjectionError> {
    match read::<Pointer>(bucket, &key).await {
        Ok((revision, Some(record))) if record.projection == name => {
            Ok(Some(Kept { key, declared: None, pointer: Held { record, revision } }))
        }
        // What cannot be read is the trouble of whoever keeps that type.
        Ok(_) | Err(ProjectionError::Record { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The generation that readers see. A type that is not in it was added since, or dropped.
pub(super) fn visible(kept: &[Kept]) -> Option<u64> {
    kept.iter().filter_map(|kept| kept.pointer.record.generation).max()
}

/// Those types of which something is left to remove.
pub(super) fn untidy(kept: Vec<Kept>) -> Vec<Kept> {
    kept.into_iter().filter(|kept| !kept.pointer.record.retired.is_empty()).collect()
}

/// Removes what is left of the generations that are retired, and then strikes them off. What ends half-way is found again.
/// Their checkpoints are gone, so nobody writes to them.
pub(super) async fn tidy(bucket: &dyn KeyValue, kept: Vec<Kept>) -> Result<(), ProjectionError> {
    for Kept { key, pointer: Held { mut record, revision }, .. } in kept {
        let retired = std::mem::take(&mut record.retired);
        let model = layout::type_of_pointer(&key).unwrap_or_default();
        for pattern in retired.iter().flat_map(|retired| layout::patterns_of(model, *retired)) {
            remove(bucket, &pattern).await?;
        }
        let write = put(key, &record, Expected::Revision(revision));
        bucket.write(NonEmpty::one(write)).await?;
    }
    Ok(())
}

async fn remove(bucket: &dyn KeyValue, pattern: &str) -> Result<(), BackendError> {
    for keys in bucket.keys(pattern).await?.chunks(DELETED) {
        let writes = keys.iter().cloned().map(layout::cleared).collect();
        if let Some(writes) = NonEmpty::from_vec(writes) {
            bucket.write(writes).await?;
        }
    }
    Ok(())
}

/// How many keys one batch deletes.
const DELETED: usize = 1000;
