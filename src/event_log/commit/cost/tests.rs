//! Loads that were made up, on servers that were made up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Cost, HOLD, LEAST_PAUSE, Lane, Load};

/// What commits cost on a server that was made up.
#[derive(Clone, Copy)]
struct Server {
    /// Each commit that travels alone, one after the other.
    alone: Duration,
    /// Each batch, and each commit in it.
    batch: Duration,
    in_batch: Duration,
}

/// Batches cost much whatever their size, and commits in them little.
const SLOW_BATCHES: Server = Server {
    alone: Duration::from_micros(200),
    batch: Duration::from_micros(2000),
    in_batch: Duration::from_micros(15),
};

/// Commits alone cost less than commits in a batch.
const FAST_SINGLES: Server = Server { alone: Duration::from_micros(10), ..SLOW_BATCHES };

/// A server, its time, and the load of those who use it.
struct World {
    server: Server,
    now: Instant,
    load: Arc<Load>,
}

impl World {
    fn of(server: Server) -> Self {
        Self { server, now: Instant::now(), load: Arc::default() }
    }

    /// So many callers, each of which commits again when it has its answer. Returns how many of their commits went alone.
    fn run(&mut self, callers: usize, rounds: usize) -> usize {
        (0..rounds).map(|_| self.round(callers)).sum()
    }

    fn round(&mut self, callers: usize) -> usize {
        let mixed = self.load.is_mixed();
        let tickets: Vec<_> = (0..callers).map(|_| self.load.arrive(1, self.now)).collect();
        let (single, batched): (Vec<_>, Vec<_>) =
            tickets.into_iter().partition(|ticket| ticket.lane() == Lane::Alone);
        let begun = self.now;
        for ticket in &single {
            self.now += self.server.alone;
            ticket.stored_alone(self.now - begun, self.now);
        }
        if !batched.is_empty() {
            let took = self.server.batch + self.server.in_batch * batched.len() as u32;
            self.now += took;
            if single.is_empty() && !mixed {
                self.load.stored_together(batched.len(), took, took, self.now);
            }
        }
        single.len()
    }
}

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
        let mut world = World::of(server);
        world.run(callers, 20);
        let alone = world.run(callers, 1000);
        let strays = match wanted {
            Lane::Alone => callers * 1000 - alone,
            Lane::Together => alone,
        };
        assert!(strays <= callers * 1000 / 20, "{callers} callers: {strays} the other way");
    }
}

#[test]
fn a_way_that_has_become_cheaper_is_found() {
    let mut world = World::of(SLOW_BATCHES);
    world.run(64, 2000);
    world.server = FAST_SINGLES;
    world.run(64, 2000);
    let alone = world.run(64, 1000);
    assert!(alone > 64 * 950, "{alone}");
}

#[test]
fn a_burst_tries_nothing() {
    let mut world = World::of(SLOW_BATCHES);
    world.run(256, 20);
    for _ in 0..20 {
        world.now += Duration::from_secs(4);
        let alone = world.run(256, 5);
        assert!(alone <= 8, "{alone} before the load was known");
    }
}

#[test]
fn commits_that_meet_those_of_the_other_way_are_no_measure() {
    let mut world = World::of(SLOW_BATCHES);
    let alone = world.run(4, 120);
    assert_eq!(alone, 4 * 120, "nothing else is known");
    let World { load, mut now, .. } = world;
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

/// Makes known what commits cost at a level of load.
fn know(load: &Load, level: usize, now: Instant, alone: f64, together: f64) {
    let cost = |seconds_per_commit| {
        let lost = Duration::ZERO;
        Some(Cost { seconds_per_commit, measurements: 1.0, measured: now, lost })
    };
    (load.state().alone[level], load.state().together[level]) = (cost(alone), cost(together));
}

#[test]
fn a_way_is_left_only_for_one_that_is_clearly_cheaper() {
    let (load, begun) = (Arc::new(Load::default()), Instant::now());
    let under_way: Vec<_> = (0..64).map(|_| load.arrive(1, begun)).collect();
    let now = begun + HOLD;
    let lane = |alone, together| {
        know(&load, 6, now, alone, together);
        load.arrive(1, now).lane()
    };
    assert_eq!(lane(40.0, 37.0), Lane::Alone);
    assert_eq!(lane(40.0, 35.0), Lane::Together);
    assert_eq!(lane(33.0, 35.0), Lane::Together);
    assert_eq!(lane(31.0, 35.0), Lane::Alone);
    drop(under_way);
}

#[test]
fn a_burst_leaves_the_way_that_was_taken_before() {
    let (load, now) = (Arc::new(Load::default()), Instant::now());
    // Both cost about the same at the load that lasts; a burst passes one where they do not.
    know(&load, 1, now, 10.0, 100.0);
    know(&load, 6, now, 40.0, 37.0);
    load.state().lane = Lane::Together;
    let burst: Vec<_> = (0..64).map(|_| load.arrive(1, now)).collect();
    assert_eq!((burst[1].lane(), burst[63].lane()), (Lane::Alone, Lane::Together));
}

#[test]
fn what_is_known_of_a_load_itself_counts_before_what_is_newer_of_others() {
    let (load, now) = (Arc::new(Load::default()), Instant::now());
    know(&load, 5, now, 40.0, 10.0);
    know(&load, 6, now + Duration::from_millis(1), 10.0, 40.0);
    let burst: Vec<_> = (0..40).map(|_| load.arrive(1, now)).collect();
    assert_eq!(burst[39].lane(), Lane::Together);
}

#[test]
fn what_takes_longer_than_the_load_lasts_is_no_measure_of_it() {
    let (load, begun) = (Arc::new(Load::default()), Instant::now());
    let under_way: Vec<_> = (0..40).map(|_| load.arrive(1, begun)).collect();
    let (took, before) = (Duration::from_millis(2), begun + Duration::from_millis(1));
    load.stored_together(40, took, took, before);
    assert!(load.state().together[5].is_none(), "begun before the load was");
    load.stored_together(40, took, took, begun + took);
    assert!(load.state().together[5].is_some());
    drop(under_way);
}

#[test]
fn a_load_that_comes_and_goes_leaves_what_is_known_of_it() {
    let server = Server {
        alone: Duration::from_micros(40),
        batch: Duration::from_micros(1000),
        in_batch: Duration::from_micros(15),
    };
    let mut world = World::of(server);
    world.run(64, 2000);
    for _ in 0..10 {
        for callers in [30, 15, 7, 3, 2, 1, 2, 5, 20] {
            world.run(callers, 3);
        }
        let alone = world.run(64, 50);
        assert!(alone <= 64 * 5, "{alone} of {} the dearer way", 64 * 50);
    }
}

#[test]
fn a_moment_in_which_the_server_stands_still_does_not_end_the_way_that_is_taken() {
    let mut world = World::of(SLOW_BATCHES);
    world.run(64, 2000);
    let server = world.server;
    world.server = Server { batch: server.batch * 100, alone: server.alone * 100, ..server };
    world.run(64, 1);
    world.server = server;
    let alone = world.run(64, 20);
    assert_eq!(alone, 0);
}

#[test]
fn a_cost_of_nothing_does_not_last() {
    let (load, begun) = (Arc::new(Load::default()), Instant::now());
    let under_way: Vec<_> = (0..64).map(|_| load.arrive(1, begun)).collect();
    know(&load, 6, begun, 1.0, 0.0);
    load.state().held = Some((6, begun));
    let took = Duration::from_millis(64);
    load.stored_together(64, took, took, begun + took);
    let cost = load.state().together[6].map(|cost| cost.seconds_per_commit * 64.0);
    assert!(cost.is_some_and(|seconds| (seconds - 0.064).abs() < 1e-9), "{cost:?}");
    drop(under_way);
}

#[test]
fn a_trial_that_lost_little_is_repeated_soon_and_one_that_lost_much_is_not() {
    for (alone, again) in [(0.000_039, true), (0.001, false)] {
        let (load, begun) = (Arc::new(Load::default()), Instant::now());
        know(&load, 6, begun, 0.000_040, 0.000_040);
        load.state().lane = Lane::Together;
        let under_way: Vec<_> = (0..64).map(|_| load.arrive(1, begun)).collect();
        load.state().begin_trial(Lane::Alone, 6, begun);
        let took = Duration::from_secs_f64(alone * 192.0);
        let mut trial = load.state().trial.unwrap();
        (trial.seconds, trial.commits) = (took.as_secs_f64(), 192);
        load.state().conclude(trial, begun + took);
        // What is taken is known to be as it was.
        let now = begun + took + LEAST_PAUSE + Duration::from_millis(1);
        load.state().together[6].as_mut().unwrap().measured = now;
        let repeated = load.arrive(1, now).lane() == Lane::Alone;
        assert_eq!(repeated, again, "{alone}");
        drop(under_way);
    }
}

#[test]
fn a_trial_has_three_rounds_of_the_load_there_is() {
    let (load, now) = (Arc::new(Load::default()), Instant::now());
    let under_way: Vec<_> = (0..63).map(|_| load.arrive(1, now)).collect();
    load.state().begin_trial(Lane::Together, 5, now);
    let took = Duration::from_millis(1);
    for _ in 0..2 {
        load.stored_together(63, took, took, now);
        assert!(load.state().together[5].is_none());
    }
    load.stored_together(63, took, took, now);
    assert!(load.state().together[5].is_some());
    drop(under_way);
}

#[test]
fn a_trial_is_the_average_of_three_rounds() {
    let (load, now) = (Arc::new(Load::default()), Instant::now());
    load.state().begin_trial(Lane::Together, 5, now);
    for millis in [1, 1, 4] {
        assert!(load.state().together[5].is_none(), "one that was fast proves nothing");
        let took = Duration::from_millis(millis);
        load.stored_together(32, took, took, now);
    }
    let cost = load.state().together[5].map(|cost| cost.seconds_per_commit * 96.0);
    assert!(cost.is_some_and(|seconds| (seconds - 0.006).abs() < 1e-9), "{cost:?}");
}
