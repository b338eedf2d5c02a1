//! A KV bucket of JetStream as a [`KeyValue`].
//!
//! A bucket is a stream with one message per subject, so it is read and written as an event log is.

use std::collections::HashMap;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};

use super::bucket::{Bucket, slot};
use super::{Entry, Key, KeyValue, KeyWrite, Slot, Watched};
use crate::backend::nats::Connection;
use crate::backend::{BackendError, Bound, Count, Matching, ReadFrom, Start, TailQuery};
use crate::event::NonEmpty;
use crate::event_log::{EventLog, NatsLog};
use crate::subject::{Pattern, Subject};

/// A bucket that any KV client of NATS can use as well. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct NatsKeyValue {
    log: NatsLog,
    bucket: Bucket,
}

impl NatsKeyValue {
    /// An existing bucket. One round trip, to see that it is there.
    ///
    /// # Errors
    /// [`BackendError::NotFound`] when there is no such bucket, and what else can happen to a request.
    pub async fn open(connection: &Connection, bucket: &str) -> Result<Self, BackendError> {
        let bucket = Bucket::new(bucket);
        Ok(Self { log: NatsLog::open(connection, &bucket.stream()).await?, bucket })
    }

    /// A bucket that is known to exist. No round trip.
    pub(crate) fn attach(connection: &Connection, bucket: &str) -> Self {
        let bucket = Bucket::new(bucket);
        Self { log: NatsLog::attach(connection, &bucket.stream()), bucket }
    }

    async fn write_all(&self, writes: NonEmpty<KeyWrite>) -> Result<Vec<u64>, BackendError> {
        let count = writes.len().get() as u64;
        let mut messages: Vec<_> =
            writes.into_iter().map(|write| self.bucket.message(write)).collect();
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
        let filter = self.bucket.filter(pattern);
        let mut keys = Vec::new();
        loop {
            let page = self.log.info(Some((&filter, keys.len()))).await?;
            for subject in page.state.subjects.keys() {
                keys.push(self.bucket.key(subject)?);
            }
            if page.state.subjects.is_empty() || keys.len() >= page.total {
                return Ok(keys);
            }
        }
    }
}

impl KeyValue for NatsKeyValue {
    fn bucket(&self) -> &str {
        self.bucket.name()
    }

    fn get<'a>(
        &'a self,
        key: &'a Key,
        from: ReadFrom,
    ) -> BoxFuture<'a, Result<Slot, BackendError>> {
        async move {
            let message = self.log.last(&self.bucket.subject(key), from).await?;
            Ok(message.map(slot).unwrap_or_default())
        }
        .boxed()
    }

    fn get_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Slot>, BackendError>> {
        async move {
            let subjects: Vec<Subject> = keys.iter().map(|key| self.bucket.subject(key)).collect();
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

    fn check(&self, write: &KeyWrite) -> Result<(), BackendError> {
        self.log.check(&self.bucket.message(write.clone()))
    }

    fn keys<'a>(&'a self, pattern: &'a str) -> BoxFuture<'a, Result<Vec<Key>, BackendError>> {
        self.list(pattern).boxed()
    }

    fn matching<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
    ) -> BoxFuture<'a, Result<Matching<Entry>, BackendError>> {
        async move {
            let subjects = self.bucket.patterns(patterns)?;
            match self.log.matching(&subjects, Bound::Newest).await? {
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
            let message = self.log.newest(&self.bucket.pattern(pattern)?).await?;
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
            self.log.count(&subjects).await
        }
        .boxed()
    }

    fn last_revision(&self) -> BoxFuture<'_, Result<u64, BackendError>> {
        self.log.last_sequence().boxed()
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
        let followed = self.log.follow(TailQuery { patterns, start });
        followed.map(move |followed| bucket.watched(followed?)).boxed()
    }
}
