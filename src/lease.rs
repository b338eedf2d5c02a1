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
    /// How long it may stand still, in milliseconds; 0 where an earlier version did not say.
    #[serde(default)]
    time: u64,
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
    pub(crate) async fn release(mut self) {
        let mut released = remove(self.bucket, &self.key, self.revision).await;
        // A renewal that was given up on its way may have come first.
        if matches!(released, Err(BackendError::Conflict { .. }))
            && self.is_ours().await.unwrap_or(false)
        {
            released = remove(self.bucket, &self.key, self.revision).await;
        }
        if let Err(error) = released {
            tracing::debug!(%error, "lease not released; it runs out");
        }
    }

    /// Writes the record if nobody else did; whether it is ours now.
    async fn write(&mut self) -> Result<bool, BackendError> {
        let record = LeaseRecord {
            format: FORMAT,
            holder: self.holder,
            renewed_at: self.clock.now(),
            time: u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX),
        };
        let value = serde_json::to_vec(&record).expect("a record of texts and numbers is JSON");
        let expected = Expected::Revision(self.revision);
        let write = KeyWrite::new(self.key.clone(), Change::Put(value.into()), expected);
        match self.bucket.write(NonEmpty::one(write)).await {
            Ok(revisions) => self.revision = revisions[0],
            Err(BackendError::Conflict { .. } | BackendError::Unknown { .. }) => {
                return self.is_ours().await;
            }
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Whether the record that is there is ours, which is the one to replace then.
    async fn is_ours(&mut self) -> Result<bool, BackendError> {
        let (revision, record) = read(self.bucket, &self.key).await?;
        let ours = record.is_some_and(|record| record.holder == self.holder);
        if ours {
            self.revision = revision;
        }
        Ok(ours)
    }
}

/// Whether some instance holds the lease, as seen by one that does not want it. The answer is no at once when it was given
/// back, yes as soon as it is renewed. Where neither happens for twice its time, as its holder says, or twice this one's where
/// that is longer, it has run out, and is removed, so that nobody watches it again; by then another instance that wants it has
/// taken it.
pub(crate) async fn is_held(
    bucket: &dyn KeyValue,
    key: &Key,
    time: Duration,
) -> Result<bool, BackendError> {
    let (seen, record) = read(bucket, key).await?;
    let Some(record) = record else { return Ok(false) };
    let longest = time.max(Duration::from_millis(record.time));
    let begun = Instant::now();
    while begun.elapsed() < longest.saturating_mul(2) {
        tokio::time::sleep(time / RENEWALS).await;
        match read(bucket, key).await? {
            (_, None) => return Ok(false),
            (revision, Some(_)) if revision != seen => return Ok(true),
            _ => {}
        }
    }
    match remove(bucket, key, seen).await {
        Ok(()) => Ok(false),
        Err(BackendError::Conflict { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

async fn remove(bucket: &dyn KeyValue, key: &Key, revision: u64) -> Result<(), BackendError> {
    let write = KeyWrite::new(key.clone(), Change::Delete, Expected::Revision(revision));
    bucket.write(NonEmpty::one(write)).await.map(drop)
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

#[cfg(all(test, feature = "testing"))]
mod tests {
    use super::*;
    use crate::clock::System;
    use crate::state::MemoryKeyValue;

    /// Who looks may itself want a lease for a shorter time.
    #[tokio::test(start_paused = true)]
    async fn a_lease_is_held_for_as_long_as_its_holder_says() {
        let (bucket, key) = (MemoryKeyValue::new("leases"), Key::new("=lease.a").unwrap());
        let (long, short) = (Duration::from_secs(60), Duration::from_secs(1));
        let taken = Lease::acquire(&bucket, key.clone(), Uuid::now_v7(), long, &System).await;
        let mut lease = taken.unwrap();
        let looked = tokio::select! {
            () = lease.keep() => panic!("nobody else wants it"),
            held = is_held(&bucket, &key, short) => held,
        };
        assert!(looked.unwrap());
        // Nobody renews it any more.
        assert!(!is_held(&bucket, &key, short).await.unwrap());
    }
}
