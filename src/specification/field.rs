//! Fields: where in a document a value is.
//!
//! What may be asked of the value is in `spec.rs`.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::SpecificationError;

/// The path to a value in a document: names of fields, from the outside in.
///
/// - [`Field::new`] divides a text at its dots; [`Field::path`] takes names as they are, dots included;
/// - a path leads through objects only, so what lies in an array has none;
/// - a field that is missing reads as null.
///
/// It is printed as a query text has it: names joined by dots, in backticks where they are not plain words.
///
/// ```
/// use cim_persistence::specification::Field;
/// use serde_json::json;
///
/// let document = json!({"last": {"carrier": "B6"}, "a.b": 1});
/// assert_eq!(Field::new("last.carrier").value_in(&document), "B6");
/// assert_eq!(Field::path(["a.b"]).value_in(&document), 1);
/// assert!(Field::new("a.b").value_in(&document).is_null());
/// assert_eq!(Field::path(["a.b", "c"]).to_string(), "`a.b`.c");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Field(Vec<String>);

/// The field at `path`, as [`Field::new`] reads it: the beginning of every condition.
pub fn field(path: &str) -> Field {
    Field::new(path)
}

impl Field {
    /// The field at a path of names with dots between them.
    ///
    /// An empty name is refused where the field is used, with [`SpecificationError::EmptyName`].
    pub fn new(path: &str) -> Self {
        Self::path(path.split('.'))
    }

    /// The field at a path of names, each taken as it is.
    pub fn path<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }

    /// The names of the path, from the outside in.
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// The value that `document` has here; null where it has none.
    pub fn value_in<'a>(&self, document: &'a Value) -> &'a Value {
        let inner = self.0.iter().try_fold(document, |value, name| value.as_object()?.get(name));
        inner.unwrap_or(&Value::Null)
    }

    /// The path as errors name it.
    pub(super) fn dotted(&self) -> String {
        self.0.join(".")
    }

    pub(super) fn check(&self) -> Result<(), SpecificationError> {
        if self.0.is_empty() || self.0.iter().any(String::is_empty) {
            return Err(SpecificationError::EmptyName { field: self.dotted() });
        }
        Ok(())
    }

    /// Whether the first name is one of `known`; nothing is known of those below it.
    pub(super) fn check_known(&self, known: &[&str]) -> Result<(), SpecificationError> {
        let first = self.0.first().map_or("", String::as_str);
        if known.contains(&first) {
            return Ok(());
        }
        let known = known.iter().map(|name| (*name).to_owned()).collect();
        Err(SpecificationError::UnknownField { field: first.to_owned(), known })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        super::text::write_field(f, &self.0)
    }
}

impl From<&str> for Field {
    fn from(path: &str) -> Self {
        Self::new(path)
    }
}

impl From<&String> for Field {
    fn from(path: &String) -> Self {
        Self::new(path)
    }
}
