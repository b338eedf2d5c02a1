//! Key-value storage: current state, snapshots, and whatever else is derived from the log.
//!
//! The seam is [`KeyValue`]; its adapters stand beside it. What the values mean is decided above.

mod key;
mod writer;
pub(crate) mod nats;
#[cfg(feature = "testing")]
mod memory;

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::backend::{BackendError, ReadFrom};
use crate::event::NonEmpty;

pub use key::{InvalidKey, Key};
#[cfg(feature = "testing")]
pub use memory::MemoryKeyValue;
pub use nats::NatsKeyValue;
pub(crate) use writer::StateWriter;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Anything,
    /// The key's revision is this one; 0 for a key that was never set.
    Revision(u64),
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

    /// The keys that match a pattern with `*` and `>` and were set and not purged, in no order. Keys deleted since may
    /// be among them. One round trip per 100,000 keys, answered by the leader.
    fn keys<'a>(&'a self, pattern: &'a str) -> BoxFuture<'a, Result<Vec<Key>, BackendError>>;
}
