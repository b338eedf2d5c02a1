//! Stores of somebody else's, written with the public API only: the suites of promises run on them, accept those that
//! keep every promise and name the one that is broken.
#![allow(clippy::unwrap_used)]

mod log;
mod store;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use cim_persistence::event::Metadata;
use cim_persistence::store::{Context, NatsRepositoryConfig, Ports};
use cim_persistence::subject::{AggregateId, ContextName, SubjectScheme};
use cim_persistence::testing::conformance::event_log::{self, LogUnderTest};
use cim_persistence::testing::conformance::event_store;
use futures::FutureExt;

use log::TextLog;
use store::{Flaw, Notes, TextStore};

fn under_test(log: TextLog) -> LogUnderTest {
    let context = ContextName::new("elsewhere").unwrap();
    let scheme = SubjectScheme::new(context, "cim.events", "cim.aggregates").unwrap();
    LogUnderTest { log: Arc::new(log), scheme }
}

fn notes(name: &str) -> Notes {
    [("test".to_owned(), name.to_owned())].into()
}

#[tokio::test]
async fn log_of_somebody_else_keeps_every_promise() {
    event_log::run(async || under_test(TextLog::new())).await;
}

#[tokio::test]
async fn context_on_a_log_of_somebody_else_keeps_every_promise() {
    let ports = Ports { log: Arc::new(TextLog::new()), ..Ports::in_memory() };
    let context = Context::on(ports, &NatsRepositoryConfig::for_context("elsewhere")).unwrap();
    let id = |name: &str| AggregateId::new(name).unwrap();
    let metadata = |name: &str| Metadata::new([("test", name)]).unwrap();
    event_store::run(&context, id, metadata).await;
}

#[tokio::test]
async fn store_of_somebody_else_keeps_every_promise() {
    event_store::run(&TextStore::new(None), str::to_owned, notes).await;
}

#[tokio::test]
async fn log_that_ignores_guards_breaks_the_promises_about_guards_only() {
    let (mut broken, mut kept) = (Vec::new(), Vec::new());
    for case in event_log::cases() {
        let outcome = case.run(under_test(TextLog::without_guards())).await;
        if outcome.is_err() { &mut broken } else { &mut kept }.push(case.name());
    }
    for name in [
        "guards::start_is_accepted_once",
        "guards::position_behind_or_ahead_is_refused",
        "guards::other_subject_is_guarded",
        "guards::refusal_stores_nothing",
        "batches::any_guard_refuses_the_whole",
        "batches::other_subjects_are_guarded",
        "writers::one_of_many_writers_wins",
        "writers::one_of_many_batches_wins",
    ] {
        assert!(broken.contains(&name), "{name} is kept: {kept:?}");
    }
    let about_others =
        |name: &&&str| ["reads::", "matches::", "follows::"].iter().any(|m| name.starts_with(m));
    assert_eq!(broken.iter().find(about_others), None);
}

#[tokio::test]
async fn the_first_promise_that_a_store_breaks_is_named() {
    for (flaw, promise) in [
        (Flaw::IgnoresGuards, "one_of_many_writers_wins"),
        (Flaw::GivesUp, "unchecked_writers_all_succeed"),
        (Flaw::LosesData, "data_comes_back_whole"),
        (Flaw::LosesSchemaVersion, "type_and_schema_version_come_back"),
        (Flaw::LosesMetadata, "every_event_has_its_commits_metadata"),
        (Flaw::MetadataOnFirstOnly, "every_event_has_its_commits_metadata"),
        (Flaw::ReturnsFirstPosition, "position_returned_is_the_last_events"),
        (Flaw::FiltersNoEventType, "each_filter_alone_finds_what_it_names"),
        (Flaw::FindsNothingWithoutStream, "each_filter_alone_finds_what_it_names"),
        (Flaw::FindsFewOfAll, "all_finds_every_event"),
    ] {
        let store = TextStore::new(Some(flaw));
        let checked = AssertUnwindSafe(event_store::run(&store, str::to_owned, notes));
        let panic =
            checked.catch_unwind().await.expect_err("the suite accepts a store with a flaw");
        let text = panic.downcast::<String>().unwrap();
        assert!(text.starts_with(&format!("{promise}: ")), "{flaw:?}: {text}");
    }
}
