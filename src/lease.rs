//! The lease: which of several instances of one worker is active.
//!
//! It only saves work. That nothing takes effect twice rests on the guard of what the worker writes, also when two
//! instances believe that they hold the lease. No clocks are compared: who waits looks whether the record stands still.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use crate::backend::{BackendError, ReadFrom};
use crate::clock::{Clock, Timestamp};
use crate::event::NonEmpty;
use crate::state::{Change, Expected, Key, KeyValue, KeyWrite};

/// Who is active, as the key of the lease holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct LeaseRecord {
    format: u32,
    holder: Uuid,
    renewed_at: Timestamp,
}

const FORMAT: u32 = 1;

/// How often in a lease's time it is renewed, and looked at by those who wait.
const RENEWALS: u32 = 5;

/// A lease that is held.
pub(crate) struct Lease<'a> {
    bucket: &'a dyn KeyValue,
    key: Key,
    holder: Uuid,
    time: Duration,
    clock: &'a dyn Clock,
    revision: u64,
}

impl<'a> Lease<'a> {
    /// Waits until nobody else holds the lease, and takes it. Cancel safe: at worst it is taken and runs out.
    pub(crate) async fn acquire(
        bucket: &'a dyn KeyValue,
        key: Key,
        holder: Uuid,
        time: Duration,
        clock: &'a dyn Clock,
    ) -> Result<Self, BackendError> {
        let mut seen = (0, Instant::now());
        loop {
            let (revision, record) = read(bucket, &key).await?;
            if revision != seen.0 {
                seen = (revision, Instant::now());
            }
            let free = record.is_none_or(|record| record.holder == holder);
            if free || seen.1.elapsed() >= time {
                let mut lease = Self { bucket, key: key.clone(), holder, time, clock, revision };
                if lease.write().await? {
                    return Ok(lease);
                }
            }
            tokio::time::sleep(time / RENEWALS).await;
        }
    }

    /// Renews the lease again and again. Ends when another instance has taken it.
    pub(crate) async fn keep(&mut self) {
        loop {
            tokio::time::sleep(self.time / RENEWALS).await;
            match self.write().await {
                Ok(true) => {}
                Ok(false) => return,
                // Nobody can take it from a bucket that is not there; the guard of the checkpoint decides anyway.
                Err(error) => tracing::debug!(%error, key = %self.key, "lease not renewed"),
            }
        }
    }

    /// Gives the lease back, so that another instance need not wait for it to run out.
    pub(crate) async fn release(self) {
        let expected = Expected::Revision(self.revision);
        let write = KeyWrite::new(self.key, Change::Delete, expected);
        if let Err(error) = self.bucket.write(NonEmpty::one(write)).await {
            tracing::debug!(%error, "lease not released; it runs out");
        }
    }

    /// Writes the record if nobody else did; whether it is ours now.
    async fn write(&mut self) -> Result<bool, BackendError> {
        let record =
            LeaseRecord { format: FORMAT, holder: self.holder, renewed_at: self.clock.now() };
        let value = serde_json::to_vec(&record).expect("a record of texts and numbers is JSON");
        let expected = Expected::Revision(self.revision);
        let write = KeyWrite::new(self.key.clone(), Change::Put(value.into()), expected);
        match self.bucket.write(NonEmpty::one(write)).await {
            Ok(revisions) => self.revision = revisions[0],
            Err(BackendError::Conflict { .. } | BackendError::Unknown { .. }) => {
                let (revision, record) = read(self.bucket, &self.key).await?;
                if record.is_none_or(|record| record.holder != self.holder) {
                    return Ok(false);
                }
                self.revision = revision;
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

/// Whether some instance holds the lease, or did when it ended.
pub(crate) async fn is_held(bucket: &dyn KeyValue, key: &Key) -> Result<bool, BackendError> {
    Ok(read(bucket, key).await?.1.is_some())
}

/// The lease as the leader sees it, with the revision of its key.
async fn read(
    bucket: &dyn KeyValue,
    key: &Key,
) -> Result<(u64, Option<LeaseRecord>), BackendError> {
    let slot = bucket.get(key, ReadFrom::Leader).await?;
    let decode = |value: bytes::Bytes| {
        serde_json::from_slice(&value)
            .map_err(|error| BackendError::Corrupt { detail: format!("lease {key}: {error}") })
    };
    Ok((slot.revision, slot.value.map(decode).transpose()?))
}
