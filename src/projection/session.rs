//! The models under a runner's hands: fetched when an event needs them, changed, and made into writes.
//!
//! A model remembers the position of the last event it holds. An event at or before that position does not change it
//! again, so a run may be written in several batches and taken up after any of them.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::future::try_join_all;
use serde_json::Value;

use super::changes::{Change as ModelChange, Place, Target};
use super::error::ProjectionError;
use super::{Declared, Rejection};
use crate::backend::{BackendError, Position, ReadFrom};
use crate::event::NonEmpty;
use crate::evolution::Evolution;
use crate::panics::text_of;
use crate::read_model::ReadModelError;
use crate::read_model::index::{self, Index};
use crate::read_model::layout::{self, Shelf};
use crate::state::{Change, Entry, Expected, InvalidKey, Key, KeyValue, KeyWrite};
use crate::subject::Pattern;

/// How many models are kept at hand between runs.
const KEPT: usize = 100_000;

/// How many keys one request asks for.
const ASKED: usize = 1000;

/// How many single models the leader is asked for at a time.
const ASKED_OF_LEADER: usize = 64;

/// The changes of one event.
pub(super) struct Effect {
    pub(super) position: Position,
    pub(super) changes: Vec<ModelChange>,
}

/// Models to be fetched, by key.
pub(super) type Missing = HashMap<Key, (Target, Box<dyn Place>)>;

pub(super) struct Session {
    generation: u64,
    evolution: Option<Arc<Evolution>>,
    declared: HashMap<&'static str, Kind>,
    models: HashMap<Target, Model>,
    touched: Vec<Target>,
}

struct Kind {
    schema_version: u32,
    indexes: Vec<Index>,
}

/// One model, as it is stored and as it is now.
struct Model {
    place: Box<dyn Place>,
    key: Key,
    revision: u64,
    exists: bool,
    /// Whether the leader has said so, or this runner has written it. Else any replica has, which may be behind.
    certain: bool,
    /// The last event that is stored in it.
    stored: Position,
    /// The index entries that are stored for it.
    entries: BTreeSet<Key>,
    /// The last event that changed it since.
    changed: Option<Position>,
}

impl Model {
    /// Whether nothing is to be written of it, and only a replica has said that there is nothing to delete.
    fn is_doubtful(&self) -> bool {
        !self.certain && !self.exists && self.changed.is_some() && self.place.is_empty()
    }
}

/// The writes of one model, which must travel together.
pub(super) struct Group {
    pub(super) target: Target,
    pub(super) writes: Vec<KeyWrite>,
    entries: BTreeSet<Key>,
}

impl Session {
    pub(super) fn new(
        generation: u64,
        declared: Vec<Declared>,
        evolution: Option<Arc<Evolution>>,
    ) -> Result<Self, ProjectionError> {
        let mut kinds = HashMap::new();
        for Declared { model, schema_version, indexes } in declared {
            kinds.insert(model, Kind { schema_version, indexes: Index::all(&indexes)? });
        }
        let (models, touched) = (HashMap::new(), Vec::new());
        Ok(Self { generation, evolution, declared: kinds, models, touched })
    }

    /// Forgets everything that is not stored, and everything that may not be as it is believed to be.
    pub(super) fn reset(&mut self) {
        self.models.clear();
        self.touched.clear();
    }

    pub(super) fn touched(&self) -> usize {
        self.touched.len()
    }

    pub(super) fn declares(&self, target: &Target) -> Result<(), Rejection> {
        match self.declared.contains_key(target.model) {
            true => Ok(()),
            false => Err(format!(
                "it changes models of type {}, which it does not declare",
                target.model
            )
            .into()),
        }
    }

    /// The models that these effects change and that are not at hand.
    pub(super) fn missing(&self, effects: &[Effect]) -> Result<Missing, InvalidKey> {
        let mut missing = Missing::new();
        for change in effects.iter().flat_map(|effect| &effect.changes) {
            let target = &change.target;
            if !self.models.contains_key(target) {
                let key = layout::model_key(target.model, self.generation, &target.id)?;
                missing.entry(key).or_insert_with(|| (target.clone(), (change.place)()));
            }
        }
        Ok(missing)
    }

    /// Fetches models. One round trip for a thousand.
    pub(super) async fn fetch(
        &mut self,
        bucket: &dyn KeyValue,
        mut missing: Missing,
    ) -> Result<(), ProjectionError> {
        let keys: Vec<Key> = missing.keys().cloned().collect();
        for keys in keys.chunks(ASKED) {
            let patterns = keys.iter().map(|key| Pattern::parse(key.as_str()));
            let patterns: Result<Vec<_>, _> = patterns.collect();
            let patterns = patterns.ok().and_then(NonEmpty::from_vec);
            let Some(patterns) = patterns else { continue };
            for entry in bucket.matching(&patterns).await?.all()? {
                if let Some((target, place)) = missing.remove(&entry.key) {
                    let model = self.stored(&target, place, entry)?;
                    self.models.insert(target, model);
                }
            }
        }
        for (key, (target, place)) in missing {
            let model = Model {
                place,
                key,
                revision: 0,
                exists: false,
                certain: false,
                stored: Position::START,
                entries: BTreeSet::new(),
                changed: None,
            };
            self.models.insert(target, model);
        }
        Ok(())
    }

    fn stored(
        &self,
        target: &Target,
        mut place: Box<dyn Place>,
        entry: Entry,
    ) -> Result<Model, ProjectionError> {
        let shape = |reason: String| ReadModelError::Shape {
            key: entry.key.to_string(),
            revision: entry.revision,
            reason,
        };
        let mut entries = None;
        if let Some(value) = &entry.value {
            let newest = self.newest(target, &entry, value).map_err(shape)?;
            if newest.is_some() {
                // Its entries are those of the shape that is stored.
                let document = serde_json::from_slice(value).map_err(|e| shape(e.to_string()))?;
                entries = Some(self.entries_of(target, &document));
            }
            let read = place.read(newest.as_deref().unwrap_or(value));
            read.map_err(|error| shape(error.to_string()))?;
        }
        let entries = entries.unwrap_or_else(|| self.entries(target, place.as_ref()));
        let entries = entries.map_err(|error| shape(error.to_string()))?;
        Ok(Model {
            place,
            revision: entry.revision,
            exists: entry.value.is_some(),
            certain: false,
            stored: layout::position(&entry.headers).unwrap_or_default(),
            key: entry.key,
            entries,
            changed: None,
        })
    }

    /// Changes the models as an event says. One that fails leaves the models of the run unusable: reset.
    pub(super) fn apply(&mut self, effect: Effect) -> Result<(), Rejection> {
        let Effect { position, changes } = effect;
        for change in changes {
            let Some(model) = self.models.get_mut(&change.target) else {
                return Err("a model that it changes was not fetched".into());
            };
            if position <= model.stored {
                continue;
            }
            if model.changed.is_none() {
                self.touched.push(change.target);
            }
            model.changed = Some(position);
            let place = model.place.as_mut();
            catch_unwind(AssertUnwindSafe(|| (change.apply)(place))).map_err(panic_text)??;
        }
        Ok(())
    }

    /// Asks the leader for the models of which nothing is to be written because there are none: what a replica that is behind
    /// did not know would be lost, for no guard finds it out. False when one is not as it was believed to be. One round trip
    /// for each that was not asked for before and that this runner has not written, many of them at a time.
    pub(super) async fn confirm_absent(
        &mut self,
        bucket: &dyn KeyValue,
    ) -> Result<bool, BackendError> {
        let doubtful = |target: &&Target| self.models.get(target).is_some_and(Model::is_doubtful);
        let doubtful: Vec<Target> = self.touched.iter().filter(doubtful).cloned().collect();
        for targets in doubtful.chunks(ASKED_OF_LEADER) {
            let keys = targets.iter().filter_map(|target| Some(&self.models.get(target)?.key));
            let slots = try_join_all(keys.map(|key| bucket.get(key, ReadFrom::Leader))).await?;
            for (target, slot) in targets.iter().zip(slots) {
                let Some(model) = self.models.get_mut(target) else { continue };
                if slot.revision != model.revision {
                    return Ok(false);
                }
                model.certain = true;
            }
        }
        Ok(true)
    }

    /// What must be written for all that has changed since the last writes, in the order it changed.
    pub(super) fn groups(&self) -> Result<Vec<Group>, Rejection> {
        let mut groups = Vec::with_capacity(self.touched.len());
        for target in &self.touched {
            let Some(model) = self.models.get(target) else { continue };
            let Some(position) = model.changed else { continue };
            groups.extend(self.group(target, model, position)?);
        }
        Ok(groups)
    }

    fn group(
        &self,
        target: &Target,
        model: &Model,
        position: Position,
    ) -> Result<Option<Group>, Rejection> {
        let document = model.place.written()?;
        if document.is_none() && !model.exists {
            return Ok(None);
        }
        let entries = self.entries(target, model.place.as_ref())?;
        let version = self.declared.get(target.model).map_or(1, |kind| kind.schema_version);
        let mut writes = vec![KeyWrite {
            key: model.key.clone(),
            change: document.map_or(Change::Delete, Change::Put),
            expected: Expected::Revision(model.revision),
            headers: layout::headers(version, Some(position), &Default::default()),
        }];
        writes.extend(index::difference(&model.entries, &entries));
        Ok(Some(Group { target: target.clone(), writes, entries }))
    }

    fn entries(&self, target: &Target, place: &dyn Place) -> Result<BTreeSet<Key>, Rejection> {
        let indexed = self.declared.get(target.model).is_some_and(|kind| !kind.indexes.is_empty());
        match indexed.then(|| place.document()).transpose()?.flatten() {
            Some(document) => self.entries_of(target, &document),
            None => Ok(BTreeSet::new()),
        }
    }

    fn entries_of(&self, target: &Target, document: &Value) -> Result<BTreeSet<Key>, Rejection> {
        let Some(kind) = self.declared.get(target.model) else { return Ok(BTreeSet::new()) };
        let shelf = Shelf::new(target.model, self.generation);
        Ok(index::entries(&kind.indexes, &shelf, &target.id, document)?)
    }

    /// A model that is stored in an earlier shape as the one that is declared, where upcasters lead there.
    fn newest(
        &self,
        target: &Target,
        entry: &Entry,
        value: &[u8],
    ) -> Result<Option<Vec<u8>>, String> {
        let stored = layout::schema_version(&entry.headers);
        let wanted = self.declared.get(target.model).map(|kind| kind.schema_version);
        match stored.zip(wanted) {
            Some(way) => layout::newest(self.evolution.as_deref(), target.model, way, value),
            None => Ok(None),
        }
    }

    /// Takes note that groups were written, each model at this revision.
    pub(super) fn written(&mut self, groups: Vec<(Group, u64)>) {
        for (group, revision) in groups {
            if let Some(model) = self.models.get_mut(&group.target) {
                model.revision = revision;
                model.exists = matches!(group.writes[0].change, Change::Put(_));
                model.certain = true;
                model.stored = model.changed.take().unwrap_or(model.stored);
                model.entries = group.entries;
            }
        }
    }

    /// Ends a run that is written whole.
    pub(super) fn finish(&mut self) {
        for target in std::mem::take(&mut self.touched) {
            // What was touched and needed no write, a model made and deleted in one run, is as it was.
            if let Some(model) = self.models.get_mut(&target) {
                model.changed = None;
            }
        }
        if self.models.len() > KEPT {
            self.models.clear();
        }
    }
}

pub(crate) fn panic_text(panic: Box<dyn std::any::Any + Send>) -> Rejection {
    format!("it panicked: {}", text_of(panic.as_ref())).into()
}
