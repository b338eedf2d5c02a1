//! One small model of a JetStream stream, in memory.
//!
//! It refuses what nats-server 2.15.1 refuses: guards, atomic batches, message ids and sizes are judged as the server
//! judges them, in [`model`] and [`wire`]. The adapters on it stand beside the ports. Here each operation meets the
//! [`faults`] of its store before it reaches the model.

mod faults;
mod follow;
mod gate;
mod model;
mod random;
mod wire;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::Stream;
use tokio::sync::watch;

use super::{
    BackendError, Bound, Count, MAX_MATCHING, Matching, NewMessage, Position, ReadFrom,
    StoredMessage,
};
use crate::clock::{Clock, Timestamp};
use crate::event::NonEmpty;
use crate::subject::{Pattern, Subject};

pub use faults::{Call, CallKind, Fault, Faults, Late};
pub(crate) use follow::Keeps;
pub use gate::Gate;
pub use random::Rates;

use model::Model;

/// How many messages a reader copies while it holds the lock: what bounds the memory of a read.
const CHUNK: usize = 256;

/// How much one write may hold, and how long message ids are remembered: the server's defaults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_message_bytes: usize,
    pub(crate) max_batch_messages: usize,
    pub(crate) max_subjects_read: usize,
    pub(crate) duplicate_window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 1024 * 1024,
            max_batch_messages: 1000,
            max_subjects_read: 1000,
            duplicate_window: Duration::from_secs(120),
        }
    }
}

/// What is written at once; alone and in a batch a message travels differently and is judged differently.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    One(NewMessage),
    Batch(Vec<NewMessage>),
}

impl Write {
    fn subjects(&self) -> Vec<&str> {
        match self {
            Self::One(message) => vec![message.subject.as_str()],
            Self::Batch(messages) => messages.iter().map(|m| m.subject.as_str()).collect(),
        }
    }
}

/// A stream, and the faults that the operations through this handle meet. Cloning shares what is stored.
#[derive(Clone)]
pub(crate) struct MemoryStream {
    inner: Arc<Inner>,
    faults: Faults,
}

struct Inner {
    name: Arc<str>,
    limits: Limits,
    clock: Arc<dyn Clock>,
    created: Timestamp,
    model: Mutex<Model>,
    /// The last sequence, for those who wait for the next.
    end: watch::Sender<u64>,
}

impl MemoryStream {
    pub(crate) fn new(name: &str, limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let (name, created) = (Arc::from(name), clock.now());
        let model = Mutex::new(Model::new(Arc::clone(&name)));
        Self {
            inner: Arc::new(Inner {
                name,
                limits,
                clock,
                created,
                model,
                end: watch::Sender::new(0),
            }),
            faults: Faults::new(),
        }
    }

    /// The same stream through a handle that meets these faults.
    pub(crate) fn with_faults(self, faults: &Faults) -> Self {
        Self { faults: faults.clone(), ..self }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.inner.limits
    }

    pub(crate) fn created(&self) -> Timestamp {
        self.inner.created
    }

    /// The sequence of the last message, which is how many there are.
    pub(crate) async fn count(&self) -> Result<u64, BackendError> {
        self.meet(CallKind::LeaderRead, &[]).await?;
        Ok(self.inner.model().end())
    }

    /// Refuses a message that no batch holds.
    pub(crate) fn check(&self, message: NewMessage) -> Result<(), BackendError> {
        wire::checked(Write::Batch(vec![message]), &self.inner.limits).map(drop)
    }

    /// Stores all messages or none and returns the position of the last.
    pub(crate) async fn write(&self, write: Write) -> Result<Position, BackendError> {
        let write = wire::checked(write, &self.inner.limits)?;
        let fault = self.meet(CallKind::Write, &write.subjects()).await?;
        let unknown = |what: &str| Err(BackendError::unknown(format!("injected: {what}")));
        match fault {
            Some(Fault::LostAck) => {
                // The answer is lost whatever it says.
                let _ = self.inner.store(write);
                unknown("the answer was lost")
            }
            Some(Fault::LostWrite) => unknown("the write was lost"),
            Some(Fault::LateWrite(late)) => {
                let inner = Arc::clone(&self.inner);
                // Nobody waits for the answer any more.
                self.faults.keep_late(late, move || drop(inner.store(write)));
                unknown("the write is late")
            }
            Some(Fault::Conflict) => Err(BackendError::Conflict { detail: "injected".to_owned() }),
            Some(Fault::KnownId) => {
                Err(BackendError::Duplicate { stream: self.inner.name.as_ref().to_owned() })
            }
            Some(Fault::Overtaken(message)) => {
                // A message that is refused overtakes nobody.
                let _ = self.inner.store(Write::One(message));
                self.inner.store(write)
            }
            Some(Fault::PauseAfter(gate)) => {
                let outcome = self.inner.store(write);
                gate.pass().await;
                outcome
            }
            _ => self.inner.store(write),
        }
    }

    pub(crate) async fn last(
        &self,
        subject: &Subject,
        from: ReadFrom,
    ) -> Result<Option<StoredMessage>, BackendError> {
        let kind = match from {
            ReadFrom::Nearest => CallKind::NearestRead,
            ReadFrom::Leader => CallKind::LeaderRead,
        };
        let end = self.see(kind, &[subject.as_str()]).await?;
        Ok(self.inner.model().last(subject, end).cloned())
    }

    pub(crate) async fn first_after(
        &self,
        subject: &Subject,
        after: Position,
    ) -> Result<Option<StoredMessage>, BackendError> {
        self.meet(CallKind::LeaderRead, &[subject.as_str()]).await?;
        Ok(self.inner.model().first_after(subject, after.get()).cloned())
    }

    pub(crate) async fn first_matching(
        &self,
        pattern: &Pattern,
        after: Position,
    ) -> Result<Option<StoredMessage>, BackendError> {
        self.meet(CallKind::LeaderRead, &[pattern.as_str()]).await?;
        let model = self.inner.model();
        Ok(model.chunk(Some(pattern.as_str()), after.get(), u64::MAX, 1).pop())
    }

    /// The last message of each subject that has one, in order of position.
    pub(crate) async fn lasts(
        &self,
        subjects: &[Subject],
    ) -> Result<Vec<StoredMessage>, BackendError> {
        if subjects.len() > self.inner.limits.max_subjects_read {
            return Err(BackendError::Invalid {
                detail: format!("{} subjects are too many for one read", subjects.len()),
            });
        }
        let names: Vec<&str> = subjects.iter().map(Subject::as_str).collect();
        let end = self.see(CallKind::NearestRead, &names).await?;
        let distinct: HashSet<&Subject> = subjects.iter().collect();
        let model = self.inner.model();
        let mut found: Vec<StoredMessage> =
            distinct.into_iter().filter_map(|s| model.last(s, end).cloned()).collect();
        found.sort_by_key(|message| message.position);
        Ok(found)
    }

    /// The last message of each subject that matches, as of a bound, in order of position.
    pub(crate) async fn matching(
        &self,
        patterns: &NonEmpty<Pattern>,
        bound: Bound,
    ) -> Result<Matching<StoredMessage>, BackendError> {
        let mut end = self.see_patterns(patterns).await?;
        // A replica that has not got as far as the position finds nothing, and another one is asked.
        while let Bound::Position(position) = bound
            && end < position.get()
        {
            end = self.see_patterns(patterns).await?;
        }
        let model = self.inner.model();
        let end = end.min(match bound {
            Bound::Newest => u64::MAX,
            Bound::Position(position) => position.get(),
            Bound::Time(time) => model.end_at(time),
        });
        let sequences = model.lasts_of(patterns, end);
        if sequences.len() > MAX_MATCHING {
            return Ok(Matching::TooMany);
        }
        Ok(Matching::All(sequences.into_iter().filter_map(|s| model.at(s).cloned()).collect()))
    }

    /// The last message on any subject that matches.
    pub(crate) async fn newest(
        &self,
        pattern: &Pattern,
    ) -> Result<Option<StoredMessage>, BackendError> {
        let patterns = NonEmpty::one(pattern.clone());
        let end = self.see_patterns(&patterns).await?;
        let model = self.inner.model();
        let newest = model.lasts_of(&patterns, end).into_iter().max();
        Ok(newest.and_then(|sequence| model.at(sequence).cloned()))
    }

    /// How many subjects match.
    pub(crate) async fn count_matching(
        &self,
        patterns: &NonEmpty<Pattern>,
    ) -> Result<Count, BackendError> {
        let end = self.see_patterns(patterns).await?;
        let count = self.inner.model().lasts_of(patterns, end).len();
        Ok(match count > MAX_MATCHING {
            true => Count::MoreThan(MAX_MATCHING as u64),
            false => Count::Exactly(count as u64),
        })
    }

    async fn see_patterns(&self, patterns: &NonEmpty<Pattern>) -> Result<u64, BackendError> {
        let patterns: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
        self.see(CallKind::NearestRead, &patterns).await
    }

    /// The subjects that match a pattern, in no order.
    pub(crate) async fn subjects(&self, pattern: &str) -> Result<Vec<Subject>, BackendError> {
        self.meet(CallKind::LeaderRead, &[pattern]).await?;
        Ok(self.inner.model().subjects(pattern))
    }

    /// What is stored after a position, chunk by chunk.
    pub(crate) fn read(
        &self,
        filter: Option<String>,
        after: Position,
    ) -> impl Stream<Item = Result<StoredMessage, BackendError>> + Send + 'static {
        let (stream, after) = (self.clone(), after.get());
        let reading = Reading { stream, filter, after, chunk: Vec::new(), complete: false };
        futures::stream::try_unfold(reading, |mut reading| async move {
            let next = reading.next().await?;
            Ok(next.map(|message| (message, reading)))
        })
    }

    /// How far a read sees.
    async fn see(&self, kind: CallKind, subjects: &[&str]) -> Result<u64, BackendError> {
        Ok(match self.meet(kind, subjects).await? {
            Some(Fault::StaleRead(writes)) => self.inner.model().end_before(writes),
            _ => u64::MAX,
        })
    }

    /// Meets the faults that any operation can meet, and returns one that is special to its kind.
    async fn meet(&self, kind: CallKind, subjects: &[&str]) -> Result<Option<Fault>, BackendError> {
        let stream = &self.inner.name;
        match self.faults.meet(&Call { stream, kind, subjects }) {
            Some(Fault::Outage) => Err(BackendError::unavailable("injected")),
            Some(Fault::Denied) => Err(BackendError::Denied {
                subject: subjects.first().map_or(stream.as_ref(), |s| s).to_owned(),
                detail: "injected".to_owned(),
            }),
            Some(Fault::PauseAfter(gate)) if kind != CallKind::Write => {
                gate.pass().await;
                Ok(None)
            }
            Some(Fault::PauseBefore(gate)) => {
                gate.pass().await;
                Ok(None)
            }
            special => Ok(special),
        }
    }
}

impl fmt::Debug for MemoryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStream({}, {} messages)", self.inner.name, self.inner.model().end())
    }
}

impl Inner {
    fn model(&self) -> MutexGuard<'_, Model> {
        // The model does not panic, so what a poisoned lock guards is whole.
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, write: Write) -> Result<Position, BackendError> {
        let mut model = self.model();
        // Under the lock, so that times grow with the positions.
        let now = self.clock.now();
        let stored = model.store(write, now, self.limits.duplicate_window);
        self.end.send_replace(model.end());
        stored
    }
}

struct Reading {
    stream: MemoryStream,
    filter: Option<String>,
    after: u64,
    /// What was copied and not yet handed out, last first.
    chunk: Vec<StoredMessage>,
    complete: bool,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<StoredMessage>, BackendError> {
        if self.chunk.is_empty() && !self.complete {
            let filter = self.filter.as_deref();
            let end = self.stream.see(CallKind::NearestRead, filter.as_slice()).await?;
            self.chunk = self.stream.inner.model().chunk(filter, self.after, end, CHUNK);
            self.complete = self.chunk.len() < CHUNK;
            self.chunk.reverse();
        }
        let next = self.chunk.pop();
        if let Some(message) = &next {
            self.after = message.position.get();
        }
        Ok(next)
    }
}
