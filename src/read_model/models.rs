//! The models of one type.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::resolve::{Found, Reader};
use super::{IndexSpec, ReadModelError, ReadModelMetadata, Stored, layout};
use crate::backend::Matching;
use crate::state::Entry;
use crate::subject::{AggregateId, Pattern};

/// The models of one type: as the type `T`, or untyped as [`serde_json::Value`]. Cloning is cheap.
///
/// From [`ReadModelStore::of`](super::ReadModelStore::of) or [`ReadModelStore::untyped`](super::ReadModelStore::untyped).
///
/// Reads are answered by any replica, so what was written a moment ago may be missing; what a projection has written is
/// waited for with [`Projections::wait_for`](crate::projection::Projections::wait_for). A rebuild shows whole or not at all.
#[derive(Debug)]
pub struct Models<T> {
    pub(super) reader: Reader,
    pub(super) model: Arc<str>,
    /// None for documents, which have any.
    pub(super) schema_version: Option<u32>,
    pub(super) indexes: Arc<[IndexSpec]>,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Models<T> {
    fn clone(&self) -> Self {
        Self {
            reader: self.reader.clone(),
            model: Arc::clone(&self.model),
            schema_version: self.schema_version,
            indexes: Arc::clone(&self.indexes),
            kind: PhantomData,
        }
    }
}

/// How many models one request asks for.
const ASKED: usize = 1000;

impl<T> Models<T> {
    pub(super) fn new(
        reader: Reader,
        model: &str,
        schema_version: Option<u32>,
        indexes: Vec<IndexSpec>,
    ) -> Self {
        let (model, indexes) = (model.into(), indexes.into());
        Self { reader, model, schema_version, indexes, kind: PhantomData }
    }

    /// The name of their type.
    pub fn model_type(&self) -> &str {
        &self.model
    }

    /// The same models as the documents that are stored, whatever the version of their shape.
    pub(crate) fn documents(&self) -> Models<Value> {
        Models {
            reader: self.reader.clone(),
            model: Arc::clone(&self.model),
            schema_version: None,
            indexes: Arc::clone(&self.indexes),
            kind: PhantomData,
        }
    }

    /// The indexes that are kept with them, as far as this handle knows.
    pub fn indexes(&self) -> &[IndexSpec] {
        &self.indexes
    }
}

impl<T: DeserializeOwned> Models<T> {
    /// A model; `None` when there is none. One round trip.
    ///
    /// # Errors
    /// [`ReadModelError::NotBuilt`], [`ReadModelError::Shape`], [`ReadModelError::OtherSchema`],
    /// [`ReadModelError::Backend`].
    pub async fn load(&self, id: &AggregateId) -> Result<Option<Stored<T>>, ReadModelError> {
        Ok(self.load_many(std::slice::from_ref(id)).await?.pop().flatten())
    }

    /// Models in the order of their ids, `None` where there is none. One round trip for each thousand.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn load_many(
        &self,
        ids: &[AggregateId],
    ) -> Result<Vec<Option<Stored<T>>>, ReadModelError> {
        let mut loaded = Vec::with_capacity(ids.len());
        for ids in ids.chunks(ASKED) {
            let entries = self.entries(ids).await?;
            for id in ids {
                let found = entries.get(id.as_str()).map(|entry| self.decode(entry)).transpose()?;
                loaded.push(found.flatten());
            }
        }
        Ok(loaded)
    }

    /// The entries of models, by their ids.
    pub(super) async fn entries(
        &self,
        ids: &[AggregateId],
    ) -> Result<HashMap<String, Entry>, ReadModelError> {
        let keys = |generation| {
            let keys = ids.iter().map(|id| {
                let key = layout::model_key(&self.model, generation, id)?;
                Ok(Pattern::parse(key.as_str())?)
            });
            keys.collect::<Result<Vec<_>, ReadModelError>>()
        };
        let entries = match self.reader.find(&self.model, keys).await? {
            Found::All(entries, _) => entries,
            // No more than a thousand keys were named.
            Found::TooMany(_) => Matching::TooMany.all()?,
        };
        let by_id = |entry: Entry| {
            let id = entry.key.as_str().split_once('.').map_or("", |(_, id)| id).to_owned();
            (id, entry)
        };
        Ok(entries.into_iter().map(by_id).collect())
    }

    /// The model in an entry; `None` when it was deleted.
    pub(super) fn decode(&self, entry: &Entry) -> Result<Option<Stored<T>>, ReadModelError> {
        let Some(value) = &entry.value else { return Ok(None) };
        let place = || Place { key: entry.key.to_string(), revision: entry.revision };
        let decoded = match self.other_version(layout::schema_version(&entry.headers)) {
            Some(versions) => serde_json::from_slice(&self.upcast(place, versions, value)?),
            None => serde_json::from_slice(value),
        };
        let model = decoded.map_err(|error| place().shape(error.to_string()))?;
        Ok(Some(Stored { model, metadata: layout::metadata(&self.model, entry)? }))
    }

    /// The model that one of its [`documents`](Self::documents) is.
    pub(crate) fn model_of(
        &self,
        document: &Value,
        metadata: &ReadModelMetadata,
    ) -> Result<T, ReadModelError> {
        let place = || {
            let key = format!("{}.{}", self.model, metadata.id.as_str());
            Place { key, revision: metadata.revision }
        };
        let shape = |error: serde_json::Error| place().shape(error.to_string());
        let Some(versions) = self.other_version(metadata.stated_version) else {
            return T::deserialize(document).map_err(shape);
        };
        let value = serde_json::to_vec(document).map_err(shape)?;
        serde_json::from_slice(&self.upcast(place, versions, &value)?).map_err(shape)
    }

    /// The version a model was written in and the one it is read in, where they differ.
    fn other_version(&self, stated: Option<u32>) -> Option<(u32, u32)> {
        Some((stated?, self.schema_version?)).filter(|(stored, expected)| stored != expected)
    }

    /// A model of another version as it would be written today.
    fn upcast(
        &self,
        place: impl Fn() -> Place,
        (stored, expected): (u32, u32),
        value: &[u8],
    ) -> Result<Vec<u8>, ReadModelError> {
        let evolution = self.reader.evolution.as_deref();
        let upcast = layout::newest(evolution, &self.model, (stored, expected), value);
        upcast.map_err(|reason| place().shape(reason))?.ok_or_else(|| {
            let Place { key, revision } = place();
            ReadModelError::OtherSchema { key, revision, stored, expected }
        })
    }
}

/// Where a model lies that is decoded, for what is said when it does not.
struct Place {
    key: String,
    revision: u64,
}

impl Place {
    fn shape(self, reason: String) -> ReadModelError {
        ReadModelError::Shape { key: self.key, revision: self.revision, reason }
    }
}
