//! The outbox: messages for other systems, stored in the same commit as the events they tell of, and published later.
//!
//! [`OutboxMessage`] is what a service sends; it becomes a CloudEvent in the binary mode of the NATS binding, which
//! [`CloudEvent`] reads back. Who takes part in a commit is decided above, by a unit of work.

mod topic;
mod percent;
mod message;
mod cloud_event;
mod error;
mod save;
mod handle;

pub use cloud_event::{CloudEvent, InvalidCloudEvent};
pub use error::OutboxError;
pub use handle::Outbox;
pub use message::{MAX_ATTRIBUTE_BYTES, OutboxMessage};
pub use topic::{InvalidTopic, MAX_TOPIC_BYTES, Topic};

#[cfg(test)]
mod tests;
