//! The library's bytes are the measure.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use uuid::Uuid;

use super::append;

/// Writes with both, and compares. Whether it was of the usual shapes.
fn is_written_the_same<T: Serialize>(value: &T) -> bool {
    let (bytes, written) = append(b"before".to_vec(), value);
    match written {
        Ok(()) => {
            let wanted = serde_ipld_dagcbor::to_vec(value).unwrap();
            assert_eq!(bytes, [b"before", wanted.as_slice()].concat());
            true
        }
        Err(_) => {
            assert_eq!(bytes, b"before");
            false
        }
    }
}

#[derive(serde::Serialize)]
struct Everything {
    zebra: bool,
    a: (u8, i8, u16, i16),
    wide: (u32, i32, u64, i64),
    list: Vec<Option<f32>>,
    nested: BTreeMap<String, Shape>,
    id: Uuid,
    letter: char,
    unit: (),
    nothing: Nothing,
    wrapped: Wrapped,
    pair: Pair,
}

#[derive(serde::Serialize)]
struct Nothing;

#[derive(serde::Serialize)]
struct Wrapped(&'static str);

#[derive(serde::Serialize)]
struct Pair(i64, f64);

#[derive(serde::Serialize)]
enum Shape {
    Point,
    Circle(f64),
    Rectangle { width: u32, height: u32, name: String },
    Line(u8, u8),
}

fn everything() -> Everything {
    let rectangle = Shape::Rectangle { width: 3, height: 70_000, name: "ä".into() };
    Everything {
        zebra: true,
        a: (255, -128, 65_535, -32_768),
        wide: (u32::MAX, i32::MIN, u64::MAX, i64::MIN),
        list: vec![Some(1.5), None, Some(-0.0)],
        nested: [
            ("longer".to_owned(), Shape::Point),
            ("b".to_owned(), Shape::Circle(-0.0)),
            ("a".to_owned(), rectangle),
        ]
        .into(),
        id: Uuid::from_u128(7),
        letter: 'ß',
        unit: (),
        nothing: Nothing,
        wrapped: Wrapped("inside"),
        pair: Pair(-1, 1e300),
    }
}

#[test]
fn types_of_every_shape_are_written_as_the_library_does() {
    assert!(is_written_the_same(&everything()));
}

#[test]
fn what_is_not_usual_is_left_to_the_library() {
    let cid: cid::Cid =
        "bafyreigdmqpykrgxyaxtlafqpqhzrb7qy2rh75nldvfd4tucqmqqme5yje".parse().unwrap();
    assert!(!is_written_the_same(&cid));
    assert!(!is_written_the_same(&vec![1.0, f64::NAN]));
    assert!(!is_written_the_same(&Shape::Line(1, 2)));
    assert!(!is_written_the_same(&(1_u128, -1_i128)));
    assert!(!is_written_the_same(&BTreeMap::from([(1, 2)])));
}

/// A map or list that says it is longer than it is.
struct Short(bool);

impl Serialize for Short {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 {
            let mut map = serializer.serialize_map(Some(2))?;
            map.serialize_entry("a", &1)?;
            return map.end();
        }
        let mut list = serializer.serialize_seq(Some(2))?;
        list.serialize_element(&1)?;
        list.end()
    }
}

#[test]
fn a_wrong_length_is_left_to_the_library() {
    assert!(!is_written_the_same(&Short(true)));
    assert!(!is_written_the_same(&Short(false)));
}

#[derive(Debug, Clone)]
enum Tree {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_none(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Unsigned(value) => serializer.serialize_u64(*value),
            Self::Signed(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Bytes(value) => serializer.serialize_bytes(value),
            Self::List(values) => serializer.collect_seq(values),
            Self::Map(entries) => serializer.collect_map(entries.iter().map(|(k, v)| (k, v))),
        }
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        Just(Tree::Null),
        any::<bool>().prop_map(Tree::Bool),
        any::<u64>().prop_map(Tree::Unsigned),
        any::<i64>().prop_map(Tree::Signed),
        (0_u64..70_000).prop_map(Tree::Unsigned),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Tree::Float),
        ".{0,30}".prop_map(Tree::Text),
        vec(any::<u8>(), 0..300).prop_map(Tree::Bytes),
    ];
    leaf.prop_recursive(5, 60, 20, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..20).prop_map(Tree::List),
            vec(("[a-c]{0,4}|.{0,30}", inner), 0..20).prop_map(Tree::Map),
        ]
    })
}

proptest! {
    #[test]
    fn trees_are_written_as_the_library_does(tree in trees()) {
        prop_assert!(is_written_the_same(&tree));
    }
}
