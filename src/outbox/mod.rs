//! The outbox: messages for other systems, stored in the same commit as the events they tell of, and published later.
//!
//! [`OutboxMessage`] is what a service sends; it becomes a CloudEvent in the binary mode of the NATS binding, which
//! [`CloudEvent`] reads back. A [`Relay`] publishes what is stored through a [`Publisher`]; [`Outbox`] is for those who
//! publish by hand, and for operators. Who takes part in a commit is decided above, by a unit of work.

mod topic;
mod percent;
mod message;
mod cloud_event;
mod error;
mod publisher;
mod pending;
mod records;
mod ledger;
mod book;
mod lanes;
mod save;
mod handle;
mod meter;
mod pump;
mod relay;
mod subjects;
mod nats;
#[cfg(feature = "webhook")]
mod webhook;

pub use cloud_event::{CloudEvent, InvalidCloudEvent};
pub use error::OutboxError;
pub use handle::{Backlog, Outbox, Requeued};
pub use message::{MAX_ATTRIBUTE_BYTES, OutboxMessage};
pub use nats::{JetStreamPublisher, NatsPublisher};
pub use pending::PendingMessage;
pub use publisher::{PublishError, Publisher, RetryPolicy};
pub(crate) use records::{CURSORS, HELD, held_at};
pub use records::{HeldMessage, HeldState};
pub use relay::{Relay, RelayOptions, RelayPhase, RelayStatus};
pub use subjects::{InvalidPrefix, Subjects};
pub use topic::{InvalidTopic, MAX_TOPIC_BYTES, Topic, Topics};
#[cfg(feature = "webhook")]
pub use webhook::{InvalidWebhook, WebhookPublisher};

#[cfg(test)]
mod tests;
