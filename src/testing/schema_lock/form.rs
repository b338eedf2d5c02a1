//! What a value looks like when it is stored: the paths in it, and what stands there.
//!
//! A serialiser that keeps no values. It is asked instead of looking at stored bytes because those do not tell a struct from a
//! map, an empty list from another, or a variant from a text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use ipld_core::ipld::Ipld;
use serde::ser::{self, Serialize, Serializer};

/// What stands at each path, in words.
pub(super) type Form = BTreeMap<String, String>;

/// A form to which samples are still added.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Draft(BTreeMap<String, BTreeSet<String>>);

impl Draft {
    /// Adds what a sample shows.
    ///
    /// # Errors
    /// What the sample's own serialisation says.
    pub(super) fn add<T: Serialize + ?Sized>(&mut self, sample: &T) -> Result<(), Unstorable> {
        sample.serialize(Place { draft: self, path: String::new() })
    }

    /// The form, with the kinds that may be missing last.
    pub(super) fn finish(self) -> Form {
        let in_words = |(path, kinds): (String, BTreeSet<String>)| {
            let (last, first): (Vec<_>, Vec<_>) =
                kinds.into_iter().partition(|kind| kind == "null" || kind == "absent");
            let path = if path.is_empty() { ".".to_owned() } else { path };
            (path, [first, last].concat().join(" or "))
        };
        self.0.into_iter().map(in_words).collect()
    }

    fn note(&mut self, path: String, kind: impl Into<String>) {
        self.0.entry(path).or_default().insert(kind.into());
    }
}

/// Why a sample cannot be serialised.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unstorable(String);

impl ser::Error for Unstorable {
    fn custom<T: Display>(text: T) -> Self {
        Self(text.to_string())
    }
}

/// Where in a sample a value stands.
struct Place<'a> {
    draft: &'a mut Draft,
    path: String,
}

impl<'a> Place<'a> {
    fn is(self, kind: impl Into<String>) -> Result<(), Unstorable> {
        self.draft.note(self.path, kind);
        Ok(())
    }

    /// The same value or one in it, reached by another step.
    fn below(&mut self, step: &str) -> Place<'_> {
        Place { path: format!("{}{step}", self.path), draft: self.draft }
    }

    /// The value of an enum's variant that has one.
    fn variant(mut self, name: &str) -> Self {
        self.path.push_str(&field(name));
        self
    }

    fn tuple(self, length: usize) -> Tuple<'a> {
        self.draft.note(self.path.clone(), format!("list of {length}"));
        Tuple { place: self, elements: Vec::new() }
    }

    fn fields(self, number: usize) -> Fields<'a> {
        if number == 0 {
            self.draft.note(self.path.clone(), "struct without fields");
        }
        Fields { place: self, key: None }
    }
}

fn field(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(plain) {
        format!(".{name}")
    } else {
        format!(".{name:?}")
    }
}

macro_rules! leaves {
    ($($method:ident $type:ty => $kind:literal)*) => {
        $(fn $method(self, _: $type) -> Result<(), Unstorable> {
            self.is($kind)
        })*
    };
}

impl<'a> Serializer for Place<'a> {
    type Ok = ();
    type Error = Unstorable;
    type SerializeSeq = List<'a>;
    type SerializeTuple = Tuple<'a>;
    type SerializeTupleStruct = Tuple<'a>;
    type SerializeTupleVariant = Tuple<'a>;
    type SerializeMap = Fields<'a>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = Fields<'a>;

    leaves! {
        serialize_bool bool => "bool"
        serialize_i8 i8 => "i8"
        serialize_i16 i16 => "i16"
        serialize_i32 i32 => "i32"
        serialize_i64 i64 => "i64"
        serialize_i128 i128 => "i128"
        serialize_u8 u8 => "u8"
        serialize_u16 u16 => "u16"
        serialize_u32 u32 => "u32"
        serialize_u64 u64 => "u64"
        serialize_u128 u128 => "u128"
        serialize_f32 f32 => "f32"
        serialize_f64 f64 => "f64"
        serialize_char char => "text"
        serialize_str &str => "text"
        serialize_bytes &[u8] => "bytes"
        serialize_unit_struct &'static str => "null"
    }

    fn serialize_none(self) -> Result<(), Unstorable> {
        self.is("null")
    }

    fn serialize_unit(self) -> Result<(), Unstorable> {
        self.is("null")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unstorable> {
        value.serialize(self)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Unstorable> {
        self.is(format!("'{variant}'"))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Unstorable> {
        if name == cid::serde::CID_SERDE_PRIVATE_IDENTIFIER {
            return self.is("link");
        }
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Unstorable> {
        value.serialize(self.variant(variant))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'a>, Unstorable> {
        self.draft.note(self.path.clone(), "list");
        Ok(List(self))
    }

    fn serialize_tuple(self, length: usize) -> Result<Tuple<'a>, Unstorable> {
        Ok(self.tuple(length))
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        length: usize,
    ) -> Result<Tuple<'a>, Unstorable> {
        Ok(self.tuple(length))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Tuple<'a>, Unstorable> {
        Ok(self.variant(variant).tuple(length))
    }

    /// A map of which nobody knows the length is a struct into which serde has flattened another one.
    fn serialize_map(self, length: Option<usize>) -> Result<Fields<'a>, Unstorable> {
        let key = length.map(|_| Key::Any);
        if key.is_some() {
            self.draft.note(self.path.clone(), "map");
        }
        Ok(Fields { place: self, key })
    }

    fn serialize_struct(self, _: &'static str, number: usize) -> Result<Fields<'a>, Unstorable> {
        Ok(self.fields(number))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        number: usize,
    ) -> Result<Fields<'a>, Unstorable> {
        Ok(self.variant(variant).fields(number))
    }

    /// As DAG-CBOR, in which events are stored unless a context is configured otherwise.
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// A list of any length. Its elements are alternatives.
struct List<'a>(Place<'a>);

impl ser::SerializeSeq for List<'_> {
    type Ok = ();
    type Error = Unstorable;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unstorable> {
        value.serialize(self.0.below("[]"))
    }

    fn end(self) -> Result<(), Unstorable> {
        Ok(())
    }
}

/// A list of a certain length. Its elements are told apart by their place, unless all look the same.
struct Tuple<'a> {
    place: Place<'a>,
    elements: Vec<Draft>,
}

impl Tuple<'_> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unstorable> {
        let mut draft = Draft::default();
        draft.add(value)?;
        self.elements.push(draft);
        Ok(())
    }

    fn finish(mut self) {
        let same = self.elements.windows(2).all(|two| two[0] == two[1]);
        for (at, draft) in self.elements.into_iter().enumerate() {
            let step = if same { "[]".to_owned() } else { format!("[{at}]") };
            let element = self.place.below(&step);
            for (path, kinds) in draft.0 {
                let path = format!("{}{path}", element.path);
                element.draft.0.entry(path).or_default().extend(kinds);
            }
        }
    }
}

macro_rules! tuple {
    ($trait:ident $method:ident) => {
        impl ser::$trait for Tuple<'_> {
            type Ok = ();
            type Error = Unstorable;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unstorable> {
                self.element(value)
            }

            fn end(self) -> Result<(), Unstorable> {
                self.finish();
                Ok(())
            }
        }
    };
}

tuple!(SerializeTuple serialize_element);
tuple!(SerializeTupleStruct serialize_field);
tuple!(SerializeTupleVariant serialize_field);

/// The fields of a struct, or the entries of a map.
struct Fields<'a> {
    place: Place<'a>,
    key: Option<Key>,
}

enum Key {
    /// The map's keys are data, all of them.
    Any,
    /// The key that the next value belongs to.
    Field(String),
}

impl Fields<'_> {
    fn value<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Unstorable> {
        value.serialize(self.place.below(&field(name)))
    }

    fn absent(&mut self, name: &str) -> Result<(), Unstorable> {
        self.place.below(&field(name)).is("absent")
    }
}

impl ser::SerializeMap for Fields<'_> {
    type Ok = ();
    type Error = Unstorable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unstorable> {
        match (&self.key, ipld_core::serde::to_ipld(key)) {
            (Some(Key::Any), _) => {}
            (_, Ok(Ipld::String(name))) => self.key = Some(Key::Field(name)),
            _ => {
                return Err(ser::Error::custom(
                    "a field that is flattened has a name that is no text",
                ));
            }
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unstorable> {
        let step = match &self.key {
            Some(Key::Field(name)) => field(name),
            _ => "{}".to_owned(),
        };
        value.serialize(self.place.below(&step))
    }

    fn end(self) -> Result<(), Unstorable> {
        Ok(())
    }
}

macro_rules! fields {
    ($trait:ident) => {
        impl ser::$trait for Fields<'_> {
            type Ok = ();
            type Error = Unstorable;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), Unstorable> {
                self.value(name, value)
            }

            fn skip_field(&mut self, name: &'static str) -> Result<(), Unstorable> {
                self.absent(name)
            }

            fn end(self) -> Result<(), Unstorable> {
                Ok(())
            }
        }
    };
}

fields!(SerializeStruct);
fields!(SerializeStructVariant);
