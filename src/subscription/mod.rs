//! Subscriptions: the events of a context, verified, as a stream that goes on for ever.
//!
//! - [`Context::subscribe`](crate::store::Context::subscribe) gives the events that a [`SubscriptionQuery`] names as an
//!   [`EventStream`]: those that are stored, then those that are being stored.
//! - [`Subscription`] runs a handler for each of them in a task.
//! - [`Dispatcher`] makes domain events of stored ones, by aggregate type and event type.
//! - [`EventRegistry`] does the same for domain types that say themselves which event types they have.
//! - [`Projector`] sees to it that the events of each aggregate are taken in order, each once.
//!
//! What is kept of events, exactly once, is the business of projections; nothing is kept here.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use cim_persistence::event::NonEmpty;
//! use cim_persistence::store::{CommitInfo, EventFilter, ExpectedVersion, NewEvent, Ports};
//! use cim_persistence::subject::{AggregateId, AggregateType};
//! use cim_persistence::subscription::{Dispatched, Dispatcher, Subscription, Unmapped};
//! use cim_persistence::{Context, DomainEvent, NatsRepositoryConfig};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Deposited { cents: u64 }
//!
//! impl DomainEvent for Deposited {
//!     fn event_type(&self) -> &'static str { "deposited" }
//! }
//!
//! // On a server: `Context::connect("nats://127.0.0.1:4222", "bank")`.
//! let bank = Context::on(Ports::in_memory(), &NatsRepositoryConfig::for_context("bank"))?;
//! let account = AggregateType::new("account")?;
//!
//! let dispatcher = Dispatcher::new(Unmapped::Skip)
//!     .on("account", ["deposited"], |deposited: Deposited, _| deposited.cents)?;
//! let (tell, mut amounts) = tokio::sync::mpsc::unbounded_channel();
//! let accounts = EventFilter::for_type(account.clone());
//! let mut subscription = Subscription::start(&bank, accounts, move |event| {
//!     let (dispatched, tell) = (dispatcher.dispatch(&event), tell.clone());
//!     async move {
//!         if let Dispatched::Mapped(cents) = dispatched? {
//!             tell.send(cents)?;
//!         }
//!         Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
//!     }
//! })
//! .await?;
//!
//! let events = NonEmpty::one(NewEvent::of(&Deposited { cents: 7 })?);
//! let (kim, info) = (AggregateId::new("kim")?, CommitInfo::default());
//! bank.append(&account, &kim, ExpectedVersion::NoStream, &events, &info).await?;
//! assert_eq!(amounts.recv().await, Some(7));
//! subscription.stop().await?;
//! # Ok(())
//! # }
//! ```

mod query;
mod stream;
mod running;
mod dispatcher;
mod registry;
mod projector;

pub use dispatcher::{DispatchError, Dispatched, Dispatcher, Unmapped};
pub use projector::{Admission, GapError, Projector};
pub use query::{EventSelection, SubscriptionQuery};
pub use registry::{AnyEvent, EventRegistry};
pub use running::{Subscription, SubscriptionError};
pub use stream::{Delivered, EventStream};
