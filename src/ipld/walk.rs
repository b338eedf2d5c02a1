//! A value that is only looked at: it decodes from anything that is valid IPLD and keeps nothing.

use std::fmt;

use cid::Cid;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Decodes and checks a whole value without building it.
///
/// serde's own `IgnoredAny` is not used, because the DAG-CBOR decoder skips over it unchecked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Walked;

impl<'de> Deserialize<'de> for Walked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Walk)
    }
}

struct Walk;

impl<'de> Visitor<'de> for Walk {
    type Value = Walked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any IPLD value")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Walked, E> {
        Ok(Walked)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Walked, E> {
        Ok(Walked)
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Walked, E> {
        Ok(Walked)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Walked, E> {
        Ok(Walked)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Walked, E> {
        Ok(Walked)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Walked, E> {
        Ok(Walked)
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Walked, E> {
        Ok(Walked)
    }

    fn visit_none<E: Error>(self) -> Result<Walked, E> {
        Ok(Walked)
    }

    fn visit_unit<E: Error>(self) -> Result<Walked, E> {
        Ok(Walked)
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Walked, D::Error> {
        inner.deserialize_any(Walk)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Walked, D::Error> {
        inner.deserialize_bytes(Link)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Walked, A::Error> {
        while seq.next_element::<Walked>()?.is_some() {}
        Ok(Walked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Walked, A::Error> {
        while map.next_entry::<Walked, Walked>()?.is_some() {}
        Ok(Walked)
    }
}

struct Link;

impl Visitor<'_> for Link {
    type Value = Walked;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of a CID")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Walked, E> {
        Cid::try_from(bytes).map_err(E::custom)?;
        Ok(Walked)
    }
}
