//! The models of one type.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::resolve::{Found, Reader};
use super::{IndexSpec, Mapping, ReadModelError, Stored, layout};
use crate::specification::fields_of;
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
    pub(super) schema_version: u32,
    pub(super) indexes: Arc<[IndexSpec]>,
    pub(super) mapping: Mapping,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Models<T> {
    fn clone(&self) -> Self {
        Self {
            reader: self.reader.clone(),
            model: Arc::clone(&self.model),
            schema_version: self.schema_version,
            indexes: Arc::clone(&self.indexes),
            mapping: self.mapping.clone(),
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
        schema_version: u32,
        indexes: Vec<IndexSpec>,
        mapping: Mapping,
    ) -> Self {
        let (model, indexes) = (model.into(), indexes.into());
        Self { reader, model, schema_version, indexes, mapping, kind: PhantomData }
    }

    /// The same models as the documents that are stored.
    pub(super) fn untyped(&self) -> Models<Value> {
        let (reader, indexes) = (self.reader.clone(), self.indexes.to_vec());
        Models::new(reader, &self.model, self.schema_version, indexes, Mapping::none())
    }

    /// The name of their type.
    pub fn model_type(&self) -> &str {
        &self.model
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
    /// [`ReadModelError::NotBuilt`], [`ReadModelError::Shape`], [`ReadModelError::Backend`].
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
    async fn entries(&self, ids: &[AggregateId]) -> Result<HashMap<String, Entry>, ReadModelError> {
        let keys = |generation| {
            let keys = ids.iter().map(|id| {
                let key = layout::model_key(&self.model, generation, id)?;
                Ok(Pattern::parse(key.as_str())?)
            });
            keys.collect::<Result<Vec<_>, ReadModelError>>()
        };
        let entries = match self.reader.find(&self.model, keys).await? {
            Found::All(entries) => entries,
            // No more than a thousand keys were named.
            Found::TooMany(_) => Vec::new(),
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
        let shape = |reason| ReadModelError::Shape {
            key: entry.key.to_string(),
            revision: entry.revision,
            reason,
        };
        let model = match self.mapping.is_none() {
            true => serde_json::from_slice(value).map_err(|error| shape(error.to_string()))?,
            false => {
                let document =
                    serde_json::from_slice(value).map_err(|error| shape(error.to_string()))?;
                self.model_of(&document).map_err(shape)?
            }
        };
        Ok(Some(Stored { model, metadata: layout::metadata(&self.model, entry)? }))
    }

    /// The model that a stored document stands for, or why it stands for none.
    pub(super) fn model_of(&self, document: &Value) -> Result<T, String> {
        if self.mapping.is_none() {
            return T::deserialize(document).map_err(|error| error.to_string());
        }
        let model = self.mapping.read(document.clone()).map_err(|error| error.to_string())?;
        serde_json::from_value(model).map_err(|error| error.to_string())
    }

    /// The names of the fields of stored documents, where the type tells them.
    pub(super) fn known_fields(&self) -> Option<Vec<String>> {
        Some(self.mapping.stored_names(fields_of::<T>()?))
    }
}
