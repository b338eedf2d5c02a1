//! Key-value storage: current state, snapshots, and whatever else is derived from the log.
//!
//! The seam is [`KeyValue`]; its adapters stand beside it. What the values mean is decided above.

mod key;
mod bucket;
mod sweep;
mod writer;
pub(crate) mod nats;
#[cfg(feature = "testing")]
mod memory;

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use crate::backend::{BackendError, Count, Matching, ReadFrom, Start};
use crate::clock::Timestamp;
use crate::event::{Headers, NonEmpty};
use crate::subject::Pattern;

pub use key::{InvalidKey, Key};
#[cfg(feature = "testing")]
pub use memory::MemoryKeyValue;
pub use nats::NatsKeyValue;
pub(crate) use sweep::each_once;
pub(crate) use writer::{Offer, StateWriter};

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slot {
    /// The revision of the last change, 0 when there never was one.
    pub revision: u64,
    /// The value; `None` when it was deleted or never set.
    pub value: Option<Bytes>,
}

/// What to do to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Set the value.
    Put(Bytes),
    /// Remove the value; the revision grows all the same.
    Delete,
}

/// What must be true of a key when it is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Anything,
    /// The key's revision is this one; 0 for a key that was never set.
    Revision(u64),
    /// The revision of another key, which this call does not change, is this one; 0 for a key that was never set.
    RevisionOf(Key, u64),
}

/// One change to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyWrite {
    /// The key.
    pub key: Key,
    /// The change.
    pub change: Change,
    /// What must be true for it.
    pub expected: Expected,
    /// Headers stored beside the value; plain clients do not notice them.
    pub headers: Headers,
}

impl KeyWrite {
    /// A change without headers.
    pub fn new(key: Key, change: Change, expected: Expected) -> Self {
        Self { key, change, expected, headers: Headers::new() }
    }
}

/// A key and everything that is known of its last change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Key,
    /// The revision of the change.
    pub revision: u64,
    /// When the server stored it.
    pub written_at: Timestamp,
    /// The headers stored beside the value.
    pub headers: Headers,
    /// The value; `None` when the change deleted it.
    pub value: Option<Bytes>,
}

/// What a watcher of a bucket gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watched {
    /// A key was changed, or is as it was when the watch began from [`Start::Latest`].
    Entry(Entry),
    /// Everything that was stored when the watch began has been handed out, or what replaced it. Comes once.
    CaughtUp,
}

/// One bucket, as bytes.
///
/// An implementation promises: writes of one call are stored all or none, each only if its expectation holds; the
/// revision of a key grows with every change, also with a delete; errors mean what they mean for
/// [`EventLog`](crate::event_log::EventLog).
pub trait KeyValue: fmt::Debug + Send + Sync {
    /// The bucket's name, for messages.
    fn bucket(&self) -> &str;

    /// What a key holds. One round trip.
    fn get<'a>(&'a self, key: &'a Key, from: ReadFrom)
    -> BoxFuture<'a, Result<Slot, BackendError>>;

    /// What each key holds, in the order asked, at most 1000 keys. One round trip; any replica may answer.
    fn get_many<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<Vec<Slot>, BackendError>>;

    /// Applies all changes or none and returns the new revisions in order. Each key at most once, at most 1000 keys.
    /// One round trip.
    fn write(&self, writes: NonEmpty<KeyWrite>) -> BoxFuture<'_, Result<Vec<u64>, BackendError>>;

    /// Refuses a change that cannot travel with others, as far as can be said without sending it. No I/O.
    ///
    /// # Errors
    /// [`BackendError::TooLarge`] for a value that no message holds together with its headers.
    fn check(&self, _write: &KeyWrite) -> Result<(), BackendError> {
        Ok(())
    }

    /// The keys that match a pattern with `*` and `>` and were set and not purged, in no order. Keys deleted since may
    /// be among them. One round trip per 100,000 keys, answered by the leader.
    fn keys<'a>(&'a self, pattern: &'a str) -> BoxFuture<'a, Result<Vec<Key>, BackendError>>;

    /// The entries of the keys that match any of the patterns, deleted ones included, ordered by revision and all as of
    /// one moment; [`Matching::TooMany`] when more than 1024 keys match, or so much that they change while they are read. One round trip
    /// for each 8 MiB; any replica may answer.
    fn matching<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
    ) -> BoxFuture<'a, Result<Matching<Entry>, BackendError>>;

    /// Of the entries of the keys that match a pattern the one that was changed last, deleted ones included. One round
    /// trip; any replica may answer.
    fn newest<'a>(
        &'a self,
        pattern: &'a Pattern,
    ) -> BoxFuture<'a, Result<Option<Entry>, BackendError>>;

    /// How many keys match any of the patterns; keys deleted since are counted. One round trip.
    fn count<'a>(
        &'a self,
        patterns: &'a NonEmpty<Pattern>,
    ) -> BoxFuture<'a, Result<Count, BackendError>>;

    /// The revision of the last change of any key, 0 when there never was one; while it stays, nothing changes. One round
    /// trip, answered by the leader.
    fn last_revision(&self) -> BoxFuture<'_, Result<u64, BackendError>>;

    /// The changes of the keys that match any of the patterns, ordered by revision, for ever.
    ///
    /// A key that is changed several times while the watcher does not look may come with its last change only. Else as
    /// [`EventLog::follow`](crate::event_log::EventLog::follow) says. From [`Start::Latest`] up to
    /// [`Watched::CaughtUp`] it reads every key, whatever their number; one that is changed meanwhile may come twice.
    fn watch(
        &self,
        patterns: NonEmpty<Pattern>,
        start: Start,
    ) -> BoxStream<'static, Result<Watched, BackendError>>;
}
