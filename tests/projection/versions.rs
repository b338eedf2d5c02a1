//! One version after another: types of models that come and go, and newer versions that end before they are done.

use std::time::Duration;

use cim_persistence::projection::{
    Changes, Declared, Projection, ProjectionError, Projections, Rejection, RunningProjection,
};
use cim_persistence::read_model::ReadModel;
use cim_persistence::store::{EventFilter, StoredEvent};
use cim_persistence::subject::{AggregateId, InvalidToken};
use cim_persistence::testing::faults::{Fault, Faults, Gate};
use serde::{Deserialize, Serialize};

use crate::domain::{
    Balance, Balances, Moved, PATIENCE, Store, Total, accounts, expected, last, many_moves, moves,
    options, stored,
};
use crate::generations::{until_generation, until_generation_of, value_of};
use crate::trouble::writes;

/// The largest sum.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Largest {
    cents: i64,
}

impl ReadModel for Largest {
    const MODEL_TYPE: &'static str = "largest";
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::new("all")
    }
}

/// The second version of the balances. It keeps one type more, one less, or another one.
struct Second<const TYPES: u8>;

const MORE: u8 = 0;
const LESS: u8 = 1;
const ANOTHER: u8 = 2;

impl<const TYPES: u8> Projection for Second<TYPES> {
    const NAME: &'static str = Balances::<2>::NAME;
    const VERSION: u32 = 2;
    type Event = Moved;

    fn models() -> Vec<Declared> {
        match TYPES {
            MORE => {
                let largest = Declared::of::<Largest>();
                vec![largest, Declared::of::<Balance>(), Declared::of::<Total>()]
            }
            LESS => vec![Declared::of::<Balance>()],
            _ => vec![Declared::of::<Largest>()],
        }
    }

    fn filters() -> Vec<EventFilter> {
        vec![EventFilter::for_type(accounts())]
    }

    fn project(
        &self,
        event: Moved,
        stored: &StoredEvent,
        changes: &mut Changes,
    ) -> Result<(), Rejection> {
        let cents = event.cents;
        if TYPES == LESS {
            let id = AggregateId::new(&event.to)?;
            changes.upsert(&id, move |balance: &mut Balance| balance.cents += cents);
            return Ok(());
        }
        changes.upsert(&AggregateId::new("all")?, move |largest: &mut Largest| {
            largest.cents = largest.cents.max(cents);
        });
        match TYPES {
            MORE => Balances::<2>.project(event, stored, changes),
            _ => Ok(()),
        }
    }
}

/// Lets the second version follow the first one, which runs; both are waited for by one handle.
async fn follows_the_first<const TYPES: u8>(store: &Store, kind: &str) {
    let context = store.healthy();
    many_moves(&context, 50).await;
    let projections = Projections::of(&context);
    let old = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    projections.wait_for("balances", last(&context).await, PATIENCE).await.unwrap();
    let new = RunningProjection::start(&store.healthy(), Second::<TYPES>, options()).unwrap();
    until_generation_of(&store.models, kind, 2).await;
    // The old one finds out when it writes.
    let position = moves(&context, "a1", "a2", 900).await;
    let ended = async {
        while old.is_running() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap();
    match old.stop().await {
        Err(ProjectionError::Outdated { own: 1, newer: 2, .. }) => {}
        other => panic!("{other:?}"),
    }
    projections.wait_for("balances", position, PATIENCE).await.unwrap();
    let pointer = value_of(&store.models, &format!("=model.{kind}")).await;
    assert_eq!(pointer["generation"], 2);
    assert!(value_of(&store.models, "=checkpoint.balances.1").await.is_null());
    assert_eq!(projections.report("balances").await.unwrap().generation, Some(2));
    new.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_version_that_keeps_a_type_more_follows_the_one_before() {
    let store = Store::new();
    follows_the_first::<MORE>(&store, "largest").await;
    assert_eq!(stored(&store.models, 2).await, expected(&store.healthy(), 10).await);
    assert_eq!(value_of(&store.models, "largest=2.all").await["cents"], 900);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_keeps_a_type_less_follows_the_one_before() {
    let store = Store::new();
    follows_the_first::<LESS>(&store, "balance").await;
    // Whoever still reads the other type sees it as it was.
    assert_eq!(value_of(&store.models, "=model.total").await["generation"], 1);
    assert_eq!(value_of(&store.models, "total.all").await["moves"], 50);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_keeps_another_type_follows_the_one_before() {
    let store = Store::new();
    follows_the_first::<ANOTHER>(&store, "largest").await;
    assert_eq!(value_of(&store.models, "largest=2.all").await["cents"], 900);
}

#[tokio::test(start_paused = true)]
async fn readers_do_not_go_back_when_a_type_is_added() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 50).await;
    let projections = Projections::of(&context);
    let _old = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    projections.wait_for("balances", last(&context).await, PATIENCE).await.unwrap();
    let (faults, builds, switched) = (Faults::new(), Gate::new(), Gate::new());
    faults.plan_when(
        |call| writes(call, "balance=2.a1") && writes(call, "=checkpoint.balances.2"),
        Fault::PauseBefore(builds.clone()),
    );
    faults.plan_when(
        |call| writes(call, "=model.total") && !writes(call, "=checkpoint.balances.2"),
        Fault::PauseAfter(switched.clone()),
    );
    let process = store.process(&faults);
    let _new = RunningProjection::start(&process, Second::<MORE>, options()).unwrap();
    builds.reached().await;
    // While it is built, readers see more, and who waits for that need not wait for the new one.
    many_moves(&context, 50).await;
    projections.wait_for("balances", last(&context).await, PATIENCE).await.unwrap();
    let others = Projections::of(&store.healthy());
    others.wait_for("balances", last(&context).await, PATIENCE).await.unwrap();
    builds.open();
    switched.reached().await;
    assert_eq!(stored(&store.models, 2).await, expected(&context, 10).await);
    switched.open();
}

#[tokio::test(start_paused = true)]
async fn what_readers_see_is_told_while_another_type_is_built() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 50).await;
    let _old = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    Projections::of(&context).wait_for("balances", last(&context).await, PATIENCE).await.unwrap();
    let (faults, builds) = (Faults::new(), Gate::new());
    faults.plan_when(|call| writes(call, "largest=2.all"), Fault::PauseBefore(builds.clone()));
    let process = store.process(&faults);
    let _new = RunningProjection::start(&process, Second::<ANOTHER>, options()).unwrap();
    builds.reached().await;
    let report = Projections::of(&context).report("balances").await.unwrap();
    assert_eq!((report.version, report.generation), (2, Some(1)));
    Projections::of(&context).wait_for("balances", last(&context).await, PATIENCE).await.unwrap();
    builds.open();
}

/// A second version that is killed while it builds.
async fn killed_while_it_builds(store: &Store) {
    let (faults, builds) = (Faults::new(), Gate::new());
    faults.plan_when(
        |call| writes(call, ".a1") && !writes(call, "=model.total"),
        Fault::PauseAfter(builds.clone()),
    );
    let process = store.process(&faults);
    let running = RunningProjection::start(&process, Balances::<2>, options()).unwrap();
    builds.reached().await;
    drop(running);
    assert!(!value_of(&store.models, "=lease.balances.2").await.is_null());
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_does_not_wait_for_a_newer_version_that_is_gone() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 20).await;
    let mut running = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    killed_while_it_builds(&store).await;
    Projections::of(&context).rebuild("balances").await.unwrap();
    moves(&context, "a1", "a2", 9).await;
    running.caught_up(PATIENCE).await.unwrap();
    until_generation(&store.models, 3).await;
    assert_eq!(stored(&store.models, 3).await, expected(&context, 1).await);
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_first_generation_does_not_wait_for_a_newer_version_that_is_gone() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 20).await;
    killed_while_it_builds(&store).await;
    let mut running = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    assert_eq!(stored(&store.models, 2).await, expected(&context, 1).await);
    // The newer one comes again.
    let _new = RunningProjection::start(&context, Balances::<2>, options()).unwrap();
    until_generation(&store.models, 3).await;
    assert_eq!(stored(&store.models, 3).await, expected(&context, 10).await);
}

#[tokio::test(start_paused = true)]
async fn a_newer_version_that_builds_makes_no_other_log_the_one_it_was() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 10).await;
    let mut running = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    running.stop().await.unwrap();
    killed_while_it_builds(&store).await;
    // The same bucket beside another log, which holds more.
    let other = Store { log: Store::new().log, models: store.models.clone() };
    let context = other.healthy();
    many_moves(&context, 20).await;
    Projections::of(&context).rebuild("balances").await.unwrap();
    let mut running = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    until_generation(&store.models, 3).await;
    assert_eq!(stored(&store.models, 3).await, expected(&context, 1).await);
}
