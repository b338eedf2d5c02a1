//! From stored events to those of the domain, by aggregate type and event type.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::event::SchemaVersion;
use crate::store::{StoreError, StoredEvent};
use crate::subject::{AggregateType, EventType, InvalidToken};

/// What happens to an event that nothing is mapped to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unmapped {
    /// It is an error.
    #[default]
    Error,
    /// It is passed over.
    Skip,
    /// It is kept as JSON.
    KeepRaw,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum Dispatched<T> {
    /// What it was mapped to.
    Mapped(T),
    /// Its data, of which nothing is known.
    Raw(serde_json::Value),
    /// Nothing.
    Skipped,
}

/// Why an event was not dispatched, or a mapping not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DispatchError {
    /// Nothing is mapped to the event. Map something, or skip or keep what is unmapped.
    #[error(
        "no mapping for event {event_type} of {aggregate_type} at position {position}; map it, or choose what happens to what is unmapped"
    )]
    Unmapped {
        /// The kind of aggregate.
        aggregate_type: String,
        /// The event's type.
        event_type: String,
        /// The event's position.
        position: u64,
    },
    /// The event's data has another shape than what it is mapped to. Add an upcaster or restore the old shape.
    #[error(transparent)]
    Shape(#[from] StoreError),
    /// A name cannot be one. Correct it.
    #[error(transparent)]
    Name(#[from] InvalidToken),
    /// A domain type does not say which event types it has. Derive `DomainEvent`, or write `DomainEvent::shapes`.
    #[error("{type_name} does not say which event types it has; write DomainEvent::shapes for it")]
    NoShapes {
        /// The Rust type.
        type_name: &'static str,
    },
    /// An event type is registered twice. Give one of the two another name.
    #[error("event type {event_type} is registered twice; give one of the two another name")]
    Registered {
        /// The event type.
        event_type: &'static str,
    },
    /// The event is of another version than the registered type reads. Upcast it, or bring the code up to date if it is newer.
    #[error(
        "event {event_type} at position {position} has schema version {stored}, and {newest} is registered; upcast it, \
         or bring this code up to date"
    )]
    OtherVersion {
        /// The event type.
        event_type: String,
        /// The event's position.
        position: u64,
        /// The version of its shape.
        stored: SchemaVersion,
        /// The version that is read.
        newest: SchemaVersion,
    },
    /// An event type is mapped twice. Map it once.
    #[error("event {event_type} of {aggregate_type} is mapped twice; map it once")]
    Twice {
        /// The kind of aggregate.
        aggregate_type: String,
        /// The event's type.
        event_type: String,
    },
}

type Route<T> = Box<dyn Fn(&StoredEvent) -> Result<T, StoreError> + Send + Sync>;

/// Maps stored events to what a consumer makes of them: domain events of one type, futures, or effects. Each is named by
/// hand; an [`EventRegistry`](super::EventRegistry) takes the names that domain types give themselves.
///
/// ```
/// use cim_persistence::subscription::{Dispatcher, Unmapped};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Placed { cents: u64 }
/// #[derive(Deserialize)]
/// struct Paid { cents: u64 }
///
/// let balance = Dispatcher::new(Unmapped::Skip)
///     .on("order", ["placed"], |placed: Placed, _| -(placed.cents as i64))?
///     .on("invoice", ["paid", "paid_in_part"], |paid: Paid, _| paid.cents as i64)?;
/// # Ok::<(), cim_persistence::subscription::DispatchError>(())
/// ```
pub struct Dispatcher<T> {
    routes: HashMap<AggregateType, HashMap<EventType, Arc<Route<T>>>>,
    unmapped: Unmapped,
}

impl<T: 'static> Dispatcher<T> {
    /// Nothing is mapped yet.
    pub fn new(unmapped: Unmapped) -> Self {
        Self { routes: HashMap::new(), unmapped }
    }

    /// Maps these events of one kind of aggregate, read as `E`. The stored event beside it tells id, version, position,
    /// schema version and metadata.
    ///
    /// # Errors
    /// [`DispatchError::Name`] when a name cannot be one; [`DispatchError::Twice`] when an event type is mapped already.
    pub fn on<E: DeserializeOwned>(
        mut self,
        aggregate: &str,
        event_types: impl IntoIterator<Item = &'static str>,
        map: impl Fn(E, &StoredEvent) -> T + Send + Sync + 'static,
    ) -> Result<Self, DispatchError> {
        let aggregate = AggregateType::new(aggregate)?;
        let route: Route<T> = Box::new(move |event| Ok(map(event.data()?, event)));
        let route = Arc::new(route);
        let routes = self.routes.entry(aggregate.clone()).or_default();
        for event_type in event_types {
            let event_type = EventType::new(event_type)?;
            let replaced = routes.insert(event_type.clone(), Arc::clone(&route));
            if replaced.is_some() {
                return Err(DispatchError::Twice {
                    aggregate_type: aggregate.to_string(),
                    event_type: event_type.to_string(),
                });
            }
        }
        Ok(self)
    }

    /// Maps one event, by the type that it has today. One that an [`Evolution`](crate::evolution::Evolution) drops is skipped.
    ///
    /// # Errors
    /// [`DispatchError::Unmapped`] when nothing is mapped to it and that is an error; [`DispatchError::Shape`] when its
    /// data is of another shape, or it is several events today: [`dispatch_all`](Self::dispatch_all).
    pub fn dispatch(&self, event: &StoredEvent) -> Result<Dispatched<T>, DispatchError> {
        if !event.is_changed() {
            return self.map(event);
        }
        match event.evolved()?.as_slice() {
            [] => Ok(Dispatched::Skipped),
            [one] => self.map(one),
            several => Err(event.not_one(several.len()).into()),
        }
    }

    /// Maps the events that a stored one is today: one, unless an [`Evolution`](crate::evolution::Evolution) splits or drops it.
    ///
    /// # Errors
    /// As [`dispatch`](Self::dispatch), for the first one that cannot be mapped.
    pub fn dispatch_all(&self, event: &StoredEvent) -> Result<Vec<Dispatched<T>>, DispatchError> {
        event.evolved()?.iter().map(|event| self.map(event)).collect()
    }

    fn map(&self, event: &StoredEvent) -> Result<Dispatched<T>, DispatchError> {
        let of_type = self.routes.get(event.aggregate_type());
        if let Some(route) = of_type.and_then(|routes| routes.get(event.event_type())) {
            return Ok(Dispatched::Mapped(route(event)?));
        }
        match self.unmapped {
            Unmapped::Skip => Ok(Dispatched::Skipped),
            Unmapped::KeepRaw => Ok(Dispatched::Raw(event.data()?)),
            Unmapped::Error => Err(DispatchError::Unmapped {
                aggregate_type: event.aggregate_type().to_string(),
                event_type: event.event_type().to_string(),
                position: event.position().get(),
            }),
        }
    }
}

impl<T> fmt::Debug for Dispatcher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mapped = self.routes.iter().flat_map(|(aggregate, routes)| {
            routes.keys().map(move |event_type| format!("{aggregate}.{event_type}"))
        });
        f.debug_struct("Dispatcher")
            .field("mapped", &mapped.collect::<Vec<_>>())
            .field("unmapped", &self.unmapped)
            .finish()
    }
}
