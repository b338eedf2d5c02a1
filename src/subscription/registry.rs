//! Domain types by the names of their event types, whatever module they are from.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::{DispatchError, Dispatched, Unmapped};
use crate::event::{DomainEvent, SchemaVersion};
use crate::store::{StoreError, StoredEvent};

type Decode<T> = Arc<dyn Fn(&StoredEvent) -> Result<T, StoreError> + Send + Sync>;

/// The event types of a service: each registered domain type reads those that its [`shapes`](DomainEvent::shapes) name,
/// in the version that they name.
///
/// A handler makes a `T` of an event; a registry of [`AnyEvent`]s keeps what it decoded as it is. Events of older versions have
/// to be upcast by the context's [`Evolution`](crate::evolution::Evolution).
///
/// ```
/// use cim_persistence::event::{DomainEvent, Shape};
/// use cim_persistence::subscription::{EventRegistry, Unmapped};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// enum OrderEvent { Placed { cents: i64 }, Cancelled }
///
/// impl DomainEvent for OrderEvent {
///     fn event_type(&self) -> &'static str {
///         match self { OrderEvent::Placed { .. } => "placed", OrderEvent::Cancelled => "cancelled" }
///     }
///     fn shapes() -> &'static [Shape] {
///         &[Shape { name: "placed", version: 1 }, Shape { name: "cancelled", version: 1 }]
///     }
/// }
///
/// let revenue = EventRegistry::new(Unmapped::Skip).on(|event: OrderEvent, _| match event {
///     OrderEvent::Placed { cents } => cents,
///     OrderEvent::Cancelled => 0,
/// })?;
/// assert_eq!(revenue.event_types().collect::<Vec<_>>(), ["cancelled", "placed"]);
/// # Ok::<(), cim_persistence::subscription::DispatchError>(())
/// ```
#[derive(Clone)]
pub struct EventRegistry<T> {
    types: HashMap<&'static str, (SchemaVersion, Decode<T>)>,
    unknown: Unmapped,
}

/// An event of any registered type.
pub type AnyEvent = Box<dyn Any + Send + Sync>;

impl<T: 'static> EventRegistry<T> {
    /// Nothing registered yet; what happens to events of unknown types is said here.
    pub fn new(unknown: Unmapped) -> Self {
        Self { types: HashMap::new(), unknown }
    }

    /// Registers a domain type with a handler. The stored event beside it tells id, version, position and metadata.
    ///
    /// # Errors
    /// [`DispatchError::NoShapes`] when the type does not say what its event types are; [`DispatchError::Registered`] when one
    /// of them is registered already.
    pub fn on<E: DomainEvent>(
        mut self,
        handler: impl Fn(E, &StoredEvent) -> T + Send + Sync + 'static,
    ) -> Result<Self, DispatchError> {
        if E::shapes().is_empty() {
            return Err(DispatchError::NoShapes { type_name: std::any::type_name::<E>() });
        }
        let decode: Decode<T> = Arc::new(move |event| Ok(handler(event.data()?, event)));
        for shape in E::shapes() {
            let entry = (shape.version, Arc::clone(&decode));
            if self.types.insert(shape.name, entry).is_some() {
                return Err(DispatchError::Registered { event_type: shape.name });
            }
        }
        Ok(self)
    }

    /// The registered event types, sorted.
    pub fn event_types(&self) -> impl Iterator<Item = &'static str> + use<T> {
        let mut names: Vec<_> = self.types.keys().copied().collect();
        names.sort_unstable();
        names.into_iter()
    }

    /// Runs the handlers of the events that a stored one is today: one, unless an
    /// [`Evolution`](crate::evolution::Evolution) splits or drops it. A tombstone, which is nobody's event, is skipped.
    ///
    /// # Errors
    /// [`DispatchError::Unmapped`] for an unknown type where that is an error; [`DispatchError::OtherVersion`] for a version that
    /// the registered type does not read; [`DispatchError::Shape`] for data of another shape.
    pub fn dispatch(&self, event: &StoredEvent) -> Result<Vec<Dispatched<T>>, DispatchError> {
        if !event.is_changed() {
            return Ok(vec![self.one(event)?]);
        }
        event.evolved()?.iter().map(|event| self.one(event)).collect()
    }

    fn one(&self, event: &StoredEvent) -> Result<Dispatched<T>, DispatchError> {
        let position = event.position().get();
        match self.types.get(event.event_type().as_str()) {
            Some((newest, _)) if *newest != event.schema_version() => {
                Err(DispatchError::OtherVersion {
                    event_type: event.event_type().to_string(),
                    position,
                    stored: event.schema_version(),
                    newest: *newest,
                })
            }
            Some((_, decode)) => Ok(Dispatched::Mapped(decode(event)?)),
            None if event.is_tombstone() => Ok(Dispatched::Skipped),
            None => match self.unknown {
                Unmapped::Skip => Ok(Dispatched::Skipped),
                Unmapped::KeepRaw => Ok(Dispatched::Raw(event.data()?)),
                Unmapped::Error => Err(DispatchError::Unmapped {
                    aggregate_type: event.aggregate_type().to_string(),
                    event_type: event.event_type().to_string(),
                    position,
                }),
            },
        }
    }
}

impl EventRegistry<AnyEvent> {
    /// Registers a domain type whose events are kept as they are decoded, for `downcast`.
    ///
    /// # Errors
    /// As [`on`](Self::on).
    pub fn register<E: DomainEvent + Send + Sync + 'static>(self) -> Result<Self, DispatchError> {
        self.on(|event: E, _| Box::new(event) as AnyEvent)
    }
}

impl<T> fmt::Debug for EventRegistry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let types = self.types.iter().map(|(name, (version, _))| format!("{name} v{version}"));
        f.debug_struct("EventRegistry")
            .field("types", &types.collect::<std::collections::BTreeSet<_>>())
            .field("unknown", &self.unknown)
            .finish()
    }
}
