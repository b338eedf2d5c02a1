//! What a user writes: which events a process manager reacts to, on behalf of which instance, and how.

use std::future::Future;

use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::Reaction;
use crate::clock::Timestamp;
use crate::projection::{EventSet, Rejection};
use crate::store::{EventFilter, StoredEvent};
use crate::subject::AggregateId;
use crate::timeouts::Timeout;

/// Reacts to the events of a context, and to times.
///
/// A process has instances, one for each order that is shipped, say. Everything that a reaction does through its
/// [`Reaction`] is one commit: its own state, which is an aggregate like any other, commands to other aggregates, messages for
/// others, timeouts. The commit also says that the instance has reacted to this event, so each event takes effect once,
/// after crashes too and when two instances of the program believe that they are active. What a reaction does otherwise,
/// by a client of its own say, it does at least once.
///
/// Each reaction adds a small message to the context's stream beside what it stores itself, also one that stores nothing
/// else. One takes two round trips: what the instance has reacted to, and the commit; and those of its loads.
///
/// The events of the context come in order, one after the other; timeouts come between them. A reaction may be called several times for one
/// event, whenever others were first on an aggregate that it changes or has read. What it refuses it is called for once more
/// before that counts, with what the stream's leader says, since a replica may have been behind.
///
/// ```
/// # use cim_persistence::prelude::*;
/// # use cim_persistence::Repository;
/// use std::time::Duration;
/// use cim_persistence::process::{DueTimeout, ProcessManager, Reaction};
/// use cim_persistence::projection::Rejection;
/// use cim_persistence::store::{EventFilter, StoredEvent};
/// use cim_persistence::subject::{AggregateId, AggregateType};
/// # use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// enum OrderEvent { Placed, Paid, Reminded }
/// # impl DomainEvent for OrderEvent { fn event_type(&self) -> &'static str { "order" } }
/// # #[derive(Clone, Serialize, Deserialize)]
/// # struct Order { id: String }
/// # impl Aggregate for Order {
/// #     const TYPE: &'static str = "order";
/// #     type Id = String;
/// #     type Event = OrderEvent;
/// #     fn new(id: &String) -> Self { Order { id: id.clone() } }
/// #     fn id(&self) -> &String { &self.id }
/// #     fn apply(&mut self, _: &OrderEvent) {}
/// # }
///
/// struct Dunning { orders: Repository<Order> }
///
/// impl ProcessManager for Dunning {
///     const NAME: &'static str = "dunning";
///     type Event = OrderEvent;
///
///     fn instance(&self, _: &OrderEvent, stored: &StoredEvent) -> Result<Option<AggregateId>, Rejection> {
///         Ok(Some(stored.aggregate_id().clone()))
///     }
///
///     async fn react(&self, event: OrderEvent, _: &StoredEvent, reaction: &mut Reaction) -> Result<(), Rejection> {
///         match event {
///             OrderEvent::Placed => reaction.schedule_after("unpaid", Duration::from_secs(14 * 86_400), &())?,
///             OrderEvent::Paid => reaction.cancel("unpaid")?,
///             OrderEvent::Reminded => {}
///         }
///         Ok(())
///     }
///
///     async fn timeout(&self, _: &DueTimeout, reaction: &mut Reaction) -> Result<(), Rejection> {
///         let order = reaction.instance().to_string();
///         reaction.record(&self.orders, &order, vec![OrderEvent::Reminded]).await?;
///         Ok(())
///     }
/// }
/// ```
pub trait ProcessManager: Send + Sync + 'static {
    /// Its name in the context: `A-Z a-z 0-9 _ -`, at most 64 bytes. Under another name it begins anew.
    const NAME: &'static str;

    /// The events it reacts to.
    type Event: EventSet;

    /// Which events it reads; an event that passes any of these. Default: all of the context.
    fn filters() -> Vec<EventFilter> {
        vec![EventFilter::all()]
    }

    /// The instance that an event belongs to; `None` for an event that means nothing here, which costs nothing then.
    ///
    /// It must say the same for the same event.
    ///
    /// # Errors
    /// Why the event cannot be used; the policy decides what follows.
    fn instance(
        &self,
        event: &Self::Event,
        stored: &StoredEvent,
    ) -> Result<Option<AggregateId>, Rejection>;

    /// Reacts to an event. Nothing of it is stored before it returns.
    ///
    /// # Errors
    /// Why it cannot; nothing of the reaction is stored and the policy decides what follows. A failure of the store that may
    /// pass, or a conflict, is no reason: it is tried again. Nor is one that does not pass and lies in the store, such as a
    /// missing permission: it stops the process, whatever the policy. Both are recognised in the errors of aggregates, units of
    /// work, the outbox, read models, queries, projections and stored blocks, and in one of the service that has such an error
    /// among its sources. One that is `transparent` to thiserror does not: what it holds is passed over.
    fn react(
        &self,
        event: Self::Event,
        stored: &StoredEvent,
        reaction: &mut Reaction,
    ) -> impl Future<Output = Result<(), Rejection>> + Send;

    /// Reacts to a timeout that is due and was neither cancelled nor replaced. Default: refuses, since nothing schedules one.
    ///
    /// # Errors
    /// As [`react`](Self::react).
    fn timeout(
        &self,
        due: &DueTimeout,
        reaction: &mut Reaction,
    ) -> impl Future<Output = Result<(), Rejection>> + Send {
        let (name, _) = (due.name().to_owned(), reaction);
        async move { Err(format!("no reaction to the timeout {name} is written").into()) }
    }
}

/// A timeout whose time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueTimeout {
    timeout: Timeout,
}

impl DueTimeout {
    pub(super) fn new(timeout: Timeout) -> Self {
        Self { timeout }
    }

    /// The name it was scheduled under.
    pub fn name(&self) -> &str {
        self.timeout.address.name()
    }

    /// Its id: that of its scheduling, and what events cause that come from it.
    pub fn id(&self) -> Uuid {
        self.timeout.id
    }

    /// The time it was scheduled for.
    pub fn at(&self) -> Timestamp {
        self.timeout.at
    }

    /// What was said when it was scheduled.
    ///
    /// # Errors
    /// When it has another shape.
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, Rejection> {
        Ok(serde_json::from_slice(&self.timeout.data)?)
    }
}
