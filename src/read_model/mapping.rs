//! Between a type of the domain and the document that is stored, where the two shall not be the same.
//!
//! Without a mapping a model is stored as serde writes it. How documents are saved and loaded is in `models.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Why a value and its document cannot be made from each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MappingError {
    /// The type is not written as a JSON object, or the stored document is none. Only objects have fields.
    #[error("only an object has fields to be mapped, and this is {found}")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// Two fields would have one name. Rename one of them, or derive under another name.
    #[error("two fields would be called {field:?}; rename one of them")]
    Clash {
        /// The name.
        field: String,
    },
    /// A conversion refused a field's value.
    #[error("field {field:?} cannot be converted: {reason}")]
    Conversion {
        /// The field, as the domain calls it.
        field: String,
        /// Why not.
        reason: String,
    },
    /// Serde cannot write the value, or cannot read it back. A field that is excluded needs `#[serde(default)]`.
    #[error("it does not have the shape of the domain's type: {reason}")]
    Shape {
        /// Why not.
        reason: String,
    },
}

type Convert = Arc<dyn Fn(Value) -> Result<Value, String> + Send + Sync>;
type Derive<D> = Arc<dyn Fn(&D) -> Value + Send + Sync>;

/// How a type of the domain is stored: as serde writes it, apart from the rules given here.
///
/// - rules name the fields of the outermost object as serde writes them; the last rule of a kind for a field counts;
/// - what [`to_document`](Self::to_document) writes, [`from_document`](Self::from_document) reads back, provided that each
///   conversion undoes the other and that excluded fields have a default;
/// - a derived field is written for queries and ignored when it is read.
///
/// Cloning is cheap.
///
/// ```
/// use cim_persistence::read_model::Mapping;
/// use serde::{Deserialize, Serialize};
/// use serde_json::json;
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Price {
///     cents: u64,
///     name: String,
///     #[serde(default)]
///     cached: Option<String>,
/// }
///
/// let mapping = Mapping::<Price>::new()
///     .rename("name", "title")
///     .exclude("cached")
///     .convert("cents", |cents| Ok(json!(cents.to_string())), |text| {
///         let cents: u64 = text.as_str().unwrap_or_default().parse().map_err(|_| "no number".to_owned())?;
///         Ok(json!(cents))
///     })
///     .derive("cheap", |price| json!(price.cents < 500));
///
/// let tea = Price { cents: 250, name: "tea".to_owned(), cached: None };
/// let document = mapping.to_document(&tea)?;
/// assert_eq!(document, json!({ "cents": "250", "title": "tea", "cheap": true }));
/// assert_eq!(mapping.from_document(document)?, tea);
/// # Ok::<(), cim_persistence::read_model::MappingError>(())
/// ```
pub struct Mapping<D> {
    /// By the domain's name of a field.
    renamed: BTreeMap<String, String>,
    excluded: Vec<String>,
    converted: BTreeMap<String, (Convert, Convert)>,
    derived: BTreeMap<String, Derive<D>>,
}

impl<D> Mapping<D> {
    /// As serde writes it.
    pub fn new() -> Self {
        Self {
            renamed: BTreeMap::new(),
            excluded: Vec::new(),
            converted: BTreeMap::new(),
            derived: BTreeMap::new(),
        }
    }

    /// Stores a field under another name.
    #[must_use]
    pub fn rename(mut self, field: impl Into<String>, stored: impl Into<String>) -> Self {
        self.renamed.insert(field.into(), stored.into());
        self
    }

    /// Does not store a field. Read back it is missing, so it needs `#[serde(default)]`.
    #[must_use]
    pub fn exclude(mut self, field: impl Into<String>) -> Self {
        self.excluded.push(field.into());
        self
    }

    /// Stores a field's value as something else; the second function undoes what the first one does.
    #[must_use]
    pub fn convert(
        mut self,
        field: impl Into<String>,
        write: impl Fn(Value) -> Result<Value, String> + Send + Sync + 'static,
        read: impl Fn(Value) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        self.converted.insert(field.into(), (Arc::new(write), Arc::new(read)));
        self
    }

    /// Stores a field that the type does not have.
    #[must_use]
    pub fn derive(
        mut self,
        stored: impl Into<String>,
        value: impl Fn(&D) -> Value + Send + Sync + 'static,
    ) -> Self {
        self.derived.insert(stored.into(), Arc::new(value));
        self
    }
}

impl<D: Serialize> Mapping<D> {
    /// What is stored.
    ///
    /// # Errors
    /// Any [`MappingError`].
    pub fn to_document(&self, value: &D) -> Result<Value, MappingError> {
        // By way of text: serde_json makes another number of an f32 that it is given directly.
        let text = serde_json::to_vec(value).map_err(shape)?;
        let mut document = Map::new();
        for (field, value) in object(serde_json::from_slice(&text).map_err(shape)?)? {
            if self.excluded.contains(&field) {
                continue;
            }
            let value = match self.converted.get(&field) {
                Some((write, _)) => write(value).map_err(|reason| refused(&field, reason))?,
                None => value,
            };
            let name = self.renamed.get(&field).cloned().unwrap_or(field);
            insert(&mut document, name, value)?;
        }
        for (name, derive) in &self.derived {
            insert(&mut document, name.clone(), derive(value))?;
        }
        Ok(Value::Object(document))
    }
}

impl<D: DeserializeOwned> Mapping<D> {
    /// What was stored.
    ///
    /// # Errors
    /// Any [`MappingError`].
    pub fn from_document(&self, document: Value) -> Result<D, MappingError> {
        let mut fields = Map::new();
        for (name, value) in object(document)? {
            if self.derived.contains_key(&name) {
                continue;
            }
            let own = self.renamed.iter().find(|(_, stored)| **stored == name);
            let field = own.map_or(name, |(field, _)| field.clone());
            let value = match self.converted.get(&field) {
                Some((_, read)) => read(value).map_err(|reason| refused(&field, reason))?,
                None => value,
            };
            insert(&mut fields, field, value)?;
        }
        serde_json::from_value(Value::Object(fields)).map_err(shape)
    }
}

impl<D> Default for Mapping<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D> Clone for Mapping<D> {
    fn clone(&self) -> Self {
        Self {
            renamed: self.renamed.clone(),
            excluded: self.excluded.clone(),
            converted: self.converted.clone(),
            derived: self.derived.clone(),
        }
    }
}

impl<D> fmt::Debug for Mapping<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("renamed", &self.renamed)
            .field("excluded", &self.excluded)
            .field("converted", &self.converted.keys())
            .field("derived", &self.derived.keys())
            .finish()
    }
}

fn object(value: Value) -> Result<Map<String, Value>, MappingError> {
    let found = match value {
        Value::Object(fields) => return Ok(fields),
        Value::Array(_) => "an array",
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
    };
    Err(MappingError::NotAnObject { found })
}

fn insert(fields: &mut Map<String, Value>, name: String, value: Value) -> Result<(), MappingError> {
    if fields.contains_key(&name) {
        return Err(MappingError::Clash { field: name });
    }
    fields.insert(name, value);
    Ok(())
}

fn refused(field: &str, reason: String) -> MappingError {
    MappingError::Conversion { field: field.to_owned(), reason }
}

fn shape(error: serde_json::Error) -> MappingError {
    MappingError::Shape { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Flight {
        origin: String,
        carrier: String,
        delay: i64,
        share: f32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        #[serde(default)]
        seen: u32,
    }

    fn mapping() -> Mapping<Flight> {
        let minus = |value: &Value| value.as_i64().and_then(i64::checked_neg);
        let negated =
            move |value: Value| minus(&value).map(Value::from).ok_or("no number".to_owned());
        Mapping::new()
            .rename("origin", "carrier")
            .rename("carrier", "origin")
            .rename("note", "remark")
            .exclude("seen")
            .convert("delay", negated, negated)
            .derive("late", |flight: &Flight| json!(flight.delay > 30))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            origin in ".{0,8}", carrier in ".{0,8}", delay in -1000_i64..1000, share: f32,
            note in proptest::option::of(".{0,8}")
        ) {
            prop_assume!(share.is_finite());
            let flight = Flight { origin, carrier, delay, share, note, seen: 0 };
            let document = mapping().to_document(&flight).unwrap();
            prop_assert_eq!(&document["carrier"], &json!(flight.origin));
            prop_assert_eq!(&document["delay"], &json!(-flight.delay));
            prop_assert_eq!(&document["late"], &json!(flight.delay > 30));
            prop_assert_eq!(document.get("remark").is_some(), flight.note.is_some());
            prop_assert_eq!(document.get("seen"), None);
            prop_assert_eq!(mapping().from_document(document).unwrap(), flight);
        }
    }

    #[test]
    fn without_rules_it_is_what_serde_writes() {
        let value = json!({ "a": [1, { "b": null }] });
        let mapping = Mapping::<Value>::new();
        assert_eq!(mapping.to_document(&value).unwrap(), value);
        assert_eq!(mapping.from_document(value.clone()).unwrap(), value);
    }

    #[test]
    fn what_cannot_be_mapped_says_why() {
        let told = |error: MappingError| error.to_string();
        let value = json!({ "a": 1, "b": 2 });
        let clash = "two fields would be called \"b\"; rename one of them";
        let renamed = Mapping::<Value>::new().rename("a", "b");
        assert_eq!(told(renamed.to_document(&value).unwrap_err()), clash);
        let derived = Mapping::<Value>::new().derive("b", |_| json!(3));
        assert_eq!(told(derived.to_document(&value).unwrap_err()), clash);
        let object = "only an object has fields to be mapped, and this is a number";
        assert_eq!(told(renamed.to_document(&json!(7)).unwrap_err()), object);
        assert_eq!(told(renamed.from_document(json!(7)).unwrap_err()), object);
        let refused = mapping().from_document(json!({ "delay": "x" })).unwrap_err();
        assert_eq!(told(refused), "field \"delay\" cannot be converted: no number");
        let shape = mapping().from_document(json!({ "delay": 1 })).unwrap_err();
        assert!(
            told(shape)
                .starts_with("it does not have the shape of the domain's type: missing field")
        );
    }
}
