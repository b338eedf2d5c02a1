//! A bucket in memory, for tests without a server.
//!
//! It behaves as a bucket of JetStream does: a stream of which the last message per key counts.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Change, Expected, Key, KeyValue, KeyWrite, Slot};
use crate::backend::memory::{Faults, Limits, MemoryStream, Write};
use crate::backend::{BackendError, Guard, NewMessage, Position, ReadFrom, StoredMessage};
use crate::clock::{Clock, System};
use crate::event::{Headers, NonEmpty};
use crate::subject::Subject;

const OPERATION: &str = "KV-Operation";

/// A [`KeyValue`] in memory. Cloning shares what is stored.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use cim_persistence::backend::ReadFrom;
/// use cim_persistence::state::{Key, KeyValue, MemoryKeyValue};
///
/// let bucket = MemoryKeyValue::new("sales-state");
/// let key = Key::new("order.42")?;
/// assert_eq!(bucket.get(&key, ReadFrom::Leader).await?.revision, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct MemoryKeyValue {
    stream: MemoryStream,
    bucket: Arc<str>,
}

impl MemoryKeyValue {
    /// An empty bucket of this name.
    pub fn new(bucket: &str) -> Self {
        Self::with_clock(bucket, Arc::new(System))
    }

    /// An empty bucket whose values are stored at the times this clock tells.
    pub fn with_clock(bucket: &str, clock: Arc<dyn Clock>) -> Self {
        let stream = MemoryStream::new(&format!("KV_{bucket}"), Limits::default(), clock);
        Self { stream, bucket: bucket.into() }
    }

    /// The same bucket, where what is done through this handle and its clones meets these faults.
    ///
    /// Handles that were cloned before do not meet them.
    pub fn with_faults(self, faults: &Faults) -> Self {
        Self { stream: self.stream.with_faults(faults), ..self }
    }

    fn subject(&self, key: &Key) -> Subject {
        Subject::trusted(format!("$KV.{}.{key}", self.bucket))
    }

    fn message(&self, write: KeyWrite) -> NewMessage {
        let mut headers = Headers::new();
        let payload = match write.change {
            Change::Put(value) => value,
            Change::Delete => {
                headers.push(OPERATION, "DEL");
                Bytes::new()
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
        let write = match messages.pop() {
            Some(message) if messages.is_empty() => Write::One(message),
            last => {
                messages.extend(last);
                Write::Batch(messages)
            }
        };
        let last = self.stream.write(write).await?.get();
        Ok((last + 1 - count..=last).collect())
    }
}

impl KeyValue for MemoryKeyValue {
    fn bucket(&self) -> &str {
        &self.bucket
    }

    fn get<'a>(
        &'a self,
        key: &'a Key,
        from: ReadFrom,
    ) -> BoxFuture<'a, Result<Slot, BackendError>> {
        async move {
            let message = self.stream.last(&self.subject(key), from).await?;
            Ok(message.map(slot).unwrap_or_default())
        }
        .boxed()
    }

    fn get_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Slot>, BackendError>> {
        async move {
            let subjects: Vec<Subject> = keys.iter().map(|key| self.subject(key)).collect();
            let found = self.stream.lasts(&subjects).await?;
            let slots: HashMap<Subject, Slot> =
                found.into_iter().map(|message| (message.subject.clone(), slot(message))).collect();
            Ok(subjects.iter().map(|s| slots.get(s).cloned().unwrap_or_default()).collect())
        }
        .boxed()
    }

    fn write(&self, writes: NonEmpty<KeyWrite>) -> BoxFuture<'_, Result<Vec<u64>, BackendError>> {
        self.write_all(writes).boxed()
    }

    fn keys<'a>(&'a self, pattern: &'a str) -> BoxFuture<'a, Result<Vec<Key>, BackendError>> {
        async move {
            let prefix = format!("$KV.{}.", self.bucket);
            let subjects = self.stream.subjects(&format!("{prefix}{pattern}")).await?;
            let keys = subjects.iter().filter_map(|s| s.as_str().strip_prefix(&prefix));
            keys.map(|key| {
                Key::new(key).map_err(|e| BackendError::Corrupt { detail: e.to_string() })
            })
            .collect()
        }
        .boxed()
    }
}

fn slot(message: StoredMessage) -> Slot {
    let deleted = message.headers.get(OPERATION) == Some("DEL");
    Slot { revision: message.position.get(), value: (!deleted).then_some(message.payload) }
}
