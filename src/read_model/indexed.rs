//! Finding models by an index.
//!
//! An index is used only when its state says that it is complete. How it becomes so for models that are there already is in
//! `index_build.rs`.

use std::collections::HashMap;

use futures::TryStreamExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::index::Index;
use super::layout::{IndexState, Shelf};
use super::resolve::Found;
use super::{IndexLookup, IndexSpec, Models, ReadModelError, Stored};
use crate::backend::{Count, Start};
use crate::event::NonEmpty;
use crate::state::{Entry, Key, Watched};
use crate::subject::{AggregateId, Pattern};

/// How many models one request asks for.
const ASKED: usize = 1000;

/// What an index says of a lookup.
struct Hits {
    /// Whether the index is complete.
    ready: bool,
    keys: Vec<Key>,
    shelf: Shelf,
}

impl<T: DeserializeOwned> Models<T> {
    /// The models that a lookup in an index means, in no order. Two round trips for up to a thousand.
    ///
    /// What the index finds is compared with the models themselves, so nothing is returned that the lookup does not mean.
    /// A model that is saved between the two round trips is seen as it is then, or left out if it is not meant any more.
    ///
    /// # Errors
    /// [`ReadModelError::IndexNotReady`] when the index is not complete; [`ReadModelError::InvalidLookup`] for a lookup that it
    /// cannot answer; [`ReadModelError::Switched`] when a rebuild was finished while more than a thousand entries were read;
    /// what [`load`](Self::load) can meet.
    pub async fn load_where(
        &self,
        spec: &IndexSpec,
        lookup: &IndexLookup,
    ) -> Result<Vec<Stored<T>>, ReadModelError> {
        let index = Index::new(spec)?;
        let ids = self.ids_of(&index, lookup).await?;
        let mut found = Vec::with_capacity(ids.len());
        for ids in ids.chunks(ASKED) {
            for entry in self.entries(ids).await?.into_values() {
                let document = entry.value.as_deref().map(serde_json::from_slice::<Value>);
                // A document that is no JSON is reported when it is decoded.
                let meant = |document| lookup.matches(&index, &document);
                if document.is_some_and(|document| document.map_or(true, meant)) {
                    found.extend(self.decode(&entry)?);
                }
            }
        }
        Ok(found)
    }

    /// The ids of the models that a lookup in an index means, and perhaps of some that only look like it: those that
    /// differ where the index does not look. One round trip for up to a thousand.
    ///
    /// # Errors
    /// As [`load_where`](Self::load_where).
    pub async fn ids_where(
        &self,
        spec: &IndexSpec,
        lookup: &IndexLookup,
    ) -> Result<Vec<AggregateId>, ReadModelError> {
        self.ids_of(&Index::new(spec)?, lookup).await
    }

    /// How many entries an index has for a lookup; a range may count a few more at its ends. Two round trips.
    ///
    /// # Errors
    /// [`ReadModelError::InvalidLookup`], [`ReadModelError::NotBuilt`], [`ReadModelError::Backend`].
    pub async fn count_where(
        &self,
        spec: &IndexSpec,
        lookup: &IndexLookup,
    ) -> Result<Count, ReadModelError> {
        let index = Index::new(spec)?;
        let generation = self.reader.generation(self.model_type()).await?;
        let patterns = lookup.patterns(&index, &Shelf::new(self.model_type(), generation))?;
        match NonEmpty::from_vec(patterns) {
            Some(patterns) => Ok(self.reader.bucket.count(&patterns).await?),
            None => Ok(Count::Exactly(0)),
        }
    }

    async fn ids_of(
        &self,
        index: &Index,
        lookup: &IndexLookup,
    ) -> Result<Vec<AggregateId>, ReadModelError> {
        let hits = self.hits(index, lookup).await?;
        if !hits.ready {
            return Err(ReadModelError::IndexNotReady {
                model_type: self.model_type().to_owned(),
                index: index.spec().to_string(),
            });
        }
        let mut ids: Vec<_> =
            hits.keys.iter().filter_map(|key| index.id_of(&hits.shelf, key)).collect();
        // An array has an entry for each of its elements.
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    async fn hits(&self, index: &Index, lookup: &IndexLookup) -> Result<Hits, ReadModelError> {
        let shelf = |generation| Shelf::new(self.model_type(), generation);
        let asked = |generation| {
            let shelf = shelf(generation);
            let mut patterns = lookup.patterns(index, &shelf)?;
            patterns.push(Pattern::parse(shelf.index_state(index.name()).as_str())?);
            Ok(patterns)
        };
        let (entries, generation) = match self.reader.find(self.model_type(), asked).await? {
            Found::All(entries, generation) => (entries, generation),
            Found::TooMany(generation) => {
                let entries = self.sweep(asked(generation)?).await?;
                self.reader.is_still(self.model_type(), generation).await?;
                (entries, generation)
            }
        };
        let shelf = shelf(generation);
        let state = shelf.index_state(index.name());
        let mut hits = Hits { ready: false, keys: Vec::with_capacity(entries.len()), shelf };
        for entry in entries.into_iter().filter(|entry| entry.value.is_some()) {
            match entry.key == state {
                true => hits.ready = IndexState::of(&entry)? == IndexState::Ready,
                false => hits.keys.push(entry.key),
            }
        }
        Ok(hits)
    }

    /// The entries of many keys, by a consumer that ends with this; of a key that is changed meanwhile the last one.
    pub(super) async fn sweep(&self, patterns: Vec<Pattern>) -> Result<Vec<Entry>, ReadModelError> {
        let Some(patterns) = NonEmpty::from_vec(patterns) else { return Ok(Vec::new()) };
        let mut watched = self.reader.bucket.watch(patterns, Start::Latest);
        let mut entries = HashMap::new();
        while let Some(Watched::Entry(entry)) = watched.try_next().await? {
            entries.insert(entry.key.clone(), entry);
        }
        Ok(entries.into_values().collect())
    }
}
