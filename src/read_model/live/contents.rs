//! The copy itself: models and their documents by id, and by the values of indexed fields.
//!
//! Pure; who fills it is in `follow.rs`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::mem::discriminant;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use serde_json::Value;

use crate::read_model::Stored;
use crate::specification::{Field, compare};
use crate::subject::AggregateId;

/// A model and the document it was read from.
#[derive(Debug)]
pub(super) struct Kept<T> {
    pub(super) stored: Arc<Stored<T>>,
    pub(super) document: Arc<Value>,
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self { stored: Arc::clone(&self.stored), document: Arc::clone(&self.document) }
    }
}

/// A stored model that is not in a live view, because it does not decode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// Its id.
    pub id: AggregateId,
    /// The revision that does not decode.
    pub revision: u64,
    /// Why not.
    pub reason: String,
}

/// What became of one model.
#[derive(Debug)]
pub(super) enum Step<T> {
    Put(Kept<T>),
    Remove { id: AggregateId, revision: u64 },
    Spoil(Undecodable),
}

/// All models of one moment.
#[derive(Debug)]
pub(super) struct Contents<T> {
    pub(super) models: HashMap<AggregateId, Kept<T>>,
    pub(super) undecodable: BTreeMap<AggregateId, Undecodable>,
    pub(super) indexes: Vec<Index<T>>,
    /// The last change it holds.
    pub(super) revision: u64,
    pub(super) generation: Option<u64>,
}

/// Models by the value of a field, those of one value by id. What is null or missing is not in it.
#[derive(Debug)]
pub(super) struct Index<T> {
    pub(super) field: Field,
    pub(super) name: String,
    entries: BTreeMap<Ordered, BTreeMap<AggregateId, Kept<T>>>,
}

impl<T> Contents<T> {
    pub(super) fn new(fields: &[Field]) -> Self {
        Self {
            models: HashMap::new(),
            undecodable: BTreeMap::new(),
            indexes: fields.iter().cloned().map(Index::new).collect(),
            revision: 0,
            generation: None,
        }
    }

    pub(super) fn apply(&mut self, step: Step<T>) {
        let (id, revision) = match &step {
            Step::Put(kept) => (kept.stored.metadata.id.clone(), kept.stored.metadata.revision),
            Step::Remove { id, revision } => (id.clone(), *revision),
            Step::Spoil(problem) => (problem.id.clone(), problem.revision),
        };
        self.revision = self.revision.max(revision);
        self.undecodable.remove(&id);
        if let Some(old) = self.models.remove(&id) {
            self.indexes.iter_mut().for_each(|index| index.remove(&id, &old.document));
        }
        match step {
            Step::Put(kept) => {
                self.indexes.iter_mut().for_each(|index| index.insert(&id, &kept));
                self.models.insert(id, kept);
            }
            Step::Remove { .. } => {}
            Step::Spoil(problem) => {
                self.undecodable.insert(id, problem);
            }
        }
    }

    pub(super) fn index(&self, name: &str) -> Option<&Index<T>> {
        self.indexes.iter().find(|index| index.name == name)
    }
}

impl<T> Index<T> {
    fn new(field: Field) -> Self {
        Self { name: field.names().join("."), field, entries: BTreeMap::new() }
    }

    /// The models whose field is equal to `value`, by id. None is equal to null.
    pub(super) fn equal(&self, value: &Value) -> Option<&BTreeMap<AggregateId, Kept<T>>> {
        self.entries.get(&Ordered(value.clone()))
    }

    /// The models whose field lies between the bounds and is of their type, by value and then by id.
    pub(super) fn range(&self, bounds: &impl RangeBounds<Value>) -> Vec<&Kept<T>> {
        let (low, high) = (ordered(bounds.start_bound()), ordered(bounds.end_bound()));
        let Some(example) = value_of(&low).or(value_of(&high)) else {
            return self.entries.values().flat_map(BTreeMap::values).collect();
        };
        let same = |value: &Ordered| discriminant(&value.0) == discriminant(&example.0);
        if is_empty(&low, &high) || !value_of(&high).is_none_or(same) {
            return Vec::new();
        }
        let inside = self.entries.range((low.clone(), high.clone()));
        match low {
            // Types lie one after the other, and the wanted one lies at the end that is bounded.
            Bound::Unbounded => {
                let mut found: Vec<_> = inside.rev().take_while(|(value, _)| same(value)).collect();
                found.reverse();
                found.into_iter().flat_map(|(_, models)| models.values()).collect()
            }
            _ => {
                let inside = inside.take_while(|(value, _)| same(value));
                inside.flat_map(|(_, models)| models.values()).collect()
            }
        }
    }

    fn insert(&mut self, id: &AggregateId, kept: &Kept<T>) {
        let value = self.field.value_in(&kept.document);
        if !value.is_null() {
            let models = self.entries.entry(Ordered(value.clone())).or_default();
            models.insert(id.clone(), kept.clone());
        }
    }

    fn remove(&mut self, id: &AggregateId, document: &Value) {
        let value = Ordered(self.field.value_in(document).clone());
        if let Some(models) = self.entries.get_mut(&value) {
            models.remove(id);
            if models.is_empty() {
                self.entries.remove(&value);
            }
        }
    }
}

/// A value in the order of all JSON values.
#[derive(Debug, Clone)]
struct Ordered(Value);

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ordered {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ordered {}

fn ordered(bound: Bound<&Value>) -> Bound<Ordered> {
    bound.map(|value| Ordered(value.clone()))
}

fn value_of(bound: &Bound<Ordered>) -> Option<&Ordered> {
    match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
        Bound::Unbounded => None,
    }
}

/// Whether nothing can lie between: a map refuses to be asked for that.
fn is_empty(low: &Bound<Ordered>, high: &Bound<Ordered>) -> bool {
    let (Some(from), Some(to)) = (value_of(low), value_of(high)) else { return false };
    let one_is_out = !matches!((low, high), (Bound::Included(_), Bound::Included(_)));
    from > to || (from == to && one_is_out)
}
