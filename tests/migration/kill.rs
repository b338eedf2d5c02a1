//! Runners that are killed: before each write, after it without its answer, and in bad weather.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cim_persistence::migration::{MigrationError, MigrationRunner, Outcome};
use cim_persistence::testing::faults::{Call, CallKind, Fault, Faults, Gate, Late, Rates};

use super::domain::*;

/// Lets the runner do so many writes, and kills it at the next one, before or after that is stored. Whether it came to that.
async fn kill_at(world: &World, write: usize, stored: bool, up: bool) -> bool {
    let (faults, gate) = (Faults::new(), Gate::new());
    let context = world.context(&faults);
    let written = Arc::new(AtomicUsize::new(0));
    let here = move |call: &Call<'_>| {
        call.kind == CallKind::Write && written.fetch_add(1, Ordering::Relaxed) == write
    };
    let pause = if stored { Fault::PauseAfter } else { Fault::PauseBefore };
    faults.plan_when(here, pause(gate.clone()));
    let runner = runner(&context);
    tokio::select! {
        () = gate.reached() => true,
        outcome = go(&runner, up) => {
            outcome.unwrap();
            false
        }
    }
}

async fn go(runner: &MigrationRunner, up: bool) -> Result<(), MigrationError> {
    let target = if up { v(1) } else { v(0) };
    let report = match up {
        true => runner.migrate_to(target).await?,
        false => runner.rollback_to(target).await?,
    };
    assert_eq!(report.to, target);
    Ok(())
}

/// A world at version 0 or 1, and what it holds after an undisturbed run from there.
async fn begin(people: u32, up: bool) -> World {
    let world = World::filled(people).await;
    if !up {
        runner(&world.context(&Faults::new())).migrate_to(v(1)).await.unwrap();
    }
    world
}

async fn undisturbed(people: u32, up: bool) -> BTreeMap<String, String> {
    let world = begin(people, up).await;
    go(&runner(&world.context(&Faults::new())), up).await.unwrap();
    world.contents().await
}

/// The first batch is stored when its run has failed, and nobody could see it before.
#[tokio::test(start_paused = true)]
async fn a_run_whose_first_batch_is_not_known_to_be_stored_is_gone_on_with() {
    let undisturbed = World::filled(17).await;
    runner(&undisturbed.context(&Faults::new())).migrate_to(v(1)).await.unwrap();
    let world = World::filled(17).await;
    let faults = Faults::new();
    let is_batch = |call: &Call<'_>| call.kind == CallKind::Write && call.subjects.len() > 1;
    faults.plan_when(is_batch, Fault::LateWrite(Late::WhenDelivered));
    let begun = Arc::new(AtomicBool::new(false));
    for _ in 0..1000 {
        let begun = Arc::clone(&begun);
        let after = move |call: &Call<'_>| {
            let models = call.stream == "KV_readmodels";
            let gone = models && begun.load(Ordering::SeqCst);
            begun.fetch_or(models && is_batch(call), Ordering::SeqCst);
            gone
        };
        faults.plan_when(after, Fault::Outage);
    }
    let failed = runner(&world.context(&faults)).migrate_to(v(1)).await.unwrap_err();
    assert!(matches!(failed, MigrationError::Backend(_)), "{failed}");
    faults.deliver_late();
    let context = world.context(&Faults::new());
    let done = runner(&context).migrate_to(v(1)).await.unwrap();
    assert_eq!(done.migrations[0].attempts, 2);
    assert_same(&world.contents().await, &undisturbed.contents().await, "gone on with");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_killed_at_any_write_ends_as_an_undisturbed_one() {
    for up in [true, false] {
        let wanted = undisturbed(17, up).await;
        let mut kills = 0;
        for stored in [true, false] {
            for write in 0.. {
                let world = begin(17, up).await;
                if !kill_at(&world, write, stored, up).await {
                    break;
                }
                kills += 1;
                let context = world.context(&Faults::new());
                go(&runner(&context), up).await.unwrap();
                let place = format!("killed at write {write}, stored {stored}, up {up}");
                assert_same(&world.contents().await, &wanted, &place);
                let history = runner(&context).history().await.unwrap();
                let last = history.last().unwrap();
                assert_eq!(last.outcome, Outcome::Done);
                assert!(last.tally.seen > 17, "{:?}", last.tally);
                assert!(people(&context).verify_index(&by_name()).await.unwrap().is_sound());
            }
        }
        assert!(kills > 30, "only {kills} writes, up {up}");
    }
}

/// What is counted is counted once, however often the run was killed on its way.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_killed_again_and_again_counts_everything_once() {
    let world = begin(17, true).await;
    runner(&world.context(&Faults::new())).migrate_to(v(1)).await.unwrap();
    let once = runner(&world.context(&Faults::new())).applied_migrations().await.unwrap();

    let world = begin(17, true).await;
    let mut attempts = 1;
    // Five writes take the lease, the ledger and the fences; so each attempt does one batch at least.
    while kill_at(&world, 8, attempts % 2 == 0, true).await {
        attempts += 1;
    }
    let applied = runner(&world.context(&Faults::new())).applied_migrations().await.unwrap();
    assert!(attempts > 5, "{attempts}");
    assert_eq!(applied[0].attempts, attempts);
    assert_eq!(applied[0].tally, once[0].tally);
    assert_same(&world.contents().await, &undisturbed(17, true).await, "at the end");
}

#[tokio::test(start_paused = true)]
async fn lost_answers_late_writes_conflicts_and_outages_change_nothing_about_the_end() {
    let rates = Rates {
        lost_ack: 60,
        lost_write: 60,
        late_write: 60,
        conflict: 60,
        stale_read: 100,
        outage: 60,
    };
    let (wanted, back) = (undisturbed(17, true).await, undisturbed(17, false).await);
    for seed in 0..40 {
        let world = begin(17, true).await;
        let faults = Faults::random(seed, rates);
        // The lease gives up at the first failure; whoever starts the runner starts it again.
        while let Err(error) = go(&runner(&world.context(&faults)), true).await {
            assert!(matches!(error, MigrationError::Backend(_)), "seed {seed}: {error}");
        }
        faults.deliver_late();
        assert_same(&world.contents().await, &wanted, &format!("seed {seed}"));
        while go(&runner(&world.context(&faults)), false).await.is_err() {}
        faults.deliver_late();
        assert_same(&world.contents().await, &back, &format!("seed {seed}, back"));
    }
}
