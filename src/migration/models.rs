//! Steps over read models.
//!
//! A model and its index entries change in one batch, on the condition that the model is as it was read, so services may go
//! on writing models meanwhile. What they write in the old shape behind the walk stays in it: let them write the new one first.

use std::collections::{HashMap, HashSet};
use std::error::Error;

use bytes::Bytes;
use serde_json::Value;

use super::migrator::{Edited, Migrator};
use super::records::Tally;
use super::report::Sample;
use super::target::Place;
use super::{MigrationError, Refusal};
use crate::event::{Headers, names};
use crate::read_model::index::{self, Index};
use crate::read_model::layout::{self, Pointer, Shelf};
use crate::read_model::{ModelPattern, ReadModelError};
use crate::state::{Change, Entry, Expected, Key, KeyWrite, Slot};
use crate::subject::{AggregateId, ModelType};

/// A model as a migration sees it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelDocument {
    /// The name of its kind.
    pub model_type: String,
    /// Its id.
    pub id: AggregateId,
    /// The version of the shape that it was written in.
    pub schema_version: u32,
    /// The model.
    pub document: Value,
}

/// What becomes of a model.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelEdit {
    /// It stays as it is.
    Keep,
    /// It becomes this.
    Put(Value),
    /// It is removed.
    Remove,
    /// It becomes this, under another id or as another type. Nothing may be there.
    Move {
        /// The type.
        model_type: String,
        /// The id.
        id: AggregateId,
        /// The model.
        document: Value,
    },
}

/// The header by which a moved model is known, so that the same step does not meet it again.
const MOVED: &str = "Cim-Moved";

/// Where the models of a type lie, and what is kept beside them.
#[derive(Debug, Clone)]
struct Home {
    shelf: Shelf,
    generation: u64,
    indexes: Vec<Index>,
}

impl Migrator {
    /// Changes every model that a pattern means, as `change` says. `schema_version` is that of the shape which it writes.
    ///
    /// The pattern begins with the type: `board.>`, `board.JFK.*`. The models are those that readers see; while a projection
    /// builds another generation, what it writes there is left alone. Models are met in the order of their keys; one that a step has moved is not met by it again.
    /// All keys are held in memory while the step runs. A round trip reads a page, another one writes it.
    ///
    /// # Errors
    /// [`MigrationError::Refused`] with what `change` returns; [`MigrationError::Occupied`]; any other [`MigrationError`].
    pub async fn models(
        &mut self,
        pattern: &str,
        schema_version: u32,
        mut change: impl FnMut(&ModelDocument) -> Result<ModelEdit, Refusal> + Send,
    ) -> Result<(), MigrationError> {
        let pattern = ModelPattern::of_any_type(pattern)?;
        let label = format!("models {pattern} to schema version {schema_version}");
        let Some(mut at) = self.begin_step(Place::Models, &label)? else { return Ok(()) };
        let mark = format!("{}/{}", self.run, at.step);
        loop {
            // Without readers there is nothing to change: a projection is building the first generation.
            let generation = self.generation(pattern.model_type()).await?;
            let Some(generation) = generation else { return self.finish(Place::Models, at).await };
            let keys = pattern.keys(generation)?;
            let mut walk = self.walk(Place::Models, keys, generation, at).await?;
            let mut homes = HashMap::new();
            while let Some(page) = self.page(&walk).await? {
                let mut edits = Vec::with_capacity(page.len());
                for entry in page.into_iter().filter(|e| e.headers.get(MOVED) != Some(&mark)) {
                    let model = document(pattern.model_type(), &entry)?;
                    let edit = change(&model).map_err(|why| refused(&entry.key, why.as_ref()))?;
                    edits.push((entry, model, edit));
                }
                let edited = self.edited(edits, schema_version, &mark, &mut homes).await?;
                self.flush(&mut walk, edited).await?;
            }
            if self.generation(pattern.model_type()).await? == Some(walk.generation()) {
                return self.end(walk).await;
            }
            // Readers were switched to another generation meanwhile.
            at = Self::at_of(walk);
        }
    }

    /// Writes one model, whether it is there or not. Three round trips.
    ///
    /// # Errors
    /// Any [`MigrationError`].
    pub async fn put_model(
        &mut self,
        model_type: &str,
        id: &AggregateId,
        schema_version: u32,
        document: Value,
    ) -> Result<(), MigrationError> {
        let label =
            format!("model {model_type}.{} of schema version {schema_version}", id.as_str());
        let Some(mut at) = self.begin_step(Place::Models, &label)? else { return Ok(()) };
        at.complete = true;
        loop {
            let home = self.home(model_type).await?;
            let key = layout::model_key(model_type, home.generation, id)?;
            let slot = self.target.get(Place::Models, &key, self.settings.patience).await?;
            let old = slot.value.as_deref().and_then(|value| serde_json::from_slice(value).ok());
            let headers = shaped(&Headers::new(), schema_version);
            let expected = Expected::Revision(slot.revision);
            let mut writes = vec![put(&key, &document, expected, headers)?];
            writes.extend(index_writes(&home, id, old.as_ref(), Some(&document))?);
            let tally = Tally { seen: 1, written: 1, ..Tally::default() };
            if self.target.write(Place::Models, writes, at.clone(), tally).await? {
                let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
                let before = slot.value.as_deref().map(text);
                let (key, after) = (key.to_string(), Some(document.to_string()));
                self.report(tally, vec![Sample { key, moved_to: None, before, after }]);
                return Ok(());
            }
        }
    }

    /// Looks at every model that a pattern means; for [`validate`](super::Migration::validate).
    ///
    /// # Errors
    /// [`MigrationError::Invalid`] for the first one that `check` refuses; any other [`MigrationError`].
    pub async fn check_models(
        &mut self,
        pattern: &str,
        mut check: impl FnMut(&ModelDocument) -> Result<(), Refusal> + Send,
    ) -> Result<(), MigrationError> {
        let pattern = ModelPattern::of_any_type(pattern)?;
        let Some(generation) = self.generation(pattern.model_type()).await? else { return Ok(()) };
        let patience = self.settings.patience;
        let keys = self.target.keys(Place::Models, &pattern.keys(generation)?, patience).await?;
        for keys in keys.chunks(self.settings.batch) {
            for entry in self.target.entries(Place::Models, keys, patience).await? {
                let model = document(pattern.model_type(), &entry)?;
                check(&model).map_err(|why| MigrationError::Invalid {
                    key: entry.key.to_string(),
                    reason: why.to_string(),
                })?;
            }
        }
        Ok(())
    }

    async fn edited(
        &self,
        edits: Vec<(Entry, ModelDocument, ModelEdit)>,
        schema_version: u32,
        mark: &str,
        homes: &mut HashMap<String, Home>,
    ) -> Result<Vec<Edited>, MigrationError> {
        let mut taken = HashSet::new();
        let mut edited = Vec::with_capacity(edits.len());
        for (entry, model, edit) in edits {
            let mut tally = Tally { seen: 1, ..Tally::default() };
            let (mut writes, mut moved_to, mut after) = (Vec::new(), None, None);
            let expected = Expected::Revision(entry.revision);
            let home = self.home_of(&model.model_type, homes).await?;
            let old = Some(&model.document);
            match edit {
                ModelEdit::Keep => {}
                ModelEdit::Put(new) => {
                    let headers = shaped(&entry.headers, schema_version);
                    writes.push(put(&entry.key, &new, expected, headers)?);
                    writes.extend(index_writes(&home, &model.id, old, Some(&new))?);
                    tally.written = 1;
                    after = Some(new);
                }
                ModelEdit::Remove => {
                    writes.push(KeyWrite::new(entry.key.clone(), Change::Delete, expected));
                    writes.extend(index_writes(&home, &model.id, old, None)?);
                    tally.removed = 1;
                }
                ModelEdit::Move { model_type, id, document: new } => {
                    let to = self.home_of(&model_type, homes).await?;
                    let key = layout::model_key(&model_type, to.generation, &id)?;
                    let there = self.free(&entry.key, &key).await?;
                    if !taken.insert(key.clone()) {
                        return Err(occupied(&entry.key, &key));
                    }
                    let mut headers = shaped(&entry.headers, schema_version);
                    headers.push(MOVED, mark);
                    writes.push(KeyWrite::new(entry.key.clone(), Change::Delete, expected));
                    writes.extend(index_writes(&home, &model.id, old, None)?);
                    writes.push(put(&key, &new, Expected::Revision(there.revision), headers)?);
                    writes.extend(index_writes(&to, &id, None, Some(&new))?);
                    tally.moved = 1;
                    moved_to = Some(key.to_string());
                    after = Some(new);
                }
            }
            let sample = (!writes.is_empty()).then(|| Sample {
                key: entry.key.to_string(),
                moved_to,
                before: Some(model.document.to_string()),
                after: after.map(|document| document.to_string()),
            });
            edited.push(Edited { key: entry.key, writes, tally, sample });
        }
        Ok(edited)
    }

    /// A key that a model can be moved to.
    async fn free(&self, from: &Key, to: &Key) -> Result<Slot, MigrationError> {
        let slot = self.target.get(Place::Models, to, self.settings.patience).await?;
        match slot.value {
            None => Ok(slot),
            Some(_) => Err(occupied(from, to)),
        }
    }

    async fn home_of(
        &self,
        model: &str,
        homes: &mut HashMap<String, Home>,
    ) -> Result<Home, MigrationError> {
        if let Some(home) = homes.get(model) {
            return Ok(home.clone());
        }
        let home = self.home(model).await?;
        homes.insert(model.to_owned(), home.clone());
        Ok(home)
    }

    /// Where models of a type lie, and their indexes, those that somebody has built. Three round trips.
    async fn home(&self, model: &str) -> Result<Home, MigrationError> {
        ModelType::new(model)?;
        let generation = self.generation(model).await?.ok_or_else(|| MigrationError::Refused {
            key: model.to_owned(),
            reason: "a projection builds models of this type for the first time".to_owned(),
        })?;
        let shelf = Shelf::new(model, generation);
        let patience = self.settings.patience;
        let states = self.target.keys(Place::Models, &shelf.index_states(), patience).await?;
        let states = self.target.entries(Place::Models, &states, patience).await?;
        let indexes = states.iter().filter_map(|entry| shelf.index_of_state(&entry.key)).collect();
        Ok(Home { shelf, generation, indexes })
    }

    /// The generation that readers see; none while the first one is being built.
    async fn generation(&self, model: &str) -> Result<Option<u64>, MigrationError> {
        let key = layout::pointer_key(model)?;
        let slot = self.target.get(Place::Models, &key, self.settings.patience).await?;
        let Some(value) = slot.value else { return Ok(Some(1)) };
        let pointer: Pointer = serde_json::from_slice(&value).map_err(|e| unreadable(&key, &e))?;
        Ok(pointer.generation)
    }
}

fn document(model_type: &str, entry: &Entry) -> Result<ModelDocument, MigrationError> {
    let value = entry.value.as_deref().unwrap_or_default();
    let document = serde_json::from_slice(value).map_err(|e| unreadable(&entry.key, &e))?;
    let metadata = layout::metadata(model_type, entry)?;
    let (model_type, id, schema_version) =
        (metadata.model_type, metadata.id, metadata.schema_version);
    Ok(ModelDocument { model_type, id, schema_version, document })
}

fn put(
    key: &Key,
    document: &Value,
    expected: Expected,
    headers: Headers,
) -> Result<KeyWrite, MigrationError> {
    let json = serde_json::to_vec(document).map_err(|error| unreadable(key, &error))?;
    Ok(KeyWrite { key: key.clone(), change: Change::Put(Bytes::from(json)), expected, headers })
}

/// The writes that turn the index entries of a model into those it has afterwards.
fn index_writes(
    home: &Home,
    id: &AggregateId,
    old: Option<&Value>,
    new: Option<&Value>,
) -> Result<Vec<KeyWrite>, ReadModelError> {
    let entries = |document: &Value| index::entries(&home.indexes, &home.shelf, id, document);
    // What no index can hold has no entries to remove.
    let old = old.and_then(|old| entries(old).ok()).unwrap_or_default();
    let new = new.map(entries).transpose()?.unwrap_or_default();
    Ok(index::difference(&old, &new).collect())
}

/// The headers of this crate that a value keeps, with the version of its new shape.
pub(super) fn shaped(old: &Headers, schema_version: u32) -> Headers {
    let mut headers = Headers::with_capacity(4);
    headers.push(names::SCHEMA_VERSION, schema_version.to_string());
    let own = old.iter().filter(|(name, _)| name.starts_with("Cim-"));
    for (name, value) in own.filter(|(name, _)| ![names::SCHEMA_VERSION, MOVED].contains(name)) {
        headers.push(name, value);
    }
    headers
}

pub(super) fn refused(key: &Key, why: &(dyn Error + Send + Sync)) -> MigrationError {
    MigrationError::Refused { key: key.to_string(), reason: why.to_string() }
}

pub(super) fn unreadable(key: &Key, error: &dyn std::fmt::Display) -> MigrationError {
    MigrationError::Unreadable { key: key.to_string(), reason: error.to_string() }
}

fn occupied(from: &Key, to: &Key) -> MigrationError {
    MigrationError::Occupied { key: from.to_string(), target: to.to_string() }
}
