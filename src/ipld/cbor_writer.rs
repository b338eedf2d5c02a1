//! DAG-CBOR of the usual shapes, in one pass.
//!
//! `serde_ipld_dagcbor` writes each field of a map into a buffer of its own, to sort them. Here they are written where
//! they are to lie, and moved only if they came in another order. What is not usual, as links and numbers of 128 bits, and
//! what has no form in DAG-CBOR is left to that library: its bytes are the measure, and its errors are what callers see.

use std::fmt;
use std::ops::Range;

use ipld_core::cid::serde::CID_SERDE_PRIVATE_IDENTIFIER;
use serde::ser::{self, Impossible, Serialize, Serializer};
use smallvec::SmallVec;

/// As many fields as most maps have, or more.
const USUAL_FIELDS: usize = 16;

const MAP: u8 = 5;
const LIST: u8 = 4;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
pub(super) const NULL: u8 = 0xf6;
const FLOAT: u8 = 0xfb;

/// Writes a value behind what is there already; nothing when it is not of the usual shapes.
pub(super) fn append<T: Serialize + ?Sized>(
    out: Vec<u8>,
    value: &T,
) -> (Vec<u8>, Result<(), Unusual>) {
    let start = out.len();
    let mut writer = Writer(out);
    let written = value.serialize(&mut writer);
    if written.is_err() {
        writer.0.truncate(start);
    }
    (writer.0, written)
}

pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    head(out, TEXT, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    let bytes = argument.to_be_bytes();
    match argument {
        0..24 => out.push(major | bytes[7]),
        24..0x100 => out.extend_from_slice(&[major | 24, bytes[7]]),
        0x100..0x1_0000 => out.extend_from_slice(&[major | 25, bytes[6], bytes[7]]),
        0x1_0000..0x1_0000_0000 => {
            out.push(major | 26);
            out.extend_from_slice(&bytes[4..]);
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&bytes);
        }
    }
}

/// A value of another shape, or of none.
#[derive(Debug)]
pub(super) struct Unusual;

impl fmt::Display for Unusual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not of the usual shapes")
    }
}

impl std::error::Error for Unusual {}

impl ser::Error for Unusual {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

type Written = Result<(), Unusual>;

struct Writer(Vec<u8>);

impl Writer {
    fn head(&mut self, major: u8, argument: u64) -> Written {
        head(&mut self.0, major, argument);
        Ok(())
    }

    fn byte(&mut self, byte: u8) -> Written {
        self.0.push(byte);
        Ok(())
    }

    fn list(&mut self, length: usize) -> Elements<'_> {
        head(&mut self.0, LIST, length as u64);
        Elements { writer: self, missing: length }
    }

    fn map(&mut self, length: usize) -> Entries<'_> {
        head(&mut self.0, MAP, length as u64);
        Entries { writer: self, length, starts: SmallVec::new() }
    }

    /// An enum's variant that holds something: a map from its name.
    fn variant(&mut self, name: &str) {
        head(&mut self.0, MAP, 1);
        text(&mut self.0, name);
    }
}

/// Numbers that are written as wider ones.
macro_rules! widened {
    ($($method:ident $number:ty => $wider:ident)*) => {$(
        fn $method(self, value: $number) -> Written {
            self.$wider(value.into())
        }
    )*};
}

impl<'w> Serializer for &'w mut Writer {
    type Ok = ();
    type Error = Unusual;
    type SerializeSeq = Elements<'w>;
    type SerializeTuple = Elements<'w>;
    type SerializeTupleStruct = Elements<'w>;
    type SerializeTupleVariant = Impossible<(), Unusual>;
    type SerializeMap = Entries<'w>;
    type SerializeStruct = Entries<'w>;
    type SerializeStructVariant = Entries<'w>;

    fn is_human_readable(&self) -> bool {
        false
    }

    widened! {
        serialize_i8 i8 => serialize_i64
        serialize_i16 i16 => serialize_i64
        serialize_i32 i32 => serialize_i64
        serialize_u8 u8 => serialize_u64
        serialize_u16 u16 => serialize_u64
        serialize_u32 u32 => serialize_u64
        serialize_f32 f32 => serialize_f64
    }

    fn serialize_bool(self, value: bool) -> Written {
        self.byte(if value { TRUE } else { FALSE })
    }

    fn serialize_i64(self, value: i64) -> Written {
        match u64::try_from(value) {
            Ok(value) => self.head(0, value),
            Err(_) => self.head(1, !value as u64),
        }
    }

    fn serialize_u64(self, value: u64) -> Written {
        self.head(0, value)
    }

    fn serialize_f64(self, value: f64) -> Written {
        if !value.is_finite() {
            return Err(Unusual);
        }
        // Both zeros are one.
        let value = if value == 0.0 { 0.0 } else { value };
        self.0.push(FLOAT);
        self.0.extend_from_slice(&value.to_be_bytes());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Written {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Written {
        text(&mut self.0, value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Written {
        head(&mut self.0, BYTES, value.len() as u64);
        self.0.extend_from_slice(value);
        Ok(())
    }

    fn serialize_none(self) -> Written {
        self.byte(NULL)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Written {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Written {
        self.byte(NULL)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Written {
        self.byte(NULL)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Written {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Written {
        match name {
            CID_SERDE_PRIVATE_IDENTIFIER => Err(Unusual),
            _ => value.serialize(self),
        }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Written {
        self.variant(variant);
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Elements<'w>, Unusual> {
        length.map(|length| self.list(length)).ok_or(Unusual)
    }

    fn serialize_tuple(self, length: usize) -> Result<Elements<'w>, Unusual> {
        Ok(self.list(length))
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        length: usize,
    ) -> Result<Elements<'w>, Unusual> {
        Ok(self.list(length))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Unusual> {
        Err(Unusual)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Entries<'w>, Unusual> {
        length.map(|length| self.map(length)).ok_or(Unusual)
    }

    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Entries<'w>, Unusual> {
        Ok(self.map(length))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Entries<'w>, Unusual> {
        self.variant(variant);
        Ok(self.map(length))
    }
}

/// The elements of a list whose length is written already.
struct Elements<'w> {
    writer: &'w mut Writer,
    missing: usize,
}

impl Elements<'_> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        self.missing = self.missing.checked_sub(1).ok_or(Unusual)?;
        value.serialize(&mut *self.writer)
    }

    fn finish(self) -> Written {
        if self.missing == 0 { Ok(()) } else { Err(Unusual) }
    }
}

/// The entries of a map whose length is written already.
struct Entries<'w> {
    writer: &'w mut Writer,
    length: usize,
    /// Where each entry begins.
    starts: SmallVec<[usize; USUAL_FIELDS]>,
}

impl Entries<'_> {
    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Written {
        let start = self.writer.0.len();
        self.starts.push(start);
        key.serialize(&mut *self.writer)?;
        let is_text = self.writer.0.get(start).is_some_and(|byte| byte >> 5 == TEXT);
        if is_text { Ok(()) } else { Err(Unusual) }
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Written {
        value.serialize(&mut *self.writer)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Written {
        self.key(name)?;
        self.value(value)
    }

    /// Puts the entries into the order of DAG-CBOR: that of their bytes, since a key begins with its length.
    fn finish(self) -> Written {
        let Self { writer: Writer(out), length, starts } = self;
        if starts.len() != length {
            return Err(Unusual);
        }
        let Some(first) = starts.first().copied() else { return Ok(()) };
        let ends = starts.iter().skip(1).copied().chain([out.len()]);
        let entries = starts.iter().zip(ends).map(|(start, end)| start - first..end - first);
        let mut entries: SmallVec<[Range<usize>; USUAL_FIELDS]> = entries.collect();
        let all = &out[first..];
        if entries.is_sorted_by(|a, b| all[a.clone()] <= all[b.clone()]) {
            return Ok(());
        }
        let written = out.split_off(first);
        entries.sort_unstable_by(|a, b| written[a.clone()].cmp(&written[b.clone()]));
        entries.into_iter().for_each(|entry| out.extend_from_slice(&written[entry]));
        Ok(())
    }
}

/// The traits of what has parts, each with how it takes them.
macro_rules! parts {
    ($($taker:ident as $as:ident { $(fn $method:ident($($part:ident: $type:ty),+) => $take:expr;)+ })*) => {$(
        impl ser::$as for $taker<'_> {
            type Ok = ();
            type Error = Unusual;

            $(fn $method<T: Serialize + ?Sized>(&mut self, $($part: $type),+) -> Written {
                $take(self, $($part),+)
            })+

            fn end(self) -> Written {
                self.finish()
            }
        }
    )*};
}

parts! {
    Elements as SerializeSeq { fn serialize_element(value: &T) => Self::element; }
    Elements as SerializeTuple { fn serialize_element(value: &T) => Self::element; }
    Elements as SerializeTupleStruct { fn serialize_field(value: &T) => Self::element; }
    Entries as SerializeMap {
        fn serialize_key(key: &T) => Self::key;
        fn serialize_value(value: &T) => Self::value;
    }
    Entries as SerializeStruct { fn serialize_field(name: &'static str, value: &T) => Self::field; }
    Entries as SerializeStructVariant {
        fn serialize_field(name: &'static str, value: &T) => Self::field;
    }
}

#[cfg(test)]
mod tests;
