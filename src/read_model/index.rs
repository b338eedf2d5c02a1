//! Indexes: which fields of a document, and which entries a document has in them.
//!
//! How a value becomes tokens is in `index/encode.rs`, what is asked of an index in `index/lookup.rs`.

mod encode;
mod lookup;

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::state::{Change, Expected, Key, KeyWrite};
use crate::subject::AggregateId;

use super::ReadModelError;
use super::layout::Shelf;

pub use lookup::IndexLookup;

/// The most fields of one index.
pub const MAX_INDEX_FIELDS: usize = 4;

/// The most entries that one model has in one index: elements of arrays in its fields, multiplied.
pub const MAX_INDEX_ENTRIES: usize = 64;

/// The longest name of an index, in bytes: its fields, escaped as ids are.
const MAX_NAME_BYTES: usize = 192;

/// The bytes of a text that an index tells apart. What is longer is found as well, since what an index finds is always
/// compared with the model itself.
pub const INDEXED_TEXT_BYTES: usize = encode::TEXT_BYTES;

/// An index over one or several fields of a read model.
///
/// - 1 to [`MAX_INDEX_FIELDS`] fields, each a path with dots for nested objects (`last.carrier`);
/// - null, booleans, numbers and texts are indexed as they are, a missing field as null, an array by each of its elements;
///   an object, a nested array and an empty one are found by no value, and by the other fields all the same;
/// - a field named by [`time`](Self::time) holds times: text in RFC 3339, ordered by the moment it stands for. Text
///   that is no time is indexed as text;
/// - numbers are told apart as 64-bit floats, times by microseconds, texts by their first [`INDEXED_TEXT_BYTES`] bytes.
///   Nothing is missed because of that, and nothing is returned that only looks equal.
///
/// ```
/// use cim_persistence::read_model::IndexSpec;
/// let by_carrier = IndexSpec::on(["carrier"]);
/// let by_day = IndexSpec::on(["carrier"]).time("departed_at");
/// assert_eq!(by_carrier.to_string(), "carrier");
/// assert_eq!(by_day.to_string(), "carrier, departed_at (time)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IndexSpec {
    fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Field {
    path: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    time: bool,
}

impl IndexSpec {
    /// An index over these fields, the first of them counting most. What is wrong with them is said where it is used.
    pub fn on<F: Into<String>>(fields: impl IntoIterator<Item = F>) -> Self {
        let field = |path: F| Field { path: path.into(), time: false };
        Self { fields: fields.into_iter().map(field).collect() }
    }

    /// Says that this field holds times. It becomes the last field if it was not among them.
    pub fn time(mut self, field: impl Into<String>) -> Self {
        let path = field.into();
        match self.fields.iter_mut().find(|known| known.path == path) {
            Some(known) => known.time = true,
            None => self.fields.push(Field { path, time: true }),
        }
        self
    }

    /// The paths of the fields, in order.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.path.as_str())
    }

    /// Whether the field of this path holds times.
    pub fn is_time(&self, field: &str) -> bool {
        self.fields.iter().any(|known| known.time && known.path == field)
    }
}

impl std::fmt::Display for IndexSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, field) in self.fields.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            let time = if field.time { " (time)" } else { "" };
            write!(f, "{comma}{}{time}", field.path)?;
        }
        Ok(())
    }
}

/// An index that has been checked, with its name: the fields, escaped.
///
/// Another list of fields, or a field that holds times and did not, has another name, so entries of one never pass for
/// those of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    spec: IndexSpec,
    name: String,
}

impl Index {
    pub(crate) fn new(spec: &IndexSpec) -> Result<Self, ReadModelError> {
        let refused = |reason: &str| {
            let (index, reason) = (spec.to_string(), reason.to_owned());
            Err(ReadModelError::InvalidIndex { index, reason })
        };
        if spec.fields.is_empty() || spec.fields.len() > MAX_INDEX_FIELDS {
            return refused("it must have one to four fields");
        }
        let paths: BTreeSet<&str> = spec.fields().collect();
        if paths.len() < spec.fields.len() {
            return refused("it names a field twice");
        }
        let mut name = String::new();
        for field in &spec.fields {
            if field.path.split('.').any(str::is_empty) {
                return refused("a path has an empty part");
            }
            let escaped = match AggregateId::new(&field.path) {
                Ok(escaped) => escaped,
                Err(error) => return refused(&error.to_string()),
            };
            // Neither is hexadecimal, so neither is part of an escape.
            let separator = if name.is_empty() { "" } else { "=_" };
            name = name + separator + escaped.as_str() + if field.time { "=t" } else { "" };
        }
        match name.len() <= MAX_NAME_BYTES {
            true => Ok(Self { spec: spec.clone(), name }),
            false => refused("its field names are over 192 bytes together"),
        }
    }

    pub(crate) fn all(specs: &[IndexSpec]) -> Result<Vec<Self>, ReadModelError> {
        specs.iter().map(Self::new).collect()
    }

    /// The index that has this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let field = |field: &str| {
            let (escaped, time) = match field.strip_suffix("=t") {
                Some(escaped) => (escaped, true),
                None => (field, false),
            };
            let path = AggregateId::from_escaped(escaped).ok()?.to_string();
            Some(Field { path, time })
        };
        let fields = name.split("=_").map(field).collect::<Option<Vec<_>>>()?;
        Self::new(&IndexSpec { fields }).ok().filter(|index| index.name == name)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn spec(&self) -> &IndexSpec {
        &self.spec
    }

    fn width(&self) -> usize {
        self.spec.fields.len()
    }

    fn is_time(&self, field: usize) -> bool {
        self.spec.fields.get(field).is_some_and(|field| field.time)
    }

    /// The values of a field by which the document is found.
    fn values<'d>(&self, field: usize, document: &'d Value) -> &'d [Value] {
        let path = self.spec.fields.get(field).map_or("", |field| &field.path);
        match path.split('.').try_fold(document, |value, name| value.get(name)) {
            Some(Value::Array(elements)) => elements,
            Some(value) => std::slice::from_ref(value),
            None => &[Value::Null],
        }
    }

    /// The encoded values under which a document is found.
    fn encoded(&self, document: &Value) -> Result<BTreeSet<String>, ReadModelError> {
        let mut found = BTreeSet::from([String::new()]);
        for field in 0..self.width() {
            let values = self.values(field, document).iter();
            let mut values: BTreeSet<String> = values
                .map(|value| encode::tokens(value, self.is_time(field)))
                .map(|tokens| tokens.unwrap_or_else(|| encode::COMPOSITE.to_owned()))
                .collect();
            if values.is_empty() {
                // Without any value the document could not be found by the other fields.
                values.insert(encode::COMPOSITE.to_owned());
            }
            let entries = found.len() * values.len();
            if entries > MAX_INDEX_ENTRIES {
                let index = self.spec.to_string();
                return Err(ReadModelError::TooManyEntries { index, entries });
            }
            let joined = |first: &String| -> Vec<String> {
                let dot = if first.is_empty() { "" } else { "." };
                values.iter().map(|value| format!("{first}{dot}{value}")).collect()
            };
            found = found.iter().flat_map(joined).collect();
        }
        Ok(found)
    }

    /// Whose entry a key is.
    pub(crate) fn id_of(&self, shelf: &Shelf, key: &Key) -> Option<AggregateId> {
        let mut rest = shelf.in_entry(&self.name, key)?;
        for _ in 0..self.width() {
            rest = encode::skip(rest)?;
        }
        AggregateId::from_escaped(rest).ok()
    }
}

/// The keys of all index entries that a document has.
///
/// # Errors
/// [`ReadModelError::TooManyEntries`].
pub(crate) fn entries(
    indexes: &[Index],
    shelf: &Shelf,
    id: &AggregateId,
    document: &Value,
) -> Result<BTreeSet<Key>, ReadModelError> {
    let mut keys = BTreeSet::new();
    for index in indexes {
        let values = index.encoded(document)?;
        keys.extend(values.iter().map(|values| shelf.entry(index.name(), values, id)));
    }
    Ok(keys)
}

/// The writes that make the entries `new` out of the entries `old`.
pub(crate) fn difference<'k>(
    old: &'k BTreeSet<Key>,
    new: &'k BTreeSet<Key>,
) -> impl Iterator<Item = KeyWrite> + 'k {
    let write = |change: Change| {
        move |key: &Key| KeyWrite::new(key.clone(), change.clone(), Expected::Anything)
    };
    let gone = old.difference(new).map(write(Change::Delete));
    gone.chain(new.difference(old).map(write(Change::Put(Bytes::from_static(b"null")))))
}
