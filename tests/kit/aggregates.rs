//! Given, when, then: aggregates.

use cim_persistence::testing::AggregateTest;

use super::domain::{AlreadyLent, Book, BookEvent, Lend, OneWay, Record, Return, lent};
use super::failures::failure;

fn book() -> AggregateTest<Book> {
    AggregateTest::of("978-3")
}

#[test]
fn a_command_is_decided_on_what_was_given() {
    book().given_nothing().when(Lend("kim")).then_expect_events([lent("kim")]);
    book().given([lent("kim")]).when(Lend("kim")).then_expect_no_events();
    book()
        .given([lent("kim")])
        .given([BookEvent::Returned])
        .when(Lend("lee"))
        .then_expect_events([lent("lee")])
        .then_expect_state(|book| book.times_lent == 2 && book.lent_to.as_deref() == Some("lee"));
}

#[test]
fn a_decision_is_a_command_too() {
    book()
        .when_deciding(|book| Ok::<_, ()>((vec![lent("kim")], book.times_lent)))
        .then_expect_events([lent("kim")])
        .when_deciding(|book| book.lent_to.is_none().then_some([lent("lee")]).ok_or("lent"))
        .then_expect_error("lent");
}

#[test]
fn commands_follow_each_other_and_a_rejection_changes_nothing() {
    let done = book()
        .given([lent("kim")])
        .when(Lend("lee"))
        .then_expect_error(AlreadyLent { to: "kim".into() })
        .then_expect_state(|book| book.times_lent == 1)
        .when(Return)
        .then_expect_events([BookEvent::Returned])
        .when(Return)
        .then_expect_error_that(|reason| reason.starts_with("not"));
    assert_eq!(done.state(), &Book { isbn: "978-3".into(), lent_to: None, times_lent: 1 });
}

#[test]
fn other_events_than_expected_are_shown_as_a_difference() {
    let decided = book().when(Lend("lee"));
    let failed = failure(|| decided.then_expect_events([lent("kim"), BookEvent::Returned]));
    assert_eq!(
        failed.message,
        "the command made other events than expected (- expected, + found):
  lent (version 1) {
    \"Lent\": {
-     \"reader\": \"kim\"
+     \"reader\": \"lee\"
    }
  }
- returned (version 1) \"Returned\""
    );
    assert_eq!(failed.at, failed.called);
}

#[test]
fn every_expectation_fails_at_the_line_that_states_it() {
    let rejected = || book().given([lent("kim")]).when(Lend("lee"));
    let accepted = || book().when(Lend("lee"));
    let idle = || book().given([lent("kim")]).when(Lend("kim"));
    let lent_to = |to: &str| AlreadyLent { to: to.to_owned() };
    let cases = [
        (
            failure(|| rejected().then_expect_events([])),
            "the command was rejected: AlreadyLent {\n    to: \"kim\",\n}\nexpected were:\n",
        ),
        (
            failure(|| rejected().then_expect_no_events()),
            "the command was rejected, no events were expected: AlreadyLent {\n    to: \"kim\",\n}",
        ),
        (
            failure(|| rejected().then_expect_error(lent_to("lee"))),
            "the command was rejected for another reason than expected (- expected, + found):\n  AlreadyLent {\n-     to: \"lee\",\n+     to: \"kim\",\n  }",
        ),
        (
            failure(|| rejected().then_expect_error_that(|no| no.to == "lee")),
            "the rejection is not as expected: AlreadyLent {\n    to: \"kim\",\n}",
        ),
        (
            failure(|| rejected().when(Return).then_expect_no_events()),
            "the command before was rejected, and nothing expected that: AlreadyLent {\n    to: \"kim\",\n}",
        ),
        (
            failure(|| accepted().then_expect_no_events()),
            "the command made events, none were expected:\nlent (version 1) {\n  \"Lent\": {\n    \"reader\": \"lee\"\n  }\n}",
        ),
        (
            failure(|| accepted().then_expect_events([])),
            "the command made other events than expected (- expected, + found):\n+ lent (version 1) {\n+   \"Lent\": {\n+     \"reader\": \"lee\"\n+   }\n+ }",
        ),
        (
            failure(|| accepted().then_expect_error(lent_to("lee"))),
            "the command was accepted, a rejection was expected:\nlent (version 1) {\n  \"Lent\": {\n    \"reader\": \"lee\"\n  }\n}",
        ),
        (
            failure(|| idle().then_expect_error(lent_to("lee"))),
            "the command was accepted and made no events, a rejection was expected",
        ),
        (
            failure(|| idle().then_expect_error_that(|_| true)),
            "the command was accepted and made no events, a rejection was expected",
        ),
        (
            failure(|| idle().then_expect_state(|book| book.times_lent == 9)),
            "the state is not as expected:\n{\n  \"isbn\": \"978-3\",\n  \"lent_to\": \"kim\",\n  \"times_lent\": 1\n}",
        ),
    ];
    for (failed, message) in cases {
        assert_eq!(failed.message, message);
        assert_eq!(failed.at, failed.called, "{message}");
    }
}

#[test]
fn an_event_that_cannot_be_stored_or_read_back_fails_the_test() {
    let unreadable = || BookEvent::Unreadable(OneWay);
    let given = failure(|| book().given([lent("kim"), unreadable()]));
    assert!(
        given.message.starts_with(
            "what is given cannot have happened: event unreadable version 1 at position 2 does not decode: "
        ),
        "{}",
        given.message
    );
    let made = failure(|| book().when(Record(unreadable())).then_expect_no_events());
    assert!(
        made.message.starts_with("the command made an event that cannot be stored: "),
        "{}",
        made.message
    );
    let weight = f64::NAN;
    let made =
        failure(|| book().when(Record(BookEvent::Measured { weight })).then_expect_no_events());
    assert!(made.message.contains("event measured of book/978-3"), "{}", made.message);
    let expected = failure(|| book().when(Lend("kim")).then_expect_events([unreadable()]));
    assert!(
        expected.message.starts_with("an event that is expected cannot be stored: "),
        "{}",
        expected.message
    );
}

#[test]
fn an_id_that_cannot_be_one_is_told() {
    let failed = failure(|| AggregateTest::<Book>::of(""));
    assert_eq!(
        failed.message,
        "the aggregate's id cannot be one: id is empty; give it at least one character"
    );
}
