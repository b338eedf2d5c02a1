//! Each event takes effect once.

use std::time::Duration;

use cim_persistence::projection::{
    ProjectionError, ProjectionStatus, Projections, RunningProjection,
};
use cim_persistence::testing::faults::{Faults, Rates};

use crate::domain::{
    Balances, PATIENCE, Store, expected, last, many_moves, moves, options, stored,
};

#[tokio::test(start_paused = true)]
async fn what_is_stored_and_what_is_being_stored_takes_effect() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 300).await;
    let mut running = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    assert_eq!(stored(&store.models, 1).await, expected(&context, 1).await);
    many_moves(&context, 50).await;
    running.caught_up(PATIENCE).await.unwrap();
    assert_eq!(stored(&store.models, 1).await, expected(&context, 1).await);
    let report = Projections::of(&context).report("balances").await.unwrap();
    assert_eq!(report.status, ProjectionStatus::UpToDate);
    assert_eq!((report.position, report.events), (last(&context).await, 350));
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_query_can_wait_for_a_commit() {
    let store = Store::new();
    let context = store.healthy();
    let projections = Projections::of(&context);
    let position = moves(&context, "a", "b", 5).await;
    let waited = projections.wait_for("balances", position, Duration::from_secs(1)).await;
    assert!(
        matches!(waited, Err(ProjectionError::Unknown { projection }) if projection == "balances")
    );
    let running = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    for cents in 0..20 {
        let position = moves(&context, "a", "b", cents).await;
        projections.wait_for("balances", position, PATIENCE).await.unwrap();
        assert_eq!(stored(&store.models, 1).await, expected(&context, 1).await);
    }
    running.stop().await.unwrap();
    let position = moves(&context, "a", "b", 1).await;
    let waited = projections.wait_for("balances", position, Duration::from_secs(1)).await;
    match waited {
        Err(ProjectionError::NotReached { reached, wanted, .. }) => {
            assert_eq!((reached, wanted), (position.get() - 1, position.get()));
        }
        other => panic!("{other:?}"),
    }
    let report = projections.report("balances").await.unwrap();
    assert_eq!(report.status, ProjectionStatus::Lagging { behind_by: 1 });
}

#[tokio::test(start_paused = true)]
async fn of_two_instances_one_is_active_and_the_other_takes_over() {
    let store = Store::new();
    let context = store.healthy();
    let first = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    let position = moves(&context, "a", "b", 1).await;
    let projections = Projections::of(&context);
    projections.wait_for("balances", position, PATIENCE).await.unwrap();
    let second = RunningProjection::start(&store.healthy(), Balances::<1>, options()).unwrap();
    // The active one crashes; its lease runs out.
    drop(first);
    let position = moves(&context, "a", "b", 2).await;
    projections.wait_for("balances", position, PATIENCE).await.unwrap();
    assert!(second.report().is_some(), "the second is active");
    assert_eq!(stored(&store.models, 1).await, expected(&context, 1).await);
}

/// Crashes, lost answers, late writes, stale reads, two instances that both believe they are active: drawn from seeds.
#[tokio::test(start_paused = true)]
async fn whatever_is_drawn_the_models_are_what_a_rebuild_gives() {
    let rates = Rates {
        lost_ack: 60,
        lost_write: 60,
        late_write: 60,
        conflict: 20,
        stale_read: 100,
        outage: 40,
    };
    let mut met = 0;
    for seed in 0..100 {
        let store = Store::new();
        let healthy = store.healthy();
        let faults = Faults::random(seed, rates);
        let options = || cim_persistence::projection::ProjectionOptions {
            // So short that a lease runs out under its holder.
            lease: Duration::from_millis(1 + seed % 40),
            ..options()
        };
        let process = store.process(&faults);
        let start = || RunningProjection::start(&process, Balances::<1>, options()).unwrap();
        let mut instances = [start(), start()];
        for round in 0..8 {
            many_moves(&healthy, 20).await;
            tokio::time::sleep(Duration::from_millis(seed * 7 % 50)).await;
            instances[round % 2] = start();
        }
        met += faults.met();
        let healed = RunningProjection::start(&healthy, Balances::<1>, options()).unwrap();
        let reached =
            Projections::of(&healthy).wait_for("balances", last(&healthy).await, PATIENCE).await;
        reached.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        drop(instances);
        healed.stop().await.unwrap();
        assert_eq!(stored(&store.models, 1).await, expected(&healthy, 1).await, "seed {seed}");
    }
    assert!(met > 1000, "only {met} faults were met");
}
