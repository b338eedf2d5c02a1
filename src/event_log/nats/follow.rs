//! Following a stream: how far a follower is, and how it goes on when its consumer is lost.
//!
//! Everything rests on one rule: a consumer may be given up at any moment, because the next one begins after the last
//! position that was taken from it. What a consumer is and how it is asked for messages is in [`pull`]; which subjects
//! it is asked for is in [`filters`].

mod delivery;
mod filters;
mod pull;

use std::collections::VecDeque;
use std::time::Duration;

use futures::Stream;
use serde_json::json;

use super::NatsLog;
use crate::backend::{BackendError, Followed, Position, Start, StoredMessage, TailQuery};
use crate::clock::Timestamp;
use crate::event_log::{DOUBT, DOUBTS, LogStatus};
use delivery::Delivered;
use filters::Filters;
use pull::{Answer, Pull};

/// How long a follower waits before it tries again, times the number of failures in a row, up to a bound.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often a sweep goes after what was written again while it went over the rest. Each time less is left, as long as
/// messages are read faster than they are written.
const LAPS: u32 = 16;

pub(super) fn follow(
    log: NatsLog,
    query: TailQuery,
) -> impl Stream<Item = Result<Followed, BackendError>> + Send + 'static {
    let following = Box::new(Following::new(log, query));
    futures::stream::unfold(Some(following), |following| async move {
        let mut following = following?;
        match following.next().await {
            Ok(followed) => Some((Ok(followed), Some(following))),
            Err(error) => Some((Err(error), None)),
        }
    })
}

struct Following {
    log: NatsLog,
    filters: Filters,
    /// Where the next consumer begins.
    start: Start,
    /// Everything up to here was handed out or is not wanted.
    after: u64,
    /// Messages before this time are not wanted; until the first one that is.
    since: Option<Timestamp>,
    /// The last message that was taken. Another one at its position shows that the log lost its end and grew again.
    taken: Option<(Position, Timestamp)>,
    beginning: Option<Beginning>,
    progress: Progress,
    lap: Lap,
    pull: Option<Pull>,
    ready: VecDeque<Followed>,
    failures: u32,
    doubts: u32,
}

/// What the log was when following began.
#[derive(Clone, Copy)]
struct Beginning {
    end: u64,
    created: Timestamp,
    replicated: bool,
    /// Whether a message is gone from its place once its subject is written again.
    replaces: bool,
}

/// How far a sweep is that goes after what was written again.
#[derive(Default)]
struct Lap {
    number: u32,
    left: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Messages that were there at the beginning are still to come.
    Behind,
    /// The consumer has nothing more to give for now.
    Exhausted,
    CaughtUp,
}

impl Following {
    fn new(log: NatsLog, query: TailQuery) -> Self {
        let (after, since) = match query.start {
            Start::After(position) => (position.get(), None),
            Start::Since(time) => (0, Some(time)),
            Start::Now | Start::Latest => (0, None),
        };
        Self {
            log,
            filters: Filters::of(query.patterns),
            start: query.start,
            after,
            since,
            taken: None,
            beginning: None,
            progress: Progress::Behind,
            lap: Lap::default(),
            pull: None,
            ready: VecDeque::with_capacity(2),
            failures: 0,
            doubts: 0,
        }
    }

    async fn next(&mut self) -> Result<Followed, BackendError> {
        loop {
            if let Some(followed) = self.ready.pop_front() {
                return Ok(followed);
            }
            match self.step().await {
                Ok(()) => {}
                Err(error) if error.is_transient() => {
                    let stream = self.log.stream.as_ref();
                    tracing::debug!(stream, %error, "a follower begins again");
                    metrics::counter!("cim_follow_resumed_total").increment(1);
                    self.pull = None;
                    // The first failure is usually a restart or a new leader, of which nothing has to be waited out.
                    tokio::time::sleep((PAUSE * self.failures).min(LONGEST_PAUSE)).await;
                    self.failures = self.failures.saturating_add(1);
                }
                Err(error) if self.doubtful(&error) => {
                    self.doubts += 1;
                    tokio::time::sleep(DOUBT).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn step(&mut self) -> Result<(), BackendError> {
        if self.progress == Progress::Exhausted {
            self.progress = Progress::Behind;
            if self.nothing_is_left().await? {
                self.caught_up();
            }
            return Ok(());
        }
        let Some(pull) = &mut self.pull else { return self.begin().await };
        match pull.next().await? {
            Answer::Message(delivered) => self.take(delivered),
            // What it counted as left may have been removed.
            Answer::Idle if self.progress == Progress::Behind => {
                self.progress = Progress::Exhausted;
            }
            Answer::Idle | Answer::Alive => {}
        }
        self.failures = 0;
        Ok(())
    }

    /// Makes a consumer that begins after what was taken from the one before.
    async fn begin(&mut self) -> Result<(), BackendError> {
        let again = self.beginning.is_some();
        if self.start == Start::Now {
            self.after = self.look().await?.end;
            self.start = Start::After(Position::new(self.after));
        }
        let start = match self.start {
            Start::After(_) => Start::After(Position::new(self.after)),
            other => other,
        };
        let (pull, made) = Pull::create(&self.log, self.filters.for_server(), start, again).await?;
        // Only now: what is last on its subject when the consumer is made must not lie beyond the end.
        self.look().await?;
        if let Start::Since(_) = self.start {
            self.after = made.delivered.stream_seq;
            self.start = Start::After(Position::new(self.after));
        }
        self.pull = Some(pull);
        self.doubts = 0;
        if self.progress == Progress::Behind && made.num_pending == 0 {
            self.progress = Progress::Exhausted;
        }
        Ok(())
    }

    /// Sees whether the log is still the one that was read, and how it was when it was first seen.
    async fn look(&mut self) -> Result<Beginning, BackendError> {
        let info = self.log.info(None).await?;
        let status = info.status()?;
        self.compare(&status)?;
        let replaces = info.config.max_msgs_per_subject > 0;
        if !replaces && let Some((position, time)) = self.taken {
            let there = self.log.get_leader(json!({ "seq": position.get() })).await?;
            if there.is_some_and(|message| message.time != time) {
                return Err(self.truncated(&status));
            }
        }
        if let Some(beginning) = self.beginning {
            return Ok(beginning);
        }
        let end = match replaces && self.start == Start::Latest {
            // Such a sweep goes on until nothing is left, whatever the end is.
            true => status.last,
            false => info.end(self.log.newest_of_all().await?.as_ref()),
        };
        let replicated = info.config.num_replicas > 1;
        let beginning = Beginning { end: end.get(), created: status.created, replicated, replaces };
        Ok(*self.beginning.insert(beginning))
    }

    /// Compares how old the log is, and how far it goes.
    fn compare(&self, status: &LogStatus) -> Result<(), BackendError> {
        let another = self.beginning.is_some_and(|beginning| beginning.created != status.created);
        match another || status.last.get() < self.after {
            true => Err(self.truncated(status)),
            false => Ok(()),
        }
    }

    fn truncated(&self, status: &LogStatus) -> BackendError {
        BackendError::Truncated {
            stream: self.log.stream.as_ref().to_owned(),
            last: status.last.get(),
            after: self.after,
        }
    }

    /// Whether an error may be the word of a leader that does not know everything yet.
    fn doubtful(&self, error: &BackendError) -> bool {
        let may_be = match error {
            BackendError::Truncated { last, after, .. } => last < after,
            BackendError::NotFound { .. } => self.beginning.is_some(),
            _ => false,
        };
        may_be && self.doubts < DOUBTS
    }

    fn take(&mut self, delivered: Delivered) {
        let Delivered { message, pending } = delivered;
        let position = message.position.get();
        let end = self.beginning.map_or(0, |beginning| beginning.end);
        let behind = self.progress != Progress::CaughtUp;
        let replacing = self.goes_after_replaced();
        if behind && position > end && !(replacing && self.lap.goes_on(pending)) {
            let again = self.pull.as_ref().is_some_and(|pull| pull.again);
            let sweeping = self.start == Start::Latest;
            self.caught_up();
            if again && sweeping && !replacing {
                // A second sweep skips what a first one would have followed by now.
                self.pull = None;
                return;
            }
        }
        if position > self.after {
            self.after = position;
            self.taken = Some((message.position, message.time));
            if self.is_wanted(&message) {
                self.ready.push_back(Followed::Message(message));
            }
        }
        let at_end = position == end && !replacing;
        if self.progress == Progress::Behind && (pending == 0 || at_end) {
            self.progress = Progress::Exhausted;
        }
    }

    /// Whether this sweeps what is there, in a stream that moves a message to the end when its subject is written again.
    fn goes_after_replaced(&self) -> bool {
        self.start == Start::Latest && self.beginning.is_some_and(|beginning| beginning.replaces)
    }

    fn is_wanted(&mut self, message: &StoredMessage) -> bool {
        if self.since.is_some_and(|since| message.time < since) {
            return false;
        }
        self.since = None;
        self.filters.matches(message.subject.as_str())
    }

    fn caught_up(&mut self) {
        // A sweep that ends wherever nothing is left may not have come to the end.
        if !self.goes_after_replaced() {
            let end = self.beginning.map_or(0, |beginning| beginning.end);
            self.after = self.after.max(end);
        }
        if self.start == Start::Latest {
            self.start = Start::After(Position::new(self.after));
        }
        self.progress = Progress::CaughtUp;
        self.ready.push_back(Followed::CaughtUp);
    }

    /// Whether nothing is left of what was there at the beginning. A replica's consumer may not know yet what the leader
    /// has, and no consumer has the rest of a batch that is being stored.
    async fn nothing_is_left(&self) -> Result<bool, BackendError> {
        let Some(beginning) = self.beginning else { return Ok(false) };
        let replacing = self.goes_after_replaced();
        if self.after >= beginning.end || (replacing && !beginning.replicated) {
            return Ok(true);
        }
        for pattern in self.filters.for_server() {
            let request = json!({ "seq": self.after + 1, "next_by_subj": pattern.as_str() });
            let next = self.log.get_leader(request).await?;
            let in_time = |position: Position| replacing || position.get() <= beginning.end;
            if next.is_some_and(|message| in_time(message.position)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Lap {
    /// Whether a message beyond the end still belongs to what is swept, with so many behind it.
    fn goes_on(&mut self, pending: u64) -> bool {
        if self.left > 0 {
            self.left -= 1;
            return true;
        }
        self.number += 1;
        self.left = pending;
        self.number <= LAPS
    }
}
