//! Which generation of a model type is read.
//!
//! Nobody asks first: a request for models asks for the type's pointer as well, in the generation last seen, and is
//! repeated when the pointer names another one. So a reader never sees a generation that is not complete or that has
//! gone, and one round trip is enough.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::ReadModelError;
use super::layout::{self, Pointer};
use crate::backend::Matching;
use crate::event::NonEmpty;
use crate::evolution::Evolution;
use crate::state::{Entry, Key, KeyValue};
use crate::subject::Pattern;

/// The bucket, and the generations that were last seen in it. Cloning is cheap and shares them.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub(super) bucket: Arc<dyn KeyValue>,
    pub(super) evolution: Option<Arc<Evolution>>,
    seen: Arc<RwLock<HashMap<String, u64>>>,
}

/// How often a request is repeated because of a switch.
const ATTEMPTS: usize = 5;

/// The generation of models that nobody rebuilds.
const FIRST: u64 = 1;

/// What a request found.
pub(super) enum Found {
    /// These entries, of this generation.
    All(Vec<Entry>, u64),
    /// More than one answer holds, in this generation.
    TooMany(u64),
}

/// Who keeps a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keeper {
    /// Whoever saves models by hand.
    Nobody,
    Projection(String),
}

impl Reader {
    pub(super) fn new(bucket: Arc<dyn KeyValue>) -> Self {
        Self { bucket, evolution: None, seen: Arc::default() }
    }

    /// Entries of models by the keys or patterns that they have in a generation. One round trip, two after a switch.
    pub(super) async fn find(
        &self,
        model: &str,
        patterns: impl Fn(u64) -> Result<Vec<Pattern>, ReadModelError>,
    ) -> Result<Found, ReadModelError> {
        let pointer_key = layout::pointer_key(model)?;
        let mut generation = self.last_seen(model);
        for _ in 0..ATTEMPTS {
            let mut asked = NonEmpty::one(Pattern::parse(pointer_key.as_str())?);
            patterns(generation)?.into_iter().for_each(|pattern| asked.push(pattern));
            let entries = match self.bucket.matching(&asked).await? {
                Matching::All(entries) => entries,
                Matching::TooMany => {
                    let current = self.generation(model).await?;
                    if current == generation {
                        return Ok(Found::TooMany(generation));
                    }
                    generation = current;
                    continue;
                }
            };
            let (pointer, entries) = split(entries, &pointer_key);
            let current = self.resolve(model, pointer)?;
            if current == generation {
                return Ok(Found::All(entries, generation));
            }
            generation = current;
        }
        Err(ReadModelError::Switched { model_type: model.to_owned() })
    }

    /// The generation that readers see. One round trip.
    pub(super) async fn generation(&self, model: &str) -> Result<u64, ReadModelError> {
        let pointer = self.pointer(model).await?;
        self.resolve(model, pointer)
    }

    /// Refuses a generation that readers do not see any more: some of it may be gone already. One round trip.
    pub(super) async fn is_still(
        &self,
        model: &str,
        generation: u64,
    ) -> Result<(), ReadModelError> {
        match self.generation(model).await? == generation {
            true => Ok(()),
            false => Err(ReadModelError::Switched { model_type: model.to_owned() }),
        }
    }

    /// Who keeps a type. One round trip.
    pub(super) async fn keeper(&self, model: &str) -> Result<Keeper, ReadModelError> {
        let key = layout::pointer_key(model)?;
        Ok(match self.pointer(model).await? {
            None => Keeper::Nobody,
            Some(entry) => Keeper::Projection(pointer_of(&key, &entry)?.projection),
        })
    }

    async fn pointer(&self, model: &str) -> Result<Option<Entry>, ReadModelError> {
        let key = layout::pointer_key(model)?;
        let asked = NonEmpty::one(Pattern::parse(key.as_str())?);
        Ok(split(self.bucket.matching(&asked).await?.all()?, &key).0)
    }

    /// What a pointer says of the generation, remembered for the next time.
    pub(super) fn resolve(
        &self,
        model: &str,
        pointer: Option<Entry>,
    ) -> Result<u64, ReadModelError> {
        let generation = match pointer {
            None => FIRST,
            Some(entry) => {
                let pointer = pointer_of(&entry.key, &entry)?;
                pointer.generation.ok_or_else(|| ReadModelError::NotBuilt {
                    model_type: model.to_owned(),
                    projection: pointer.projection,
                })?
            }
        };
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        if seen.get(model) != Some(&generation) {
            seen.insert(model.to_owned(), generation);
        }
        Ok(generation)
    }

    fn last_seen(&self, model: &str) -> u64 {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        seen.get(model).copied().unwrap_or(FIRST)
    }
}

/// A pointer that is there, apart from the other entries.
fn split(entries: Vec<Entry>, key: &Key) -> (Option<Entry>, Vec<Entry>) {
    let (pointers, entries): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.key == *key);
    (pointers.into_iter().find(|entry| entry.value.is_some()), entries)
}

pub(super) fn pointer_of(key: &Key, entry: &Entry) -> Result<Pointer, ReadModelError> {
    serde_json::from_slice(entry.value.as_deref().unwrap_or_default()).map_err(|error| {
        ReadModelError::Pointer { key: key.to_string(), reason: error.to_string() }
    })
}
