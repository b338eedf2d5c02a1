//! A range becomes patterns that miss nothing, and the look at the document is exact.

use proptest::prelude::*;
use serde_json::json;

use super::super::IndexSpec;
use super::*;
use crate::read_model::index::entries;
use crate::subject::AggregateId;

fn shelf() -> Shelf {
    Shelf::new("board", 1)
}

fn index(spec: IndexSpec) -> Index {
    Index::new(&spec).unwrap()
}

fn id() -> AggregateId {
    AggregateId::from_tokens(["JFK", "42"]).unwrap()
}

/// How many of the patterns match the document's entries.
fn found(lookup: &IndexLookup, index: &Index, document: &Value) -> usize {
    let keys = entries(std::slice::from_ref(index), &shelf(), &id(), document).unwrap();
    assert!(keys.iter().all(|key| index.id_of(&shelf(), key) == Some(id())));
    let patterns = lookup.patterns(index, &shelf()).unwrap();
    assert!(patterns.len() <= MAX_PATTERNS, "{} patterns", patterns.len());
    patterns.iter().filter(|pattern| keys.iter().any(|key| pattern.matches(key.as_str()))).count()
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-100_i64..100).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-50_i32..50).prop_map(|n| Value::from(f64::from(n) / 8.0)),
        ".{0,12}".prop_map(Value::from),
        "[A-C]{0,10}".prop_map(Value::from),
        (1_000_000_u32..1_000_200).prop_map(|n| Value::from(format!("2013-01-01T00:00:00.{n}Z"))),
        (0_u32..24).prop_map(|n| Value::from(format!("2013-01-01T{n:02}:00:00+01:00"))),
    ]
}

fn bound() -> impl Strategy<Value = Bound<Value>> {
    prop_oneof![
        value().prop_map(Bound::Included),
        value().prop_map(Bound::Excluded),
        Just(Bound::Unbounded)
    ]
}

proptest! {
    #[test]
    fn a_range_misses_nothing(value in value(), from in bound(), to in bound(), time: bool) {
        let spec = IndexSpec::on(["x"]);
        let index = index(if time { spec.time("x") } else { spec });
        let lookup = IndexLookup::range((from, to));
        let document = json!({ "x": value });
        let patterns = found(&lookup, &index, &document);
        prop_assert!(patterns <= 1, "patterns overlap");
        prop_assert!(patterns == 1 || !lookup.matches(&index, &document));
    }

    #[test]
    fn equality_is_one_pattern_and_misses_nothing(a in value(), b in value(), time: bool) {
        let spec = IndexSpec::on(["x"]);
        let index = index(if time { spec.time("x") } else { spec });
        let lookup = IndexLookup::equal([b]);
        prop_assert_eq!(lookup.patterns(&index, &shelf()).unwrap().len(), 1);
        let document = json!({ "x": a });
        prop_assert!(found(&lookup, &index, &document) == 1 || !lookup.matches(&index, &document));
    }

    /// As a query asks for a list of values and a range.
    #[test]
    fn what_is_asked_at_once_is_what_is_asked_one_by_one(
        x in value(), y in value(), asked in prop::collection::vec(value(), 0..17), from in bound(), to in bound(), time: bool,
    ) {
        let spec = IndexSpec::on(["x", "y"]);
        let index = index(if time { spec.time("y") } else { spec });
        let one = |value: Value| IndexLookup::equal([value]).within((from.clone(), to.clone()));
        let lookups: Vec<_> = asked.into_iter().map(one).collect();
        let (all, document) = (IndexLookup::any_of(&lookups), json!({ "x": x, "y": y }));
        let meant = lookups.iter().any(|lookup| lookup.matches(&index, &document));
        prop_assert_eq!(all.matches(&index, &document), meant);
        let keys = entries(std::slice::from_ref(&index), &shelf(), &id(), &document).unwrap();
        let patterns = all.patterns(&index, &shelf()).unwrap();
        prop_assert!(patterns.len() <= 16 * 20, "{} patterns", patterns.len());
        let found = patterns.iter().filter(|one| keys.iter().any(|key| one.matches(key.as_str())));
        let found = found.count();
        prop_assert!(found <= 1, "patterns overlap");
        prop_assert!(found == 1 || !meant);
    }

    #[test]
    fn fields_are_told_apart(a in value(), b in value(), c in value(), d in value(), from in bound()) {
        let index = index(IndexSpec::on(["x", "y"]));
        let document = json!({ "x": a, "y": b });
        let both = IndexLookup::equal([c.clone(), d.clone()]);
        let first = IndexLookup::equal([c]).within((from, Bound::Included(d)));
        for lookup in [both, first] {
            prop_assert!(found(&lookup, &index, &document) == 1 || !lookup.matches(&index, &document));
        }
    }

    #[test]
    fn numbers_compare_without_loss(a: i64, b: u64, c: f64) {
        let (x, y, z) = (Number::from(a), Number::from(b), Number::from_f64(c));
        prop_assert_eq!(numbers(&x, &y), i128::from(a).cmp(&i128::from(b)));
        if let Some(z) = z {
            prop_assert_eq!(numbers(&x, &z), numbers(&z, &x).reverse());
        }
    }
}

#[test]
fn ranges_are_covered_closely() {
    let index = index(IndexSpec::on(["delay"]));
    let late = IndexLookup::range(json!(30)..json!(90));
    let finds = |delay: f64| found(&late, &index, &json!({ "delay": delay })) == 1;
    assert!(finds(30.0) && finds(45.5) && finds(89.999) && finds(90.0));
    assert!(!finds(29.999_999) && !finds(90.001) && !finds(-30.0));
    let names = IndexLookup::range(json!("JFK")..=json!("LGA"));
    let finds = |name: &str| found(&names, &index, &json!({ "delay": name })) == 1;
    assert!(finds("JFK") && finds("JFKX") && finds("K") && finds("LGA"));
    assert!(!finds("JFJ") && !finds("LGAA") && !finds("LGB") && !finds(""));
    let open = IndexLookup::range(json!(true)..);
    assert_eq!(found(&open, &index, &json!({ "delay": false })), 0);
    assert_eq!(found(&open, &index, &json!({ "delay": true })), 1);
}

#[test]
fn precision_that_the_key_lacks_is_regained_from_the_document() {
    let index = index(IndexSpec::on(["x"]));
    let (near, far) =
        (json!({ "x": 9_007_199_254_740_993_u64 }), json!({ "x": 9_007_199_254_740_992_u64 }));
    let lookup = IndexLookup::equal([near["x"].clone()]);
    assert_eq!((found(&lookup, &index, &near), found(&lookup, &index, &far)), (1, 1));
    assert!(lookup.matches(&index, &near) && !lookup.matches(&index, &far));
    let (long, longer) = ("x".repeat(60), "x".repeat(61));
    let lookup = IndexLookup::equal([long.clone()]);
    assert_eq!(found(&lookup, &index, &json!({ "x": longer.clone() })), 1);
    assert!(lookup.matches(&index, &json!({ "x": long })));
    assert!(!lookup.matches(&index, &json!({ "x": longer })));
}

#[test]
fn arrays_are_found_by_their_elements() {
    let index = index(IndexSpec::on(["tags", "last.carrier"]));
    let document = json!({ "tags": ["late", "late", "full"], "last": { "carrier": "B6" } });
    let keys = entries(std::slice::from_ref(&index), &shelf(), &id(), &document).unwrap();
    assert_eq!(keys.len(), 2);
    let late = IndexLookup::equal(["late", "B6"]);
    assert_eq!((found(&late, &index, &document), late.matches(&index, &document)), (1, true));
    let none = IndexLookup::equal(["early"]);
    assert_eq!((found(&none, &index, &document), none.matches(&index, &document)), (0, false));
    // What cannot be asked for in one field is still found by the others.
    let by_carrier = self::index(IndexSpec::on(["last.carrier", "tags"]));
    for tags in [json!([]), json!({}), json!([["late"]])] {
        let document = json!({ "tags": tags, "last": { "carrier": "B6" } });
        assert_eq!(found(&late, &index, &document), 0);
        assert_eq!(found(&IndexLookup::equal(["B6"]), &by_carrier, &document), 1);
    }
    let many: Vec<u32> = (0..65).collect();
    let error = entries(std::slice::from_ref(&index), &shelf(), &id(), &json!({ "tags": many }));
    assert!(matches!(
        error,
        Err(ReadModelError::TooManyEntries { index, entries: 65 }) if index == "tags, last.carrier"
    ));
}

#[test]
fn a_missing_field_is_null() {
    let index = index(IndexSpec::on(["carrier"]));
    let lookup = IndexLookup::equal([Value::Null]);
    assert_eq!(found(&lookup, &index, &json!({})), 1);
    assert!(
        lookup.matches(&index, &json!({})) && lookup.matches(&index, &json!({ "carrier": null }))
    );
    assert_eq!(found(&lookup, &index, &json!({ "carrier": "B6" })), 0);
}

#[test]
fn bounds_of_two_kinds_or_in_the_wrong_order_hold_nothing() {
    let index = index(IndexSpec::on(["x"]));
    for lookup in [
        IndexLookup::range(json!(1)..json!("a")),
        IndexLookup::range(json!(2)..json!(1)),
        IndexLookup::range(json!(null)..),
    ] {
        assert_eq!(lookup.patterns(&index, &shelf()).unwrap(), []);
    }
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let index = index(IndexSpec::on(["x"]));
    let reason = |lookup: IndexLookup| match lookup.patterns(&index, &shelf()) {
        Err(ReadModelError::InvalidLookup { index, reason }) if index == "x" => reason,
        other => panic!("{other:?}"),
    };
    let many = "it names more values than the index has fields";
    assert_eq!(reason(IndexLookup::equal([1, 2])), many);
    assert_eq!(reason(IndexLookup::equal([1]).within(json!(1)..)), many);
    assert_eq!(reason(IndexLookup::equal([json!([])])), "arrays and objects are not indexed");
    assert_eq!(reason(IndexLookup::range(json!({})..)), "arrays and objects are not indexed");
}

#[test]
fn an_index_is_checked_before_it_is_used() {
    let reason = |spec: IndexSpec| match Index::new(&spec) {
        Err(ReadModelError::InvalidIndex { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(IndexSpec::on::<&str>([])), "it must have one to four fields");
    assert_eq!(reason(IndexSpec::on(["a", "b", "c", "d", "e"])), "it must have one to four fields");
    assert_eq!(reason(IndexSpec::on(["a", "a"])), "it names a field twice");
    assert_eq!(reason(IndexSpec::on(["a..b"])), "a path has an empty part");
    assert_eq!(reason(IndexSpec::on(["a\n"])), "id holds the control character '\\n'; remove it");
    let long = ["a".repeat(100), "b".repeat(100)];
    assert_eq!(reason(IndexSpec::on(long)), "its field names are over 192 bytes together");
}

#[test]
fn two_indexes_never_share_a_name() {
    let specs = [
        IndexSpec::on(["a"]),
        IndexSpec::on(["b"]),
        IndexSpec::on(["a", "b"]),
        IndexSpec::on(["b", "a"]),
        IndexSpec::on(["a.b"]),
        IndexSpec::on(["a=_b"]),
        IndexSpec::on(["a=t"]),
        IndexSpec::on(["a"]).time("a"),
        IndexSpec::on(["a"]).time("b"),
    ];
    let names: std::collections::BTreeSet<_> =
        specs.iter().map(|s| index(s.clone()).name).collect();
    assert_eq!(names.len(), specs.len());
    for spec in specs {
        let index = index(spec);
        assert_eq!(Index::named(index.name()), Some(index.clone()));
    }
    assert_eq!(Index::named("a=2"), None);
    assert_eq!(Index::named("a=_a"), None);
    assert_eq!(index(IndexSpec::on(["carrier"]).time("last.at")).name(), "carrier=_last=2Eat=t");
}

#[test]
fn the_longest_pattern_is_still_one() {
    let long = "ä".repeat(30);
    let fields: Vec<String> = (0..4).map(|n| format!("{n}{}", "f".repeat(44))).collect();
    let index = index(IndexSpec::on(fields.clone()));
    let shelf = Shelf::new(&"m".repeat(64), 2);
    let lookup = IndexLookup::equal([long.as_str(); 4]);
    let pattern = lookup.patterns(&index, &shelf).unwrap();
    assert!(pattern[0].as_str().len() + "$KV.cim-readmodels-.".len() + 64 <= 1024);
}
