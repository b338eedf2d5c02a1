//! Saving models by hand.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::sleep;

use super::index::{self, Index};
use super::layout::{self, Shelf};
use super::resolve::pointer_of;
use super::{Models, ReadModel, ReadModelError};
use crate::backend::{BackendError, Matching, ReadFrom};
use crate::event::{Headers, NonEmpty};
use crate::state::{Change, Entry, Expected, Key, KeyWrite, Slot};
use crate::subject::{AggregateId, Pattern};

/// How a model is saved.
#[derive(Debug, Clone, Default)]
pub struct SaveModel {
    /// What must be true of it.
    pub expected: ExpectedRevision,
    /// What is said about it; kept beside it, not in it.
    pub metadata: BTreeMap<String, String>,
}

/// What must be true of a model when it is saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExpectedRevision {
    /// Nothing; the last one to save wins. The default.
    #[default]
    Any,
    /// It does not exist.
    New,
    /// It has this revision.
    Exact(u64),
}

/// How often a save is repeated when another one comes between reading and writing, and how long is waited.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// The first generation: models saved by hand are never rebuilt.
const GENERATION: u64 = 1;

impl<M: ReadModel> Models<M> {
    /// Saves a model and its index entries, all or none, and returns its new revision. Two round trips.
    ///
    /// The indexes are those that its type declares and those that somebody has built.
    ///
    /// # Errors
    /// [`ReadModelError::KeptByProjection`] for a type that a projection keeps; [`ReadModelError::Conflict`] when it has
    /// another revision than expected; [`ReadModelError::Encode`], [`ReadModelError::Backend`]. Nothing is written then,
    /// unless the backend's error says that it is unknown.
    pub async fn save(&self, model: &M, how: SaveModel) -> Result<u64, ReadModelError> {
        self.write(&model.id()?, Some(model), how).await
    }
}

impl Models<Value> {
    /// Saves a document as [`Models::save`] saves a typed model.
    ///
    /// # Errors
    /// As there.
    pub async fn save_document(
        &self,
        id: &AggregateId,
        document: &Value,
        how: SaveModel,
    ) -> Result<u64, ReadModelError> {
        self.write(id, Some(document), how).await
    }
}

impl<T> Models<T> {
    /// Deletes a model and its index entries; nothing happens when there is none. Two round trips.
    ///
    /// # Errors
    /// As when it is saved.
    pub async fn delete(
        &self,
        id: &AggregateId,
        expected: ExpectedRevision,
    ) -> Result<(), ReadModelError> {
        let how = SaveModel { expected, ..SaveModel::default() };
        self.write(id, None::<&Value>, how).await.map(drop)
    }

    async fn write<D: Serialize>(
        &self,
        id: &AggregateId,
        document: Option<&D>,
        how: SaveModel,
    ) -> Result<u64, ReadModelError> {
        let key = layout::model_key(&self.model, GENERATION, id)?;
        for _ in 0..ATTEMPTS {
            let before = self.before(&key).await?;
            let is_write = |slot: &Slot| is_write(&key, how.expected, document.is_some(), slot);
            if !matches!(is_write(&before.slot()), Ok(true)) {
                // That nothing is written is decided by what the leader has: the replica that was read may be behind.
                let slot = self.reader.bucket.get(&key, ReadFrom::Leader).await?;
                if !is_write(&slot)? {
                    return Ok(slot.revision);
                }
                sleep(PAUSE).await;
                continue;
            }
            let writes = self.writes(id, &key, before, document, &how)?;
            match self.reader.bucket.write(writes).await {
                Ok(revisions) => return Ok(revisions[0]),
                // Another one was first, or the replica that was read is behind.
                Err(BackendError::Conflict { .. }) => sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
        let detail = format!("{key} is written all the time, or a replica stays behind");
        Err(BackendError::Conflict { detail }.into())
    }

    /// What is there before a model is written, all as it was at one moment. One round trip.
    async fn before(&self, key: &Key) -> Result<Before, ReadModelError> {
        let pointer = layout::pointer_key(&self.model)?;
        let shelf = Shelf::new(&self.model, GENERATION);
        let exactly = |key: &Key| Pattern::parse(key.as_str());
        let asked = NonEmpty::from([exactly(&pointer)?, exactly(key)?, shelf.index_states()]);
        let Matching::All(entries) = self.reader.bucket.matching(&asked).await? else {
            let detail = format!("models of type {} have over a thousand indexes", self.model);
            return Err(BackendError::Corrupt { detail }.into());
        };
        let mut before = Before { stored: None, indexes: Index::all(&self.indexes)? };
        for entry in entries {
            if entry.key == *key {
                before.stored = Some(entry);
            } else if entry.value.is_none() {
                continue;
            } else if entry.key == pointer {
                let (model_type, keeper) = (self.model.to_string(), pointer_of(&pointer, &entry)?);
                let projection = keeper.projection;
                return Err(ReadModelError::KeptByProjection { model_type, projection });
            } else if let Some(index) = shelf.index_of_state(&entry.key)
                && !before.indexes.contains(&index)
            {
                before.indexes.push(index);
            }
        }
        Ok(before)
    }

    fn writes<D: Serialize>(
        &self,
        id: &AggregateId,
        key: &Key,
        before: Before,
        document: Option<&D>,
        how: &SaveModel,
    ) -> Result<NonEmpty<KeyWrite>, ReadModelError> {
        let encode = |error: serde_json::Error| ReadModelError::Encode {
            model_type: self.model.to_string(),
            reason: error.to_string(),
        };
        let stored = before.stored.as_ref();
        let new = document.map(serde_json::to_vec).transpose().map_err(encode)?;
        let (change, headers) = match &new {
            Some(new) => {
                let stored = stored.and_then(|entry| layout::schema_version(&entry.headers));
                let version = self.schema_version.or(stored);
                (Change::Put(new.clone().into()), layout::headers(version, None, &how.metadata))
            }
            None => (Change::Delete, Headers::new()),
        };
        let expected = Expected::Revision(stored.map_or(0, |entry| entry.revision));
        let mut writes = NonEmpty::one(KeyWrite { key: key.clone(), change, expected, headers });
        if before.indexes.is_empty() {
            return Ok(writes);
        }
        let shelf = Shelf::new(&self.model, GENERATION);
        let entries = |document: &Value| index::entries(&before.indexes, &shelf, id, document);
        // What another client wrote and no index can hold has no entries.
        let old = stored.and_then(|entry| serde_json::from_slice(entry.value.as_deref()?).ok());
        let old = old.and_then(|old| entries(&old).ok()).unwrap_or_default();
        let new: Option<Value> =
            new.map(|new| serde_json::from_slice(&new)).transpose().map_err(encode)?;
        let new = new.as_ref().map(entries).transpose()?.unwrap_or_default();
        index::difference(&old, &new).for_each(|write| writes.push(write));
        Ok(writes)
    }
}

/// What is there before a model is written.
struct Before {
    stored: Option<Entry>,
    /// Those that the handle declares, and those that somebody has built or is building.
    indexes: Vec<Index>,
}

impl Before {
    fn slot(&self) -> Slot {
        let slot = |entry: &Entry| Slot { revision: entry.revision, value: entry.value.clone() };
        self.stored.as_ref().map(slot).unwrap_or_default()
    }
}

/// Whether there is anything to write where the key holds this: not when what does not exist is deleted.
fn is_write(
    key: &Key,
    expected: ExpectedRevision,
    saves: bool,
    slot: &Slot,
) -> Result<bool, ReadModelError> {
    let exists = slot.value.is_some();
    let wanted = match expected {
        ExpectedRevision::New if exists => 0,
        ExpectedRevision::Exact(wanted) if wanted != slot.revision => wanted,
        _ => return Ok(saves || exists),
    };
    let (key, actual) = (key.to_string(), slot.revision);
    Err(ReadModelError::Conflict { key, expected: wanted, actual })
}
