//! NATS JetStream as the database of event-sourced, domain-driven services.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod clock;
pub mod subject;
pub mod event;
pub mod ipld;
pub mod backend;
pub mod event_log;
pub mod state;
pub mod store;
pub mod repository;
pub mod prelude;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "testing")]
pub mod testing;
