//! The active relay: reads, publishes, writes down, all at the same time and each within its bound.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::book::Patience;
use super::lanes::{Job, Lanes};
use super::ledger::{Delta, Ledger};
use super::meter::Meter;
use super::records::Cursor;
use super::relay::stopped;
use super::{Outbox, OutboxError, PublishError, Publisher, RelayOptions, RelayPhase, RelayStatus};
use crate::backend::{BackendError, Followed, Position, Start, StoredMessage, TailQuery};
use crate::panics::text_of;

/// After so many messages, or so long after the first of them, what was published is written down.
const SAVE_AFTER: u64 = 500;
const SAVE_WITHIN: Duration = Duration::from_millis(25);

/// So many records may go along with one write, before what is done has to wait for it.
const MOST_RECORDS: usize = 900;

/// So many messages may be published before what was published is written down: what is repeated at most after a crash,
/// apart from what is under way.
const MOST_UNSAVED: u64 = 5000;

/// How often is looked whether somebody else has changed the ledger, and how old a status may become.
const TICK: Duration = Duration::from_secs(1);

/// How long is waited when the receiver is not available, at first and at most.
const OUTAGE_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_OUTAGE_PAUSE: Duration = Duration::from_secs(15);

/// As good as for ever.
const YEARS: Duration = Duration::from_secs(30 * 365 * 86_400);

/// What an instance needs to publish; kept while it stands by.
pub(super) struct Pump<P> {
    outbox: Arc<Outbox>,
    publisher: Arc<P>,
    options: RelayOptions,
    status: watch::Sender<RelayStatus>,
    stop: watch::Receiver<bool>,
    meter: Meter,
}

type Feed = BoxStream<'static, Result<Followed, BackendError>>;
type Saving = BoxFuture<'static, Result<Saved, OutboxError>>;
type Looking = BoxFuture<'static, Result<(u64, Option<Cursor>), OutboxError>>;

/// A ledger that was written, and what is parked since.
struct Saved {
    ledger: Ledger,
    parked: Vec<Position>,
}

/// What came of a message whose turn it was.
struct Done {
    job: Job,
    outcome: Result<(), PublishError>,
    /// How many messages had got through when it was begun.
    before: u64,
}

/// What is known of the receiver.
#[derive(Default)]
struct Receiver {
    /// How many messages got through.
    successes: u64,
    /// How often in a row it was not available, and until when it is left alone.
    outages: u32,
    resume_at: Option<Instant>,
    /// The messages for which it was not available, and how many had got through before the first time.
    missed: HashMap<Position, u64>,
    /// What went wrong last.
    trouble: Option<String>,
}

/// A relay at work.
struct Work {
    lanes: Lanes,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
    receiver: Receiver,
    /// `None` while it is being written.
    ledger: Option<Ledger>,
    saving: Option<Saving>,
    /// Since when something is to be written down.
    unsaved_since: Option<Instant>,
    looking: Option<Looking>,
    next_tick: Instant,
}

impl<P: Publisher> Pump<P> {
    pub(super) fn new(
        outbox: Outbox,
        publisher: Arc<P>,
        options: RelayOptions,
        status: watch::Sender<RelayStatus>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let meter = Meter::of(outbox.name());
        Self { outbox: Arc::new(outbox), publisher, options, status, stop, meter }
    }

    /// Says that nothing can be done now, and why.
    pub(super) fn trouble(&self, phase: RelayPhase, trouble: Option<String>) {
        self.status.send_modify(|status| {
            status.phase = phase;
            status.trouble = trouble.or(status.trouble.take());
        });
    }

    /// Publishes until it is to stop, or cannot go on.
    pub(super) async fn serve(&self) -> Result<(), OutboxError> {
        let (ledger, _) = tokio::select! {
            loaded = self.outbox.book.load() => loaded?,
            () = stopped(&self.stop) => return Ok(()),
        };
        let now = self.outbox.context.clock().now();
        let mut feed = self.follow(&ledger);
        let mut work = Work {
            lanes: Lanes::after(&ledger, now, self.outbox.retry.longest_pause),
            under_way: FuturesUnordered::new(),
            receiver: Receiver::default(),
            ledger: Some(ledger),
            saving: None,
            unsaved_since: None,
            looking: None,
            next_tick: Instant::now(),
        };
        loop {
            self.begin_what_can_be(&mut work);
            self.write_down(&mut work);
            let wake = work.wakes_at();
            tokio::select! {
                () = stopped(&self.stop) => break,
                Some(done) = work.under_way.next(), if work.may_settle() => {
                    self.settle(&mut work, done);
                    while work.may_settle()
                        && let Some(Some(done)) = work.under_way.next().now_or_never()
                    {
                        self.settle(&mut work, done);
                    }
                }
                followed = feed.next(), if work.lanes.has_room() => {
                    self.take(&mut work, &mut feed, followed)?;
                }
                saved = waited(&mut work.saving) => {
                    work.saving = None;
                    work.saved(saved?);
                    self.report(&work);
                }
                looked = waited(&mut work.looking) => {
                    work.looking = None;
                    work.compare(looked)?;
                }
                () = sleep_until(wake) => self.tick(&mut work),
            }
        }
        self.finish(work).await;
        Ok(())
    }

    fn follow(&self, ledger: &Ledger) -> Feed {
        let context = &self.outbox.context;
        let patterns = self.outbox.topics.patterns(context.scheme().context());
        context.log().follow(TailQuery { patterns, start: Start::After(ledger.cursor.position) })
    }

    /// Takes a message of the log, and those that are there already and have room.
    fn take(
        &self,
        work: &mut Work,
        feed: &mut Feed,
        first: Option<Result<Followed, BackendError>>,
    ) -> Result<(), OutboxError> {
        let mut next = first;
        loop {
            match next {
                Some(Ok(Followed::Message(message))) => self.admit(work, message),
                Some(Ok(Followed::CaughtUp)) => {}
                Some(Err(error)) => return Err(self.ended(error)),
                None => return Err(BackendError::unavailable("following the log ended").into()),
            }
            if !work.lanes.has_room() {
                return Ok(());
            }
            match feed.next().now_or_never() {
                Some(more) => next = more,
                None => return Ok(()),
            }
        }
    }

    fn ended(&self, error: BackendError) -> OutboxError {
        match error {
            BackendError::Truncated { last, after, .. } => {
                OutboxError::LogTruncated { position: after, last }
            }
            error => error.into(),
        }
    }

    fn admit(&self, work: &mut Work, message: StoredMessage) {
        let (position, stored_at) = (message.position, message.time);
        match self.outbox.own(message) {
            Some(message) => work.lanes.admit(message, self.outbox.context.clock().now()),
            None => work.lanes.skip(position, stored_at),
        }
    }

    /// Begins to publish as many messages as may be under way, what is due again first.
    fn begin_what_can_be(&self, work: &mut Work) {
        let now = Instant::now();
        if work.receiver.resume_at.is_some_and(|at| at > now) {
            return;
        }
        // Whether the receiver is there again is found out by one message.
        let most = if work.receiver.outages > 0 { 1 } else { self.options.concurrency.max(1) };
        while work.may_settle() && work.under_way.len() < most {
            // Another one each time: the first may be the reason.
            let job = match work.receiver.outages % 2 {
                0 => work.lanes.next_due(now).or_else(|| work.lanes.next_fresh()),
                _ => work.lanes.next_fresh().or_else(|| work.lanes.next_due(now)),
            };
            let Some(job) = job else { return };
            let mut trying = self.attempt(job, work.receiver.successes);
            // What is done at once need not be waited for.
            match (&mut trying).now_or_never() {
                Some(done) => self.settle(work, done),
                None => work.under_way.push(trying),
            }
            if work.receiver.resume_at.is_some() {
                return;
            }
        }
    }

    fn attempt(&self, job: Job, before: u64) -> BoxFuture<'static, Done> {
        let (publisher, outbox) = (Arc::clone(&self.publisher), Arc::clone(&self.outbox));
        let limit = self.options.timeout;
        async move {
            let publishing = async {
                match &job {
                    Job::Fresh(message) => publisher.publish(message).await,
                    Job::Held(held) => match outbox.fetch(held).await {
                        Ok(Some(message)) => publisher.publish(&message).await,
                        Ok(None) => Err(PublishError::retryable("the log does not show it")),
                        Err(error) => Err(PublishError::unavailable(error)),
                    },
                }
            };
            let outcome = guarded(limit, publishing).await;
            Done { job, outcome, before }
        }
        .boxed()
    }

    /// Draws the conclusion from what came of a message.
    fn settle(&self, work: &mut Work, done: Done) {
        let Done { job, outcome, before } = done;
        let (position, lane) = (job.position(), job.lane());
        let receiver = &mut work.receiver;
        let error = match outcome {
            Ok(()) => {
                receiver.successes += 1;
                (receiver.outages, receiver.resume_at) = (0, None);
                receiver.missed.remove(&position);
                self.meter.published();
                return work.lanes.published(position, &lane);
            }
            Err(error) => error,
        };
        self.meter.failed();
        receiver.trouble = Some(error.to_string());
        let known = receiver.missed.get(&position).copied().unwrap_or(before);
        if matches!(error, PublishError::Unavailable(_)) && receiver.successes == known {
            receiver.missed.insert(position, known);
            let now = Instant::now();
            if receiver.resume_at.is_none_or(|at| at <= now) {
                receiver.resume_at = Some(now + outage_pause(receiver.outages));
                receiver.outages = receiver.outages.saturating_add(1);
                self.report(work);
            }
            let due = work.receiver.resume_at.unwrap_or(now);
            return work.lanes.back(job, due);
        }
        receiver.missed.remove(&position);
        let now = self.outbox.context.clock().now();
        let parked = matches!(error, PublishError::Permanent(_));
        let record = job.record(now);
        let (held, pause) =
            record.after_failure(error.to_string(), parked, &self.outbox.retry, now);
        if !held.is_waiting() {
            self.meter.parked();
            tracing::warn!(relay = self.outbox.name(), %position, %error, "a message is parked");
        }
        work.lanes.held(held, &lane, after(pause), now);
    }

    /// Begins to write down what is settled, when it is enough or waits long enough.
    fn write_down(&self, work: &mut Work) {
        let delta = work.lanes.delta();
        if delta.is_empty() {
            work.unsaved_since = None;
            return;
        }
        let since = *work.unsaved_since.get_or_insert_with(Instant::now);
        let much = delta.published() >= SAVE_AFTER || delta.records() as u64 >= SAVE_AFTER;
        if (much || since.elapsed() >= SAVE_WITHIN)
            && let Some(ledger) = work.ledger.take()
        {
            let delta = work.lanes.take_delta();
            work.unsaved_since = None;
            work.saving = Some(self.save(ledger, delta));
        }
    }

    fn save(&self, ledger: Ledger, delta: Delta) -> Saving {
        let (publisher, book) = (Arc::clone(&self.publisher), self.outbox.book.clone());
        let limit = self.options.timeout;
        async move {
            if delta.published() > 0 {
                guarded(limit, publisher.settle()).await.map_err(OutboxError::Unsettled)?;
            }
            let ledger = book.save(&ledger, &delta, Patience::Endless).await?;
            Ok(Saved { ledger, parked: delta.parked() })
        }
        .boxed()
    }

    fn tick(&self, work: &mut Work) {
        let now = Instant::now();
        if now < work.next_tick {
            return;
        }
        work.next_tick = now + TICK;
        self.report(work);
        if work.looking.is_none() {
            let book = self.outbox.book.clone();
            work.looking = Some(async move { book.cursor().await }.boxed());
        }
    }

    fn report(&self, work: &Work) {
        let now = self.outbox.context.clock().now();
        let lag = work.lanes.oldest().map_or(Duration::ZERO, |oldest| now.since(oldest));
        let unpublished = work.lanes.unpublished();
        self.meter.lag(lag, unpublished);
        let down = work.receiver.outages > 0;
        self.status.send_modify(|status| {
            status.phase =
                if down { RelayPhase::ReceiverUnavailable } else { RelayPhase::Publishing };
            if let Some(ledger) = &work.ledger {
                status.position = ledger.cursor.position;
                status.published = ledger.cursor.published;
                status.parked = ledger.cursor.parked;
            }
            status.waiting = work.lanes.waiting();
            (status.unpublished, status.lag) = (unpublished, lag);
            status.trouble = work.receiver.trouble.clone().or(status.trouble.take());
        });
    }

    /// Waits for what is under way and writes down what is settled, each for a bounded time.
    async fn finish(&self, mut work: Work) {
        let settling = async {
            while work.may_settle()
                && let Some(done) = work.under_way.next().await
            {
                self.settle(&mut work, done);
            }
        };
        // What is not done by then is dropped with the rest.
        let _ = timeout(self.options.timeout, settling).await;
        let saving = async {
            loop {
                if let Some(saving) = work.saving.take() {
                    work.saved(saving.await?);
                }
                match work.ledger.take() {
                    Some(ledger) if !work.lanes.delta().is_empty() => {
                        work.saving = Some(self.save(ledger, work.lanes.take_delta()));
                    }
                    ledger => {
                        work.ledger = ledger;
                        return Ok::<(), OutboxError>(());
                    }
                }
            }
        };
        match timeout(self.options.timeout, saving).await {
            Ok(Ok(())) => self.report(&work),
            Ok(Err(error)) => tracing::warn!(%error, "the end of a relay is not written down"),
            Err(_) => tracing::warn!("the end of a relay could not be written down in time"),
        }
    }
}

impl Work {
    /// Whether what comes of another message can still be written down with the next write.
    fn may_settle(&self) -> bool {
        let delta = self.lanes.delta();
        delta.records() < MOST_RECORDS && delta.published() < MOST_UNSAVED
    }

    fn saved(&mut self, saved: Saved) {
        self.lanes.saved(&saved.parked);
        self.ledger = Some(saved.ledger);
    }

    /// When something is to be done that nobody calls for.
    fn wakes_at(&self) -> Instant {
        let save = self.unsaved_since.filter(|_| self.ledger.is_some());
        let resume = self.receiver.resume_at;
        let due = self.lanes.next_due_at().map(|due| resume.map_or(due, |at| at.max(due)));
        let save = save.map(|since| since + SAVE_WITHIN);
        let now = Instant::now();
        // What is due and not begun waits for something else.
        let times = [save, resume.filter(|at| *at > now), due.filter(|at| *at > now)];
        times.into_iter().flatten().fold(self.next_tick, Instant::min)
    }

    /// Compares the cursor as it was found with the one that was written last.
    fn compare(
        &self,
        found: Result<(u64, Option<Cursor>), OutboxError>,
    ) -> Result<(), OutboxError> {
        match (found, &self.ledger) {
            // What is found while it is being written says nothing; an older one was read before the last write.
            (Ok((revision, _)), Some(ledger)) if revision > ledger.revision => {
                let detail = "somebody else changed the outbox".to_owned();
                Err(BackendError::Conflict { detail }.into())
            }
            (Err(error), _) if !error.is_transient() => Err(error),
            _ => Ok(()),
        }
    }
}

/// The outcome of what is under way, if something is.
async fn waited<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// What a publisher says, where silence and a panic are failed tries.
async fn guarded(
    limit: Duration,
    publishing: impl Future<Output = Result<(), PublishError>>,
) -> Result<(), PublishError> {
    match AssertUnwindSafe(timeout(limit, publishing)).catch_unwind().await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(PublishError::retryable(format!("no answer within {limit:?}"))),
        Err(panic) => {
            let text = text_of(panic.as_ref());
            Err(PublishError::retryable(format!("it panicked: {text}")))
        }
    }
}

/// The time so long from now. A pause that no clock can count to is one of years.
fn after(pause: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(pause).unwrap_or(now + YEARS)
}

fn outage_pause(outages: u32) -> Duration {
    let doubled = 2_u32.checked_pow(outages).and_then(|times| OUTAGE_PAUSE.checked_mul(times));
    doubled.unwrap_or(LONGEST_OUTAGE_PAUSE).min(LONGEST_OUTAGE_PAUSE)
}
