//! What a stream holds, and what the server does with a write that reached it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Write;
use crate::backend::{BackendError, Guard, NewMessage, Position, StoredMessage};
use crate::clock::Timestamp;
use crate::event::{NonEmpty, names};
use crate::subject::{Pattern, Subject};

/// The messages and what is looked up in them. A reader names the last sequence it sees, so that it can be shown the
/// state of a while ago.
pub(super) struct Model {
    name: Arc<str>,
    /// The message at index `i` has the sequence `i + 1`, for nothing is ever removed.
    messages: Vec<StoredMessage>,
    by_subject: HashMap<Subject, Vec<u64>>,
    /// The last sequence after each write.
    writes: Vec<u64>,
    ids: HashSet<Arc<str>>,
    /// The ids in the order they came, so that forgetting them is cheap.
    ids_by_age: VecDeque<(Timestamp, Arc<str>)>,
}

impl Model {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            messages: Vec::new(),
            by_subject: HashMap::new(),
            writes: Vec::new(),
            ids: HashSet::new(),
            ids_by_age: VecDeque::new(),
        }
    }

    /// The last sequence.
    pub(super) fn end(&self) -> u64 {
        self.messages.len() as u64
    }

    /// The last sequence as it was so many writes ago.
    pub(super) fn end_before(&self, writes: usize) -> u64 {
        let kept = self.writes.len().saturating_sub(writes);
        kept.checked_sub(1).map_or(0, |index| self.writes[index])
    }

    /// Stores all messages or none and returns the position of the last.
    pub(super) fn store(
        &mut self,
        write: Write,
        now: Timestamp,
        duplicate_window: Duration,
    ) -> Result<Position, BackendError> {
        self.forget_ids(now, duplicate_window);
        let messages = match write {
            Write::One(message) => {
                // The server looks at the guard first when a message comes alone, and at the id first in a batch.
                self.admit_guard(&message, &HashSet::new())?;
                if id_of(&message).is_some_and(|id| self.ids.contains(id)) {
                    return Err(self.duplicate());
                }
                vec![message]
            }
            Write::Batch(messages) => {
                self.admit_batch(&messages)?;
                messages
            }
        };
        messages.into_iter().for_each(|message| self.append(message, now));
        self.writes.push(self.end());
        Ok(Position::new(self.end()))
    }

    /// The last message on a subject, up to the last one seen.
    pub(super) fn last(&self, subject: &Subject, end: u64) -> Option<&StoredMessage> {
        let sequences = self.by_subject.get(subject)?;
        let seen = sequences.partition_point(|sequence| *sequence <= end);
        self.at(*sequences[..seen].last()?)
    }

    /// The first message on a subject after a sequence.
    pub(super) fn first_after(&self, subject: &Subject, after: u64) -> Option<&StoredMessage> {
        let sequences = self.by_subject.get(subject)?;
        let passed = sequences.partition_point(|sequence| *sequence <= after);
        self.at(*sequences.get(passed)?)
    }

    /// At most `count` messages after a sequence, up to the last one seen.
    pub(super) fn chunk(
        &self,
        filter: Option<&str>,
        after: u64,
        end: u64,
        count: usize,
    ) -> Vec<StoredMessage> {
        let index = |sequence: u64| usize::try_from(sequence).unwrap_or(usize::MAX);
        let literal = filter.and_then(|f| self.by_subject.get(&Subject::trusted(f)));
        if let Some(sequences) = literal {
            let passed = sequences.partition_point(|sequence| *sequence <= after);
            let wanted = sequences[passed..].iter().take_while(|sequence| **sequence <= end);
            return wanted.filter_map(|s| self.at(*s)).take(count).cloned().collect();
        }
        let end = index(end).min(self.messages.len());
        self.messages[index(after).min(end)..end]
            .iter()
            .filter(|message| filter.is_none_or(|f| matches(f, message.subject.as_str())))
            .take(count)
            .cloned()
            .collect()
    }

    /// The subjects that match a pattern, in no order.
    pub(super) fn subjects(&self, pattern: &str) -> Vec<Subject> {
        self.by_subject.keys().filter(|s| matches(pattern, s.as_str())).cloned().collect()
    }

    /// The last sequence of each subject that matches any of the patterns, up to the last one seen, in order.
    pub(super) fn lasts_of(&self, patterns: &NonEmpty<Pattern>, end: u64) -> Vec<u64> {
        let mut lasts: Vec<u64> = self
            .by_subject
            .iter()
            .filter(|(subject, _)| matches_any(patterns, subject))
            .filter_map(|(_, sequences)| {
                let seen = sequences.partition_point(|sequence| *sequence <= end);
                sequences[..seen].last().copied()
            })
            .collect();
        lasts.sort_unstable();
        lasts
    }

    /// The last sequence stored before a time.
    pub(super) fn end_at(&self, time: Timestamp) -> u64 {
        self.messages.partition_point(|message| message.time < time) as u64
    }

    /// Whether a message is still the last of its subject.
    pub(super) fn is_last(&self, message: &StoredMessage) -> bool {
        self.by_subject.get(&message.subject).and_then(|all| all.last())
            == Some(&message.position.get())
    }

    pub(super) fn at(&self, sequence: u64) -> Option<&StoredMessage> {
        self.messages.get(usize::try_from(sequence.checked_sub(1)?).ok()?)
    }

    fn admit_batch(&self, messages: &[NewMessage]) -> Result<(), BackendError> {
        let mut ids = HashSet::new();
        let mut written = HashSet::new();
        for message in messages {
            if id_of(message).is_some_and(|id| self.ids.contains(id) || !ids.insert(id)) {
                return Err(self.duplicate());
            }
            self.admit_guard(message, &written)?;
            written.insert(&message.subject);
        }
        Ok(())
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

    fn append(&mut self, message: NewMessage, now: Timestamp) {
        let sequence = self.end() + 1;
        if let Some(id) = id_of(&message) {
            let id: Arc<str> = id.into();
            self.ids.insert(id.clone());
            self.ids_by_age.push_back((now, id));
        }
        let NewMessage { subject, headers, payload, .. } = message;
        self.by_subject.entry(subject.clone()).or_default().push(sequence);
        let position = Position::new(sequence);
        self.messages.push(StoredMessage { subject, position, time: now, headers, payload });
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

    fn duplicate(&self) -> BackendError {
        BackendError::Duplicate { stream: self.name.as_ref().to_owned() }
    }
}

/// The id the server deduplicates by; it takes an empty one for none.
fn id_of(message: &NewMessage) -> Option<&str> {
    message.headers.get(names::MSG_ID).filter(|id| !id.is_empty())
}

/// Whether a subject matches any of the patterns.
pub(super) fn matches_any(patterns: &NonEmpty<Pattern>, subject: &Subject) -> bool {
    patterns.iter().any(|pattern| pattern.matches(subject.as_str()))
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
