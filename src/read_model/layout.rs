//! Where models lie in their bucket, and what is written beside them.
//!
//! A key that begins with `=` is never a model's: neither a model type nor an escaped id can begin so.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::index::Index;
use super::{ReadModelError, ReadModelMetadata};
use crate::backend::Position;
use crate::event::{Headers, SchemaVersion, names};
use crate::evolution::{Evolution, Kind};
use crate::state::{Change, Entry, Expected, InvalidKey, Key, KeyWrite};
use crate::subject::{AggregateId, InvalidToken, Pattern};

/// The headers beside a model.
const POSITION: &str = "Cim-Position";
const METADATA: &str = "Cim-Metadata";
/// The header beside a removal that tidies up.
const CLEARED: &str = "Cim-Cleared";

/// Who keeps the models of a type, and in which generation readers find them. Absent for models saved by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pointer {
    pub(crate) format: u32,
    pub(crate) projection: String,
    /// None while the first one is being built.
    pub(crate) generation: Option<u64>,
    pub(crate) schema_version: u32,
    pub(crate) building: Option<u64>,
    /// Generations that nobody reads or builds any more, and of which something may be left.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) retired: BTreeSet<u64>,
}

/// The first token of the keys of a generation. The first generation has the type's own name, so that keys are what
/// people expect as long as nothing was rebuilt.
pub(crate) fn token(model: &str, generation: u64) -> String {
    match generation {
        0 | 1 => model.to_owned(),
        generation => format!("{model}={generation}"),
    }
}

pub(crate) fn model_key(model: &str, generation: u64, id: &AggregateId) -> Result<Key, InvalidKey> {
    Key::new(format!("{}.{}", token(model, generation), id.as_str()))
}

/// The models of one type in one generation, as their index entries name them. Cheap to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shelf {
    token: String,
}

impl Shelf {
    pub(crate) fn new(model: &str, generation: u64) -> Self {
        Self { token: token(model, generation) }
    }

    /// `=index.<type>[=<generation>].<index>.<encoded values>.<id>`
    pub(crate) fn entry(&self, index: &str, values: &str, id: &AggregateId) -> Key {
        Key::new(format!("{}.{values}.{}", self.index(index), id.as_str()))
            .expect("types, names of indexes, encoded values and ids are tokens of a key")
    }

    /// What follows the index's name in the key of one of its entries.
    pub(crate) fn in_entry<'k>(&self, index: &str, key: &'k Key) -> Option<&'k str> {
        key.as_str().strip_prefix(&self.index(index))?.strip_prefix('.')
    }

    /// The entries of an index whose values begin so; nothing for all of them.
    pub(crate) fn entries(&self, index: &str, values: &str) -> Pattern {
        let dot = if values.is_empty() { "" } else { "." };
        Pattern::parse(&format!("{}{dot}{values}.>", self.index(index)))
            .expect("names and values are bounded, so that this is no longer than a pattern may be")
    }

    /// `=index-state.<type>[=<generation>].<index>`
    pub(crate) fn index_state(&self, index: &str) -> Key {
        Key::new(format!("=index-state.{}.{index}", self.token))
            .expect("types and names of indexes are tokens of a key")
    }

    /// The states of all indexes.
    pub(crate) fn index_states(&self) -> Pattern {
        Pattern::parse(&format!("=index-state.{}.*", self.token))
            .expect("a type and a number are short and hold no wildcard")
    }

    /// The index whose state lies under a key.
    pub(crate) fn index_of_state(&self, key: &Key) -> Option<Index> {
        let rest = key.as_str().strip_prefix("=index-state.")?.strip_prefix(&self.token)?;
        Index::named(rest.strip_prefix('.')?)
    }

    fn index(&self, index: &str) -> String {
        format!("=index.{}.{index}", self.token)
    }
}

/// How far an index is; without a record it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub(crate) enum IndexState {
    Building,
    Ready,
}

impl IndexState {
    pub(crate) fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }

    pub(crate) fn of(entry: &Entry) -> Result<Self, ReadModelError> {
        let value = entry.value.as_deref().unwrap_or_default();
        Self::read(value).ok_or_else(|| ReadModelError::Pointer {
            key: entry.key.to_string(),
            reason: "it is no state of an index".to_owned(),
        })
    }

    pub(crate) fn write(self, key: Key) -> KeyWrite {
        let json = serde_json::to_vec(&self).expect("an enum without fields is JSON");
        KeyWrite::new(key, Change::Put(json.into()), Expected::Anything)
    }
}

/// The removal of a key of a generation that nobody reads any more. It says nothing of the model, which goes on in
/// another generation; so watchers pass over it.
pub(crate) fn cleared(key: Key) -> KeyWrite {
    let mut write = KeyWrite::new(key, Change::Delete, Expected::Anything);
    write.headers.push(CLEARED, "1");
    write
}

pub(crate) fn is_cleared(entry: &Entry) -> bool {
    entry.headers.get(CLEARED).is_some()
}

pub(crate) fn pointer_key(model: &str) -> Result<Key, InvalidKey> {
    Key::new(format!("=model.{model}"))
}

/// The pointers of all types.
pub(crate) const POINTERS: &str = "=model.*";

/// The type whose pointer lies under a key.
pub(crate) fn type_of_pointer(key: &Key) -> Option<&str> {
    key.as_str().strip_prefix("=model.")
}

/// All keys of a generation.
pub(crate) fn patterns_of(model: &str, generation: u64) -> [String; 3] {
    let token = token(model, generation);
    [format!("{token}.>"), format!("=index.{token}.>"), format!("=index-state.{token}.>")]
}

pub(crate) fn position(headers: &Headers) -> Option<Position> {
    headers.get(POSITION)?.parse().ok().map(Position::new)
}

pub(crate) fn headers(
    schema_version: impl Into<Option<u32>>,
    position: Option<Position>,
    metadata: &BTreeMap<String, String>,
) -> Headers {
    let mut headers = Headers::with_capacity(3);
    if let Some(version) = schema_version.into() {
        headers.push(names::SCHEMA_VERSION, version.to_string());
    }
    if let Some(position) = position {
        headers.push(POSITION, position.to_string());
    }
    if !metadata.is_empty() {
        let json = serde_json::to_string(metadata).expect("a map of strings is JSON");
        headers.push(METADATA, json);
    }
    headers
}

/// The version of the shape that a model was written in, if whoever wrote it said so.
pub(crate) fn schema_version(headers: &Headers) -> Option<u32> {
    headers.get(names::SCHEMA_VERSION)?.parse().ok()
}

/// A model of an earlier shape as it would be written today; `None` where no upcasters lead there.
pub(crate) fn newest(
    evolution: Option<&Evolution>,
    model: &str,
    (stored, wanted): (SchemaVersion, SchemaVersion),
    value: &[u8],
) -> Result<Option<Vec<u8>>, String> {
    let path = evolution.and_then(|known| known.path(Kind::Model, model, stored, wanted));
    let Some(path) = path else { return Ok(None) };
    let value = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let value = path.take(value).map_err(|error| error.to_string())?;
    serde_json::to_vec(&value).map(Some).map_err(|error| error.to_string())
}

/// The id of the model under a key: what follows the first token.
pub(crate) fn id_of(key: &Key) -> Result<AggregateId, InvalidToken> {
    AggregateId::from_escaped(key.as_str().split_once('.').map_or("", |(_, id)| id))
}

/// What is known of a model by its entry.
pub(crate) fn metadata(model: &str, entry: &Entry) -> Result<ReadModelMetadata, ReadModelError> {
    let header = |name| entry.headers.get(name);
    let stated_version = schema_version(&entry.headers);
    Ok(ReadModelMetadata {
        model_type: model.to_owned(),
        id: id_of(&entry.key)?,
        // What another client wrote has no header, and the first shape.
        schema_version: stated_version.unwrap_or(1),
        stated_version,
        revision: entry.revision,
        position: position(&entry.headers),
        updated_at: entry.written_at,
        metadata: header(METADATA).and_then(|m| serde_json::from_str(m).ok()).unwrap_or_default(),
    })
}
