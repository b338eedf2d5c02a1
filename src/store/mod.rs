//! The event store: the events of one context, encoded, chained, appended and read back verified.
//!
//! [`Context`] is the handle a service holds. What an aggregate does with its events is in
//! [`repository`](crate::repository).

mod config;
mod error;
mod stored;
mod today;
mod encode;
mod ahead;
mod context;
mod append;
mod read;
mod event_store;
mod streams;
mod nats;

pub use config::NatsRepositoryConfig;
pub use context::{Context, Ports};
#[cfg(feature = "testing")]
pub(crate) use encode::Encoder;
pub(crate) use encode::named;
pub use encode::{CommitInfo, Head, NewEvent};
pub use error::{IntegrityError, StoreError};
pub use event_store::{
    Appended, Concurrency, EventFilter, EventStore, ExpectedVersion, Loaded, Optimistic, Recorded,
    StoreFailure, StreamId, Transaction, Unchecked,
};
pub use stored::StoredEvent;
pub(crate) use stored::Verifier;
pub use streams::{EventStreams, StreamHead, StreamKey, Streams};
