//! The lease: which instance of a projection is active.
//!
//! It only saves work. That nothing takes effect twice rests on the guard of the checkpoint, also when two instances
//! believe that they hold the lease. No clocks are compared: who waits looks whether the record stands still.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::error::ProjectionError;
use super::records::{FORMAT, LeaseRecord, put, read};
use crate::backend::BackendError;
use crate::clock::Clock;
use crate::event::NonEmpty;
use crate::state::{Change, Expected, Key, KeyValue, KeyWrite};

/// How often in a lease's time it is renewed, and looked at by those who wait.
const RENEWALS: u32 = 5;

/// A lease that is held.
pub(super) struct Lease<'a> {
    bucket: &'a dyn KeyValue,
    key: Key,
    holder: Uuid,
    time: Duration,
    clock: &'a dyn Clock,
    revision: u64,
}

impl<'a> Lease<'a> {
    /// Waits until nobody else holds the lease, and takes it. Cancel safe: at worst it is taken and runs out.
    pub(super) async fn acquire(
        bucket: &'a dyn KeyValue,
        key: Key,
        holder: Uuid,
        time: Duration,
        clock: &'a dyn Clock,
    ) -> Result<Self, ProjectionError> {
        let mut seen = (0, Instant::now());
        loop {
            let (revision, record) = read::<LeaseRecord>(bucket, &key).await?;
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
    pub(super) async fn keep(&mut self) {
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
    pub(super) async fn release(self) {
        let expected = Expected::Revision(self.revision);
        let write = KeyWrite::new(self.key, Change::Delete, expected);
        if let Err(error) = self.bucket.write(NonEmpty::one(write)).await {
            tracing::debug!(%error, "lease not released; it runs out");
        }
    }

    /// Writes the record if nobody else did; whether it is ours now.
    async fn write(&mut self) -> Result<bool, ProjectionError> {
        let record =
            LeaseRecord { format: FORMAT, holder: self.holder, renewed_at: self.clock.now() };
        let write = put(self.key.clone(), &record, Expected::Revision(self.revision));
        match self.bucket.write(NonEmpty::one(write)).await {
            Ok(revisions) => self.revision = revisions[0],
            Err(BackendError::Conflict { .. } | BackendError::Unknown { .. }) => {
                let (revision, record) = read::<LeaseRecord>(self.bucket, &self.key).await?;
                if record.is_none_or(|record| record.holder != self.holder) {
                    return Ok(false);
                }
                self.revision = revision;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }
}
