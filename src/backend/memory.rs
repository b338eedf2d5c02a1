//! One small model of a JetStream stream, in memory.
//!
//! It refuses what nats-server 2.15.1 refuses: guards, atomic batches, message ids and sizes are judged as the server
//! judges them. The adapters on it stand beside the ports; what goes wrong on purpose is in [`faults`](self::faults).
//! It keeps every message, also in a bucket, so that a reader can be shown the state of a while ago.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::Stream;

use super::{BackendError, Guard, NewMessage, Position, StoredMessage};
use crate::clock::{Clock, System, Timestamp};
use crate::event::{Headers, names};
use crate::subject::Subject;

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

/// How many messages a write brings, which decides how it travels and how it is judged.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    One(NewMessage),
    Batch(Vec<NewMessage>),
}

/// A stream. Cloning shares it.
#[derive(Clone)]
pub(crate) struct MemoryStream(Arc<Inner>);

struct Inner {
    name: Arc<str>,
    limits: Limits,
    clock: Arc<dyn Clock>,
    created: Timestamp,
    model: Mutex<Model>,
}

/// What is stored. The message at index `i` has the sequence `i + 1`, for nothing is ever removed.
#[derive(Default)]
struct Model {
    messages: Vec<StoredMessage>,
    by_subject: HashMap<Subject, Vec<u64>>,
    ids: HashSet<Arc<str>>,
    /// The ids in the order they came, so that forgetting them is cheap.
    ids_by_age: VecDeque<(Timestamp, Arc<str>)>,
}

impl MemoryStream {
    pub(crate) fn new(name: &str) -> Self {
        Self::build(name.into(), Limits::default(), Arc::new(System))
    }

    fn build(name: Arc<str>, limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let created = clock.now();
        Self(Arc::new(Inner { name, limits, clock, created, model: Mutex::default() }))
    }

    /// The same stream, empty, with another clock.
    pub(crate) fn with_clock(&self, clock: Arc<dyn Clock>) -> Self {
        Self::build(self.0.name.clone(), self.0.limits, clock)
    }

    /// The same stream, empty, with other limits.
    pub(crate) fn with_limits(&self, limits: Limits) -> Self {
        Self::build(self.0.name.clone(), limits, self.0.clock.clone())
    }

    pub(crate) fn limits(&self) -> Limits {
        self.0.limits
    }

    pub(crate) fn created(&self) -> Timestamp {
        self.0.created
    }

    /// The sequence of the last message; as many there are.
    pub(crate) async fn count(&self) -> Result<u64, BackendError> {
        Ok(self.0.model().messages.len() as u64)
    }

    /// Stores all messages or none and returns the position of the last.
    pub(crate) async fn write(&self, write: Write) -> Result<Position, BackendError> {
        let write = self.0.checked(write)?;
        self.0.store(write)
    }

    pub(crate) async fn last(
        &self,
        subject: &Subject,
    ) -> Result<Option<StoredMessage>, BackendError> {
        Ok(self.0.model().last(subject, u64::MAX).cloned())
    }

    pub(crate) async fn first_after(
        &self,
        subject: &Subject,
        after: Position,
    ) -> Result<Option<StoredMessage>, BackendError> {
        Ok(self.0.model().first_after(subject, after.get()).cloned())
    }

    /// The last message of each subject that has one, in order of position.
    pub(crate) async fn lasts(
        &self,
        subjects: &[Subject],
    ) -> Result<Vec<StoredMessage>, BackendError> {
        if subjects.len() > self.0.limits.max_subjects_read {
            return Err(BackendError::Invalid {
                detail: format!("{} subjects are too many for one read", subjects.len()),
            });
        }
        let model = self.0.model();
        let distinct: HashSet<&Subject> = subjects.iter().collect();
        let mut found: Vec<StoredMessage> =
            distinct.into_iter().filter_map(|s| model.last(s, u64::MAX).cloned()).collect();
        found.sort_by_key(|message| message.position);
        Ok(found)
    }

    /// The subjects that match a pattern, in no order.
    pub(crate) async fn subjects(&self, pattern: &str) -> Result<Vec<Subject>, BackendError> {
        let model = self.0.model();
        Ok(model.by_subject.keys().filter(|s| matches(pattern, s.as_str())).cloned().collect())
    }

    /// What is stored after a position, chunk by chunk.
    pub(crate) fn read(
        &self,
        filter: Option<String>,
        after: Position,
    ) -> impl Stream<Item = Result<StoredMessage, BackendError>> + Send + 'static {
        let reading =
            Reading { stream: self.clone(), filter, after: after.get(), chunk: Vec::new() };
        futures::stream::try_unfold(reading, |mut reading| async move {
            let next = reading.next().await?;
            Ok(next.map(|message| (message, reading)))
        })
    }
}

impl fmt::Debug for MemoryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStream({}, {} messages)", self.0.name, self.0.model().messages.len())
    }
}

struct Reading {
    stream: MemoryStream,
    filter: Option<String>,
    after: u64,
    /// What was copied and not yet handed out, last first.
    chunk: Vec<StoredMessage>,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<StoredMessage>, BackendError> {
        if self.chunk.is_empty() {
            let model = self.stream.0.model();
            self.chunk = model.chunk(self.filter.as_deref(), self.after);
            self.chunk.reverse();
        }
        let next = self.chunk.pop();
        if let Some(message) = &next {
            self.after = message.position.get();
        }
        Ok(next)
    }
}

impl Inner {
    fn model(&self) -> MutexGuard<'_, Model> {
        // Nothing in this file panics while it holds the lock, so what a poisoned one guards is whole.
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a client refuses before anything is sent.
    fn checked(&self, mut write: Write) -> Result<Write, BackendError> {
        if let Write::Batch(messages) = &write
            && messages.len() > self.limits.max_batch_messages
        {
            let (actual, limit) = (messages.len(), self.limits.max_batch_messages);
            return Err(BackendError::TooMany { actual, limit });
        }
        let limit = self.limits.max_message_bytes;
        match &mut write {
            Write::One(message) => {
                message.headers = legal_headers(&message.headers)?;
                size_within(message, 0, limit)?;
            }
            Write::Batch(messages) => {
                let count = messages.len();
                for (message, place) in messages.iter_mut().zip(1..) {
                    message.headers = legal_headers(&message.headers)?;
                    size_within(message, batch_header_bytes(place, count), limit)?;
                }
            }
        }
        Ok(write)
    }

    /// What the server does with a write that reached it.
    fn store(&self, write: Write) -> Result<Position, BackendError> {
        let now = self.clock.now();
        let mut model = self.model();
        model.forget_ids(now, self.limits.duplicate_window);
        let messages = match write {
            Write::One(message) => {
                // The server looks at the guard first when a message comes alone, and at the id first in a batch.
                model.admit_guard(&message, &HashSet::new())?;
                if id_of(&message).is_some_and(|id| model.ids.contains(id)) {
                    return Err(self.duplicate());
                }
                vec![message]
            }
            Write::Batch(messages) => {
                self.admit_batch(&model, &messages)?;
                messages
            }
        };
        Ok(messages.into_iter().fold(Position::START, |_, message| model.append(message, now)))
    }

    fn admit_batch(&self, model: &Model, messages: &[NewMessage]) -> Result<(), BackendError> {
        let mut ids = HashSet::new();
        let mut written = HashSet::new();
        for message in messages {
            if id_of(message).is_some_and(|id| model.ids.contains(id) || !ids.insert(id)) {
                return Err(self.duplicate());
            }
            model.admit_guard(message, &written)?;
            written.insert(&message.subject);
        }
        Ok(())
    }

    fn duplicate(&self) -> BackendError {
        BackendError::Duplicate { stream: self.name.as_ref().to_owned() }
    }
}

impl Model {
    fn last(&self, subject: &Subject, end: u64) -> Option<&StoredMessage> {
        let sequences = self.by_subject.get(subject)?;
        let seen = sequences.partition_point(|sequence| *sequence <= end);
        self.at(*sequences[..seen].last()?)
    }

    fn first_after(&self, subject: &Subject, after: u64) -> Option<&StoredMessage> {
        let sequences = self.by_subject.get(subject)?;
        let passed = sequences.partition_point(|sequence| *sequence <= after);
        self.at(*sequences.get(passed)?)
    }

    fn at(&self, sequence: u64) -> Option<&StoredMessage> {
        self.messages.get(usize::try_from(sequence.checked_sub(1)?).ok()?)
    }

    fn chunk(&self, filter: Option<&str>, after: u64) -> Vec<StoredMessage> {
        let passed = usize::try_from(after).unwrap_or(usize::MAX).min(self.messages.len());
        self.messages[passed..]
            .iter()
            .filter(|message| filter.is_none_or(|f| matches(f, message.subject.as_str())))
            .take(CHUNK)
            .cloned()
            .collect()
    }

    fn admit_guard(
        &self,
        message: &NewMessage,
        written: &HashSet<&Subject>,
    ) -> Result<(), BackendError> {
        let (subject, expected) = match &message.guard {
            Guard::Free => return Ok(()),
            Guard::Last(expected) => (&message.subject, *expected),
            Guard::LastOf(subject, expected) => (subject, *expected),
        };
        if written.contains(subject) {
            // Whatever is expected, also the right position: the server compares nothing it has not stored.
            let detail = format!("{subject} was written earlier in this batch");
            return Err(BackendError::Conflict { detail });
        }
        let last = self.last(subject, u64::MAX).map_or(Position::START, |stored| stored.position);
        if last != expected {
            let detail = format!("the last position on {subject} is {last}, not {expected}");
            return Err(BackendError::Conflict { detail });
        }
        Ok(())
    }

    fn append(&mut self, message: NewMessage, now: Timestamp) -> Position {
        let sequence = self.messages.len() as u64 + 1;
        if let Some(id) = id_of(&message) {
            let id: Arc<str> = id.into();
            self.ids.insert(id.clone());
            self.ids_by_age.push_back((now, id));
        }
        let NewMessage { subject, headers, payload, .. } = message;
        self.by_subject.entry(subject.clone()).or_default().push(sequence);
        let position = Position::new(sequence);
        self.messages.push(StoredMessage { subject, position, time: now, headers, payload });
        position
    }

    fn forget_ids(&mut self, now: Timestamp, window: Duration) {
        while let Some((seen, _)) = self.ids_by_age.front()
            && now.since(*seen) >= window
        {
            if let Some((_, id)) = self.ids_by_age.pop_front() {
                self.ids.remove(&id);
            }
        }
    }
}

/// The id the server deduplicates by; it takes an empty one for none.
fn id_of(message: &NewMessage) -> Option<&str> {
    message.headers.get(names::MSG_ID).filter(|id| !id.is_empty())
}

/// The headers as they come back from a server, or why they cannot be sent.
fn legal_headers(headers: &Headers) -> Result<Headers, BackendError> {
    for (name, value) in headers.iter() {
        let refuse =
            |why: &str| Err(BackendError::Invalid { detail: format!("header {name:?} {why}") });
        if name.is_empty() || name.contains(|c: char| !c.is_ascii_graphic() || c == ':') {
            return refuse("is not a name");
        }
        if value.contains(['\r', '\n']) {
            return refuse("has a line break in its value");
        }
    }
    Ok(headers
        .iter()
        .map(|(name, value)| (name.to_owned().into(), value.trim().to_owned()))
        .collect())
}

/// Whether a message fits, with its headers as they are on the wire and what the protocol adds.
fn size_within(message: &NewMessage, protocol: usize, limit: usize) -> Result<(), BackendError> {
    let digits = |position: &Position| position.to_string().len();
    let expected = "Nats-Expected-Last-Subject-Sequence".len();
    let guard = match &message.guard {
        Guard::Free => 0,
        Guard::Last(position) => line(expected, digits(position)),
        Guard::LastOf(subject, position) => {
            line(expected, digits(position))
                + line(expected + "-Subject".len(), subject.as_str().len())
        }
    };
    let headers: usize =
        message.headers.iter().map(|(name, value)| line(name.len(), value.len())).sum();
    let actual = "NATS/1.0\r\n\r\n".len() + headers + guard + protocol + message.payload.len();
    if actual > limit {
        return Err(BackendError::TooLarge { subject: message.subject.clone(), actual, limit });
    }
    Ok(())
}

/// The bytes of a header on the wire: name, colon, space, value, line break.
fn line(name: usize, value: usize) -> usize {
    name + value + 4
}

fn batch_header_bytes(place: usize, count: usize) -> usize {
    const ID_BYTES: usize = 32;
    let commit = if place == count { line("Nats-Batch-Commit".len(), 1) } else { 0 };
    line("Nats-Batch-Id".len(), ID_BYTES)
        + line("Nats-Batch-Sequence".len(), place.to_string().len())
        + commit
}

/// Whether a subject matches a pattern: `*` stands for one token, a closing `>` for one or more.
fn matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    let mut wanted = pattern.split('.').peekable();
    while let Some(want) = wanted.next() {
        match (want, tokens.next()) {
            (">", Some(_)) if wanted.peek().is_none() => return true,
            ("*", Some(_)) => {}
            (want, Some(token)) if want == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}
