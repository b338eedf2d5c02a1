//! Given, then: projections.

use cim_persistence::subject::AggregateId;
use cim_persistence::testing::ProjectionTest;

use super::domain::{Book, BookEvent, OneWay, Reader, Readers, lent};
use super::failures::failure;

fn readers() -> ProjectionTest<Readers> {
    ProjectionTest::of(Readers::default())
}

fn reader(name: &str, books: u32) -> Reader {
    Reader { name: name.to_owned(), books }
}

fn id(text: &str) -> AggregateId {
    AggregateId::new(text).unwrap()
}

#[test]
fn events_lead_to_models_across_aggregates() {
    readers()
        .then_expect_models::<Reader>([])
        .given::<Book>("1", [lent("kim"), BookEvent::Returned, lent("lee")])
        .given::<Book>("2", [lent("kim")])
        .given_deleted::<Book>("1")
        .then_expect_models([reader("lee", 1), reader("kim", 2)])
        .then_expect_model(reader("lee", 1))
        .then_expect_no_model::<Reader>(&id("max"))
        .given::<Book>("2", [lent("leaver")])
        .then_expect_models([reader("lee", 1)]);
}

#[test]
fn events_that_the_projection_does_not_read_change_nothing() {
    readers()
        .given_on("film", &"1".to_owned(), [lent("kim")])
        .given_on("book", &"1".to_owned(), [lent("lee")])
        .then_expect_models([reader("lee", 1)]);
}

#[test]
fn an_event_that_is_refused_has_no_effect_and_must_be_expected() {
    let refused = || readers().given::<Book>("1", [lent("kim"), lent("nobody"), lent("lee")]);
    refused()
        .then_expect_refusal(|reason| reason == "lent at position 2: nobody reads")
        .then_expect_models([reader("kim", 1), reader("lee", 1)]);
    let failed = failure(|| refused().then_expect_model(reader("lee", 1)));
    assert_eq!(
        failed.message,
        "readers refused events that were given:\nlent at position 2: nobody reads"
    );
    assert_eq!(failed.at, failed.called);
    let failed = failure(|| refused().then_expect_refusal(|reason| reason.contains("position 1")));
    assert_eq!(
        failed.message,
        "no event was refused for such a reason:\nlent at position 2: nobody reads"
    );
    let failed = failure(|| readers().then_expect_refusal(|_| true));
    assert_eq!(failed.message, "no event was refused, a refusal was expected");
}

#[test]
fn what_no_runner_would_accept_is_refused() {
    for (name, reason) in [
        ("stranger", "it changes models of type undeclared, which it does not declare"),
        ("moody", "it says something else when it gets the same event again"),
    ] {
        let expected = format!("lent at position 1: {reason}");
        readers().given::<Book>("1", [lent(name)]).then_expect_refusal(|found| found == expected);
    }
    readers()
        .given::<Book>("1", [BookEvent::Unreadable(OneWay)])
        .then_expect_refusal(|reason| reason.contains("does not decode"));
}

#[test]
fn other_models_than_expected_are_shown_as_a_difference() {
    let given = || readers().given::<Book>("1", [lent("kim"), lent("lee")]);
    let failed = failure(|| given().then_expect_models([reader("kim", 1), reader("lee", 2)]));
    let message = "the models of type reader are not as expected (- expected, + found):
  kim {
    \"books\": 1,
    \"name\": \"kim\"
  }
  lee {
-   \"books\": 2,
+   \"books\": 1,
    \"name\": \"lee\"
  }";
    assert_eq!(failed.message, message);
    assert_eq!(failed.at, failed.called);

    let failed = failure(|| given().then_expect_model(reader("max", 1)));
    assert_eq!(
        failed.message,
        "the models of type reader are not as expected (- expected, + found):\n- max {\n-   \"books\": 1,\n-   \"name\": \"max\"\n- }"
    );
    let failed = failure(|| given().then_expect_models([reader("kim", 1)]));
    assert!(failed.message.contains("\n+ lee {\n"), "{}", failed.message);
    let failed = failure(|| given().then_expect_no_model::<Reader>(&id("kim")));
    assert_eq!(
        failed.message,
        "there is a reader kim, none was expected:\n{\n  \"books\": 1,\n  \"name\": \"kim\"\n}"
    );
    let failed = failure(|| given().then_expect_models([reader("kim", 1), reader("kim", 2)]));
    assert_eq!(failed.message, "two models of id kim are expected");
}
