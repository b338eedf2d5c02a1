//! Types that serde does not carry as wanted: money, decimals, times with a zone.

use std::any::type_name;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use ipld_core::ipld::Ipld;
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Refusal;
use crate::ipld::{Codec, from_value};

/// The fields of a carried value: a map of just these two.
pub(super) const NAME: &str = "$type";
const VALUE: &str = "value";

/// How a type is carried in events, states and models.
///
/// A value of [`Value`](Self::Value) is stored as a map of two fields, `{"$type": NAME, "value": …}`, so that readers who do
/// not have the type know what they see. Another wire form needs another name: `money/2`.
///
/// ```
/// use std::collections::BTreeMap;
/// use cim_persistence::evolution::{As, Refusal, Tagged, Transcoder};
/// use serde::{Deserialize, Serialize};
///
/// /// From some library that knows nothing of serde.
/// #[derive(Debug, Clone, PartialEq)]
/// struct Money { cents: i64, currency: [u8; 3] }
///
/// struct MoneyText;
///
/// impl Transcoder for MoneyText {
///     const NAME: &'static str = "money/1";
///     type Value = Money;
///     type Wire = (i64, String);
///     fn to_wire(money: &Money) -> Result<Self::Wire, Refusal> {
///         Ok((money.cents, String::from_utf8(money.currency.to_vec())?))
///     }
///     fn from_wire((cents, currency): Self::Wire) -> Result<Money, Refusal> {
///         let currency = currency.as_bytes().try_into().map_err(|_| "a currency has three letters")?;
///         Ok(Money { cents, currency })
///     }
/// }
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct Placed {
///     #[serde(with = "As::<Tagged<MoneyText>>")]
///     total: Money,
///     #[serde(with = "As::<BTreeMap<String, Vec<Tagged<MoneyText>>>>")]
///     parts: BTreeMap<String, Vec<Money>>,
/// }
///
/// let total = Money { cents: 1250, currency: *b"EUR" };
/// let placed = Placed { parts: [("vat".to_owned(), vec![total.clone()])].into(), total };
/// let json = serde_json::to_string(&placed)?;
/// assert!(json.starts_with(r#"{"total":{"$type":"money/1","value":[1250,"EUR"]},"parts""#));
/// assert_eq!(serde_json::from_str::<Placed>(&json)?, placed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Transcoder: 'static {
    /// The stable name of the wire form, unique in the context. It says what is stored, so it never changes.
    const NAME: &'static str;

    /// What the domain has.
    type Value: 'static;

    /// What is stored of it: numbers, texts, lists and the like, which are the same in DAG-CBOR and in JSON. A type that has two
    /// faces, such as a `Uuid`, is better carried as its text.
    type Wire: Serialize + DeserializeOwned;

    /// The value as it is stored.
    ///
    /// # Errors
    /// Why it cannot be stored.
    fn to_wire(value: &Self::Value) -> Result<Self::Wire, Refusal>;

    /// The value that was stored.
    ///
    /// # Errors
    /// Why there is no such value.
    fn from_wire(wire: Self::Wire) -> Result<Self::Value, Refusal>;
}

/// A carried value cannot be read, or a value cannot be carried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TranscodeError {
    /// It is no map of just `$type` and `value`. Look at the value.
    #[error("a map of $type and value was expected")]
    NotTagged,
    /// It is carried under another name. Upcast it, or read it with that transcoder.
    #[error("a value carried as {expected:?} was expected, {found:?} was found")]
    OtherName {
        /// The name of the transcoder.
        expected: &'static str,
        /// The name it is carried under.
        found: String,
    },
    /// No transcoder of this name is registered. Register it.
    #[error("no transcoder is registered for {name:?}; register it")]
    Unknown {
        /// The name.
        name: String,
    },
    /// A transcoder of this name is registered already. Give one of them another name.
    #[error("two transcoders are called {name:?}; give one of them another name")]
    Twice {
        /// The name.
        name: &'static str,
    },
    /// The transcoder, or the wire form, refuses the value. Look at the value.
    #[error("{name:?} refuses the value: {source}")]
    Refused {
        /// The name of the transcoder.
        name: &'static str,
        /// What it said.
        #[source]
        source: Refusal,
    },
}

/// One carried value, as the innermost part of an [`As`]; also the way from and to values without a type, for upcasters.
///
/// ```
/// # use cim_persistence::evolution::{Refusal, Tagged, Transcoder};
/// # struct Yen;
/// # impl Transcoder for Yen {
/// #     const NAME: &'static str = "yen/1";
/// #     type Value = i64;
/// #     type Wire = String;
/// #     fn to_wire(yen: &i64) -> Result<String, Refusal> { Ok(yen.to_string()) }
/// #     fn from_wire(wire: String) -> Result<i64, Refusal> { Ok(wire.parse()?) }
/// # }
/// use ipld_core::ipld;
///
/// let carried = Tagged::<Yen>::to_ipld(&30)?;
/// assert_eq!(carried, ipld!({ "$type": "yen/1", "value": "30" }));
/// assert_eq!(Tagged::<Yen>::from_ipld(carried)?, 30);
/// # Ok::<(), cim_persistence::evolution::TranscodeError>(())
/// ```
pub struct Tagged<C>(PhantomData<fn() -> C>);

impl<C: Transcoder> Tagged<C> {
    /// A value as it is carried.
    ///
    /// # Errors
    /// [`TranscodeError::Refused`].
    pub fn to_ipld(value: &C::Value) -> Result<Ipld, TranscodeError> {
        let refused = |source| TranscodeError::Refused { name: C::NAME, source };
        let wire = C::to_wire(value).map_err(refused)?;
        let wire = ipld_core::serde::to_ipld(wire).map_err(|error| refused(Box::new(error)))?;
        let fields = [(NAME, Ipld::String(C::NAME.to_owned())), (VALUE, wire)];
        Ok(Ipld::Map(fields.map(|(field, value)| (field.to_owned(), value)).into()))
    }

    /// The value that is carried.
    ///
    /// # Errors
    /// [`TranscodeError::NotTagged`], [`TranscodeError::OtherName`], [`TranscodeError::Refused`].
    pub fn from_ipld(carried: Ipld) -> Result<C::Value, TranscodeError> {
        let (name, wire) = parts(carried).ok_or(TranscodeError::NotTagged)?;
        if name != C::NAME {
            return Err(TranscodeError::OtherName { expected: C::NAME, found: name });
        }
        let refused = |source| TranscodeError::Refused { name: C::NAME, source };
        let wire = from_value(Some(Codec::DagCbor), &wire);
        C::from_wire(wire.map_err(|error| refused(Box::new(error)))?).map_err(refused)
    }
}

/// Whether these are the fields of a carried value.
pub(super) fn is_carried(fields: &BTreeMap<String, Ipld>) -> bool {
    let named = matches!(fields.get(NAME), Some(Ipld::String(_)));
    fields.len() == 2 && named && fields.contains_key(VALUE)
}

/// The name and the wire form of a carried value; `None` for any other value.
fn parts(value: Ipld) -> Option<(String, Ipld)> {
    let Ipld::Map(mut fields) = value else { return None };
    match (fields.len(), fields.remove(NAME), fields.remove(VALUE)) {
        (2, Some(Ipld::String(name)), Some(wire)) => Some((name, wire)),
        _ => None,
    }
}

/// The place of carried values in a type that serde reads and writes: `#[serde(with = "As::<…>")]` with a [`Tagged`], or an
/// `Option`, a `Vec` or a `BTreeMap` by text of one, as deep as one likes.
///
/// Serde wants `#[serde(default)]` as well where an optional field may be missing.
pub struct As<F>(PhantomData<fn() -> F>);

impl<F: WireForm> As<F> {
    /// What serde calls to write the field.
    ///
    /// # Errors
    /// What the serializer or the transcoder says.
    pub fn serialize<S: Serializer>(value: &F::Value, serializer: S) -> Result<S::Ok, S::Error> {
        F::write(value, serializer)
    }

    /// What serde calls to read the field.
    ///
    /// # Errors
    /// What the deserializer or the transcoder says.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<F::Value, D::Error> {
        F::read(deserializer)
    }
}

mod sealed {
    pub trait Sealed {}
    impl<C> Sealed for super::Tagged<C> {}
    impl<F> Sealed for Option<F> {}
    impl<F> Sealed for Vec<F> {}
    impl<F> Sealed for super::BTreeMap<String, F> {}
}

/// What an [`As`] may hold.
pub trait WireForm: sealed::Sealed {
    /// What the domain has in this place.
    type Value;

    #[doc(hidden)]
    fn write<S: Serializer>(value: &Self::Value, serializer: S) -> Result<S::Ok, S::Error>;

    #[doc(hidden)]
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self::Value, D::Error>;
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'n, W> {
    #[serde(rename = "$type")]
    name: Cow<'n, str>,
    value: W,
}

impl<C: Transcoder> WireForm for Tagged<C> {
    type Value = C::Value;

    fn write<S: Serializer>(value: &C::Value, serializer: S) -> Result<S::Ok, S::Error> {
        let value = C::to_wire(value).map_err(|error| {
            S::Error::custom(TranscodeError::Refused { name: C::NAME, source: error })
        })?;
        Wire { name: Cow::Borrowed(C::NAME), value }.serialize(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<C::Value, D::Error> {
        let Wire { name, value } = Wire::<C::Wire>::deserialize(deserializer)?;
        if name != C::NAME {
            let (expected, found) = (C::NAME, name.into_owned());
            return Err(D::Error::custom(TranscodeError::OtherName { expected, found }));
        }
        C::from_wire(value).map_err(|error| {
            D::Error::custom(TranscodeError::Refused { name: C::NAME, source: error })
        })
    }
}

/// A value with its form, for the collections of serde.
struct Held<'v, F: WireForm>(&'v F::Value);

impl<F: WireForm> Serialize for Held<'_, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        F::write(self.0, serializer)
    }
}

struct Owned<F: WireForm>(F::Value);

impl<'de, F: WireForm> Deserialize<'de> for Owned<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        F::read(deserializer).map(Self)
    }
}

impl<F: WireForm> WireForm for Option<F> {
    type Value = Option<F::Value>;

    fn write<S: Serializer>(value: &Self::Value, serializer: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Held::<F>).serialize(serializer)
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self::Value, D::Error> {
        Ok(Option::<Owned<F>>::deserialize(deserializer)?.map(|owned| owned.0))
    }
}

impl<F: WireForm> WireForm for Vec<F> {
    type Value = Vec<F::Value>;

    fn write<S: Serializer>(value: &Self::Value, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(value.iter().map(Held::<F>))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self::Value, D::Error> {
        Ok(Vec::<Owned<F>>::deserialize(deserializer)?.into_iter().map(|owned| owned.0).collect())
    }
}

impl<F: WireForm> WireForm for BTreeMap<String, F> {
    type Value = BTreeMap<String, F::Value>;

    fn write<S: Serializer>(value: &Self::Value, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(value.iter().map(|(key, value)| (key, Held::<F>(value))))
    }

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self::Value, D::Error> {
        let read = BTreeMap::<String, Owned<F>>::deserialize(deserializer)?;
        Ok(read.into_iter().map(|(key, owned)| (key, owned.0)).collect())
    }
}

impl<C> std::fmt::Debug for Tagged<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tagged<{}>", type_name::<C>())
    }
}

impl<F> std::fmt::Debug for As<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "As<{}>", type_name::<F>())
    }
}
