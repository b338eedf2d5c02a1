//! A bucket as a stream: what a key is on the stream, and what a message says of a key.
//!
//! Both adapters are buckets on a stream, and plain KV clients must find in them what they would have written.

use std::sync::Arc;

use bytes::Bytes;

use super::{Change, Entry, Expected, Key, KeyWrite, Slot, Watched};
use crate::backend::{BackendError, Followed, Guard, NewMessage, Position, StoredMessage};
use crate::event::NonEmpty;
use crate::subject::{Pattern, Subject};

/// The header by which KV clients mark a deleted key, and what it says then.
const OPERATION: &str = "KV-Operation";
const DELETED: [&str; 2] = ["DEL", "PURGE"];

/// The name of a bucket, and so of its stream and its subjects. Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct Bucket(Arc<str>);

impl Bucket {
    pub(super) fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }

    pub(super) fn stream(&self) -> String {
        format!("KV_{}", self.0)
    }

    pub(super) fn subject(&self, key: &Key) -> Subject {
        Subject::trusted(format!("{}{key}", self.prefix()))
    }

    /// The pattern of the subjects of the keys that match.
    pub(super) fn filter(&self, keys: &str) -> String {
        format!("{}{keys}", self.prefix())
    }

    pub(super) fn patterns(
        &self,
        keys: &NonEmpty<Pattern>,
    ) -> Result<NonEmpty<Pattern>, BackendError> {
        let subjects: Result<Vec<_>, _> = keys.iter().map(|keys| self.pattern(keys)).collect();
        Ok(NonEmpty::from_vec(subjects?).expect("made from a NonEmpty"))
    }

    pub(super) fn pattern(&self, keys: &Pattern) -> Result<Pattern, BackendError> {
        Pattern::parse(&self.filter(keys.as_str()))
            .map_err(|e| BackendError::Invalid { detail: e.to_string() })
    }

    pub(super) fn key(&self, subject: &str) -> Result<Key, BackendError> {
        let key = subject.strip_prefix(&self.prefix()).unwrap_or(subject);
        Key::new(key)
            .map_err(|e| BackendError::Corrupt { detail: format!("bucket {}: {e}", self.0) })
    }

    pub(super) fn message(&self, write: KeyWrite) -> NewMessage {
        let mut headers = write.headers;
        let payload = match write.change {
            Change::Put(value) => value,
            Change::Delete => {
                headers.push(OPERATION, DELETED[0]);
                Bytes::new()
            }
        };
        let guard = match write.expected {
            Expected::Anything => Guard::Free,
            Expected::Revision(revision) => Guard::Last(Position::new(revision)),
            Expected::RevisionOf(key, revision) => {
                Guard::LastOf(self.subject(&key), Position::new(revision))
            }
        };
        NewMessage { subject: self.subject(&write.key), headers, payload, guard }
    }

    pub(super) fn entry(&self, message: StoredMessage) -> Result<Entry, BackendError> {
        Ok(Entry {
            key: self.key(message.subject.as_str())?,
            revision: message.position.get(),
            written_at: message.time,
            value: (!is_deleted(&message)).then_some(message.payload),
            headers: message.headers,
        })
    }

    pub(super) fn watched(&self, followed: Followed) -> Result<Watched, BackendError> {
        Ok(match followed {
            Followed::Message(message) => Watched::Entry(self.entry(message)?),
            Followed::CaughtUp => Watched::CaughtUp,
        })
    }

    fn prefix(&self) -> String {
        format!("$KV.{}.", self.0)
    }
}

pub(super) fn slot(message: StoredMessage) -> Slot {
    let value = (!is_deleted(&message)).then_some(message.payload);
    Slot { revision: message.position.get(), value }
}

fn is_deleted(message: &StoredMessage) -> bool {
    message.headers.get(OPERATION).is_some_and(|operation| DELETED.contains(&operation))
}
