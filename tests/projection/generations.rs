//! Rebuilding: a new generation beside the old one, and readers see one or the other.

use std::time::Duration;

use cim_persistence::backend::ReadFrom;
use cim_persistence::event::NonEmpty;
use cim_persistence::projection::{
    ProjectionError, ProjectionStatus, Projections, RunningProjection,
};
use cim_persistence::state::{Change, Expected, Key, KeyValue, KeyWrite};
use cim_persistence::testing::faults::{Fault, Faults, Gate};

use crate::domain::{Balances, PATIENCE, Store, expected, many_moves, moves, options, stored};
use crate::trouble::writes;

/// What a key holds, null for nothing.
pub(crate) async fn value_of(models: &dyn KeyValue, key: &str) -> serde_json::Value {
    let slot = models.get(&Key::new(key).unwrap(), ReadFrom::Leader).await.unwrap();
    slot.value.map_or_else(Default::default, |value| serde_json::from_slice(&value).unwrap())
}

pub(crate) async fn until_generation(models: &dyn KeyValue, wanted: u64) {
    until_generation_of(models, "balance", wanted).await;
}

/// Until readers of a type see this generation, or a later one.
pub(crate) async fn until_generation_of(models: &dyn KeyValue, kind: &str, wanted: u64) {
    let key = format!("=model.{kind}");
    let seen = async {
        while value_of(models, &key).await["generation"].as_u64().unwrap_or(0) < wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
}

/// Until nothing of a generation is left.
async fn until_gone(models: &dyn KeyValue, generation: u64) {
    let gone = async {
        while !stored(models, generation).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_gives_the_same_and_the_old_generation_goes() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 200).await;
    let mut running = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    let projections = Projections::of(&context);
    // What nobody wrote by an event is gone after a rebuild.
    let stray = Key::new("balance.stray").unwrap();
    let write = KeyWrite::new(stray, Change::Put("{}".into()), Expected::Anything);
    store.models.write(NonEmpty::one(write)).await.unwrap();
    projections.rebuild("balances").await.unwrap();
    until_generation(&store.models, 2).await;
    assert_eq!(stored(&store.models, 2).await, expected(&context, 1).await);
    let position = moves(&context, "a1", "a2", 9).await;
    projections.wait_for("balances", position, PATIENCE).await.unwrap();
    assert_eq!(stored(&store.models, 2).await, expected(&context, 1).await);
    until_gone(&store.models, 1).await;
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_is_done_also_where_the_record_of_wishes_was_deleted() {
    let store = Store::new();
    let context = store.healthy();
    moves(&context, "a1", "a2", 9).await;
    let mut running = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    let projections = Projections::of(&context);
    for generation in 2..=3 {
        projections.rebuild("balances").await.unwrap();
        until_generation(&store.models, generation).await;
    }
    let control = Key::new("=control.balances").unwrap();
    let delete = KeyWrite::new(control, Change::Delete, Expected::Anything);
    store.models.write(NonEmpty::one(delete)).await.unwrap();
    projections.rebuild("balances").await.unwrap();
    until_generation(&store.models, 4).await;
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_newer_version_builds_its_own_and_the_older_one_ends() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 100).await;
    let mut old = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    old.caught_up(PATIENCE).await.unwrap();
    let new = RunningProjection::start(&store.healthy(), Balances::<2>, options()).unwrap();
    until_generation(&store.models, 2).await;
    assert_eq!(stored(&store.models, 2).await, expected(&context, 10).await);
    // The old one finds out when it writes.
    let position = moves(&context, "a1", "a2", 9).await;
    Projections::of(&context).wait_for("balances", position, PATIENCE).await.unwrap();
    while old.is_running() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    match old.stop().await {
        Err(ProjectionError::Outdated { own: 1, newer: 2, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(stored(&store.models, 2).await, expected(&context, 10).await);
    new.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_paused_projection_waits_and_goes_on() {
    let store = Store::new();
    let context = store.healthy();
    let projections = Projections::of(&context);
    let running = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    let position = moves(&context, "a1", "a2", 9).await;
    projections.wait_for("balances", position, PATIENCE).await.unwrap();
    projections.pause("balances").await.unwrap();
    while running.report().unwrap().status != ProjectionStatus::Paused {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let position = moves(&context, "a1", "a2", 9).await;
    let waited = projections.wait_for("balances", position, Duration::from_secs(5)).await;
    assert!(matches!(waited, Err(ProjectionError::NotReached { .. })), "{waited:?}");
    projections.resume("balances").await.unwrap();
    projections.wait_for("balances", position, PATIENCE).await.unwrap();
    assert_eq!(stored(&store.models, 1).await, expected(&context, 1).await);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_not_the_one_it_was_stops_the_projection() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 10).await;
    let mut running = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    running.stop().await.unwrap();
    let before = stored(&store.models, 1).await;
    // The same bucket beside another log, which holds more.
    let other = Store { log: Store::new().log, models: store.models.clone() };
    let context = other.healthy();
    many_moves(&context, 20).await;
    let mut running = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    match running.caught_up(PATIENCE).await {
        Err(ProjectionError::LogTruncated { projection, position, .. }) => {
            assert_eq!((projection.as_str(), position), ("balances", 10));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(stored(&store.models, 1).await, before);
}

/// An old and a new version both see the wish to rebuild. The old one leaves it to the new one, else each would undo what
/// the other began.
#[tokio::test(start_paused = true)]
async fn two_versions_do_not_build_against_each_other() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 100).await;
    let mut old = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    old.caught_up(PATIENCE).await.unwrap();
    let projections = Projections::of(&context);
    let new = RunningProjection::start(&store.healthy(), Balances::<2>, options()).unwrap();
    projections.rebuild("balances").await.unwrap();
    let position = moves(&context, "a1", "a2", 9).await;
    let built = async {
        loop {
            let report = projections.report("balances").await.unwrap();
            let current =
                report.status == ProjectionStatus::UpToDate && report.position >= position;
            if report.version == 2 && current {
                break report.generation.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let generation = tokio::time::timeout(PATIENCE, built).await.unwrap();
    assert_eq!(stored(&store.models, generation).await, expected(&context, 10).await);
    new.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_next_removes_what_one_that_was_killed_has_left() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 20).await;
    let (faults, switched) = (Faults::new(), Gate::new());
    let mut running =
        RunningProjection::start(&store.process(&faults), Balances::<1>, options()).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    faults.plan_when(
        |call| writes(call, "=model.total") && !writes(call, "=checkpoint.balances.2"),
        Fault::PauseAfter(switched.clone()),
    );
    Projections::of(&context).rebuild("balances").await.unwrap();
    switched.reached().await;
    drop(running);
    assert_eq!(stored(&store.models, 1).await, expected(&context, 1).await);
    let _next = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    until_gone(&store.models, 1).await;
    assert_eq!(stored(&store.models, 2).await, expected(&context, 1).await);
}

/// A second generation is there, and the first removal of the one before it fails.
async fn rebuilt_beside_an_outage(store: &Store) -> (RunningProjection, Faults) {
    let context = store.healthy();
    many_moves(&context, 20).await;
    let faults = Faults::new();
    let mut running =
        RunningProjection::start(&store.process(&faults), Balances::<1>, options()).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    faults.plan_when(
        |call| writes(call, "balance.a1") && !writes(call, "=checkpoint.balances.1"),
        Fault::Outage,
    );
    Projections::of(&context).rebuild("balances").await.unwrap();
    until_generation(&store.models, 2).await;
    (running, faults)
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_failed_is_tried_again() {
    let store = Store::new();
    let (running, faults) = rebuilt_beside_an_outage(&store).await;
    until_gone(&store.models, 1).await;
    assert_eq!(faults.planned(), 0);
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_failed_is_taken_up_while_a_newer_version_builds() {
    let store = Store::new();
    let context = store.healthy();
    let (running, faults) = rebuilt_beside_an_outage(&store).await;
    while faults.planned() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.stop().await.unwrap();
    assert!(!stored(&store.models, 1).await.is_empty());
    let (faults, builds) = (Faults::new(), Gate::new());
    faults.plan_when(
        |call| writes(call, "balance=3.a1") && writes(call, "=checkpoint.balances.3"),
        Fault::PauseAfter(builds.clone()),
    );
    let _newer =
        RunningProjection::start(&store.process(&faults), Balances::<2>, options()).unwrap();
    builds.reached().await;
    let _running = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    until_gone(&store.models, 1).await;
    assert_eq!(stored(&store.models, 2).await, expected(&context, 1).await);
    assert_eq!(stored(&store.models, 3).await, expected(&context, 10).await);
    builds.open();
    until_generation(&store.models, 3).await;
    until_gone(&store.models, 2).await;
    assert_eq!(stored(&store.models, 3).await, expected(&context, 10).await);
}

#[tokio::test(start_paused = true)]
async fn a_generation_that_was_given_up_goes() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 20).await;
    let (faults, builds) = (Faults::new(), Gate::new());
    let mut running =
        RunningProjection::start(&store.process(&faults), Balances::<1>, options()).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    faults.plan_when(
        |call| writes(call, "balance=2.a1") && writes(call, "=checkpoint.balances.2"),
        Fault::PauseAfter(builds.clone()),
    );
    let projections = Projections::of(&context);
    projections.rebuild("balances").await.unwrap();
    builds.reached().await;
    assert!(!stored(&store.models, 2).await.is_empty());
    projections.rebuild("balances").await.unwrap();
    until_generation(&store.models, 3).await;
    until_gone(&store.models, 1).await;
    until_gone(&store.models, 2).await;
    for generation in [1, 2] {
        let key = format!("=checkpoint.balances.{generation}");
        assert!(value_of(&store.models, &key).await.is_null(), "{key}");
    }
    assert_eq!(stored(&store.models, 3).await, expected(&context, 1).await);
}
