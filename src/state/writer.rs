//! Writes derived records behind the commits they are derived from.
//!
//! Records of one key that follow each other quickly are written once; many keys go in one batch. A record never
//! replaces one of a later version, unless that one is wrong: each write expects the revision that was seen when the two
//! were compared.
//! What is not written is not lost, since every record can be derived again; so errors here are logged, not returned.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::vec;

use bytes::Bytes;
use foldhash::HashMap;
use quick_cache::sync::Cache;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Change, Expected, Key, KeyValue, KeyWrite};
use crate::backend::BackendError;
use crate::event::NonEmpty;
use crate::panics::text_of;

/// How many keys may wait. Beyond that new ones are dropped; whoever loads the aggregate next offers its state again.
const MAX_WAITING: usize = 16 * 1024;

/// One batch holds at most so many keys, and is closed once it has so many bytes.
const BATCH_KEYS: usize = 500;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Between two batches the writer waits, so that what changes often is written once: until nothing was offered for a
/// while. That is so many times what the last batch took, and between these bounds, since commits that travel in batches
/// of their own come with pauses of about that length. While offers keep coming it waits so many times what the last
/// batch took, so that writing takes at most a fortieth of the time. What keeps changing is of little use when it is read,
/// because events follow it already.
const QUIET_SHARE: u32 = 2;
const LEAST_QUIET: Duration = Duration::from_millis(20);
const MOST_QUIET: Duration = Duration::from_secs(1);
const LINGER_SHARE: u32 = 39;

/// How often a batch is tried again when another process wrote one of its keys, or the bucket is out of reach.
const ATTEMPTS: u32 = 4;

/// The pause before the second of them where the bucket is out of reach; it doubles with each.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// How many revisions are remembered, so that a key that is written again needs no read.
const REVISIONS: usize = 64 * 1024;

/// Makes the bytes of a record when its turn has come; `None` when it cannot be encoded.
pub(crate) type Encode = Box<dyn FnOnce() -> Option<Bytes> + Send>;

/// Whether the first record may take the place of the second, which is stored.
pub(crate) type Replaces = fn(&[u8], &[u8]) -> bool;

/// A record that is to be written.
pub(crate) struct Offer {
    /// Of several offers for one key the one of the highest version is written.
    pub(crate) version: u64,
    /// The revision of a stored record that is wrong: while it is there it is replaced, whatever its version says.
    pub(crate) over: Option<u64>,
    /// Asked of whatever else is stored.
    pub(crate) replaces: Replaces,
    pub(crate) encode: Encode,
}

impl Offer {
    /// Becomes the later of two offers, of the same version the one that came first, and returns the other.
    fn merge(&mut self, mut other: Self) -> Self {
        // What is wrong is wrong for both, and of two revisions only the later one can still be there.
        self.over = self.over.max(other.over);
        if self.version < other.version {
            other.over = self.over;
            mem::swap(self, &mut other);
        }
        other
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Offer");
        shown.field("version", &self.version).field("over", &self.over).finish_non_exhaustive()
    }
}

/// Writes records to one bucket in the background. The last clone's drop writes what is left and ends it.
#[derive(Debug, Clone)]
pub(crate) struct StateWriter {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    /// How many of the keys that were ever queued are written or given up. Closed when the task has ended.
    settled: watch::Receiver<u64>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.queue().closed = true;
        self.shared.wake.notify_one();
    }
}

#[derive(Debug)]
struct Shared {
    bucket: Arc<dyn KeyValue>,
    queue: Mutex<Queue>,
    wake: Notify,
    /// What the bucket held when it was last seen or written.
    seen: Cache<Key, Seen>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: HashMap<Key, Offer>,
    /// The keys that wait, each once. Those that wait longest are written first, or some would wait for as long as others
    /// keep changing.
    order: VecDeque<Key>,
    /// How many records were ever offered.
    offered: u64,
    /// How many keys were ever put in order. They are taken in that order, so this number says what a flush waits for.
    queued: u64,
    /// So many of them are to be taken without waiting.
    hurried: u64,
    closed: bool,
}

impl Queue {
    /// How many keys were ever taken.
    fn taken(&self) -> u64 {
        self.queued - self.order.len() as u64
    }

    fn hurries(&self) -> bool {
        self.closed || self.taken() < self.hurried
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
    over: Option<u64>,
    replaces: Replaces,
    value: Bytes,
}

impl StateWriter {
    pub(crate) fn start(bucket: Arc<dyn KeyValue>) -> Self {
        let shared = Arc::new(Shared {
            bucket,
            queue: Mutex::default(),
            wake: Notify::new(),
            seen: Cache::new(REVISIONS),
        });
        let (settle, settled) = watch::channel(0);
        tokio::spawn(Arc::clone(&shared).run(settle));
        Self { handle: Arc::new(Handle { shared, settled }) }
    }

    /// The bucket that is written.
    pub(crate) fn bucket(&self) -> &Arc<dyn KeyValue> {
        &self.handle.shared.bucket
    }

    /// Offers a record for writing.
    pub(crate) fn offer(&self, key: Key, offer: Offer) {
        let shared = &self.handle.shared;
        let mut queue = shared.queue();
        queue.offered += 1;
        let Queue { waiting, order, queued, .. } = &mut *queue;
        let already = waiting.len();
        let unused = match waiting.entry(key) {
            Entry::Occupied(mut waiting) => Some(waiting.get_mut().merge(offer)),
            Entry::Vacant(_) if already >= MAX_WAITING => {
                metrics::counter!("cim_state_dropped_total").increment(1);
                Some(offer)
            }
            Entry::Vacant(free) => {
                order.push_back(free.key().clone());
                *queued += 1;
                free.insert(offer);
                None
            }
        };
        drop(queue);
        // Freed after the lock is.
        drop(unused);
        // Where others wait already, the task knows.
        if already == 0 {
            shared.wake.notify_one();
        }
    }

    /// Waits until everything offered before is written or given up, each record as it was offered or in a later version.
    ///
    /// When the task has ended, as it does with its runtime, it returns at once, and what still waits is never written.
    pub(crate) async fn flush(&self) {
        let Handle { shared, settled } = &*self.handle;
        let goal = {
            let mut queue = shared.queue();
            queue.hurried = queue.queued;
            queue.queued
        };
        shared.wake.notify_one();
        // It fails only when the task has ended.
        let _ = settled.clone().wait_for(|&settled| settled >= goal).await;
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic elsewhere leaves a queue behind that is still a queue.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Self>, settle: watch::Sender<u64>) {
        let mut took = Duration::ZERO;
        loop {
            let (empty, hurries, closed) = {
                let queue = self.queue();
                (queue.waiting.is_empty(), queue.hurries(), queue.closed)
            };
            match (empty, closed) {
                (true, true) => return,
                (true, false) => {
                    self.wake.notified().await;
                    continue;
                }
                (false, _) if !hurries => self.linger(took).await,
                (false, _) => {}
            }
            let begun = Instant::now();
            let (offers, taken) = self.take();
            self.store(offers).await;
            took = begun.elapsed();
            settle.send_replace(taken);
        }
    }

    /// Waits after a batch that took so long, until nothing more is offered, or long enough, or somebody is in a hurry.
    async fn linger(&self, took: Duration) {
        let quiet = (took * QUIET_SHARE).clamp(LEAST_QUIET, MOST_QUIET);
        let until = Instant::now() + (took * LINGER_SHARE).max(quiet);
        let mut offered = self.queue().offered;
        let mut look = pin!(tokio::time::sleep(quiet));
        loop {
            tokio::select! {
                () = &mut look => {
                    let before = mem::replace(&mut offered, self.queue().offered);
                    let now = Instant::now();
                    if offered == before || now >= until {
                        return;
                    }
                    look.as_mut().reset(until.min(now + quiet));
                }
                () = self.wake.notified() => {
                    if self.queue().hurries() {
                        return;
                    }
                }
            }
        }
    }

    /// What has waited longest, and how many keys were ever taken then.
    fn take(&self) -> (vec::IntoIter<(Key, Offer)>, u64) {
        let mut queue = self.queue();
        let Queue { waiting, order, .. } = &mut *queue;
        let count = order.len().min(BATCH_KEYS);
        let taken: Vec<_> =
            order.drain(..count).filter_map(|key| waiting.remove_entry(&key)).collect();
        (taken.into_iter(), queue.taken())
    }

    async fn store(&self, mut offers: vec::IntoIter<(Key, Offer)>) {
        while offers.len() > 0 {
            let records = self.encode_batch(&mut offers);
            self.store_batch(records).await;
        }
    }

    /// Encodes no more than one batch holds, since all of it is in memory until it is stored.
    fn encode_batch(&self, offers: &mut vec::IntoIter<(Key, Offer)>) -> Vec<Record> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some((key, offer)) = offers.next()
        {
            let Some(record) = self.encode(key, offer) else { continue };
            bytes += record.value.len();
            records.push(record);
        }
        records
    }

    /// The code of a service writes its state. Where it panics, the other records are not to suffer for it.
    fn encode(&self, key: Key, offer: Offer) -> Option<Record> {
        let Offer { version, over, replaces, encode } = offer;
        let value = catch_unwind(AssertUnwindSafe(encode)).unwrap_or_else(|panic| {
            metrics::counter!("cim_state_dropped_total").increment(1);
            tracing::warn!(
                bucket = self.bucket.bucket(),
                key = key.as_str(),
                panic = text_of(&*panic),
                "a record that panics when it is encoded is not written"
            );
            None
        })?;
        Some(Record { key, version, over, replaces, value })
    }

    async fn store_batch(&self, mut records: Vec<Record>) {
        for attempt in 0..ATTEMPTS {
            let Some(error) = self.try_batch(&mut records, attempt > 0).await else { return };
            match error {
                BackendError::Conflict { .. } => {}
                error if error.is_transient() => {
                    tracing::debug!(bucket = self.bucket.bucket(), %error, "state not written yet");
                    tokio::time::sleep(RETRY_PAUSE * 2_u32.pow(attempt)).await;
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
            let written = self.known(record).and_then(|seen| seen.version);
            written.is_none_or(|written| written < record.version)
        });
        if let Err(error) = self.learn_revisions(records, look).await {
            return Some(error);
        }
        let writes = records
            .iter()
            .map(|record| {
                let revision = self.known(record).map_or(0, |seen| seen.revision);
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

    /// What is stored under a record's key, as far as it is known. Whoever offers a record over a wrong one has seen that.
    fn known(&self, record: &Record) -> Option<Seen> {
        let seen = self.seen.get(&record.key);
        match record.over {
            Some(revision) if seen.is_none_or(|seen| seen.revision <= revision) => {
                Some(Seen { revision, version: None })
            }
            _ => seen,
        }
    }

    async fn learn_revisions(
        &self,
        records: &mut Vec<Record>,
        look: bool,
    ) -> Result<(), BackendError> {
        let unknown: Vec<Key> = records
            .iter()
            .filter(|record| look || self.known(record).is_none())
            .map(|record| record.key.clone())
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let slots = self.bucket.get_many(&unknown).await?;
        let found: HashMap<Key, _> = unknown.into_iter().zip(slots).collect();
        records.retain(|record| {
            let Some(slot) = found.get(&record.key) else { return true };
            let wrong = record.over == Some(slot.revision);
            let free = |stored: &[u8]| wrong || (record.replaces)(&record.value, stored);
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
