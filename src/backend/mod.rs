//! What both stores stand on: messages and their guards, the failures of a backend, the connection.
//!
//! The seams themselves are one layer up: [`event_log`](crate::event_log) and [`state`](crate::state). Only the
//! files called `nats.rs` know async-nats.

mod error;
mod message;
pub mod nats;

pub use error::BackendError;
pub use message::{Guard, NewMessage, Position, ReadFrom, StoredMessage};
