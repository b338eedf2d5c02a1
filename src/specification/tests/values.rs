//! The order of values, and what typed models become.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::value;
use crate::specification::{SpecificationError, compare, document_of, field, fields_of};

#[test]
fn values_of_all_kinds_stand_in_one_order() {
    let ordered = [
        json!(null),
        json!(false),
        json!(true),
        json!(-1e300),
        json!(i64::MIN),
        json!(-1.5),
        json!(-1),
        json!(-0.5),
        json!(0),
        json!(1e-300),
        json!(1),
        json!(1.5),
        json!(9_007_199_254_740_992_u64),
        json!(9_007_199_254_740_993_u64),
        json!(i64::MAX),
        json!(9_223_372_036_854_775_808.0),
        json!(9_223_372_036_854_775_809_u64),
        json!(u64::MAX),
        json!(18_446_744_073_709_551_616.0),
        json!(""),
        json!("Z"),
        json!("a"),
        json!("a\u{0}"),
        json!("\u{FFFF}"),
        json!("\u{10000}"),
        json!([]),
        json!([null]),
        json!([1, 2]),
        json!([1, 2, null]),
        json!([2]),
        json!({}),
        json!({"a": 1}),
        json!({"a": 1, "b": 0}),
        json!({"a": 2}),
        json!({"b": 0}),
    ];
    for (i, one) in ordered.iter().enumerate() {
        for (j, other) in ordered.iter().enumerate() {
            assert_eq!(compare(one, other), i.cmp(&j), "{one} and {other}");
        }
    }
    for (one, other) in
        [(json!(1), json!(1.0)), (json!(0), json!(-0.0)), (json!([1]), json!([1.0]))]
    {
        assert_eq!(compare(&one, &other), Ordering::Equal, "{one} and {other}");
    }
}

#[derive(Serialize, Deserialize)]
struct Board {
    carrier: String,
    delay: Option<f32>,
    #[serde(rename = "lastFlight")]
    last: u64,
}

#[derive(Serialize, Deserialize)]
struct Wrapped(Option<Board>);

#[derive(Serialize, Deserialize)]
enum Kind {
    Empty {},
}

#[derive(Serialize, Deserialize)]
struct Open {
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[test]
fn the_fields_of_a_struct_are_known_and_those_of_other_types_are_not() {
    assert_eq!(fields_of::<Board>(), Some(["carrier", "delay", "lastFlight"].as_slice()));
    assert_eq!(fields_of::<Wrapped>(), fields_of::<Board>());
    assert_eq!(fields_of::<Open>(), None);
    assert_eq!(fields_of::<Kind>(), None);
    assert_eq!(fields_of::<BTreeMap<String, Value>>(), None);
    assert_eq!(fields_of::<(Board, u8)>(), None);
    assert_eq!(fields_of::<Value>(), None);
}

#[test]
fn a_model_that_was_just_made_is_asked_like_the_stored_one() {
    let board = Board { carrier: "B6".to_owned(), delay: Some(0.1), last: u64::MAX };
    let stored: Value = serde_json::from_str(&serde_json::to_string(&board).unwrap()).unwrap();
    let document = document_of(&board).unwrap();
    assert_eq!(document, stored);
    let asked = field("delay").eq(0.1).and(field("lastFlight").eq(u64::MAX)).compile().unwrap();
    assert!(asked.matches(&document));
}

#[test]
fn a_model_that_is_no_json_is_refused() {
    let error = document_of(&BTreeMap::from([((1, 2), 3)])).unwrap_err();
    assert_eq!(error, SpecificationError::NotJson { reason: "key must be a string".to_owned() });
}

proptest! {
    #[test]
    fn the_order_is_total(a in value(), b in value(), c in value()) {
        prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
        if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
            prop_assert!(compare(&a, &c).is_le());
        }
    }

    #[test]
    fn a_float_is_the_same_after_it_was_stored(float in any::<f64>()) {
        let document = document_of(&json!({"delay": float})).unwrap();
        if float.is_finite() {
            prop_assert!(field("delay").eq(float).compile().unwrap().matches(&document));
        }
    }

    #[test]
    fn integers_and_floats_compare_as_they_do_in_decimal(integer in any::<i64>(), near in -3_i64..3) {
        let float = integer.saturating_add(near) as f64;
        // Exact, since a float of this size is an integer.
        let expected = i128::from(integer).cmp(&(float as i128));
        prop_assert_eq!(compare(&json!(integer), &json!(float)), expected);
        prop_assert_eq!(compare(&json!(float), &json!(integer)), expected.reverse());
    }
}
