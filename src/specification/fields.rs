//! How typed models meet questions about JSON: their documents, and the names of their fields.

use std::fmt;

use serde::de::value::Error as Ended;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};
use serde::{Serialize, forward_to_deserialize_any};
use serde_json::Value;

use super::error::SpecificationError;

/// The document that `model` is when it is stored as JSON and read again.
///
/// Takes the way through text, because the short way differs: an `f32` of 0.1 is stored as `0.1`, while
/// `serde_json::to_value` makes it 0.10000000149011612. So a model is asked the same whether it was just made or stored.
///
/// # Errors
/// [`SpecificationError::NotJson`] when the model cannot be written as JSON.
pub fn document_of<T: Serialize + ?Sized>(model: &T) -> Result<Value, SpecificationError> {
    let text = serde_json::to_vec(model).map_err(not_json)?;
    serde_json::from_slice(&text).map_err(not_json)
}

/// The names of the fields that a `T` is read from, or `None` when they are not known beforehand.
///
/// They are known of structs that serde derives, also behind newtypes and `Option`, `rename` and `alias` included; not of
/// maps, enums, tuples and structs with `flatten`. A field that is only written (`skip_deserializing`) is not among them.
/// Takes less than a microsecond and reads nothing.
///
/// ```
/// use cim_persistence::specification::{SpecificationError, field, fields_of};
///
/// #[derive(serde::Deserialize)]
/// #[serde(rename_all = "camelCase")]
/// struct Board {
///     carrier: String,
///     last_delay: Option<i64>,
/// }
///
/// let known = fields_of::<Board>().unwrap();
/// assert_eq!(known, ["carrier", "lastDelay"]);
///
/// let typo = field("lastdelay").gt(30).compile()?;
/// assert!(matches!(typo.check_fields(known), Err(SpecificationError::UnknownField { .. })));
/// # Ok::<(), SpecificationError>(())
/// ```
pub fn fields_of<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
    let mut found = None;
    // It cannot be read from nothing; what it asked for has been seen by then.
    let _ended = T::deserialize(Tracer(&mut found));
    found
}

fn not_json(error: impl fmt::Display) -> SpecificationError {
    SpecificationError::NotJson { reason: error.to_string() }
}

/// Keeps the names of the fields that a type asks for, and gives it nothing.
struct Tracer<'a>(&'a mut Option<&'static [&'static str]>);

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Ended;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Ended> {
        *self.0 = Some(fields);
        Err(Ended::custom("the names are all that was wanted"))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Ended> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Ended> {
        visitor.visit_some(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Ended> {
        Err(Ended::custom("it is no struct with fields of its own"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map enum identifier ignored_any
    }
}
