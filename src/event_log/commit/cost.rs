//! What a commit costs alone and in a batch, as measured, and which way is taken at the load of the moment.
//!
//! Both ways are described by the time they take per commit while `n` commits are under way: for commits that travel
//! alone by Little's law (latency / n), for batches by duration / n. Neither can be derived from the other or from
//! constants, because they depend on the disk, on how the server syncs, and on replicas.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How a commit of one message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Alone,
    Together,
}

/// Loads are told apart by powers of two: 1, 2..3, 4..7, and so on.
const LEVELS: usize = 16;

/// How fast a load that was reached once is forgotten: it halves in this time.
const HALF_LIFE: Duration = Duration::from_millis(50);

/// The way not taken is tried again after this many times what the trial costs, and not before the least pause.
/// So trials cost about one part in a hundred.
const TRIAL_SHARE: u32 = 100;
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// A batch waits for commits that are expected at most this part of the time that the last batch took.
const PATIENCE_SHARE: u32 = 2;

/// How much one measurement counts against those before.
const WEIGHT: f64 = 0.1;

/// So many batches may stay smaller than the load before what they cost is taken for what a full one would.
const SMALL_BATCHES: u32 = 8;

/// The load of one committer: how many commits are under way, and what they were seen to cost.
#[derive(Debug, Default)]
pub(super) struct Load(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    alone_under_way: usize,
    batch_takes: Duration,
    peak: f64,
    peak_at: Option<Instant>,
    alone: Costs,
    together: Costs,
    small_batches: u32,
}

/// What a commit costs by one way, for each level of load.
type Costs = [Option<Cost>; LEVELS];

#[derive(Debug, Clone, Copy)]
struct Cost {
    seconds_per_commit: f64,
    measured: Instant,
}

/// One commit under way; counts until it is dropped.
pub(super) struct Ticket {
    load: Arc<Load>,
    lane: Lane,
    /// How many commits travelled alone when this one set out, itself included.
    alone_under_way: usize,
}

impl Load {
    /// Counts a commit and chooses its way. One of several messages always travels in a batch.
    pub(super) fn arrive(self: &Arc<Self>, messages: usize, now: Instant) -> Ticket {
        let mut state = self.state();
        state.under_way += 1;
        let lane = match messages {
            1 => state.choose(now),
            _ => Lane::Together,
        };
        if lane == Lane::Alone {
            state.alone_under_way += 1;
        }
        Ticket { load: Arc::clone(self), lane, alone_under_way: state.alone_under_way }
    }

    /// How many commits a batch should have, and how long it is worth waiting for them: a share of what a batch takes.
    pub(super) fn worth_waiting_for(&self) -> (usize, Duration) {
        let mut state = self.state();
        let load = state.load(Instant::now());
        (load.saturating_sub(state.alone_under_way), state.batch_takes / PATIENCE_SHARE)
    }

    /// Notes that `commits` were stored in one batch, how long that took, and for how long the batch was full.
    pub(super) fn stored_together(&self, commits: usize, took: Duration, full: Duration) {
        let mut state = self.state();
        state.batch_takes = full;
        state.stored_together(commits, took);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves numbers behind that are still numbers.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn stored_together(&mut self, commits: usize, took: Duration) {
        let now = Instant::now();
        let per_commit = took.as_secs_f64() / commits.max(1) as f64;
        let (reached, wanted) = (level_of(commits), self.level(now));
        note(&mut self.together[reached], per_commit, now);
        if reached + 1 >= wanted {
            self.small_batches = 0;
            return;
        }
        self.small_batches += 1;
        if self.small_batches >= SMALL_BATCHES {
            self.small_batches = 0;
            note(&mut self.together[wanted], per_commit, now);
        }
    }

    /// The load that was lately reached. After a batch all its callers are gone for a moment; the load is not.
    fn load(&mut self, now: Instant) -> usize {
        let past = self.peak_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let faded = self.peak * 0.5_f64.powf(past.as_secs_f64() / HALF_LIFE.as_secs_f64());
        if self.under_way as f64 >= faded || self.peak_at.is_none() {
            self.peak = self.under_way as f64;
            self.peak_at = Some(now);
        }
        faded.max(self.under_way as f64) as usize
    }

    fn level(&mut self, now: Instant) -> usize {
        level_of(self.load(now))
    }

    fn choose(&mut self, now: Instant) -> Lane {
        let level = self.level(now);
        if level == 0 {
            return Lane::Alone;
        }
        match (newest(&self.alone, level), newest(&self.together, level)) {
            (None, _) => Lane::Alone,
            (Some(_), None) => Lane::Together,
            (Some(alone), Some(together)) => {
                match alone.seconds_per_commit <= together.seconds_per_commit {
                    true if together.is_stale(level, now) => Lane::Together,
                    true => Lane::Alone,
                    false if alone.is_stale(level, now) => Lane::Alone,
                    false => Lane::Together,
                }
            }
        }
    }
}

/// What is known at a level: what was measured there or just below, since a load is never held quite.
fn newest(costs: &Costs, level: usize) -> Option<Cost> {
    [costs[level], costs[level.saturating_sub(1)]]
        .into_iter()
        .flatten()
        .max_by_key(|cost| cost.measured)
}

fn level_of(commits: usize) -> usize {
    (commits.max(1).ilog2() as usize).min(LEVELS - 1)
}

impl Cost {
    fn is_stale(self, level: usize, now: Instant) -> bool {
        let trial = Duration::from_secs_f64(self.seconds_per_commit * f64::from(1_u32 << level));
        now.saturating_duration_since(self.measured) > (trial * TRIAL_SHARE).max(LEAST_PAUSE)
    }
}

fn note(cost: &mut Option<Cost>, seconds_per_commit: f64, now: Instant) {
    let blended = match *cost {
        Some(old) if now.saturating_duration_since(old.measured) < LEAST_PAUSE => {
            old.seconds_per_commit + WEIGHT * (seconds_per_commit - old.seconds_per_commit)
        }
        _ => seconds_per_commit,
    };
    *cost = Some(Cost { seconds_per_commit: blended, measured: now });
}

impl Ticket {
    pub(super) fn lane(&self) -> Lane {
        self.lane
    }

    /// Notes that the commit was stored by a message of its own.
    pub(super) fn stored_alone(&self, took: Duration) {
        let level = level_of(self.alone_under_way);
        let per_commit = took.as_secs_f64() / self.alone_under_way.max(1) as f64;
        note(&mut self.load.state().alone[level], per_commit, Instant::now());
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.load.state();
        state.under_way -= 1;
        if self.lane == Lane::Alone {
            state.alone_under_way -= 1;
        }
    }
}
