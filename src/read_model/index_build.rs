//! Indexes for models that are there already: building, verifying, dropping.
//!
//! Whoever writes models keeps the entries of the indexes it knows of. So building an index fills in what was written
//! before that, each entry on the condition that its model has not changed since it was read. A writer may have looked
//! which indexes there are before this one was announced, and write after its model was filled in; so what changed since
//! the announcement is filled in once more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::TryStreamExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::sleep;

use super::index::{self, Index};
use super::layout::{self, IndexState, Shelf};
use super::resolve::Keeper;
use super::{IndexSpec, ModelPattern, Models, ReadModelError};
use crate::backend::{BackendError, Matching, Position, ReadFrom, Start};
use crate::event::NonEmpty;
use crate::state::{Change, Entry, Expected, Key, KeyWrite, Slot, Watched};
use crate::subject::Pattern;

/// How many keys one batch writes.
const BATCH: usize = 1000;

/// How many models are given their entries at once; most have one.
const MODELS: usize = 500;

/// How long is waited after somebody came between.
const PAUSE: Duration = Duration::from_millis(1);

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
    /// Queries by other indexes and writers go on meanwhile. Whoever saves by hand sees that the index is there and keeps it;
    /// a projection must know of it by [`ReadModel::indexes`](super::ReadModel::indexes) in the code that runs. Begun again
    /// after it was interrupted it does no harm. Holds the keys of all models in memory.
    ///
    /// One save can be missed: by a handle whose type does not declare the index, read before the index was announced or from
    /// a replica that had not heard of it, and stored after the models that changed since were filled in. Where old code may
    /// run so late, as in a deployment, [`verify_index`](Self::verify_index) tells, and building again mends it.
    ///
    /// # Errors
    /// [`ReadModelError::InvalidIndex`], also for one that the projection that keeps the models does not know of;
    /// [`ReadModelError::TooManyEntries`], [`ReadModelError::NotBuilt`], [`ReadModelError::Backend`].
    pub async fn build_index(&self, spec: &IndexSpec) -> Result<u64, ReadModelError> {
        let index = Index::new(spec)?;
        if let Keeper::Projection(projection) = self.reader.keeper(self.model_type()).await?
            && !self.indexes().contains(spec)
        {
            let reason = format!("projection {projection} keeps the models and must declare it");
            return Err(ReadModelError::InvalidIndex { index: spec.to_string(), reason });
        }
        let generation = self.reader.generation(self.model_type()).await?;
        let shelf = Shelf::new(self.model_type(), generation);
        let announced = self.say(&shelf, &index, IndexState::Building).await?;
        let mut written = 0;
        // Not a watch: it would pass over a model that changes before its turn, and whoever changes it writes only those
        // entries that the model did not have before.
        let pattern = ModelPattern::all(self.model_type()).keys(generation)?;
        let keys = self.reader.bucket.keys(pattern.as_str()).await?;
        for keys in keys.chunks(MODELS) {
            written += self.fill_in_all(&index, &shelf, keys).await?;
        }
        for keys in self.changed_since(generation, announced).await?.chunks(MODELS) {
            written += self.fill_in_all(&index, &shelf, keys).await?;
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
        let mut wanted = BTreeMap::new();
        let mut changes = self.models_of(generation)?;
        while let Some(Watched::Entry(entry)) = changes.try_next().await? {
            let Entry { key, value, .. } = entry;
            let entries = self.entries_of(&index, &shelf, &key, value.as_deref())?;
            wanted.insert(key, entries);
        }
        let wanted: BTreeSet<Key> = wanted.into_values().flatten().collect();
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

    /// The keys of the models that changed since a revision.
    async fn changed_since(
        &self,
        generation: u64,
        revision: u64,
    ) -> Result<Vec<Key>, ReadModelError> {
        let models = NonEmpty::one(ModelPattern::all(self.model_type()).keys(generation)?);
        let since = Start::After(Position::new(revision));
        let mut changes = self.reader.bucket.watch(models, since);
        let mut changed = Vec::new();
        while let Some(Watched::Entry(entry)) = changes.try_next().await? {
            changed.push(entry.key);
        }
        Ok(changed)
    }

    fn entries_of(
        &self,
        index: &Index,
        shelf: &Shelf,
        key: &Key,
        value: Option<&[u8]>,
    ) -> Result<BTreeSet<Key>, ReadModelError> {
        // A document that is no JSON has no entries.
        let document = value.and_then(|value| serde_json::from_slice::<Value>(value).ok());
        let Some(document) = document else { return Ok(BTreeSet::new()) };
        index::entries(std::slice::from_ref(index), shelf, &layout::id_of(key)?, &document)
    }

    /// Writes the entries of some models, on the condition that they are as they were read. Two round trips, if nobody
    /// changes them meanwhile and the replica that answers knows them all.
    async fn fill_in_all(
        &self,
        index: &Index,
        shelf: &Shelf,
        keys: &[Key],
    ) -> Result<u64, ReadModelError> {
        let patterns: Result<Vec<_>, _> = keys.iter().map(|k| Pattern::parse(k.as_str())).collect();
        let Some(patterns) = NonEmpty::from_vec(patterns?) else { return Ok(0) };
        let entries = match self.reader.bucket.matching(&patterns).await? {
            Matching::All(entries) => entries,
            // No more keys than one answer holds were named.
            Matching::TooMany => Vec::new(),
        };
        let mut slots: BTreeMap<&Key, Slot> = BTreeMap::new();
        for Entry { key, revision, value, .. } in &entries {
            slots.insert(key, Slot { revision: *revision, value: value.clone() });
        }
        for key in keys {
            // The leader named it, and a replica that is behind does not know it, or not that it is there again.
            if slots.get(key).is_none_or(|slot| slot.value.is_none()) {
                slots.insert(key, self.reader.bucket.get(key, ReadFrom::Leader).await?);
            }
        }
        let mut batch = Vec::new();
        for (key, slot) in &slots {
            batch.extend(self.entry_writes(index, shelf, key, slot)?);
        }
        let count = batch.len() as u64;
        if let Some(writes) = NonEmpty::from_vec(batch).filter(|_| count <= BATCH as u64) {
            match self.reader.bucket.write(writes).await {
                Ok(_) => return Ok(count),
                Err(BackendError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut written = 0;
        for (key, slot) in slots {
            written += self.fill_in(index, shelf, key, slot).await?;
        }
        Ok(written)
    }

    /// Writes the entries of one model, and reads it again until nobody comes between.
    async fn fill_in(
        &self,
        index: &Index,
        shelf: &Shelf,
        key: &Key,
        mut slot: Slot,
    ) -> Result<u64, ReadModelError> {
        loop {
            let writes = self.entry_writes(index, shelf, key, &slot)?;
            let Some(writes) = NonEmpty::from_vec(writes) else { return Ok(0) };
            let count = writes.len().get() as u64;
            match self.reader.bucket.write(writes).await {
                Ok(_) => return Ok(count),
                Err(BackendError::Conflict { .. }) => {
                    sleep(PAUSE).await;
                    slot = self.reader.bucket.get(key, ReadFrom::Leader).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The entries of one model, written if the model is as it was read.
    fn entry_writes(
        &self,
        index: &Index,
        shelf: &Shelf,
        key: &Key,
        slot: &Slot,
    ) -> Result<Vec<KeyWrite>, ReadModelError> {
        let guard = Expected::RevisionOf(key.clone(), slot.revision);
        let guards = std::iter::once(guard).chain(std::iter::repeat(Expected::Anything));
        let put = |(key, guard)| KeyWrite::new(key, Change::Put("null".into()), guard);
        let entries = self.entries_of(index, shelf, key, slot.value.as_deref())?;
        Ok(entries.into_iter().zip(guards).map(put).collect())
    }

    /// Says how far an index is, and returns the revision of that.
    async fn say(
        &self,
        shelf: &Shelf,
        index: &Index,
        state: IndexState,
    ) -> Result<u64, ReadModelError> {
        let write = state.write(shelf.index_state(index.name()));
        Ok(self.reader.bucket.write(NonEmpty::one(write)).await?[0])
    }

    async fn delete_keys(&self, keys: Vec<Key>) -> Result<(), ReadModelError> {
        let delete = |key| KeyWrite::new(key, Change::Delete, Expected::Anything);
        if let Some(writes) = NonEmpty::from_vec(keys.into_iter().map(delete).collect()) {
            self.reader.bucket.write(writes).await?;
        }
        Ok(())
    }
}
