//! What specifications promise: what they mean, which pages they give, how they read as text.

mod evaluation;
mod paging;
mod queries;
mod refusals;
mod values;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use serde_json::{Map, Value, json};

use super::{Field, Specification};

/// A short text in which like and quotes have something to do.
fn text() -> impl Strategy<Value = String> {
    let special = prop_oneof![Just('%'), Just('_'), Just('\\'), Just('\''), Just('"'), Just('`')];
    let plain = prop_oneof![Just('a'), Just('b'), Just('é'), Just('\n')];
    vec(prop_oneof![1 => special, 3 => plain], 0..4).prop_map(|chars| chars.into_iter().collect())
}

/// A value that is not null and meets its like often: halves, texts, lists of them.
fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-4_i64..4).prop_map(Value::from),
        (-8_i64..8).prop_map(|halves| json!(halves as f64 / 2.0)),
        text().prop_map(Value::from),
    ];
    let scalar = scalar.boxed();
    prop_oneof![
        4 => scalar.clone(),
        1 => vec(prop_oneof![Just(Value::Null), scalar.clone()], 0..3).prop_map(Value::from),
        1 => vec((text(), scalar), 0..3).prop_map(|entries| Map::from_iter(entries).into()),
    ]
}

fn a_field() -> impl Strategy<Value = Field> {
    let names =
        [vec!["a"], vec!["b"], vec!["c", "d"], vec!["c.d"], vec!["order"], vec!["c", "in `"]];
    proptest::sample::select(names.to_vec()).prop_map(Field::path)
}

/// A document in which each field is there, null or missing.
fn document() -> impl Strategy<Value = Value> {
    let entry = (a_field(), prop_oneof![1 => Just(Value::Null), 5 => value()]);
    vec(entry, 0..6).prop_map(|entries| {
        let mut document = Map::new();
        for (field, value) in entries {
            match field.names() {
                [name] => drop(document.insert(name.clone(), value)),
                [outer, name, ..] => {
                    let inner = document.entry(outer.clone()).or_insert_with(|| json!({}));
                    inner[name] = value;
                }
                [] => {}
            }
        }
        document.into()
    })
}

/// A specification as the builders make it.
fn specification() -> impl Strategy<Value = Specification> {
    let condition = prop_oneof![
        (a_field(), value()).prop_map(|(field, value)| field.eq(value)),
        (a_field(), value()).prop_map(|(field, value)| field.ne(value)),
        (a_field(), value()).prop_map(|(field, value)| field.gt(value)),
        (a_field(), value()).prop_map(|(field, value)| field.ge(value)),
        (a_field(), value()).prop_map(|(field, value)| field.lt(value)),
        (a_field(), value()).prop_map(|(field, value)| field.le(value)),
        (a_field(), vec(value(), 0..4)).prop_map(|(field, values)| field.is_in(values)),
        (a_field(), vec(value(), 0..4)).prop_map(|(field, values)| field.not_in(values)),
        (a_field(), value(), value()).prop_map(|(field, low, high)| field.between(low, high)),
        (a_field(), value()).prop_map(|(field, value)| field.contains(value)),
        (a_field(), text()).prop_map(|(field, text)| field.starts_with(text)),
        (a_field(), text()).prop_map(|(field, text)| field.ends_with(text)),
        (a_field(), text()).prop_map(|(field, text)| field.like(text)),
        (a_field(), text()).prop_map(|(field, text)| field.regex(regex::escape(&text))),
        a_field().prop_map(Field::is_null),
        a_field().prop_map(Field::is_not_null),
    ];
    condition.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Specification::all),
            vec(inner.clone(), 0..4).prop_map(Specification::any),
            inner.prop_map(Specification::not),
        ]
    })
}
