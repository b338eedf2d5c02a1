//! What a stored event is today: as it is stored, or as upcasters change it on its way to the code.

use std::sync::Arc;

use ipld_core::ipld::Ipld;
use serde::de::DeserializeOwned;

use super::{StoreError, StoredEvent};
use crate::event::{DomainEvent, Envelope, SchemaVersion};
use crate::evolution::{Evolution, Evolved, Kind, UpcastError};
use crate::ipld::{self, BlockError};
use crate::subject::EventType;

/// How an event's data is read.
#[derive(Debug, Clone)]
pub(super) enum Today {
    /// As it is stored.
    Stored,
    /// After a way through upcasters.
    Changed(Arc<Evolution>),
    /// It came out of upcasters; this is what it is.
    Made(Arc<Ipld>),
}

impl Today {
    pub(super) fn of(envelope: &Envelope<()>, evolution: Option<&Arc<Evolution>>) -> Self {
        let (name, version) = (envelope.event_type.as_str(), envelope.schema_version);
        match evolution.filter(|evolution| evolution.changes(Kind::Event, name, version)) {
            Some(evolution) => Self::Changed(Arc::clone(evolution)),
            None => Self::Stored,
        }
    }
}

impl StoredEvent {
    /// The event itself, as any type that serde can read it into: the domain's event, or a generic value such as
    /// `serde_json::Value`. It is in the newest shape, if the context has an [`Evolution`] that knows the stored one.
    ///
    /// # Errors
    /// [`StoreError::Shape`] when the data does not have the shape of `T`; [`StoreError::Upcast`];
    /// [`StoreError::NotOne`] for an event that is several today, or none: read it with [`events`](Self::events).
    pub fn data<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        match &self.today {
            Today::Stored => self.stored_data(),
            Today::Made(value) => self.read(value),
            Today::Changed(evolution) => match self.upcast(evolution)?.as_slice() {
                [one] => self.read(&one.value),
                several => Err(self.not_one(several.len())),
            },
        }
    }

    /// The events that it is today: one, unless an [`Evolution`] splits or drops it.
    ///
    /// # Errors
    /// [`StoreError::Shape`], also for an event type that `E` does not have and for a newer version of it than the code knows;
    /// [`StoreError::Upcast`].
    pub fn events<E: DomainEvent>(&self) -> Result<Vec<E>, StoreError> {
        match &self.today {
            Today::Changed(evolution) => self
                .upcast(evolution)?
                .iter()
                .map(|made| {
                    self.check_shape::<E>(&made.name, made.version)?;
                    self.told(self.read(&made.value)?, &made.name, made.version)
                })
                .collect(),
            _ => Ok(vec![self.domain_event()?]),
        }
    }

    /// The event as one of a type that says which event types are its own.
    pub(crate) fn domain_event<E: DomainEvent>(&self) -> Result<E, StoreError> {
        let (name, version) = (self.envelope.event_type.as_str(), self.envelope.schema_version);
        self.check_shape::<E>(name, version)?;
        self.told(self.data()?, name, version)
    }

    /// Refuses an event type that a domain type does not have, and a newer version than it knows. Serde reads either into it
    /// as well where the fields it looks for are there.
    fn check_shape<E: DomainEvent>(
        &self,
        name: &str,
        version: SchemaVersion,
    ) -> Result<(), StoreError> {
        match E::shape_of(name) {
            Some(shape) if version > shape.version => {
                Err(self.newer::<E>(name, version, shape.version))
            }
            None if !E::shapes().is_empty() => Err(self.foreign::<E>(name, version)),
            Some(_) | None => Ok(()),
        }
    }

    /// As [`check_shape`](Self::check_shape), by what the event says of itself once it is read, where its type does not say
    /// what there is.
    fn told<E: DomainEvent>(
        &self,
        event: E,
        name: &str,
        version: SchemaVersion,
    ) -> Result<E, StoreError> {
        if !E::shapes().is_empty() {
            return Ok(event);
        }
        let known = event.schema_version();
        match event.event_type() == name {
            true if version > known => Err(self.newer::<E>(name, version, known)),
            true => Ok(event),
            false => Err(self.foreign::<E>(name, version)),
        }
    }

    fn newer<E>(&self, name: &str, version: SchemaVersion, known: SchemaVersion) -> StoreError {
        let of = std::any::type_name::<E>();
        let reason = format!("{of} knows versions up to {known}; bring the code up to date");
        self.unlike(name, version, reason)
    }

    fn foreign<E>(&self, name: &str, version: SchemaVersion) -> StoreError {
        let of = std::any::type_name::<E>();
        let reason = format!("{of} has no event of this name; add it, or an upcaster");
        self.unlike(name, version, reason)
    }

    /// Whether its event type is one of those of a domain type, or that type does not say which those are.
    pub(crate) fn may_be<E: DomainEvent>(&self) -> bool {
        E::shapes().is_empty() || E::shape_of(self.envelope.event_type.as_str()).is_some()
    }

    /// What it is today, each event by itself: with today's type, schema version and data, and with all the rest of the
    /// stored event, its id, version, CID and block among them. Itself, where nothing is changed.
    ///
    /// # Errors
    /// [`StoreError::Upcast`] when an upcaster fails; [`StoreError::Shape`] when the stored data cannot be decoded for
    /// it.
    pub fn evolved(&self) -> Result<Vec<StoredEvent>, StoreError> {
        match &self.today {
            Today::Changed(evolution) => {
                self.upcast(evolution)?.into_iter().map(|made| self.made(made)).collect()
            }
            _ => Ok(vec![self.clone()]),
        }
    }

    /// The data as it is stored, in whatever shape that is.
    ///
    /// # Errors
    /// [`StoreError::Shape`] when it does not have the shape of `T`.
    pub fn stored_data<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        ipld::decode_data_as(&self.block, self.codec).map_err(|error| self.other_shape(&error))
    }

    /// Whether an [`Evolution`] changes it, so that it is read otherwise than it is stored.
    pub fn is_changed(&self) -> bool {
        matches!(self.today, Today::Changed(_))
    }

    pub(crate) fn not_one(&self, count: usize) -> StoreError {
        StoreError::NotOne {
            event_type: self.envelope.event_type.to_string(),
            schema_version: self.envelope.schema_version,
            position: self.position.get(),
            count,
        }
    }

    fn upcast(&self, evolution: &Evolution) -> Result<Vec<Evolved>, StoreError> {
        let Envelope { event_type, schema_version, .. } = &self.envelope;
        let value = self.stored_data()?;
        evolution
            .evolve(Kind::Event, event_type.as_str(), *schema_version, value)
            .map_err(|source| self.not_upcast(source))
    }

    fn made(&self, made: Evolved) -> Result<StoredEvent, StoreError> {
        let mut event = self.clone();
        event.envelope.event_type = EventType::new(&*made.name)?;
        event.envelope.schema_version = made.version;
        event.today = Today::Made(Arc::new(made.value));
        Ok(event)
    }

    fn read<T: DeserializeOwned>(&self, value: &Ipld) -> Result<T, StoreError> {
        ipld::from_value(self.codec, value).map_err(|error| self.other_shape(&error))
    }

    fn other_shape(&self, error: &BlockError) -> StoreError {
        self.shape(format!("{error}; add an upcaster, or restore the old shape"))
    }

    fn shape(&self, reason: String) -> StoreError {
        self.unlike(self.envelope.event_type.as_str(), self.envelope.schema_version, reason)
    }

    fn unlike(&self, name: &str, version: SchemaVersion, reason: String) -> StoreError {
        StoreError::Shape {
            event_type: name.to_owned(),
            schema_version: version,
            position: self.position.get(),
            reason,
        }
    }

    fn not_upcast(&self, source: UpcastError) -> StoreError {
        StoreError::Upcast {
            event_type: self.envelope.event_type.to_string(),
            position: self.position.get(),
            source,
        }
    }
}
