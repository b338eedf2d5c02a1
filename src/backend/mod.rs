//! What both stores stand on: messages and their guards, the failures of a backend, how to connect, what must exist.
//!
//! The seams themselves are one layer up: [`event_log`](crate::event_log) and [`state`](crate::state). Only the
//! files called `nats.rs`, and those in the folder of that name, know async-nats.

mod error;
mod message;
mod tail;
mod config;
mod connect;
mod topology;
mod version;
pub mod nats;
#[cfg(feature = "testing")]
pub(crate) mod memory;

pub use config::{
    Auth, ConfigError, ConnectionConfig, Durability, JetStreamLocation, Tls, TlsIdentity,
};
pub use connect::{ConnectError, DurabilityReport, LooseServer};
pub use error::BackendError;
pub use message::{Guard, NewMessage, Position, ReadFrom, StoredMessage};
pub use tail::{Bound, Count, Followed, MAX_MATCHING, Matching, Start, TailQuery};
pub use topology::{
    DUPLICATE_WINDOW, Discard, MAX_CONSUMERS, MIN_MESSAGE_BYTES, Replicas, Retention,
    SettingMismatch, Storage, StreamSettings, StreamSpec, Topology, TopologyError,
};
pub use version::MIN_SERVER_VERSION;
pub(crate) use version::ServerVersion;
