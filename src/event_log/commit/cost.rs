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

/// How much one measurement counts against those before.
const WEIGHT: f64 = 0.1;

/// The load of one committer: how many commits are under way, and what they were seen to cost.
#[derive(Debug, Default)]
pub(super) struct Load(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    peak: f64,
    peak_at: Option<Instant>,
    levels: [Level; LEVELS],
}

#[derive(Debug, Default, Clone, Copy)]
struct Level {
    alone: Option<Cost>,
    together: Option<Cost>,
}

#[derive(Debug, Clone, Copy)]
struct Cost {
    seconds_per_commit: f64,
    measured: Instant,
}

/// One commit under way; counts until it is dropped.
pub(super) struct Ticket {
    load: Arc<Load>,
    under_way: usize,
    lane: Lane,
}

impl Load {
    /// Counts a commit and chooses its way.
    pub(super) fn arrive(self: &Arc<Self>, now: Instant) -> Ticket {
        let mut state = self.state();
        state.under_way += 1;
        let level = state.level(now);
        let lane = choose(state.levels[level], 1 << level, now);
        Ticket { load: Arc::clone(self), under_way: state.under_way, lane }
    }

    /// Notes that `commits` were stored in one batch.
    pub(super) fn stored_together(&self, commits: usize, took: Duration) {
        let now = Instant::now();
        let mut state = self.state();
        let level = state.level(now);
        let per_commit = took.as_secs_f64() / commits.max(1) as f64;
        note(&mut state.levels[level].together, per_commit, now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves numbers behind that are still numbers.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The level of the load that was lately reached. After a batch all its callers are gone for a moment; the load is
    /// not.
    fn level(&mut self, now: Instant) -> usize {
        let past = self.peak_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let faded = self.peak * 0.5_f64.powf(past.as_secs_f64() / HALF_LIFE.as_secs_f64());
        if self.under_way as f64 >= faded || self.peak_at.is_none() {
            self.peak = self.under_way as f64;
            self.peak_at = Some(now);
        }
        level_of(faded.max(self.under_way as f64) as usize)
    }
}

fn level_of(commits: usize) -> usize {
    (commits.max(1).ilog2() as usize).min(LEVELS - 1)
}

fn choose(level: Level, commits: u32, now: Instant) -> Lane {
    match (level.alone, level.together) {
        _ if commits == 1 => Lane::Alone,
        (None, _) => Lane::Alone,
        (Some(_), None) => Lane::Together,
        (Some(alone), Some(together)) => {
            let better = alone.seconds_per_commit <= together.seconds_per_commit;
            match better {
                true if is_stale(together, commits, now) => Lane::Together,
                true => Lane::Alone,
                false if is_stale(alone, commits, now) => Lane::Alone,
                false => Lane::Together,
            }
        }
    }
}

fn is_stale(cost: Cost, commits: u32, now: Instant) -> bool {
    let trial = Duration::from_secs_f64(cost.seconds_per_commit * f64::from(commits));
    now.saturating_duration_since(cost.measured) > (trial * TRIAL_SHARE).max(LEAST_PAUSE)
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
        let mut state = self.load.state();
        let level = level_of(self.under_way);
        let per_commit = took.as_secs_f64() / self.under_way as f64;
        note(&mut state.levels[level].alone, per_commit, Instant::now());
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.load.state().under_way -= 1;
    }
}
