//! What a user writes: a projection, the events it reads, the models it keeps.

use std::error::Error;

use super::Changes;
use crate::event::DomainEvent;
use crate::read_model::{IndexSpec, ReadModel};
use crate::store::{EventFilter, StoreError, StoredEvent};

/// Why a projection cannot use an event. What happens then is the runner's [`PoisonPolicy`](super::PoisonPolicy).
pub type Rejection = Box<dyn Error + Send + Sync>;

/// Keeps read models by the events of a context.
///
/// A plain function from an event to [`Changes`]; the runner does everything else, and makes each event take effect once.
/// It must say the same for the same event: a rebuild repeats it.
///
/// ```
/// use cim_persistence::event::DomainEvent;
/// use cim_persistence::projection::{Changes, Declared, Projection, Rejection};
/// use cim_persistence::read_model::ReadModel;
/// use cim_persistence::store::StoredEvent;
/// use cim_persistence::subject::{AggregateId, InvalidToken};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// enum OrderEvent { Placed { customer: String, cents: u64 } }
/// # impl DomainEvent for OrderEvent { fn event_type(&self) -> &'static str { "placed" } }
///
/// #[derive(Clone, Default, Serialize, Deserialize)]
/// struct Customer { name: String, cents: u64 }
///
/// impl ReadModel for Customer {
///     const MODEL_TYPE: &'static str = "customer";
///     fn id(&self) -> Result<AggregateId, InvalidToken> { AggregateId::new(&self.name) }
/// }
///
/// struct Customers;
///
/// impl Projection for Customers {
///     const NAME: &'static str = "customers";
///     type Event = OrderEvent;
///     fn models() -> Vec<Declared> { vec![Declared::of::<Customer>()] }
///
///     fn project(&self, event: OrderEvent, _: &StoredEvent, changes: &mut Changes) -> Result<(), Rejection> {
///         let OrderEvent::Placed { customer: name, cents } = event;
///         changes.upsert(&AggregateId::new(&name)?, move |customer: &mut Customer| {
///             customer.name = name;
///             customer.cents += cents;
///         });
///         Ok(())
///     }
/// }
/// ```
pub trait Projection: Send + Sync + 'static {
    /// Its name in the context: `A-Z a-z 0-9 _ -`, at most 64 bytes.
    const NAME: &'static str;

    /// The version of what it does. Raised, it builds its models anew beside the old ones, and switches when it is done.
    const VERSION: u32 = 1;

    /// The events it reads.
    type Event: EventSet;

    /// The kinds of models it keeps. No other projection may keep them. A new version may keep others; the models of a kind
    /// that it drops stay as they were, until they and the key `=model.<type>` are deleted by hand.
    fn models() -> Vec<Declared>;

    /// Which events it reads; an event that passes any of these. Default: all of the context.
    fn filters() -> Vec<EventFilter> {
        vec![EventFilter::all()]
    }

    /// What an event changes.
    ///
    /// # Errors
    /// A reason why the event cannot be used; the runner's policy decides what follows.
    fn project(
        &self,
        event: Self::Event,
        stored: &StoredEvent,
        changes: &mut Changes,
    ) -> Result<(), Rejection>;
}

/// The domain events that a projection reads.
///
/// Every [`DomainEvent`] is one: the events of one aggregate type. For several, make an enum and read each by the
/// type of its aggregate. An event of another type means nothing here, and one of a newer version cannot be used. A type that
/// does not tell its [`shapes`](DomainEvent::shapes), as a derived one does, has to read an event to know that it is
/// another's, so one that it cannot read is an error. Code that learns to read another event type reads
/// none of those that were passed over: raise the [`VERSION`](Projection::VERSION) of a projection with it, and let
/// effects and process managers know a type before it is stored.
pub trait EventSet: Sized + Send {
    /// The event, or `None` for one that means nothing here; it is passed over.
    ///
    /// An event that an [`Evolution`](crate::evolution::Evolution) changes comes as it is today, with today's type and schema
    /// version ([`StoredEvent::evolved`]); one that is split comes in its parts, all of which take effect together.
    ///
    /// # Errors
    /// [`StoreError::Shape`] when it does not have the shape it should have, or a newer one.
    fn read(stored: &StoredEvent) -> Result<Option<Self>, StoreError>;
}

impl<E: DomainEvent + Send> EventSet for E {
    fn read(stored: &StoredEvent) -> Result<Option<Self>, StoreError> {
        if stored.is_tombstone() {
            return Ok(None);
        }
        stored.own_event()
    }
}

/// What a stored event is today, as a projection reads it.
pub(crate) fn read_today<E: EventSet>(
    stored: &StoredEvent,
) -> Result<impl Iterator<Item = E> + use<E>, StoreError> {
    let (mut one, mut several) = (None, Vec::new());
    if stored.is_changed() {
        for part in stored.evolved()? {
            several.extend(E::read(&part)?);
        }
    } else {
        one = E::read(stored)?;
    }
    Ok(one.into_iter().chain(several))
}

/// A kind of read model that a projection keeps.
#[derive(Debug, Clone)]
pub struct Declared {
    pub(super) model: &'static str,
    pub(super) schema_version: u32,
    pub(super) indexes: Vec<IndexSpec>,
}

impl Declared {
    /// This one.
    pub fn of<M: ReadModel>() -> Self {
        Self { model: M::MODEL_TYPE, schema_version: M::SCHEMA_VERSION, indexes: M::indexes() }
    }
}
