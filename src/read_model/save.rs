//! Saving models by hand.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tokio::time::sleep;

use super::resolve::{Found, Keeper};
use super::{Models, ReadModel, ReadModelError, index, layout};
use crate::backend::BackendError;
use crate::event::NonEmpty;
use crate::specification::document_of;
use crate::state::{Change, Entry, Expected, Key, KeyWrite};
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
    /// Saves a model and its index entries, all or none, and returns its new revision. Three round trips.
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
    /// Deletes a model and its index entries; nothing happens when there is none. Three round trips.
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
        if let Keeper::Projection(projection) = self.reader.keeper(&self.model).await? {
            let model_type = self.model.to_string();
            return Err(ReadModelError::KeptByProjection { model_type, projection });
        }
        let key = layout::model_key(&self.model, GENERATION, id)?;
        for _ in 0..ATTEMPTS {
            let stored = self.stored(&key).await?;
            let revision = stored.as_ref().map_or(0, |entry| entry.revision);
            let exists = stored.as_ref().is_some_and(|entry| entry.value.is_some());
            check_expected(&key, how.expected, revision, exists)?;
            let writes = self.writes(id, &key, stored.as_ref(), document, &how)?;
            match self.reader.bucket.write(writes).await {
                Ok(revisions) => return Ok(revisions[0]),
                // Another one was first, or the replica that was read is behind.
                Err(BackendError::Conflict { .. }) => sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(BackendError::Conflict { detail: format!("{key} is written all the time") }.into())
    }

    async fn stored(&self, key: &Key) -> Result<Option<Entry>, ReadModelError> {
        let keys = |_| Ok(vec![Pattern::parse(key.as_str())?]);
        Ok(match self.reader.find(&self.model, keys).await? {
            Found::All(mut entries) => entries.pop(),
            Found::TooMany(_) => None,
        })
    }

    fn writes<D: Serialize>(
        &self,
        id: &AggregateId,
        key: &Key,
        stored: Option<&Entry>,
        document: Option<&D>,
        how: &SaveModel,
    ) -> Result<NonEmpty<KeyWrite>, ReadModelError> {
        let value: Option<Bytes> = document.map(|document| self.encode(document)).transpose()?;
        let change = value.clone().map_or(Change::Delete, Change::Put);
        let mut writes = NonEmpty::one(KeyWrite {
            key: key.clone(),
            change,
            expected: Expected::Revision(stored.map_or(0, |entry| entry.revision)),
            headers: layout::headers(self.schema_version, None, &how.metadata),
        });
        if self.indexes.is_empty() {
            return Ok(writes);
        }
        let entries =
            |document: &Value| index::entries(&self.model, GENERATION, &self.indexes, id, document);
        // A document that another client wrote and that is no JSON has no entries.
        let entries_of = |value: Option<&Bytes>| {
            let document: Option<Value> = value.and_then(|json| serde_json::from_slice(json).ok());
            document.as_ref().map(entries).unwrap_or_default()
        };
        let old = entries_of(stored.and_then(|entry| entry.value.as_ref()));
        let new = entries_of(value.as_ref());
        index::difference(&old, &new).for_each(|write| writes.push(write));
        Ok(writes)
    }

    /// The JSON that is stored for a model.
    fn encode<D: Serialize>(&self, model: &D) -> Result<Bytes, ReadModelError> {
        let refused =
            |reason| ReadModelError::Encode { model_type: self.model.to_string(), reason };
        if self.mapping.is_none() {
            let json = serde_json::to_vec(model).map_err(|error| refused(error.to_string()))?;
            return Ok(json.into());
        }
        let document = document_of(model).map_err(|error| refused(error.to_string()))?;
        let stored = self.mapping.write(document).map_err(|error| refused(error.to_string()))?;
        Ok(stored.to_string().into())
    }
}

fn check_expected(
    key: &Key,
    expected: ExpectedRevision,
    revision: u64,
    exists: bool,
) -> Result<(), ReadModelError> {
    let wanted = match expected {
        ExpectedRevision::Any => return Ok(()),
        ExpectedRevision::New if !exists => return Ok(()),
        ExpectedRevision::New => 0,
        ExpectedRevision::Exact(wanted) if wanted == revision => return Ok(()),
        ExpectedRevision::Exact(wanted) => wanted,
    };
    Err(ReadModelError::Conflict { key: key.to_string(), expected: wanted, actual: revision })
}
