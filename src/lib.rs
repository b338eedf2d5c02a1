//! NATS JetStream as the database of event-sourced, domain-driven services.

#[cfg(feature = "server")]
pub mod server;
