//! A runner that was taken for dead and is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cim_persistence::migration::{MigrationError, MigrationRunner};
use cim_persistence::testing::faults::{Call, CallKind, Fault, Faults, Gate, Late};

use super::domain::*;

/// Writes of data, with the fence.
fn of_data(call: &Call<'_>, number: &mut usize, wanted: usize) -> bool {
    let data = call.kind == CallKind::Write && call.subjects.len() > 1;
    *number += usize::from(data);
    data && *number == wanted
}

fn nth_batch(wanted: usize) -> impl Fn(&Call<'_>) -> bool + Send + Sync + 'static {
    let number = std::sync::Mutex::new(0);
    move |call| of_data(call, &mut number.lock().unwrap(), wanted)
}

/// It does not look at its lease, as a process that was stopped and goes on.
fn sleepy(context: &cim_persistence::Context) -> MigrationRunner {
    runner(context).with_lease(Duration::from_secs(1_000_000))
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_was_taken_over_writes_nothing_any_more() {
    for batch in 1..=8 {
        let world = World::filled(17).await;
        let (faults, gate) = (Faults::new(), Gate::new());
        faults.plan_when(nth_batch(batch), Fault::PauseBefore(gate.clone()));
        let context = world.context(&faults);
        let deposed = tokio::spawn(async move { sleepy(&context).migrate_to(v(1)).await });
        gate.reached().await;

        let context = world.context(&Faults::new());
        runner(&context).migrate_to(v(1)).await.unwrap();
        let (contents, writes) = (world.contents().await, world.writes().await);
        gate.open();
        let outcome = deposed.await.unwrap();
        assert!(matches!(outcome, Err(MigrationError::Superseded)), "{outcome:?}");
        assert_same(&world.contents().await, &contents, &format!("batch {batch}"));
        assert_eq!(world.writes().await, writes, "batch {batch}: not even a record");
        assert_eq!(runner(&context).history().await.unwrap().len(), 1);
    }
}

/// The one that took over has changed nothing yet, so nothing but the fence stands in the way.
#[tokio::test(start_paused = true)]
async fn a_runner_is_fenced_off_before_the_next_one_changes_anything() {
    for batch in 1..=8 {
        let world = World::filled(17).await;
        let gates = [Gate::new(), Gate::new()];
        let start = |gate: &Gate, batch: usize, lease: Duration| {
            let faults = Faults::new();
            faults.plan_when(nth_batch(batch), Fault::PauseBefore(gate.clone()));
            let context = world.context(&faults);
            tokio::spawn(async move { runner(&context).with_lease(lease).migrate_to(v(1)).await })
        };
        let first = start(&gates[0], batch, Duration::from_secs(1_000_000));
        gates[0].reached().await;
        let second = start(&gates[1], 1, Duration::from_secs(2));
        gates[1].reached().await;

        let (contents, writes) = (world.contents().await, world.writes().await);
        gates[0].open();
        let outcome = first.await.unwrap();
        assert!(matches!(outcome, Err(MigrationError::Superseded)), "{outcome:?}");
        assert_same(&world.contents().await, &contents, &format!("batch {batch}"));
        // The second one renews its lease meanwhile, at most.
        assert!(world.writes().await <= writes + 1, "batch {batch}: not even a record");
        gates[1].open();
        assert_eq!(second.await.unwrap().unwrap().migrations[0].attempts, 2);
        let undisturbed = World::filled(17).await;
        runner(&undisturbed.context(&Faults::new())).migrate_to(v(1)).await.unwrap();
        let wanted = undisturbed.contents().await;
        assert_same(&world.contents().await, &wanted, &format!("batch {batch}, at the end"));
    }
}

/// The batch was on its way when its runner died, and arrives when the next one is done.
#[tokio::test(start_paused = true)]
async fn a_batch_of_a_dead_runner_that_arrives_late_is_not_stored() {
    for batch in 1..=8 {
        let world = World::filled(17).await;
        let (faults, gate) = (Faults::new(), Gate::new());
        let (late, under_way) = (nth_batch(batch), Arc::new(AtomicBool::new(false)));
        let begins = Arc::clone(&under_way);
        let late = move |call: &Call<'_>| late(call) && !begins.swap(true, Ordering::Relaxed);
        faults.plan_when(late, Fault::LateWrite(Late::WhenDelivered));
        // The runner looks what became of the batch, and is killed there.
        let look = move |call: &Call<'_>| {
            call.kind == CallKind::LeaderRead && under_way.load(Ordering::Relaxed)
        };
        faults.plan_when(look, Fault::PauseBefore(gate.clone()));
        let dead = world.context(&faults);
        let dead = runner(&dead);
        let killed = tokio::select! {
            _ = dead.migrate_to(v(1)) => false,
            () = gate.reached() => true,
        };
        assert!(killed);
        runner(&world.context(&Faults::new())).migrate_to(v(1)).await.unwrap();
        let (contents, writes) = (world.contents().await, world.writes().await);
        faults.deliver_late();
        assert_same(&world.contents().await, &contents, &format!("batch {batch}"));
        assert_eq!(world.writes().await, writes);
    }
}

#[tokio::test(start_paused = true)]
async fn runners_that_start_together_do_the_work_once() {
    let world = World::filled(17).await;
    let runs = (0..4).map(|_| {
        let context = world.context(&Faults::new());
        tokio::spawn(async move { runner(&context).migrate_to(v(1)).await.unwrap() })
    });
    let runs: Vec<_> = runs.collect();
    let mut ran = 0;
    for run in runs {
        ran += run.await.unwrap().migrations.len();
    }
    assert_eq!(ran, 1);
    assert_eq!(value(&world.models, "person.team0.p0000").await.unwrap()["edits"], 11);
}
