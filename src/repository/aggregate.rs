//! What a domain says of its aggregates.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::event::{DomainEvent, SchemaVersion};
use crate::lifecycle::Stage;
use crate::subject::Identity;

/// A consistency boundary of the domain: state that follows from events, and nothing else.
///
/// Pure and synchronous. [`apply`](Self::apply) must be total: an event that was stored happened, whatever one thinks
/// of it today.
///
/// ```
/// use cim_persistence::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Counter { name: String, count: u64 }
///
/// #[derive(Serialize, Deserialize)]
/// struct Counted;
///
/// impl DomainEvent for Counted {
///     fn event_type(&self) -> &'static str { "counted" }
/// }
///
/// impl Aggregate for Counter {
///     const TYPE: &'static str = "counter";
///     type Id = String;
///     type Event = Counted;
///     fn new(name: &String) -> Self { Counter { name: name.clone(), count: 0 } }
///     fn id(&self) -> &String { &self.name }
///     fn apply(&mut self, _: &Counted) { self.count += 1 }
/// }
/// ```
pub trait Aggregate: Clone + Serialize + DeserializeOwned {
    /// The name of the aggregate type: `A-Z a-z 0-9 _ -`, at most 64 bytes, never changed once stored.
    const TYPE: &'static str;

    /// The version of the state's shape. Raise it when the shape changes: kept state and snapshots of other versions
    /// are then ignored and derived again, unless an [`Evolution`](crate::evolution::Evolution) leads from them to this one.
    const STATE_VERSION: SchemaVersion = 1;

    /// What identifies an aggregate.
    type Id: Identity;

    /// What happens to it.
    type Event: DomainEvent;

    /// The state before any event.
    fn new(id: &Self::Id) -> Self;

    /// Which aggregate this is.
    fn id(&self) -> &Self::Id;

    /// What an event does to the state.
    fn apply(&mut self, event: &Self::Event);

    /// Where in its life the aggregate stands, if its life has rules: see [`lifecycle!`](crate::lifecycle!). Default:
    /// none has.
    ///
    /// It is compared before and after each event that is to be stored; an event that leads to a stage which may not
    /// follow is refused with all others of its commit. A new aggregate has no stage yet, or the first one. Events that
    /// were stored are not checked again, so a rule may be added or changed later.
    fn stage(&self) -> Option<Stage> {
        None
    }
}

/// How an aggregate answers a command: with events, or with the domain's no.
///
/// ```
/// # use cim_persistence::prelude::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Clone, Serialize, Deserialize)]
/// # struct Counter { name: String, count: u64 }
/// # #[derive(Serialize, Deserialize)]
/// # struct Counted;
/// # impl DomainEvent for Counted { fn event_type(&self) -> &'static str { "counted" } }
/// # impl Aggregate for Counter {
/// #     const TYPE: &'static str = "counter";
/// #     type Id = String;
/// #     type Event = Counted;
/// #     fn new(name: &String) -> Self { Counter { name: name.clone(), count: 0 } }
/// #     fn id(&self) -> &String { &self.name }
/// #     fn apply(&mut self, _: &Counted) { self.count += 1 }
/// # }
/// struct Count;
/// #[derive(Debug, PartialEq)]
/// struct Full;
///
/// impl Handle<Count> for Counter {
///     type Rejection = Full;
///     fn handle(&self, _: &Count) -> Result<Vec<Counted>, Full> {
///         if self.count < 3 { Ok(vec![Counted]) } else { Err(Full) }
///     }
/// }
/// ```
pub trait Handle<C>: Aggregate {
    /// Why a command is refused.
    type Rejection;

    /// Decides. No event means that there is nothing to do.
    ///
    /// # Errors
    /// The rejection; nothing is stored then.
    fn handle(&self, command: &C) -> Result<Vec<Self::Event>, Self::Rejection>;
}

/// What a decision may be: the events alone, or the events with a reply to whoever asked.
pub trait IntoDecision<E> {
    /// The reply.
    type Reply;

    /// The events and the reply.
    fn into_decision(self) -> (Vec<E>, Self::Reply);
}

impl<E> IntoDecision<E> for Vec<E> {
    type Reply = ();
    fn into_decision(self) -> (Vec<E>, ()) {
        (self, ())
    }
}

impl<E, const N: usize> IntoDecision<E> for [E; N] {
    type Reply = ();
    fn into_decision(self) -> (Vec<E>, ()) {
        (self.into(), ())
    }
}

impl<E, R> IntoDecision<E> for (Vec<E>, R) {
    type Reply = R;
    fn into_decision(self) -> (Vec<E>, R) {
        self
    }
}
