//! A KV bucket of JetStream as a [`KeyValue`].
//!
//! A bucket is a stream with one message per subject, so it is read and written as an event log is.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Change, Expected, Key, KeyValue, KeyWrite, Slot};
use crate::backend::nats::Connection;
use crate::backend::{BackendError, Guard, NewMessage, Position, ReadFrom, StoredMessage};
use crate::event::{Headers, NonEmpty};
use crate::event_log::{EventLog, NatsLog};
use crate::subject::Subject;

/// The header by which KV clients mark a deleted key, and what it says then.
const OPERATION: &str = "KV-Operation";
const DELETED: [&str; 2] = ["DEL", "PURGE"];

/// A bucket that any KV client of NATS can use as well. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct NatsKeyValue {
    log: NatsLog,
    bucket: Arc<str>,
}

impl NatsKeyValue {
    /// An existing bucket. One round trip, to see that it is there.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] when there is no such bucket, and what else can happen to a request.
    pub async fn open(connection: &Connection, bucket: &str) -> Result<Self, BackendError> {
        let log = NatsLog::open(connection, &format!("KV_{bucket}")).await?;
        Ok(Self { log, bucket: bucket.into() })
    }

    /// A bucket that is known to exist. No round trip.
    pub(crate) fn attach(connection: &Connection, bucket: &str) -> Self {
        let log = NatsLog::attach(connection, &format!("KV_{bucket}"));
        Self { log, bucket: bucket.into() }
    }

    fn subject(&self, key: &Key) -> Subject {
        Subject::trusted(format!("$KV.{}.{key}", self.bucket))
    }

    fn message(&self, write: KeyWrite) -> NewMessage {
        let mut headers = Headers::new();
        let payload = match write.change {
            Change::Put(value) => value,
            Change::Delete => {
                headers.push(OPERATION, DELETED[0]);
                bytes::Bytes::new()
            }
        };
        let guard = match write.expected {
            Expected::Anything => Guard::Free,
            Expected::Revision(revision) => Guard::Last(Position::new(revision)),
        };
        NewMessage { subject: self.subject(&write.key), headers, payload, guard }
    }

    async fn write_all(&self, writes: NonEmpty<KeyWrite>) -> Result<Vec<u64>, BackendError> {
        let count = writes.len().get() as u64;
        let mut messages: Vec<_> = writes.into_iter().map(|write| self.message(write)).collect();
        let last = match (messages.len(), messages.pop()) {
            (1, Some(message)) => self.log.publish(message).await?,
            (_, last) => {
                messages.extend(last);
                let batch = NonEmpty::from_vec(messages).expect("made from a NonEmpty");
                self.log.publish_batch(batch).await?
            }
        };
        // A batch is stored at consecutive positions, so the last one tells them all.
        Ok((last.get() + 1 - count..=last.get()).collect())
    }

    async fn list(&self, pattern: &str) -> Result<Vec<Key>, BackendError> {
        let prefix = format!("$KV.{}.", self.bucket);
        let filter = format!("{prefix}{pattern}");
        let mut keys = Vec::new();
        loop {
            let page = self.log.info(Some((&filter, keys.len()))).await?;
            for subject in page.state.subjects.keys() {
                let key = subject.strip_prefix(&prefix).unwrap_or(subject);
                keys.push(Key::new(key).map_err(|e| BackendError::Corrupt {
                    detail: format!("bucket {}: {e}", self.bucket),
                })?);
            }
            if page.state.subjects.is_empty() || keys.len() >= page.total {
                return Ok(keys);
            }
        }
    }
}

impl KeyValue for NatsKeyValue {
    fn bucket(&self) -> &str {
        &self.bucket
    }

    fn get<'a>(
        &'a self,
        key: &'a Key,
        from: ReadFrom,
    ) -> BoxFuture<'a, Result<Slot, BackendError>> {
        async move {
            let message = self.log.last(&self.subject(key), from).await?;
            Ok(message.map(slot).unwrap_or_default())
        }
        .boxed()
    }

    fn get_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Slot>, BackendError>> {
        async move {
            let subjects: Vec<Subject> = keys.iter().map(|key| self.subject(key)).collect();
            let found = self.log.lasts(&subjects).await?;
            let slots: HashMap<Subject, Slot> =
                found.into_iter().map(|message| (message.subject.clone(), slot(message))).collect();
            Ok(subjects
                .iter()
                .map(|subject| slots.get(subject).cloned().unwrap_or_default())
                .collect())
        }
        .boxed()
    }

    fn write(&self, writes: NonEmpty<KeyWrite>) -> BoxFuture<'_, Result<Vec<u64>, BackendError>> {
        self.write_all(writes).boxed()
    }

    fn keys<'a>(&'a self, pattern: &'a str) -> BoxFuture<'a, Result<Vec<Key>, BackendError>> {
        self.list(pattern).boxed()
    }
}

fn slot(message: StoredMessage) -> Slot {
    let deleted = message.headers.get(OPERATION).is_some_and(|value| DELETED.contains(&value));
    Slot { revision: message.position.get(), value: (!deleted).then_some(message.payload) }
}
