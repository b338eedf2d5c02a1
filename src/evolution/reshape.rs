//! What upcasters need to change a value in place.

use std::collections::BTreeMap;

use ipld_core::ipld::Ipld;

/// A value is not of the form that an upcaster changes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReshapeError {
    /// It has no fields: it is no map. Look into the variant first, or correct the upcaster.
    #[error("a value with fields was expected, {found} was found")]
    NoFields {
        /// What was found: `null`, `a text` and so on.
        found: &'static str,
    },
    /// The field is not there. Correct the upcaster.
    #[error("there is no field {field:?} among {present:?}")]
    Missing {
        /// The field.
        field: String,
        /// The fields that are there.
        present: Vec<String>,
    },
    /// The field is there already. Correct the upcaster.
    #[error("there is a field {field:?} already")]
    Occupied {
        /// The field.
        field: String,
    },
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Ipld {}
}

/// Changes the fields of a stored value. Nothing is changed where a method fails.
///
/// ```
/// use cim_persistence::evolution::Reshape;
/// use ipld_core::ipld;
///
/// let mut event = ipld!({ "Placed": { "total": 12, "note": "" } });
/// let placed = event.within("Placed")?;
/// placed.rename("total", "cents")?;
/// placed.remove("note")?;
/// placed.put("currency", "EUR")?;
/// event.rename("Placed", "Ordered")?;
/// assert_eq!(event, ipld!({ "Ordered": { "cents": 12, "currency": "EUR" } }));
/// # Ok::<(), cim_persistence::evolution::ReshapeError>(())
/// ```
pub trait Reshape: sealed::Sealed {
    /// All fields.
    ///
    /// # Errors
    /// [`ReshapeError::NoFields`].
    fn fields(&mut self) -> Result<&mut BTreeMap<String, Ipld>, ReshapeError>;

    /// The value of a field, to look into it; the variant of an enum is one.
    ///
    /// # Errors
    /// [`ReshapeError::NoFields`], [`ReshapeError::Missing`].
    fn within(&mut self, field: &str) -> Result<&mut Ipld, ReshapeError> {
        let fields = self.fields()?;
        if !fields.contains_key(field) {
            return Err(missing(field, fields));
        }
        Ok(fields.entry(field.to_owned()).or_insert(Ipld::Null))
    }

    /// Takes a field out.
    ///
    /// # Errors
    /// [`ReshapeError::NoFields`], [`ReshapeError::Missing`].
    fn remove(&mut self, field: &str) -> Result<Ipld, ReshapeError> {
        let fields = self.fields()?;
        fields.remove(field).ok_or_else(|| missing(field, fields))
    }

    /// Adds a field.
    ///
    /// # Errors
    /// [`ReshapeError::NoFields`], [`ReshapeError::Occupied`].
    fn put(&mut self, field: &str, value: impl Into<Ipld>) -> Result<(), ReshapeError> {
        let fields = self.fields()?;
        if fields.contains_key(field) {
            return Err(ReshapeError::Occupied { field: field.to_owned() });
        }
        fields.insert(field.to_owned(), value.into());
        Ok(())
    }

    /// Gives a field, or the variant of an enum, another name.
    ///
    /// # Errors
    /// [`ReshapeError::NoFields`], [`ReshapeError::Missing`], [`ReshapeError::Occupied`].
    fn rename(&mut self, from: &str, to: &str) -> Result<(), ReshapeError> {
        if from != to && self.fields()?.contains_key(to) {
            return Err(ReshapeError::Occupied { field: to.to_owned() });
        }
        let value = self.remove(from)?;
        self.put(to, value)
    }
}

impl Reshape for Ipld {
    fn fields(&mut self) -> Result<&mut BTreeMap<String, Ipld>, ReshapeError> {
        match self {
            Ipld::Map(fields) => Ok(fields),
            other => Err(ReshapeError::NoFields { found: kind_of(other) }),
        }
    }
}

fn missing(field: &str, fields: &BTreeMap<String, Ipld>) -> ReshapeError {
    ReshapeError::Missing { field: field.to_owned(), present: fields.keys().cloned().collect() }
}

fn kind_of(value: &Ipld) -> &'static str {
    match value {
        Ipld::Null => "null",
        Ipld::Bool(_) => "a truth value",
        Ipld::Integer(_) => "an integer",
        Ipld::Float(_) => "a float",
        Ipld::String(_) => "a text",
        Ipld::Bytes(_) => "bytes",
        Ipld::List(_) => "a list",
        Ipld::Map(_) => "a map",
        Ipld::Link(_) => "a link",
    }
}
