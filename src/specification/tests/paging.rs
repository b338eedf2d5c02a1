//! Pages: that they are parts of one order, whatever way they are asked for.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{document, value};
use crate::specification::{
    Cursor, Direction, Field, Found, OrderBy, Page, ReadModelList, SearchOptions, Selection,
    Specification, SpecificationError, compare, field, select,
};

fn page(documents: &BTreeMap<String, Value>, options: &SearchOptions) -> Page<Found> {
    let all = Specification::everything().compile().unwrap();
    select(documents.clone(), all, options, "board.>").unwrap()
}

/// All pages from the first to the last.
fn pages(documents: &BTreeMap<String, Value>, options: &SearchOptions) -> Vec<Found> {
    let (mut found, mut options) = (Vec::new(), options.clone());
    loop {
        let page = page(documents, &options);
        found.extend(page.items);
        assert!(found.len() <= documents.len(), "pages repeat themselves");
        match page.next {
            Some(cursor) => options.cursor = Some(cursor),
            None => return found,
        }
    }
}

/// Sorted with all at hand, by comparing the documents themselves.
fn sorted(documents: &BTreeMap<String, Value>, order: &[OrderBy]) -> Vec<(String, Value)> {
    let mut all: Vec<(String, Value)> = documents.clone().into_iter().collect();
    all.sort_by(|(one_id, one), (other_id, other)| {
        let mut ordering = Ordering::Equal;
        for OrderBy { field, direction } in order {
            let (one, other) = (field.value_in(one), field.value_in(other));
            ordering = ordering.then(match direction {
                Direction::Ascending => compare(one, other),
                Direction::Descending => compare(other, one),
            });
        }
        ordering.then(one_id.cmp(other_id))
    });
    all
}

fn documents() -> impl Strategy<Value = BTreeMap<String, Value>> {
    btree_map("[a-z]{1,3}", prop_oneof![document(), value()], 0..40)
}

fn order() -> impl Strategy<Value = Vec<OrderBy>> {
    let one = proptest::sample::select(vec!["a", "-a", "b", "-b", "c.d", "-c.d"]);
    vec(one.prop_map(|text| OrderBy::parse(text).unwrap()), 0..3)
}

fn pairs(found: Vec<Found>) -> Vec<(String, Value)> {
    found.into_iter().map(|found| (found.id, found.document)).collect()
}

proptest! {
    #[test]
    fn a_limited_page_is_a_part_of_the_full_sort(
        documents in documents(), order in order(), limit in 0..12_usize, offset in 0..12_usize,
    ) {
        let full = sorted(&documents, &order);
        let options = SearchOptions { order_by: order, ..SearchOptions::default() };
        let whole = page(&documents, &options);
        prop_assert_eq!((whole.total, &whole.next), (full.len(), &None));
        prop_assert_eq!(&pairs(whole.items), &full);

        let part = page(&documents, &options.limit(limit).offset(offset));
        let expected: Vec<_> = full.iter().skip(offset).take(limit).cloned().collect();
        prop_assert_eq!(part.next.is_some(), limit > 0 && offset + limit < full.len());
        prop_assert_eq!(part.total, full.len());
        prop_assert_eq!(pairs(part.items), expected);
    }

    #[test]
    fn pages_by_cursor_are_one_big_query(
        documents in documents(), order in order(), limit in 1..5_usize, offset in 0..5_usize, distinct in any::<bool>(),
    ) {
        let options = SearchOptions { order_by: order, distinct, offset, ..SearchOptions::default() };
        let options = options.fields(["a"]);
        let whole = page(&documents, &options);
        prop_assert_eq!(pages(&documents, &options.limit(limit)), whole.items);
    }

    #[test]
    fn nothing_is_given_twice_or_left_out_when_documents_before_it_change(
        documents in documents(), order in order(), limit in 1..6_usize, more in documents(), gone in vec(any::<bool>(), 40),
    ) {
        let options = SearchOptions { order_by: order, ..SearchOptions::default() }.limit(limit);
        let first = page(&documents, &options);
        if let Some(cursor) = first.next {
            let given: BTreeSet<&String> = first.items.iter().map(|found| &found.id).collect();
            let before: Vec<_> = first.items.iter().map(|found| found.id.clone()).collect();
            // Some that were given are gone, and among the new ones are such that stand before the cursor.
            let mut changed = documents.clone();
            before.iter().zip(&gone).filter(|(_, gone)| **gone).for_each(|(id, _)| drop(changed.remove(id)));
            let new = more.into_iter().filter(|(id, _)| !documents.contains_key(id));
            changed.extend(new.collect::<Vec<_>>());
            let rest = pages(&changed, &SearchOptions { limit: Some(limit), ..options }.cursor(cursor));
            let old: Vec<_> = rest.iter().map(|found| &found.id).filter(|id| documents.contains_key(*id)).collect();
            let expected: BTreeSet<_> = documents.keys().filter(|id| !given.contains(id)).collect();
            prop_assert_eq!(old.len(), expected.len());
            prop_assert_eq!(old.into_iter().collect::<BTreeSet<_>>(), expected);
        }
    }

    #[test]
    fn distinct_gives_the_first_of_those_that_look_equal(documents in documents(), order in order()) {
        let shown = SearchOptions { order_by: order.clone(), ..SearchOptions::default() }.fields(["a"]);
        let mut expected: Vec<Found> = Vec::new();
        for found in page(&documents, &shown).items {
            if !expected.iter().any(|before| compare(&before.document, &found.document).is_eq()) {
                expected.push(found);
            }
        }
        let distinct = page(&documents, &shown.distinct());
        prop_assert_eq!(distinct.total, expected.len());
        prop_assert_eq!(distinct.items, expected);
    }

    #[test]
    fn any_text_for_a_cursor_is_refused(text in any::<String>()) {
        let options = SearchOptions::default().cursor(Cursor::new(text));
        let all = Specification::everything().compile().unwrap();
        let refused = Selection::<()>::new(all, &options, "").unwrap_err();
        let invalid = matches!(refused, SpecificationError::InvalidCursor { .. });
        prop_assert!(invalid, "{refused}");
    }
}

fn ten() -> BTreeMap<String, Value> {
    (0..10).map(|i| (format!("f{i}"), json!({"a": i, "b": {"c": i % 2, "d": "x"}}))).collect()
}

#[test]
fn a_cursor_of_another_query_is_refused_and_limit_and_offset_do_not_make_it_another() {
    let options = SearchOptions::default().order_by("a").unwrap().limit(3);
    let cursor = page(&ten(), &options).next.unwrap();
    let taken = |options: SearchOptions, scope, specification: Specification| {
        let options = options.cursor(cursor.clone());
        select(ten(), specification.compile().unwrap(), &options, scope)
    };
    let everything = Specification::everything;
    let same = taken(options.clone().limit(2).offset(7), "board.>", everything()).unwrap();
    assert_eq!(same.items[0].id, "f3");
    let other_order = SearchOptions::default().order_by("-a").unwrap();
    let more_order = options.clone().order_by("b").unwrap();
    for refused in [
        taken(options.clone(), "board.JFK.>", everything()),
        taken(options.clone(), "board.>", field("a").ge(0)),
        taken(other_order, "board.>", everything()),
        taken(more_order, "board.>", everything()),
        taken(options.clone().distinct(), "board.>", everything()),
    ] {
        assert_eq!(refused.unwrap_err(), SpecificationError::CursorOfAnotherQuery);
    }
    let cut = Cursor::new(&cursor.as_str()[..8]);
    let refused = select(ten(), everything().compile().unwrap(), &options.cursor(cut), "board.>");
    let reason = "it does not hold what a cursor holds";
    assert_eq!(refused.unwrap_err(), SpecificationError::InvalidCursor { reason });
}

#[test]
fn a_cursor_that_was_given_out_goes_on_being_one() {
    let options = SearchOptions::default().order_by("-b.c").unwrap().limit(2);
    let cursor = page(&ten(), &options).next.unwrap();
    assert_eq!(cursor.as_str(), GIVEN_OUT);
    let next = page(&ten(), &options.cursor(Cursor::new(GIVEN_OUT)));
    assert_eq!(next.items.iter().map(|found| found.id.as_str()).collect::<Vec<_>>(), ["f5", "f7"]);
}

const GIVEN_OUT: &str = "eyJxIjoiY29KR25mU0JwVTZmdEtFSSIsImsiOlsxXSwiaSI6ImYzIn0";

#[test]
fn chosen_fields_stand_where_they_were_and_the_outer_one_counts() {
    let shown = |fields: &[&str]| {
        let document = BTreeMap::from([("x".to_owned(), ten()["f3"].clone())]);
        let options = SearchOptions::default().fields(fields.iter().map(|name| Field::new(name)));
        page(&document, &options).items.remove(0).document
    };
    assert_eq!(shown(&["b.c", "a"]), json!({"a": 3, "b": {"c": 1}}));
    assert_eq!(shown(&["b.x", "y", "z.z"]), json!({"b": {"x": null}, "y": null, "z": {"z": null}}));
    assert_eq!(shown(&["b", "b.c"]), json!({"b": {"c": 1, "d": "x"}}));
    assert_eq!(shown(&["b.c", "b"]), shown(&["b"]));
    assert_eq!(shown(&["a.b", "a"]), json!({"a": 3}));
    assert_eq!(shown(&["a", "a.b"]), json!({"a": 3}));
}

#[test]
fn a_page_as_a_list_says_which_part_it_is() {
    let options = SearchOptions::default().limit(2).offset(3);
    let list = page(&ten(), &options).map(|found| found.id).into_list(&options);
    let items = vec!["f3".to_owned(), "f4".to_owned()];
    assert_eq!(list, ReadModelList { offset: 3, limit: Some(2), total: 10, items });
}

#[test]
fn a_limit_bounds_what_is_held() {
    let options = SearchOptions::default().order_by("-a").unwrap().limit(3).offset(1);
    let all = Specification::everything().compile().unwrap();
    let kept = std::sync::Arc::new(());
    let mut selection = Selection::new(all, &options, "").unwrap();
    for i in 0..10_000 {
        selection.push(&i.to_string(), json!({"a": i}), kept.clone());
        // Beside this one, twice the offset, the limit and one more.
        assert!(std::sync::Arc::strong_count(&kept) <= 1 + 2 * 5);
    }
    let ids: Vec<String> = selection.finish().items.into_iter().map(|found| found.id).collect();
    assert_eq!(ids, ["9998", "9997", "9996"]);
}
