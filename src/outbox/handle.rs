//! The outbox of a context: what is to be published, and what became of it, for those who publish by hand and for operators.
//!
//! Who runs a relay needs only what is about parked messages.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures::StreamExt;
use tokio::time::sleep;

use super::book::{Book, Patience};
use super::lanes::MOST_AHEAD;
use super::ledger::{Delta, Ledger};
use super::records::{HeldMessage, Keys};
use super::{OutboxError, PendingMessage, RetryPolicy, Topics};
use crate::backend::{BackendError, Position};
use crate::clock::Timestamp;
use crate::event_log::LogQuery;
use crate::store::Context;
use crate::subject::{AggregateType, Subject};

/// The outbox of a context, as one relay sees it. Cloning is cheap.
///
/// Each relay has a name, and records of its own under it; several relays publish independently of each other.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use cim_persistence::event::NonEmpty;
/// use cim_persistence::outbox::{Outbox, OutboxMessage, Topic};
/// use cim_persistence::store::{CommitInfo, Context, Ports};
/// use cim_persistence::NatsRepositoryConfig;
///
/// let context = Context::on(Ports::in_memory(), &NatsRepositoryConfig::for_context("sales"))?;
/// let outbox = Outbox::of(&context);
/// let placed = OutboxMessage::json(Topic::new("orders")?, "com.example.placed", &42)?;
/// outbox.save_messages(&NonEmpty::one(placed), &CommitInfo::default()).await?;
/// let pending = outbox.get_pending(10).await?;
/// assert_eq!(pending[0].event()?.json::<u32>()?, 42);
/// outbox.mark_published(&[pending[0].position()]).await?;
/// assert!(outbox.get_pending(10).await?.is_empty());
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "testing"))]
/// # fn main() {}
/// ```
#[derive(Debug, Clone)]
pub struct Outbox {
    pub(super) context: Context,
    pub(super) name: String,
    pub(super) topics: Topics,
    pub(super) book: Book,
    pub(super) retry: RetryPolicy,
}

/// The name of the relay that publishes everything.
const MAIN: &str = "main";

/// How much there is to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// How many messages are stored and not published, without those that are parked.
    pub messages: u64,
    /// How many are parked.
    pub parked: u64,
    /// When the oldest that is not published was stored.
    pub oldest: Option<Timestamp>,
}

/// What became of parked messages that were to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requeued {
    /// How many are tried again.
    pub requeued: usize,
    /// How many stay parked, because at most 1000 wait at a time. Ask again when those are published.
    pub left: usize,
}

/// What is said of a message by hand.
enum Mark<'a> {
    Published,
    Failed(&'a str),
}

impl Outbox {
    /// The outbox as the relay `main` sees it: all topics. No round trip.
    pub fn of(context: &Context) -> Self {
        Self::named(context, MAIN, Topics::All).expect("main is a name")
    }

    /// The outbox as the relay of this name sees it: these topics only. No round trip.
    ///
    /// A relay that never ran begins with the first message of the context. With other topics under the same name it goes on
    /// where it was, so give other topics another name.
    ///
    /// # Errors
    /// [`OutboxError::Name`] when the name is none: `A-Z a-z 0-9 _ -`, at most 64 bytes.
    pub fn named(context: &Context, name: &str, topics: Topics) -> Result<Self, OutboxError> {
        // The alphabet of all names.
        AggregateType::new(name)?;
        let keys = Keys::of(name).expect("a name is a token of a key");
        Ok(Self {
            context: context.clone(),
            name: name.to_owned(),
            topics,
            book: Book::new(context, keys),
            retry: RetryPolicy::default(),
        })
    }

    /// The same outbox, where failed messages are tried as this policy says.
    pub fn with_retry(self, retry: RetryPolicy) -> Self {
        Self { retry, ..self }
    }

    /// The name of the relay.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next messages to publish, at most so many: those that are due again, then what was stored since.
    ///
    /// For those who run no relay. Messages of one key come in order, and none whose key has one that waits; publish
    /// them in order, mark each. Who asks twice before marking gets the same messages twice. Four round trips and one for each
    /// message that is due again.
    ///
    /// # Errors
    /// [`OutboxError::LogTruncated`], [`OutboxError::Record`], or [`OutboxError::Backend`].
    pub async fn get_pending(&self, limit: usize) -> Result<Vec<PendingMessage>, OutboxError> {
        let (ledger, _) = self.book.load().await?;
        let now = self.context.clock().now();
        let (mut pending, mut blocked) = (Vec::new(), HashSet::new());
        for held in ledger.waiting.values() {
            let first = blocked.insert(held.lane());
            if first && held.due <= now && pending.len() < limit {
                pending.extend(self.fetch(held).await?);
            }
        }
        let mut stored = self.stored_after(ledger.cursor.position);
        while pending.len() < limit
            && let Some(message) = stored.next().await
        {
            if let Some(message) = self.own(message?)
                && !blocked.contains(&message.lane())
            {
                pending.push(message);
            }
        }
        Ok(pending)
    }

    /// Marks messages as published; those that are so already stay so, and a position that the relay has passed and holds no
    /// message at counts as that, whatever lies there. Messages before them that are neither published nor
    /// failed are held, and come again from [`get_pending`](Self::get_pending). A relay of this name that runs begins again
    /// when it notices.
    ///
    /// # Errors
    /// [`OutboxError::NotPending`] and [`OutboxError::TooManyHeld`], and nothing is marked; else as
    /// [`get_pending`](Self::get_pending), where [`BackendError::Unknown`] leaves open whether it is marked, after 30 s of
    /// asking.
    pub async fn mark_published(&self, positions: &[Position]) -> Result<(), OutboxError> {
        let marks = positions.iter().map(|position| (*position, Mark::Published)).collect();
        self.mark(marks).await
    }

    /// Marks a message as tried in vain: it is due again after a pause, or is parked when it was tried too often. Those
    /// behind it with its key wait. Else as [`mark_published`](Self::mark_published).
    ///
    /// # Errors
    /// As [`mark_published`](Self::mark_published).
    pub async fn mark_failed(&self, position: Position, error: &str) -> Result<(), OutboxError> {
        self.mark([(position, Mark::Failed(error))].into()).await
    }

    /// The messages that are parked, in order of position. Three round trips.
    ///
    /// # Errors
    /// As [`get_pending`](Self::get_pending).
    pub async fn list_parked(&self) -> Result<Vec<HeldMessage>, OutboxError> {
        Ok(self.book.load().await?.1)
    }

    /// Has a parked message tried again, as if it never had been; a relay that runs notices within a second, and may repeat
    /// what it published in that moment. False when no message is parked there, or 1000 are waiting already.
    ///
    /// # Errors
    /// As [`get_pending`](Self::get_pending).
    pub async fn requeue(&self, position: Position) -> Result<bool, OutboxError> {
        let requeued = self.requeue_those(|held| held.position == position).await?;
        Ok(requeued.requeued == 1)
    }

    /// Has all parked messages tried again, as [`requeue`](Self::requeue) does one.
    ///
    /// # Errors
    /// As [`get_pending`](Self::get_pending).
    pub async fn requeue_all(&self) -> Result<Requeued, OutboxError> {
        self.requeue_those(|_| true).await
    }

    /// How much there is to publish. Reads everything that is stored and not published; a running relay's
    /// [`status`](super::Relay::status) costs nothing.
    ///
    /// # Errors
    /// As [`get_pending`](Self::get_pending).
    pub async fn backlog(&self) -> Result<Backlog, OutboxError> {
        let (ledger, _) = self.book.load().await?;
        let mut oldest = ledger.waiting.values().map(|held| held.stored_at).min();
        let mut messages = ledger.waiting.len() as u64;
        let mut stored = self.stored_after(ledger.cursor.position);
        while let Some(message) = stored.next().await {
            if let Some(message) = self.own(message?) {
                messages += 1;
                oldest = Some(oldest.map_or(message.stored_at(), |at| at.min(message.stored_at())));
            }
        }
        Ok(Backlog { messages, parked: ledger.cursor.parked, oldest })
    }

    /// The message of a record, as the leader of the log shows it; `None` when it does not. One round trip.
    pub(super) async fn fetch(
        &self,
        held: &HeldMessage,
    ) -> Result<Option<PendingMessage>, BackendError> {
        let context = self.context.scheme().context();
        let before = Position::new(held.position.get().saturating_sub(1));
        let subject = Subject::trusted(super::topic::subject_text(context, &held.topic));
        let found = self.context.log().first_after(&subject, before).await?;
        let found = found.filter(|message| message.position == held.position);
        let message = found.and_then(|message| PendingMessage::read(context, message));
        Ok(message.map(|message| message.after_tries(held.attempts)))
    }

    /// A message of the log, if it is one that this relay publishes.
    pub(super) fn own(&self, message: crate::backend::StoredMessage) -> Option<PendingMessage> {
        let message = PendingMessage::read(self.context.scheme().context(), message)?;
        self.topics.contain(message.topic()).then_some(message)
    }

    fn stored_after(
        &self,
        after: Position,
    ) -> futures::stream::BoxStream<'static, Result<crate::backend::StoredMessage, BackendError>>
    {
        let filter = Topics::All.patterns(self.context.scheme().context()).first().to_string();
        self.context.log().read(LogQuery { filter: Some(filter), after })
    }

    async fn mark(&self, marks: BTreeMap<Position, Mark<'_>>) -> Result<(), OutboxError> {
        let mut tries = 0;
        loop {
            let (ledger, parked) = self.book.load().await?;
            let delta = match self.marked(&ledger, &parked, &marks).await {
                Err(OutboxError::NotPending { position })
                    if self.may_lie_at(position, ledger.cursor.position).await? =>
                {
                    tries += 1;
                    if tries == ATTEMPTS {
                        let detail = "a replica of the log is far behind";
                        return Err(BackendError::unavailable(detail).into());
                    }
                    sleep(PAUSE).await;
                    continue;
                }
                marked => marked?,
            };
            if delta.is_empty() {
                return Ok(());
            }
            match self.book.save(&ledger, &delta, Patience::Bounded).await {
                Err(OutboxError::Backend(BackendError::Conflict { .. })) => {}
                saved => return saved.map(drop),
            }
        }
    }

    /// Whether a message of this outbox may lie where a replica has shown none.
    async fn may_lie_at(&self, position: u64, cursor: Position) -> Result<bool, OutboxError> {
        if position <= cursor.get() || self.context.log().status().await?.last.get() < position {
            return Ok(false);
        }
        let after = Position::new(position - 1);
        let shown = self.context.log().read(LogQuery { filter: None, after }).next().await;
        Ok(match shown.transpose()? {
            Some(message) => message.position.get() == position && self.own(message).is_some(),
            None => true,
        })
    }

    /// What marks change. What is marked behind the cursor has others before it, which are held.
    async fn marked(
        &self,
        ledger: &Ledger,
        parked: &[HeldMessage],
        marks: &BTreeMap<Position, Mark<'_>>,
    ) -> Result<Delta, OutboxError> {
        let now = self.context.clock().now();
        let cursor = ledger.cursor.position;
        let mut delta = Delta::after(cursor);
        let fail = |held: HeldMessage, reason: &str| {
            held.after_failure(reason.to_owned(), false, &self.retry, now).0
        };
        for (position, mark) in marks.range(..=cursor) {
            let is_parked = parked.iter().any(|held| held.position == *position);
            match (mark, ledger.waiting.get(position)) {
                (Mark::Published, Some(_)) => delta.publish(*position),
                (Mark::Published, None) if is_parked => {
                    delta.publish(*position);
                    delta.unpark();
                }
                // It is published already.
                (Mark::Published, None) => {}
                (Mark::Failed(reason), Some(held)) => delta.hold(fail(held.clone(), reason)),
                (Mark::Failed(_), None) => {
                    return Err(OutboxError::NotPending { position: position.get() });
                }
            }
        }
        let Some(end) = marks.keys().next_back().filter(|end| **end > cursor) else {
            return Ok(delta);
        };
        let mut open: HashSet<Position> = marks.range(cursor..).map(|(at, _)| *at).collect();
        open.remove(&cursor);
        let mut stored = self.stored_after(cursor);
        while !open.is_empty()
            && let Some(message) = stored.next().await
        {
            let message = message?;
            if message.position > *end {
                break;
            }
            let Some(message) = self.own(message) else { continue };
            open.remove(&message.position());
            match marks.get(&message.position()) {
                Some(Mark::Published) => delta.publish(message.position()),
                Some(Mark::Failed(reason)) => {
                    delta.hold(fail(HeldMessage::behind(&message, now), reason));
                }
                None => delta.hold(HeldMessage::behind(&message, now)),
            }
            if ledger.waiting.len() + delta.records() >= MOST_AHEAD {
                return Err(OutboxError::TooManyHeld { limit: MOST_AHEAD });
            }
        }
        if let Some(position) = open.into_iter().min() {
            return Err(OutboxError::NotPending { position: position.get() });
        }
        delta.advance(*end);
        Ok(delta)
    }

    async fn requeue_those(
        &self,
        wanted: impl Fn(&HeldMessage) -> bool,
    ) -> Result<Requeued, OutboxError> {
        let mut requeued = 0;
        loop {
            let (ledger, parked) = self.book.load().await?;
            let room = MOST_AHEAD.saturating_sub(ledger.waiting.len()).min(MOST_REQUEUED);
            let now = self.context.clock().now();
            let mut delta = Delta::after(ledger.cursor.position);
            let mut left = 0;
            for held in parked.into_iter().filter(&wanted) {
                if delta.records() < room {
                    delta.hold(held.requeued(now));
                    delta.unpark();
                } else {
                    left += 1;
                }
            }
            if delta.is_empty() {
                return Ok(Requeued { requeued, left });
            }
            match self.book.save(&ledger, &delta, Patience::Bounded).await {
                Ok(_) => requeued += delta.records(),
                Err(OutboxError::Backend(BackendError::Conflict { .. })) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// How often a replica that is behind is asked again.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(50);

/// The most parked messages that are requeued by one write, which the cursor goes along with.
const MOST_REQUEUED: usize = 900;
