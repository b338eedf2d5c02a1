//! Carried values by name, for readers that do not have the type around them.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;

use ipld_core::ipld::Ipld;

use super::transcode::{NAME, is_carried};
use super::{Tagged, TranscodeError, Transcoder};

type Decode = fn(Ipld) -> Result<Box<dyn Any>, TranscodeError>;

/// Transcoders by their names: for whoever reads values whose types it does not know, such as `StoredEvent::data` as `Ipld`.
///
/// ```
/// # use cim_persistence::evolution::{Refusal, Tagged, Transcoder, Transcoders};
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
/// let transcoders = Transcoders::new().with::<Yen>()?;
/// let yen = transcoders.decode(ipld!({ "$type": "yen/1", "value": "30" }))?;
/// assert_eq!(yen.downcast_ref::<i64>(), Some(&30));
///
/// let event = ipld!({ "Placed": { "parts": [{ "$type": "yen/1", "value": "many" }] } });
/// assert!(transcoders.check(&event).is_err());
/// # Ok::<(), cim_persistence::evolution::TranscodeError>(())
/// ```
#[derive(Clone, Default)]
pub struct Transcoders {
    by_name: BTreeMap<&'static str, Decode>,
}

impl Transcoders {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    ///
    /// # Errors
    /// [`TranscodeError::Twice`] when there is one of its name.
    pub fn with<C: Transcoder>(mut self) -> Result<Self, TranscodeError> {
        let decode: Decode = |carried| Ok(Box::new(Tagged::<C>::from_ipld(carried)?));
        match self.by_name.insert(C::NAME, decode) {
            None => Ok(self),
            Some(_) => Err(TranscodeError::Twice { name: C::NAME }),
        }
    }

    /// The value that is carried, by the transcoder that its name says.
    ///
    /// # Errors
    /// [`TranscodeError::NotTagged`], [`TranscodeError::Unknown`], [`TranscodeError::Refused`].
    pub fn decode(&self, carried: Ipld) -> Result<Box<dyn Any>, TranscodeError> {
        let Ipld::Map(fields) = &carried else { return Err(TranscodeError::NotTagged) };
        let Some(Ipld::String(name)) = fields.get(NAME) else {
            return Err(TranscodeError::NotTagged);
        };
        match self.by_name.get(name.as_str()) {
            Some(decode) => decode(carried),
            None => Err(TranscodeError::Unknown { name: name.clone() }),
        }
    }

    /// Whether every carried value in a value, however deep, is one that can be decoded.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), for the first one that cannot.
    pub fn check(&self, value: &Ipld) -> Result<(), TranscodeError> {
        match value {
            Ipld::List(list) => list.iter().try_for_each(|inner| self.check(inner)),
            Ipld::Map(fields) => {
                if is_carried(fields) {
                    self.decode(value.clone())?;
                }
                fields.values().try_for_each(|inner| self.check(inner))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Transcoders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}
