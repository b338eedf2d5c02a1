//! What a commit costs alone and in a batch, as measured, and which way is taken at the load of the moment.
//!
//! Both ways are described by the time they take per commit while `n` commits are under way: for commits that travel
//! alone by Little's law (latency / n), for batches by duration / n. Neither can be derived from the other or from
//! constants, because they depend on the disk, on how the server syncs, and on replicas. All commits go one way at a time, or
//! what they cost would say nothing of it; the other way is tried by all of them, for as long as one of each takes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How a commit of one message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Lane {
    #[default]
    Alone,
    Together,
}

/// Loads are told apart by powers of two: 1, 2..3, 4..7, and so on.
const LEVELS: usize = 16;

/// How fast a load that was reached once is forgotten: it halves in this time.
const HALF_LIFE: Duration = Duration::from_millis(50);

/// The way not taken is tried again after this many times what was lost by the last trial, and not before the least pause.
/// With the way back, which costs as much as the way there, trials cost one part in a hundred.
const TRIAL_SHARE: u32 = 200;
const LEAST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The way not taken is tried at a load that has been held for so long.
const HOLD: Duration = Duration::from_millis(100);

/// A trial ends after so many times as many commits as are under way: one round tells more of the server's moment than of
/// the way.
const TRIAL_ROUNDS: usize = 3;

/// A trial ends early after so many commits that took so many times as long as those of the other way.
const CLEAR_COMMITS: usize = 32;
const CLEARLY_SLOWER: f64 = 4.0;

/// The way taken is left for one that costs at most this part. Where both cost about the same, going to and fro between
/// them would cost more than either.
const CHEAPER: f64 = 0.9;

/// A batch waits for the next commit that is expected at most this part of the time that the last batch took, and for all of
/// them together as long as that.
const PATIENCE_SHARE: u32 = 4;

/// A cost is the average of the last measurements, with as many commits each as are under way: of all at first, so that
/// the first, which is cold, soon counts for little; later about of so many.
const MEMORY: f64 = 10.0;

/// A measurement counts for at most so many times the cost that was known: a moment in which the server stood still says
/// nothing of the way, and must not end it.
const MOST: f64 = 2.0;

/// The load of one committer: how many commits are under way, and what they were seen to cost.
#[derive(Debug, Default)]
pub(super) struct Load(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    alone_under_way: usize,
    /// Commits of several messages, which have no choice.
    bound_under_way: usize,
    batch_takes: Duration,
    peak: f64,
    peak_at: Option<Instant>,
    alone: Costs,
    together: Costs,
    /// The way taken last by a load that has the choice and was held.
    lane: Lane,
    /// About which level the load is, and since when.
    held: Option<(usize, Instant)>,
    trial: Option<Trial>,
}

/// What a commit costs by one way, for each level of load.
type Costs = [Option<Cost>; LEVELS];

#[derive(Debug, Clone, Copy)]
struct Cost {
    seconds_per_commit: f64,
    /// How many measurements it is made of, up to [`MEMORY`].
    measurements: f64,
    measured: Instant,
    /// How much longer its last trial took than the other way would have.
    lost: Duration,
}

/// All commits that have the choice go one way until what that costs is known.
#[derive(Debug, Clone, Copy)]
struct Trial {
    lane: Lane,
    level: usize,
    /// How many commits a round has.
    round: usize,
    begun: Instant,
    /// Since when nothing went the other way, for commits that travel alone.
    undisturbed: Option<Instant>,
    seconds: f64,
    commits: usize,
}

/// What a batch of commits took, or one that travelled alone, and how many were under way then.
struct Measured {
    lane: Lane,
    load: usize,
    commits: usize,
    took: Duration,
}

impl Measured {
    fn seconds_per_commit(&self) -> f64 {
        let shared_by = match self.lane {
            Lane::Alone => self.load,
            Lane::Together => self.commits,
        };
        self.took.as_secs_f64() / shared_by.max(1) as f64
    }
}

/// How long a batch waits for commits that are expected. Closed without them it leaves them to another, which takes as long
/// again; so waiting is worth a part of that. Never longer than a load is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// For the next one.
    pub(super) for_next: Duration,
    /// For all of them.
    pub(super) for_all: Duration,
}

/// One commit under way; counts until it is dropped.
pub(super) struct Ticket {
    load: Arc<Load>,
    lane: Lane,
    is_bound: bool,
    /// How many commits travelled alone when this one set out, itself included.
    alone_under_way: usize,
    /// Whether some that had the choice travelled the other way then. What it takes tells nothing of its own way.
    is_mixed: bool,
}

impl Load {
    /// Counts a commit and chooses its way. One of several messages always travels in a batch.
    pub(super) fn arrive(self: &Arc<Self>, messages: usize, now: Instant) -> Ticket {
        let mut state = self.state();
        state.under_way += 1;
        let is_bound = messages > 1;
        let lane = if is_bound { Lane::Together } else { state.choose(now) };
        state.bound_under_way += usize::from(is_bound);
        state.alone_under_way += usize::from(lane == Lane::Alone);
        let alone_under_way = state.alone_under_way;
        let is_mixed = state.is_mixed();
        Ticket { load: Arc::clone(self), lane, is_bound, alone_under_way, is_mixed }
    }

    /// How many commits a batch should have, and how long it is worth waiting for them.
    pub(super) fn worth_waiting_for(&self) -> (usize, Patience) {
        let mut state = self.state();
        let load = state.load(Instant::now());
        let for_all = state.batch_takes.min(HALF_LIFE);
        let patience = Patience { for_next: for_all / PATIENCE_SHARE, for_all };
        (load.saturating_sub(state.alone_under_way), patience)
    }

    /// Whether commits travel alone.
    pub(super) fn is_mixed(&self) -> bool {
        self.state().alone_under_way > 0
    }

    /// Notes that `commits` were stored in one batch while none travelled alone, how long that took, and for how long the
    /// batch was full.
    pub(super) fn stored_together(
        &self,
        commits: usize,
        took: Duration,
        full: Duration,
        now: Instant,
    ) {
        let mut state = self.state();
        state.batch_takes = full;
        if let Some(mut trial) = state.trial_of(Lane::Together) {
            trial.seconds += took.as_secs_f64();
            trial.commits += commits;
            return state.tried(trial, now);
        }
        // Not the load of a moment ago: of one that ends only the last few are in the batch.
        let load = state.under_way.max(commits);
        state.note(Measured { lane: Lane::Together, load, commits, took }, now);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves numbers behind that are still numbers.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether some that had the choice travel together.
    fn is_mixed(&self) -> bool {
        self.under_way > self.alone_under_way + self.bound_under_way
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
        let (level, since) = self.hold(level, now);
        let is_held = now.saturating_duration_since(since) >= HOLD;
        match self.trial {
            Some(trial) if trial.level.abs_diff(level) > 1 => self.trial = None,
            // Too few came to conclude it; what they cost is all there is.
            Some(trial) if now.saturating_duration_since(trial.begun) > LEAST_PAUSE => {
                self.conclude(trial, now);
            }
            Some(trial) => return trial.lane,
            None => {}
        }
        let Some(alone) = nearest(&self.alone, level) else { return Lane::Alone };
        let together = nearest(&self.together, level);
        let lane = match self.lane {
            Lane::Alone if together.is_some_and(|together| together.is_cheaper_than(alone)) => {
                Lane::Together
            }
            Lane::Together if together.is_none_or(|together| alone.is_cheaper_than(together)) => {
                Lane::Alone
            }
            lane => lane,
        };
        if !is_held {
            // What a burst is like while it grows does not tell where it is going.
            return lane;
        }
        self.lane = lane;
        let (other, known) = match lane {
            Lane::Alone => (Lane::Together, together),
            Lane::Together => (Lane::Alone, Some(alone)),
        };
        let is_fresh = |known: Known| known.distance <= 1 && !known.cost.is_stale(now);
        match known.is_some_and(is_fresh) {
            true => lane,
            false => self.begin_trial(other, level, now),
        }
    }

    /// The level that the load has been about, and since when. So a load that goes to and fro between two levels is of one.
    fn hold(&mut self, level: usize, now: Instant) -> (usize, Instant) {
        let held = self.held.filter(|(held, _)| held.abs_diff(level) <= 1);
        *self.held.insert(held.unwrap_or((level, now)))
    }

    fn begin_trial(&mut self, lane: Lane, level: usize, now: Instant) -> Lane {
        let round = self.load(now).max(1 << level);
        let (undisturbed, seconds, commits) = (None, 0.0, 0);
        self.trial = Some(Trial { lane, level, round, begun: now, undisturbed, seconds, commits });
        lane
    }

    /// Notes what a commit cost at a load that has been about the same for as long as it took. A burst passes through many
    /// levels, and is none of them.
    fn note(&mut self, measured: Measured, now: Instant) {
        let level = level_of(measured.load);
        let Some((held, since)) = self.held.filter(|(held, _)| held.abs_diff(level) <= 1) else {
            return;
        };
        if now.saturating_duration_since(since) >= measured.took {
            let share = (measured.commits as f64 / f64::from(1_u32 << held)).min(1.0);
            let cost = &mut self.costs(measured.lane)[held];
            blend(cost, measured.seconds_per_commit(), share, now);
        }
    }

    fn trial_of(&self, lane: Lane) -> Option<Trial> {
        self.trial.filter(|trial| trial.lane == lane)
    }

    /// Goes on with a trial, or ends it when enough is known.
    fn tried(&mut self, trial: Trial, now: Instant) {
        let Trial { seconds, commits, .. } = trial;
        let limit = self.cost_of_the_other(&trial).map_or(f64::INFINITY, |o| CLEARLY_SLOWER * o);
        let is_clear = commits >= CLEAR_COMMITS && seconds > limit * commits as f64;
        // The answers to those that were sent at once may come at once, so more of them have to come.
        if is_clear || commits >= TRIAL_ROUNDS * trial.round {
            self.conclude(trial, now);
        } else {
            self.trial = Some(trial);
        }
    }

    fn conclude(&mut self, trial: Trial, now: Instant) {
        self.trial = None;
        let seconds_per_commit = match trial.commits {
            0 => f64::INFINITY,
            commits => trial.seconds / commits as f64,
        };
        let took = now.saturating_duration_since(trial.begun);
        let other =
            self.cost_of_the_other(&trial).map_or(0.0, |other| other * trial.commits as f64);
        let lost = took.saturating_sub(Duration::try_from_secs_f64(other).unwrap_or(took));
        let cost = Cost { seconds_per_commit, measurements: 1.0, measured: now, lost };
        self.costs(trial.lane)[trial.level] = Some(cost);
    }

    /// What a commit costs by the way that is not tried, as far as is known.
    fn cost_of_the_other(&self, trial: &Trial) -> Option<f64> {
        let others = match trial.lane {
            Lane::Alone => &self.together,
            Lane::Together => &self.alone,
        };
        nearest(others, trial.level).map(|known| known.cost.seconds_per_commit)
    }

    fn costs(&mut self, lane: Lane) -> &mut Costs {
        match lane {
            Lane::Alone => &mut self.alone,
            Lane::Together => &mut self.together,
        }
    }
}

/// What is known of a level, and from how far away.
#[derive(Clone, Copy)]
struct Known {
    cost: Cost,
    distance: usize,
}

impl Known {
    fn is_cheaper_than(self, other: Self) -> bool {
        self.cost.seconds_per_commit < CHEAPER * other.cost.seconds_per_commit
    }
}

/// What is known of a level; else what was measured last at the next levels of which something is known.
fn nearest(costs: &Costs, level: usize) -> Option<Known> {
    (0..LEVELS).find_map(|distance| newest_within(costs, level, distance))
}

fn newest_within(costs: &Costs, level: usize, distance: usize) -> Option<Known> {
    let from = level.saturating_sub(distance);
    let around = costs.iter().enumerate().skip(from).take(level + distance + 1 - from);
    around
        .filter_map(|(at, cost)| Some(Known { cost: (*cost)?, distance: at.abs_diff(level) }))
        .max_by_key(|known| known.cost.measured)
}

fn level_of(commits: usize) -> usize {
    (commits.max(1).ilog2() as usize).min(LEVELS - 1)
}

impl Cost {
    fn is_stale(self, now: Instant) -> bool {
        let pause = (self.lost * TRIAL_SHARE).clamp(LEAST_PAUSE, LONGEST_PAUSE);
        now.saturating_duration_since(self.measured) > pause
    }
}

/// Takes into a cost what a `share` of a measurement says.
fn blend(cost: &mut Option<Cost>, seconds_per_commit: f64, share: f64, now: Instant) {
    // Neither nothing, which does not double, nor what came to nothing is an average to go on from.
    let known = cost.filter(|old| old.seconds_per_commit.is_normal());
    let Some(old) = known else {
        let lost = Duration::ZERO;
        *cost = Some(Cost { seconds_per_commit, measurements: share, measured: now, lost });
        return;
    };
    let measurements = old.measurements + share;
    let change = seconds_per_commit.min(MOST * old.seconds_per_commit) - old.seconds_per_commit;
    *cost = Some(Cost {
        seconds_per_commit: old.seconds_per_commit + change * share / measurements,
        measurements: measurements.min(MEMORY),
        measured: now,
        ..old
    });
}

impl Ticket {
    pub(super) fn lane(&self) -> Lane {
        self.lane
    }

    /// Notes that the commit was stored by a message of its own.
    pub(super) fn stored_alone(&self, took: Duration, now: Instant) {
        let mut state = self.load.state();
        let Some(mut trial) = state.trial_of(Lane::Alone) else {
            // The law holds for a load that lasts. Who set out in a burst waited for those who came after it.
            if !self.is_mixed {
                let load = self.alone_under_way;
                state.note(Measured { lane: Lane::Alone, load, commits: 1, took }, now);
            }
            return;
        };
        // By how many are stored in a time: a trial that waited for the latency under full load would take twice as long.
        match trial.undisturbed {
            _ if state.is_mixed() => trial.undisturbed = None,
            None => (trial.undisturbed, trial.seconds, trial.commits) = (Some(now), 0.0, 0),
            Some(since) => {
                trial.seconds = now.saturating_duration_since(since).as_secs_f64();
                trial.commits += 1;
            }
        }
        state.tried(trial, now);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.load.state();
        state.under_way -= 1;
        state.bound_under_way -= usize::from(self.is_bound);
        state.alone_under_way -= usize::from(self.lane == Lane::Alone);
    }
}

#[cfg(test)]
mod tests;
