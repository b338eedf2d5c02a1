//! Loads that were made up, on servers that were made up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Cost, HOLD, Lane, Load};

/// What commits cost on a server that was made up.
#[derive(Clone, Copy)]
struct Server {
    /// Each commit that travels alone, one after the other.
    alone: Duration,
    /// Each batch, and each commit in it.
    batch: Duration,
    in_batch: Duration,
}

/// So many callers, each of which commits again when it has its answer. Returns how many of their commits went alone.
fn run(
    load: &Arc<Load>,
    now: &mut Instant,
    server: Server,
    callers: usize,
    rounds: usize,
) -> usize {
    let mut alone = 0;
    for _ in 0..rounds {
        let mixed = load.is_mixed();
        let tickets: Vec<_> = (0..callers).map(|_| load.arrive(1, *now)).collect();
        let (single, batched): (Vec<_>, Vec<_>) =
            tickets.into_iter().partition(|ticket| ticket.lane() == Lane::Alone);
        alone += single.len();
        let begun = *now;
        for ticket in &single {
            *now += server.alone;
            ticket.stored_alone(*now - begun, *now);
        }
        if !batched.is_empty() {
            let took = server.batch + server.in_batch * batched.len() as u32;
            *now += took;
            if single.is_empty() && !mixed {
                load.stored_together(batched.len(), took, took, *now);
            }
        }
    }
    alone
}

/// Batches cost much whatever their size, and commits in them little.
const SLOW_BATCHES: Server = Server {
    alone: Duration::from_micros(200),
    batch: Duration::from_micros(2000),
    in_batch: Duration::from_micros(15),
};

/// Commits alone cost less than commits in a batch.
const FAST_SINGLES: Server = Server { alone: Duration::from_micros(10), ..SLOW_BATCHES };

#[test]
fn the_cheaper_way_is_taken_at_every_load() {
    for (server, callers, wanted) in [
        (SLOW_BATCHES, 1, Lane::Alone),
        (SLOW_BATCHES, 4, Lane::Alone),
        (SLOW_BATCHES, 32, Lane::Together),
        (SLOW_BATCHES, 250, Lane::Together),
        (SLOW_BATCHES, 256, Lane::Together),
        (FAST_SINGLES, 32, Lane::Alone),
        (FAST_SINGLES, 250, Lane::Alone),
        (FAST_SINGLES, 256, Lane::Alone),
    ] {
        let (load, mut now) = (Arc::new(Load::default()), Instant::now());
        run(&load, &mut now, server, callers, 20);
        let alone = run(&load, &mut now, server, callers, 1000);
        let strays = match wanted {
            Lane::Alone => callers * 1000 - alone,
            Lane::Together => alone,
        };
        assert!(strays <= callers * 1000 / 20, "{callers} callers: {strays} the other way");
    }
}

#[test]
fn a_way_that_has_become_cheaper_is_found() {
    let (load, mut now) = (Arc::new(Load::default()), Instant::now());
    run(&load, &mut now, SLOW_BATCHES, 64, 2000);
    run(&load, &mut now, FAST_SINGLES, 64, 2000);
    let alone = run(&load, &mut now, FAST_SINGLES, 64, 1000);
    assert!(alone > 64 * 950, "{alone}");
}

#[test]
fn a_burst_tries_nothing() {
    let (load, mut now) = (Arc::new(Load::default()), Instant::now());
    run(&load, &mut now, SLOW_BATCHES, 256, 20);
    for _ in 0..20 {
        now += Duration::from_secs(4);
        let alone = run(&load, &mut now, SLOW_BATCHES, 256, 5);
        assert!(alone <= 8, "{alone} before the load was known");
    }
}

#[test]
fn commits_that_meet_those_of_the_other_way_are_no_measure() {
    let (load, mut now) = (Arc::new(Load::default()), Instant::now());
    let alone = run(&load, &mut now, SLOW_BATCHES, 4, 120);
    assert_eq!(alone, 4 * 120, "nothing else is known");
    now += Duration::from_millis(5);
    let bound = load.arrive(3, now);
    let first = load.arrive(1, now);
    assert_eq!(first.lane(), Lane::Together, "tried next");
    now += Duration::from_secs(2);
    let second = load.arrive(1, now);
    assert_eq!(second.lane(), Lane::Alone, "the trial has come to nothing");
    assert!(second.is_mixed);
    drop(first);
    let third = load.arrive(1, now);
    assert!(third.lane() == Lane::Alone && !third.is_mixed, "a commit of three had no choice");
    drop((bound, second, third));
    assert!(!load.is_mixed());
}

#[test]
fn who_sets_out_in_a_burst_tells_nothing_of_the_load_he_saw() {
    let (load, now) = (Arc::new(Load::default()), Instant::now());
    let tickets: Vec<_> = (0..1000).map(|_| load.arrive(1, now)).collect();
    let took = Duration::from_millis(10);
    for ticket in &tickets {
        ticket.stored_alone(took, now + took);
    }
    let known: Vec<usize> =
        (0..super::LEVELS).filter(|level| load.state().alone[*level].is_some()).collect();
    assert_eq!(known, [9], "the level that lasts");
}

#[test]
fn a_way_is_left_only_for_one_that_is_clearly_cheaper() {
    let (load, begun) = (Arc::new(Load::default()), Instant::now());
    let under_way: Vec<_> = (0..64).map(|_| load.arrive(1, begun)).collect();
    let now = begun + HOLD;
    let lane = |alone, together| {
        let cost = |seconds_per_commit| {
            Some(Cost {
                seconds_per_commit,
                measurements: 1.0,
                measured: now,
                trial: Duration::ZERO,
            })
        };
        (load.state().alone[6], load.state().together[6]) = (cost(alone), cost(together));
        load.arrive(1, now).lane()
    };
    assert_eq!(lane(40.0, 37.0), Lane::Alone);
    assert_eq!(lane(40.0, 35.0), Lane::Together);
    assert_eq!(lane(33.0, 35.0), Lane::Together);
    assert_eq!(lane(31.0, 35.0), Lane::Alone);
    drop(under_way);
}

#[test]
fn a_load_that_comes_and_goes_leaves_what_is_known_of_it() {
    let server = Server {
        alone: Duration::from_micros(40),
        batch: Duration::from_micros(1000),
        in_batch: Duration::from_micros(15),
    };
    let (load, mut now) = (Arc::new(Load::default()), Instant::now());
    run(&load, &mut now, server, 64, 2000);
    for _ in 0..10 {
        for callers in [30, 15, 7, 3, 2, 1, 2, 5, 20] {
            run(&load, &mut now, server, callers, 3);
        }
        let alone = run(&load, &mut now, server, 64, 50);
        assert!(alone <= 64 * 5, "{alone} of {} the dearer way", 64 * 50);
    }
}
