//! Indexes for models that are there already: building, verifying, dropping.
//!
//! Whoever writes models keeps the entries of the indexes it knows of. So building an index fills in what was written
//! before that, each entry on the condition that its model has not changed since it was read.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::index::{self, Index};
use super::layout::{self, IndexState, Shelf};
use super::{IndexSpec, ModelPattern, Models, ReadModelError};
use crate::backend::{BackendError, ReadFrom, Start};
use crate::event::NonEmpty;
use crate::state::{Change, Entry, Expected, Key, KeyWrite, Watched};

/// How many keys one batch writes.
const BATCH: usize = 1000;

/// What a look at an index came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IndexCheck {
    /// Entries that models should have and have not.
    pub missing: usize,
    /// Entries that no model has.
    pub stray: usize,
}

impl IndexCheck {
    /// Whether every model has the entries it should have, and there are no others.
    pub fn is_sound(&self) -> bool {
        self.missing == 0 && self.stray == 0
    }
}

impl<T: DeserializeOwned> Models<T> {
    /// Gives the models that are there the entries of an index, and says then that it is complete. Returns how many
    /// entries were written.
    ///
    /// Queries and writers go on meanwhile. A writer must know of the index before: a projection by
    /// [`ReadModel::indexes`](super::ReadModel::indexes) in the code that runs, a service likewise. Begun again after it was
    /// interrupted it does no harm.
    ///
    /// # Errors
    /// [`ReadModelError::InvalidIndex`], [`ReadModelError::TooManyEntries`], [`ReadModelError::NotBuilt`],
    /// [`ReadModelError::Backend`].
    pub async fn build_index(&self, spec: &IndexSpec) -> Result<u64, ReadModelError> {
        let index = Index::new(spec)?;
        let generation = self.reader.generation(self.model_type()).await?;
        let shelf = Shelf::new(self.model_type(), generation);
        self.say(&shelf, &index, IndexState::Building).await?;
        let mut written = 0;
        let mut changes = self.models_of(generation)?;
        while let Some(Watched::Entry(entry)) = changes.try_next().await? {
            written += self.fill_in(&index, &shelf, &entry).await?;
        }
        self.say(&shelf, &index, IndexState::Ready).await?;
        Ok(written)
    }

    /// Compares an index with the models. Meant for a time when nobody writes: what is written meanwhile may be counted.
    ///
    /// # Errors
    /// As [`build_index`](Self::build_index).
    pub async fn verify_index(&self, spec: &IndexSpec) -> Result<IndexCheck, ReadModelError> {
        let index = Index::new(spec)?;
        let generation = self.reader.generation(self.model_type()).await?;
        let shelf = Shelf::new(self.model_type(), generation);
        let mut wanted: BTreeSet<Key> = BTreeSet::new();
        let mut changes = self.models_of(generation)?;
        while let Some(Watched::Entry(entry)) = changes.try_next().await? {
            wanted.extend(self.entries_of(&index, &shelf, &entry)?);
        }
        let there = self.sweep(vec![shelf.entries(index.name(), "")]).await?;
        let there = there.into_iter().filter(|entry| entry.value.is_some());
        let there: BTreeSet<Key> = there.map(|entry| entry.key).collect();
        Ok(IndexCheck {
            missing: wanted.difference(&there).count(),
            stray: there.difference(&wanted).count(),
        })
    }

    /// Removes an index. Queries do without it from then on; a writer that still knows of it goes on writing entries, which
    /// nobody reads.
    ///
    /// # Errors
    /// [`ReadModelError::InvalidIndex`], [`ReadModelError::Backend`].
    pub async fn drop_index(&self, spec: &IndexSpec) -> Result<(), ReadModelError> {
        let index = Index::new(spec)?;
        let generation = self.reader.generation(self.model_type()).await?;
        let shelf = Shelf::new(self.model_type(), generation);
        let state = shelf.index_state(index.name());
        self.delete_keys(vec![state]).await?;
        let pattern = shelf.entries(index.name(), "");
        let keys = self.reader.bucket.keys(pattern.as_str()).await?;
        for keys in keys.chunks(BATCH) {
            self.delete_keys(keys.to_vec()).await?;
        }
        Ok(())
    }

    /// The declared indexes that are complete. One round trip.
    ///
    /// # Errors
    /// [`ReadModelError::Backend`].
    pub async fn ready_indexes(&self) -> Result<Vec<IndexSpec>, ReadModelError> {
        let declared = Index::all(self.indexes())?;
        if declared.is_empty() {
            return Ok(Vec::new());
        }
        let generation = self.reader.generation(self.model_type()).await?;
        let shelf = Shelf::new(self.model_type(), generation);
        let keys: Vec<Key> = declared.iter().map(|index| shelf.index_state(index.name())).collect();
        let slots = self.reader.bucket.get_many(&keys).await?;
        let ready = |value: &[u8]| IndexState::read(value) == Some(IndexState::Ready);
        let ready =
            declared.iter().zip(slots).filter(|(_, slot)| slot.value.as_deref().is_some_and(ready));
        Ok(ready.map(|(index, _)| index.spec().clone()).collect())
    }

    fn models_of(
        &self,
        generation: u64,
    ) -> Result<futures::stream::BoxStream<'static, Result<Watched, BackendError>>, ReadModelError>
    {
        let keys = ModelPattern::all(self.model_type()).keys(generation)?;
        Ok(self.reader.bucket.watch(NonEmpty::one(keys), Start::Latest))
    }

    fn entries_of(
        &self,
        index: &Index,
        shelf: &Shelf,
        entry: &Entry,
    ) -> Result<BTreeSet<Key>, ReadModelError> {
        // A document that is no JSON has no entries.
        let document = entry.value.as_deref().and_then(|v| serde_json::from_slice::<Value>(v).ok());
        let Some(document) = document else { return Ok(BTreeSet::new()) };
        let id = layout::metadata(self.model_type(), entry)?.id;
        index::entries(std::slice::from_ref(index), shelf, &id, &document)
    }

    /// Writes the entries of one model, on the condition that it is as it was read. A writer that changes it meanwhile may
    /// believe that they are there already; so it is read again until nobody comes between.
    async fn fill_in(
        &self,
        index: &Index,
        shelf: &Shelf,
        entry: &Entry,
    ) -> Result<u64, ReadModelError> {
        let mut entry = entry.clone();
        loop {
            let keys = self.entries_of(index, shelf, &entry)?;
            let count = keys.len() as u64;
            let writes = keys.into_iter().enumerate().map(|(nth, key)| {
                let expected = match nth {
                    0 => Expected::RevisionOf(entry.key.clone(), entry.revision),
                    _ => Expected::Anything,
                };
                KeyWrite::new(key, Change::Put("null".into()), expected)
            });
            let Some(writes) = NonEmpty::from_vec(writes.collect()) else { return Ok(0) };
            match self.reader.bucket.write(writes).await {
                Ok(_) => return Ok(count),
                Err(BackendError::Conflict { .. }) => {
                    let slot = self.reader.bucket.get(&entry.key, ReadFrom::Leader).await?;
                    entry = Entry { revision: slot.revision, value: slot.value, ..entry };
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn say(
        &self,
        shelf: &Shelf,
        index: &Index,
        state: IndexState,
    ) -> Result<(), ReadModelError> {
        let write = state.write(shelf.index_state(index.name()));
        self.reader.bucket.write(NonEmpty::one(write)).await?;
        Ok(())
    }

    async fn delete_keys(&self, keys: Vec<Key>) -> Result<(), ReadModelError> {
        let delete = |key| KeyWrite::new(key, Change::Delete, Expected::Anything);
        if let Some(writes) = NonEmpty::from_vec(keys.into_iter().map(delete).collect()) {
            self.reader.bucket.write(writes).await?;
        }
        Ok(())
    }
}
