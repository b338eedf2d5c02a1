//! An event log that keeps subjects as text, in a list. Simple rather than fast: it looks at every row.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use cim_persistence::backend::{
    BackendError, Bound, Count, Followed, Guard, MAX_MATCHING, Matching, NewMessage, Position,
    ReadFrom, Start, StoredMessage, TailQuery,
};
use cim_persistence::clock::Timestamp;
use cim_persistence::event::{NonEmpty, names};
use cim_persistence::event_log::{EventLog, LogLimits, LogQuery, LogStatus};
use cim_persistence::subject::{Pattern, Subject};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;

const LIMITS: LogLimits = LogLimits { max_message_bytes: 64 * 1024, max_batch_messages: 1000 };

/// The log. Clones share what is stored.
#[derive(Debug, Clone)]
pub(crate) struct TextLog {
    shared: Arc<Shared>,
    is_guarded: bool,
}

#[derive(Debug)]
struct Shared {
    rows: Mutex<Vec<Row>>,
    /// How many rows there are, for those who wait for more.
    stored: watch::Sender<usize>,
    created: Timestamp,
}

/// A message. That at index `i` has the position `i + 1`.
#[derive(Debug)]
struct Row {
    subject: String,
    time: Timestamp,
    headers: Vec<(String, String)>,
    payload: Bytes,
}

impl Row {
    fn id(&self) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name == names::MSG_ID).map(|(_, id)| id.as_str())
    }

    fn message(&self, index: usize) -> Result<StoredMessage, BackendError> {
        let corrupt = |error| BackendError::Corrupt { detail: format!("row {index}: {error}") };
        Ok(StoredMessage {
            subject: Subject::parse(&self.subject).map_err(corrupt)?,
            position: Position::new(index as u64 + 1),
            time: self.time,
            headers: self.headers.iter().map(|(name, value)| (name, value)).collect(),
            payload: self.payload.clone(),
        })
    }
}

impl TextLog {
    pub(crate) fn new() -> Self {
        let (rows, stored) = (Mutex::default(), watch::Sender::new(0));
        let shared = Arc::new(Shared { rows, stored, created: Timestamp::now() });
        Self { shared, is_guarded: true }
    }

    /// A log with a flaw: it stores whatever the guards say.
    pub(crate) fn without_guards() -> Self {
        Self { is_guarded: false, ..Self::new() }
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.shared.rows.lock().unwrap()
    }

    /// Stores all messages or none.
    fn store(&self, messages: &[NewMessage]) -> Result<Position, BackendError> {
        messages.iter().try_for_each(fits)?;
        let mut rows = self.rows();
        if self.is_guarded {
            check_guards(&rows, messages)?;
        }
        check_ids(&rows, messages)?;
        let now = rows.last().map_or(Timestamp::now(), |last| last.time.max(Timestamp::now()));
        rows.extend(messages.iter().map(|message| Row {
            subject: message.subject.to_string(),
            time: now,
            headers: message.headers.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect(),
            payload: message.payload.clone(),
        }));
        self.shared.stored.send_replace(rows.len());
        Ok(Position::new(rows.len() as u64))
    }

    /// The first message after a position that is wanted.
    fn next(
        &self,
        after: Position,
        wanted: impl Fn(&Row) -> bool,
    ) -> Result<Option<StoredMessage>, BackendError> {
        let rows = self.rows();
        let mut later = rows.iter().enumerate().skip(after.get() as usize);
        later.find(|(_, row)| wanted(row)).map(|(index, row)| row.message(index)).transpose()
    }

    /// The last message of each subject that is wanted, of the first so many.
    fn lasts_of(
        &self,
        many: usize,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<StoredMessage>, BackendError> {
        let rows = self.rows();
        lasts(&rows[..many], wanted).into_iter().map(|index| rows[index].message(index)).collect()
    }

    fn begin(&self, query: &TailQuery) -> Result<Place, BackendError> {
        let rows = self.rows();
        let end = rows.len();
        let mut latest = VecDeque::new();
        let after = match query.start {
            Start::After(after) if after.get() > end as u64 => {
                let (stream, last) = ("text".to_owned(), end as u64);
                return Err(BackendError::Truncated { stream, last, after: after.get() });
            }
            Start::After(after) => after.get() as usize,
            Start::Since(time) => rows.partition_point(|row| row.time < time),
            Start::Now => end,
            Start::Latest => {
                latest.extend(lasts(&rows, |subject| matches(&query.patterns, subject)));
                end
            }
        };
        let (after, until) = (Position::new(after as u64), Some(Position::new(end as u64)));
        Ok(Place { latest, after, until })
    }
}

impl EventLog for TextLog {
    fn limits(&self) -> LogLimits {
        LIMITS
    }

    fn publish(&self, message: NewMessage) -> BoxFuture<'_, Result<Position, BackendError>> {
        async move { self.store(&[message]) }.boxed()
    }

    fn publish_batch(
        &self,
        messages: NonEmpty<NewMessage>,
    ) -> BoxFuture<'_, Result<Position, BackendError>> {
        async move {
            match messages.len().get() {
                actual if actual > LIMITS.max_batch_messages => {
                    Err(BackendError::TooMany { actual, limit: LIMITS.max_batch_messages })
                }
                _ => self.store(messages.as_slice()),
            }
        }
        .boxed()
    }

    fn last<'a>(
        &'a self,
        subject: &'a Subject,
        _from: ReadFrom,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, BackendError>> {
        async move {
            let rows = self.rows();
            let last = last_on(&rows, subject.as_str());
            last.map(|index| rows[index].message(index)).transpose()
        }
        .boxed()
    }

    fn first_after<'a>(
        &'a self,
        subject: &'a Subject,
        after: Position,
    ) -> BoxFuture<'a, Result<Option<StoredMessage>, BackendError>> {
        async move { self.next(after, |row| row.subject == subject.as_str()) }.boxed()
    }

    fn lasts<'a>(
        &'a self,
        subjects: &'a [Subject],
    ) -> BoxFuture<'a, Result<Vec<StoredMessage>, BackendError>> {
        async move {
            let subjects: HashSet<&str> = subjects.iter().map(Subject::as_str).collect();
            let end = self.rows().len();
            self.lasts_of(end, |subject| subjects.contains(subject))
        }
        .boxed()
    }

    fn read(&self, query: LogQuery) -> BoxStream<'static, Result<StoredMessage, BackendError>> {
        let filter = query.filter.as_deref().map_or(Ok(Pattern::everything()), Pattern::parse);
        let begin = (self.clone(), query.after);
        stream::try_unfold(begin, move |(log, after)| {
            let found = match &filter {
                Ok(filter) => log.next(after, |row| filter.matches(&row.subject)),
                Err(error) => Err(BackendError::Invalid { detail: error.to_string() }),
            };
            let step = found.map(|found| found.map(|message| (message.position, message)));
            async move { Ok(step?.map(|(position, message)| (message, (log, position)))) }
        })
        .boxed()
    }

    fn matching<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
        bound: Bound,
    ) -> BoxFuture<'a, Result<Matching<StoredMessage>, BackendError>> {
        async move {
            let end = {
                let rows = self.rows();
                match bound {
                    Bound::Newest => rows.len(),
                    Bound::Position(position) => rows.len().min(position.get() as usize),
                    Bound::Time(time) => rows.partition_point(|row| row.time < time),
                }
            };
            let found = self.lasts_of(end, |subject| matches(patterns, subject))?;
            match found.len() > MAX_MATCHING {
                true => Ok(Matching::TooMany),
                false => Ok(Matching::All(found)),
            }
        }
        .boxed()
    }

    fn count<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
    ) -> BoxFuture<'a, Result<Count, BackendError>> {
        async move {
            let count = lasts(&self.rows(), |subject| matches(patterns, subject)).len();
            match count > MAX_MATCHING {
                true => Ok(Count::MoreThan(MAX_MATCHING as u64)),
                false => Ok(Count::Exactly(count as u64)),
            }
        }
        .boxed()
    }

    fn follow(&self, query: TailQuery) -> BoxStream<'static, Result<Followed, BackendError>> {
        let stored = self.shared.stored.subscribe();
        let follower = Follower { log: self.clone(), query, stored, place: None };
        stream::try_unfold(follower, async |mut follower| {
            let next = follower.next().await?;
            Ok(Some((next, follower)))
        })
        .boxed()
    }

    fn status(&self) -> BoxFuture<'_, Result<LogStatus, BackendError>> {
        async move {
            let messages = self.rows().len() as u64;
            let (last, created) = (Position::new(messages), self.shared.created);
            Ok(LogStatus { last, messages, created })
        }
        .boxed()
    }
}

struct Follower {
    log: TextLog,
    query: TailQuery,
    stored: watch::Receiver<usize>,
    place: Option<Place>,
}

/// How far a follower is.
struct Place {
    /// The indexes of the last messages per subject that come first.
    latest: VecDeque<usize>,
    after: Position,
    /// The last position when following began, until it is passed.
    until: Option<Position>,
}

impl Follower {
    async fn next(&mut self) -> Result<Followed, BackendError> {
        loop {
            // Before the look at the rows: what is stored after the look then counts as a change.
            self.stored.borrow_and_update();
            let (log, query) = (&self.log, &self.query);
            let place = match &mut self.place {
                Some(place) => place,
                none => none.insert(log.begin(query)?),
            };
            if let Some(index) = place.latest.pop_front() {
                return Ok(Followed::Message(log.rows()[index].message(index)?));
            }
            let begun = |row: &Row| !matches!(query.start, Start::Since(time) if row.time < time);
            let found =
                log.next(place.after, |row| begun(row) && matches(&query.patterns, &row.subject))?;
            let is_later = |until| found.as_ref().is_none_or(|message| message.position > until);
            if place.until.is_some_and(is_later) {
                place.until = None;
                return Ok(Followed::CaughtUp);
            }
            if let Some(message) = found {
                place.after = message.position;
                return Ok(Followed::Message(message));
            }
            // The sender lives in the log that is held here.
            self.stored.changed().await.unwrap();
        }
    }
}

fn matches(patterns: &NonEmpty<Pattern>, subject: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(subject))
}

fn last_on(rows: &[Row], subject: &str) -> Option<usize> {
    rows.iter().rposition(|row| row.subject == subject)
}

/// The indexes of the last rows of the subjects that are wanted, in order.
fn lasts(rows: &[Row], wanted: impl Fn(&str) -> bool) -> Vec<usize> {
    let mut seen = HashSet::new();
    let mut is_last = |row: &Row| wanted(&row.subject) && seen.insert(row.subject.clone());
    let mut found: Vec<usize> = (0..rows.len()).rev().filter(|i| is_last(&rows[*i])).collect();
    found.reverse();
    found
}

/// What is refused of a message whatever is stored.
fn fits(message: &NewMessage) -> Result<(), BackendError> {
    for (name, value) in message.headers.iter() {
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic() && c != ':');
        if !is_name || value.contains(['\r', '\n']) {
            return Err(BackendError::Invalid { detail: format!("header {name:?}") });
        }
    }
    let headers: usize = message.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let (actual, limit) = (headers + message.payload.len(), LIMITS.max_message_bytes);
    match actual > limit {
        true => Err(BackendError::TooLarge { subject: message.subject.clone(), actual, limit }),
        false => Ok(()),
    }
}

fn check_guards(rows: &[Row], messages: &[NewMessage]) -> Result<(), BackendError> {
    let mut written = HashSet::new();
    for message in messages {
        let guarded = match &message.guard {
            Guard::Free => None,
            Guard::Last(expected) => Some((&message.subject, expected)),
            Guard::LastOf(subject, expected) => Some((subject, expected)),
        };
        if let Some((subject, expected)) = guarded {
            let last = last_on(rows, subject.as_str()).map_or(0, |index| index as u64 + 1);
            if last != expected.get() || written.contains(subject) {
                let detail = format!("{subject} ends at {last}, not {expected}");
                return Err(BackendError::Conflict { detail });
            }
        }
        written.insert(&message.subject);
    }
    Ok(())
}

fn check_ids(rows: &[Row], messages: &[NewMessage]) -> Result<(), BackendError> {
    let mut known: HashSet<&str> = HashSet::new();
    for id in messages.iter().filter_map(|message| message.headers.get(names::MSG_ID)) {
        if !known.insert(id) || rows.iter().any(|row| row.id() == Some(id)) {
            return Err(BackendError::Duplicate { stream: "text".to_owned() });
        }
    }
    Ok(())
}
