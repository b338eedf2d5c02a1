//! Writes derived records behind the commits they are derived from.
//!
//! Records of one key that follow each other quickly are written once; many keys go in one batch. A record never
//! replaces one of a later version: each write expects the revision that was seen when the versions were compared.
//! What is not written is not lost, since every record can be derived again; so errors here are logged, not returned.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::fmt;
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use foldhash::HashMap;
use quick_cache::sync::Cache;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Change, Expected, Key, KeyValue, KeyWrite};
use crate::backend::BackendError;
use crate::event::NonEmpty;

/// How many keys may wait. Beyond that new ones are dropped; whoever loads the aggregate next offers its state again.
const MAX_WAITING: usize = 16 * 1024;

/// One batch holds at most so many keys, and is closed once it has so many bytes.
const BATCH_KEYS: usize = 500;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Between two batches the writer waits, so that what changes often is written once: until nothing was offered for so
/// long. While offers keep coming it waits so many times what the last batch took, so that writing takes at most a
/// fortieth of the time. What keeps changing is of little use when it is read, because events follow it already.
const LINGER: Duration = Duration::from_millis(20);
const LINGER_SHARE: u32 = 39;

/// How often a batch is tried again when another process wrote one of its keys, or the bucket is out of reach.
const ATTEMPTS: u32 = 4;

/// How many revisions are remembered, so that a key that is written again needs no read.
const REVISIONS: usize = 64 * 1024;

/// Makes the bytes of a record when its turn has come; `None` when it cannot be encoded.
pub(crate) type Encode = Box<dyn FnOnce() -> Option<Bytes> + Send>;

/// Whether the first record may take the place of the second, which is stored.
pub(crate) type Replaces = fn(&[u8], &[u8]) -> bool;

/// Writes records to one bucket in the background. The last clone's drop writes what is left and ends it.
#[derive(Debug, Clone)]
pub(crate) struct StateWriter {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.queue().closed = true;
        self.0.wake.notify_one();
    }
}

#[derive(Debug)]
struct Shared {
    bucket: Arc<dyn KeyValue>,
    queue: Mutex<Queue>,
    wake: Notify,
    idle: Notify,
    /// What the bucket held when it was last seen or written.
    seen: Cache<Key, Seen>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: HashMap<Key, Waiting>,
    /// The keys that wait, each once. Those that wait longest are written first, or some would wait for as long as others
    /// keep changing.
    order: VecDeque<Key>,
    /// How many records were ever offered.
    offered: u64,
    busy: bool,
    hurry: bool,
    closed: bool,
}

struct Waiting {
    version: u64,
    replaces: Replaces,
    encode: Encode,
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("version", &self.version).finish_non_exhaustive()
    }
}

/// What is stored under a key.
#[derive(Debug, Clone, Copy)]
struct Seen {
    revision: u64,
    /// The version that was written here; `None` where others wrote.
    version: Option<u64>,
}

/// A record with its bytes, on its way into the bucket.
#[derive(Debug)]
struct Record {
    key: Key,
    version: u64,
    replaces: Replaces,
    value: Bytes,
}

impl StateWriter {
    pub(crate) fn start(bucket: Arc<dyn KeyValue>) -> Self {
        let shared = Arc::new(Shared {
            bucket,
            queue: Mutex::default(),
            wake: Notify::new(),
            idle: Notify::new(),
            seen: Cache::new(REVISIONS),
        });
        tokio::spawn(Arc::clone(&shared).run());
        Self { handle: Arc::new(Handle(shared)) }
    }

    /// The bucket that is written.
    pub(crate) fn bucket(&self) -> &Arc<dyn KeyValue> {
        &self.handle.0.bucket
    }

    /// Offers a record. Of several offers for one key the highest version is written.
    pub(crate) fn offer(&self, key: Key, version: u64, replaces: Replaces, encode: Encode) {
        let shared = &self.handle.0;
        let mut queue = shared.queue();
        queue.offered += 1;
        let Queue { waiting, order, .. } = &mut *queue;
        let already = waiting.len();
        let replaced = match waiting.entry(key) {
            Entry::Occupied(mut waiting) if waiting.get().version < version => {
                Some(waiting.insert(Waiting { version, replaces, encode }))
            }
            Entry::Occupied(_) => None,
            Entry::Vacant(_) if already >= MAX_WAITING => {
                metrics::counter!("cim_state_dropped_total").increment(1);
                None
            }
            Entry::Vacant(free) => {
                order.push_back(free.key().clone());
                free.insert(Waiting { version, replaces, encode });
                None
            }
        };
        drop(queue);
        // Freed after the lock is.
        drop(replaced);
        // Where others wait already, the task knows.
        if already == 0 {
            shared.wake.notify_one();
        }
    }

    /// Waits until everything offered so far is written or given up.
    pub(crate) async fn flush(&self) {
        let shared = &self.handle.0;
        loop {
            let idle = shared.idle.notified();
            {
                let mut queue = shared.queue();
                if queue.waiting.is_empty() && !queue.busy {
                    return;
                }
                queue.hurry = true;
            }
            shared.wake.notify_one();
            idle.await;
        }
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic elsewhere leaves a queue behind that is still a queue.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>) {
        let mut linger = LINGER;
        loop {
            let (empty, hurry, closed) = {
                let queue = self.queue();
                (queue.waiting.is_empty(), queue.hurry, queue.closed)
            };
            match (empty, closed) {
                (true, true) => return,
                (true, false) => {
                    self.wake.notified().await;
                    continue;
                }
                (false, _) if !hurry && !closed => self.linger(linger).await,
                (false, _) => {}
            }
            let begun = Instant::now();
            let batch = self.take();
            self.store(batch).await;
            linger = (begun.elapsed() * LINGER_SHARE).max(LINGER);
            let mut queue = self.queue();
            queue.busy = false;
            if queue.waiting.is_empty() {
                queue.hurry = false;
            }
            drop(queue);
            self.idle.notify_waiters();
        }
    }

    /// Waits for so long, unless nothing more is offered or somebody is in a hurry.
    async fn linger(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut offered = self.queue().offered;
        let mut look = pin!(tokio::time::sleep(LINGER));
        loop {
            tokio::select! {
                () = &mut look => {
                    let before = mem::replace(&mut offered, self.queue().offered);
                    let now = Instant::now();
                    if offered == before || now >= until {
                        return;
                    }
                    look.as_mut().reset(until.min(now + LINGER));
                }
                () = self.wake.notified() => {
                    let queue = self.queue();
                    if queue.hurry || queue.closed {
                        return;
                    }
                }
            }
        }
    }

    fn take(&self) -> Vec<Record> {
        let taken: Vec<(Key, Waiting)> = {
            let mut queue = self.queue();
            queue.busy = true;
            let Queue { waiting, order, .. } = &mut *queue;
            let count = order.len().min(BATCH_KEYS);
            order.drain(..count).filter_map(|key| waiting.remove_entry(&key)).collect()
        };
        taken
            .into_iter()
            .filter_map(|(key, Waiting { version, replaces, encode })| {
                let value = encode()?;
                Some(Record { key, version, replaces, value })
            })
            .collect()
    }

    async fn store(&self, mut records: Vec<Record>) {
        while !records.is_empty() {
            let (mut bytes, mut count) = (0, 0);
            while count < records.len() && (count == 0 || bytes < BATCH_BYTES) {
                bytes += records[count].value.len();
                count += 1;
            }
            let rest = records.split_off(count);
            self.store_batch(records).await;
            records = rest;
        }
    }

    async fn store_batch(&self, mut records: Vec<Record>) {
        for attempt in 0..ATTEMPTS {
            let Some(error) = self.try_batch(&mut records, attempt > 0).await else { return };
            match error {
                BackendError::Conflict { .. } => {}
                error if error.is_transient() => {
                    tracing::debug!(bucket = self.bucket.bucket(), %error, "state not written yet");
                    tokio::time::sleep(LINGER * 2_u32.pow(attempt)).await;
                }
                error if records.len() > 1 => {
                    // One record may be at fault; the others are not to suffer for it.
                    tracing::debug!(bucket = self.bucket.bucket(), %error, "state is written one by one");
                    for record in records {
                        Box::pin(self.store_batch(vec![record])).await;
                    }
                    return;
                }
                error => {
                    self.give_up(&records, &error);
                    return;
                }
            }
        }
        self.give_up(&records, &BackendError::unavailable("every attempt failed"));
    }

    fn give_up(&self, records: &[Record], error: &BackendError) {
        metrics::counter!("cim_state_dropped_total").increment(records.len() as u64);
        tracing::warn!(
            bucket = self.bucket.bucket(),
            keys = records.len(),
            first = records.first().map(|record| record.key.as_str()),
            %error,
            "state was not written; it will be derived from the events again"
        );
    }

    /// One attempt. Drops the records that the bucket holds in a later version already.
    async fn try_batch(&self, records: &mut Vec<Record>, look: bool) -> Option<BackendError> {
        records.retain(|record| {
            let written = self.seen.get(&record.key).and_then(|seen| seen.version);
            written.is_none_or(|written| written < record.version)
        });
        if let Err(error) = self.learn_revisions(records, look).await {
            return Some(error);
        }
        let writes = records
            .iter()
            .map(|record| {
                let revision = self.seen.get(&record.key).map_or(0, |seen| seen.revision);
                let change = Change::Put(record.value.clone());
                KeyWrite::new(record.key.clone(), change, Expected::Revision(revision))
            })
            .collect();
        let writes = NonEmpty::from_vec(writes)?;
        metrics::counter!("cim_state_writes_total").increment(records.len() as u64);
        match self.bucket.write(writes).await {
            Ok(revisions) => {
                for (record, revision) in records.iter().zip(revisions) {
                    let seen = Seen { revision, version: Some(record.version) };
                    self.seen.insert(record.key.clone(), seen);
                }
                None
            }
            Err(error) => {
                for record in records.iter() {
                    self.seen.remove(&record.key);
                }
                Some(error)
            }
        }
    }

    async fn learn_revisions(
        &self,
        records: &mut Vec<Record>,
        look: bool,
    ) -> Result<(), BackendError> {
        let unknown: Vec<Key> = records
            .iter()
            .filter(|record| look || self.seen.get(&record.key).is_none())
            .map(|record| record.key.clone())
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let slots = self.bucket.get_many(&unknown).await?;
        let found: HashMap<Key, _> = unknown.into_iter().zip(slots).collect();
        records.retain(|record| {
            let Some(slot) = found.get(&record.key) else { return true };
            let free = |stored: &[u8]| (record.replaces)(&record.value, stored);
            let newer = slot.value.as_deref().is_none_or(free);
            if newer {
                let seen = Seen { revision: slot.revision, version: None };
                self.seen.insert(record.key.clone(), seen);
            }
            newer
        });
        Ok(())
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
