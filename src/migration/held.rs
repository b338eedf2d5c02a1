//! A record that its holder alone may change, and with it the bucket it lies in.
//!
//! Every holder has an epoch, later ones a greater one. Whoever comes later writes its epoch into the record; from then on no
//! batch of an earlier holder is stored, because each holds the record under the revision that its holder knows.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::MigrationError;
use super::records::FORMAT;
use crate::backend::{BackendError, ReadFrom};
use crate::event::NonEmpty;
use crate::state::{Change, Expected, Key, KeyValue, KeyWrite};

/// How long is waited before a bucket that failed is asked again.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record<B> {
    format: u32,
    epoch: u64,
    /// Anew for each write: by this an answer that was lost is told from another's write.
    writer: Uuid,
    #[serde(flatten)]
    body: B,
}

/// A record that is held.
#[derive(Debug)]
pub(super) struct Held<B> {
    bucket: Arc<dyn KeyValue>,
    key: Key,
    patience: Duration,
    epoch: u64,
    revision: u64,
    body: B,
    /// Whether a batch was sent of which nobody knows what became of it.
    is_open: bool,
}

impl<B: Serialize + DeserializeOwned + Clone> Held<B> {
    /// Takes the record over, from whoever held it, in an epoch after his and after `floor`.
    pub(super) async fn take_over(
        bucket: Arc<dyn KeyValue>,
        key: Key,
        patience: Duration,
        floor: u64,
        body: impl Fn(Option<B>) -> B,
    ) -> Result<Self, MigrationError> {
        loop {
            let found = read::<B>(bucket.as_ref(), &key, patience).await?;
            let epoch = floor.max(found.epoch()) + 1;
            let held = Self::write_first(&bucket, &key, patience, epoch, found, &body).await?;
            if let Some(held) = held {
                return Ok(held);
            }
        }
    }

    /// Takes the record over in an epoch that is known; refused when somebody holds it in a later one.
    pub(super) async fn join(
        bucket: Arc<dyn KeyValue>,
        key: Key,
        patience: Duration,
        epoch: u64,
        body: impl Fn(Option<B>) -> B,
    ) -> Result<Self, MigrationError> {
        loop {
            let found = read::<B>(bucket.as_ref(), &key, patience).await?;
            if found.epoch() > epoch {
                return Err(MigrationError::Superseded);
            }
            let held = Self::write_first(&bucket, &key, patience, epoch, found, &body).await?;
            if let Some(held) = held {
                return Ok(held);
            }
        }
    }

    /// `None` when somebody else was first.
    async fn write_first(
        bucket: &Arc<dyn KeyValue>,
        key: &Key,
        patience: Duration,
        epoch: u64,
        found: Found<B>,
        body: &impl Fn(Option<B>) -> B,
    ) -> Result<Option<Self>, MigrationError> {
        let body = body(found.record.map(|record| record.body));
        let (bucket, key) = (Arc::clone(bucket), key.clone());
        let revision = found.revision;
        let mut held =
            Self { bucket, key, patience, epoch, revision, body: body.clone(), is_open: false };
        match held.commit(Vec::new(), body).await {
            Ok(true) => Ok(Some(held)),
            // A record of an earlier holder, or of a later one: it is read again.
            Ok(false) | Err(MigrationError::Superseded) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn body(&self) -> &B {
        &self.body
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether a batch may be stored, or may still come, that nobody has seen.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn bucket(&self) -> &Arc<dyn KeyValue> {
        &self.bucket
    }

    /// One atomic batch of writes and the record. False when the batch was not stored because something else in it is not
    /// as expected: then everything has to be read again, and the body may have changed by a batch that came late.
    ///
    /// # Errors
    /// [`MigrationError::Superseded`] when another one holds the record.
    pub(super) async fn commit(
        &mut self,
        mut writes: Vec<KeyWrite>,
        body: B,
    ) -> Result<bool, MigrationError> {
        let record = Record { format: FORMAT, epoch: self.epoch, writer: Uuid::new_v4(), body };
        let json =
            serde_json::to_vec(&record).expect("records have string keys and finite numbers");
        let expected = Expected::Revision(self.revision);
        writes.push(KeyWrite::new(self.key.clone(), Change::Put(json.into()), expected));
        let writes = NonEmpty::from_vec(writes).expect("the record is in it");
        let begun = Instant::now();
        loop {
            let failure = match self.bucket.write(writes.clone()).await {
                Ok(revisions) => {
                    self.revision = *revisions.last().expect("a revision for each write");
                    self.body = record.body;
                    self.is_open = false;
                    return Ok(true);
                }
                Err(error) => error,
            };
            let unproven = match &failure {
                BackendError::Conflict { .. } => false,
                BackendError::Unknown { .. }
                | BackendError::Duplicate { .. }
                | BackendError::Unavailable { .. } => true,
                _ => return Err(failure.into()),
            };
            self.is_open |= unproven;
            let found = read::<B>(self.bucket.as_ref(), &self.key, self.patience).await?;
            if found.revision == self.revision {
                match unproven {
                    true if begun.elapsed() >= self.patience => return Err(failure.into()),
                    true => sleep(PAUSE).await,
                    false => return Ok(false),
                }
                continue;
            }
            // What somebody removed is nobody's.
            let other = found.record.filter(|other| other.epoch == self.epoch);
            let other = other.ok_or(MigrationError::Superseded)?;
            self.revision = found.revision;
            self.body = other.body;
            self.is_open = false;
            return Ok(other.writer == record.writer);
        }
    }
}

/// The epoch in which a record is held, 0 when it never was.
pub(super) async fn epoch_of(
    bucket: &dyn KeyValue,
    key: &Key,
    patience: Duration,
) -> Result<u64, MigrationError> {
    Ok(read::<serde_json::Value>(bucket, key, patience).await?.epoch())
}

/// What a record holds, whoever holds it.
pub(super) async fn look<B: DeserializeOwned>(
    bucket: &dyn KeyValue,
    key: &Key,
    patience: Duration,
) -> Result<Option<B>, MigrationError> {
    Ok(read::<B>(bucket, key, patience).await?.record.map(|record| record.body))
}

struct Found<B> {
    revision: u64,
    record: Option<Record<B>>,
}

impl<B> Found<B> {
    fn epoch(&self) -> u64 {
        self.record.as_ref().map_or(0, |record| record.epoch)
    }
}

/// What the leader says, asked again for a while when it does not answer.
async fn read<B: DeserializeOwned>(
    bucket: &dyn KeyValue,
    key: &Key,
    patience: Duration,
) -> Result<Found<B>, MigrationError> {
    let slot = patiently(patience, || bucket.get(key, ReadFrom::Leader)).await?;
    let decode = |value: bytes::Bytes| {
        serde_json::from_slice(&value).map_err(|error| MigrationError::Unreadable {
            key: key.to_string(),
            reason: error.to_string(),
        })
    };
    Ok(Found { revision: slot.revision, record: slot.value.map(decode).transpose()? })
}

/// Repeats a read until it is answered, for a while.
pub(super) async fn patiently<T, F: Future<Output = Result<T, BackendError>>>(
    patience: Duration,
    mut read: impl FnMut() -> F,
) -> Result<T, BackendError> {
    let begun = Instant::now();
    loop {
        match read().await {
            Err(error) if error.is_transient() && begun.elapsed() < patience => sleep(PAUSE).await,
            outcome => return outcome,
        }
    }
}
