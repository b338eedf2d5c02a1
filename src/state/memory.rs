//! A bucket in memory, for tests without a server.
//!
//! It behaves as a bucket of JetStream does: a stream of which the last message per key counts.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};

use super::bucket::{Bucket, slot};
use super::{Entry, Key, KeyValue, KeyWrite, Slot, Watched};
use crate::backend::memory::{Faults, Keeps, Limits, MemoryStream, Write};
use crate::backend::{BackendError, Bound, Count, Matching, ReadFrom, Start, TailQuery};
use crate::clock::{Clock, System};
use crate::event::NonEmpty;
use crate::subject::{Pattern, Subject};

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
    bucket: Bucket,
}

impl MemoryKeyValue {
    /// An empty bucket of this name.
    pub fn new(bucket: &str) -> Self {
        Self::with_clock(bucket, Arc::new(System))
    }

    /// An empty bucket whose values are stored at the times this clock tells.
    pub fn with_clock(bucket: &str, clock: Arc<dyn Clock>) -> Self {
        let bucket = Bucket::new(bucket);
        Self { stream: MemoryStream::new(&bucket.stream(), Limits::default(), clock), bucket }
    }

    /// The same bucket, where what is done through this handle and its clones meets these faults.
    ///
    /// Handles that were cloned before do not meet them.
    pub fn with_faults(self, faults: &Faults) -> Self {
        Self { stream: self.stream.with_faults(faults), ..self }
    }

    async fn write_all(&self, writes: NonEmpty<KeyWrite>) -> Result<Vec<u64>, BackendError> {
        let count = writes.len().get() as u64;
        let mut messages: Vec<_> =
            writes.into_iter().map(|write| self.bucket.message(write)).collect();
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
        self.bucket.name()
    }

    fn get<'a>(
        &'a self,
        key: &'a Key,
        from: ReadFrom,
    ) -> BoxFuture<'a, Result<Slot, BackendError>> {
        async move {
            let message = self.stream.last(&self.bucket.subject(key), from).await?;
            Ok(message.map(slot).unwrap_or_default())
        }
        .boxed()
    }

    fn get_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Slot>, BackendError>> {
        async move {
            let subjects: Vec<Subject> = keys.iter().map(|key| self.bucket.subject(key)).collect();
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

    fn check(&self, write: &KeyWrite) -> Result<(), BackendError> {
        self.stream.check(self.bucket.message(write.clone()))
    }

    fn keys<'a>(&'a self, pattern: &'a str) -> BoxFuture<'a, Result<Vec<Key>, BackendError>> {
        async move {
            let subjects = self.stream.subjects(&self.bucket.filter(pattern)).await?;
            subjects.iter().map(|subject| self.bucket.key(subject.as_str())).collect()
        }
        .boxed()
    }

    fn matching<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
    ) -> BoxFuture<'a, Result<Matching<Entry>, BackendError>> {
        async move {
            let subjects = self.bucket.patterns(patterns)?;
            match self.stream.matching(&subjects, Bound::Newest).await? {
                Matching::TooMany => Ok(Matching::TooMany),
                Matching::All(found) => {
                    let entries = found.into_iter().map(|message| self.bucket.entry(message));
                    entries.collect::<Result<_, _>>().map(Matching::All)
                }
            }
        }
        .boxed()
    }

    fn newest<'a>(
        &'a self,
        pattern: &'a Pattern,
    ) -> BoxFuture<'a, Result<Option<Entry>, BackendError>> {
        async move {
            let message = self.stream.newest(&self.bucket.pattern(pattern)?).await?;
            message.map(|message| self.bucket.entry(message)).transpose()
        }
        .boxed()
    }

    fn count<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
    ) -> BoxFuture<'a, Result<Count, BackendError>> {
        async move {
            let subjects = self.bucket.patterns(patterns)?;
            self.stream.count_matching(&subjects).await
        }
        .boxed()
    }

    fn last_revision(&self) -> BoxFuture<'_, Result<u64, BackendError>> {
        self.stream.count().boxed()
    }

    fn watch(
        &self,
        patterns: NonEmpty<Pattern>,
        start: Start,
    ) -> BoxStream<'static, Result<Watched, BackendError>> {
        let patterns = match self.bucket.patterns(&patterns) {
            Ok(patterns) => patterns,
            Err(error) => return futures::stream::iter([Err(error)]).boxed(),
        };
        let bucket = self.bucket.clone();
        let followed = self.stream.follow(TailQuery { patterns, start }, Keeps::Latest);
        followed.map(move |followed| bucket.watched(followed?)).boxed()
    }
}
