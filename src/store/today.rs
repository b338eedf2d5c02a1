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
                    let known = known::<E>(&made.name, made.version, || self.read(&made.value))?;
                    known.map_err(|unlike| self.unlike::<E>(&made.name, made.version, unlike))
                })
                .collect(),
            _ => Ok(vec![self.domain_event()?]),
        }
    }

    /// The event as one of a domain type. An error where it is none of those.
    pub(crate) fn domain_event<E: DomainEvent>(&self) -> Result<E, StoreError> {
        let (name, version) = (self.envelope.event_type.as_str(), self.envelope.schema_version);
        let known = known::<E>(name, version, || self.data())?;
        known.map_err(|unlike| self.unlike::<E>(name, version, unlike))
    }

    /// The event as one of a domain type, or nothing where that has no event of its name.
    pub(crate) fn own_event<E: DomainEvent>(&self) -> Result<Option<E>, StoreError> {
        let (name, version) = (self.envelope.event_type.as_str(), self.envelope.schema_version);
        match known::<E>(name, version, || self.data())? {
            Ok(event) => Ok(Some(event)),
            Err(Unlike::Foreign) => Ok(None),
            Err(unlike) => Err(self.unlike::<E>(name, version, unlike)),
        }
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
        self.misshapen(self.envelope.event_type.as_str(), self.envelope.schema_version, reason)
    }

    fn unlike<E>(&self, name: &str, version: SchemaVersion, unlike: Unlike) -> StoreError {
        let of = std::any::type_name::<E>();
        let reason = match unlike {
            Unlike::Foreign => format!("{of} has no event of this name; add it, or an upcaster"),
            Unlike::Newer { known } => {
                format!("{of} knows versions up to {known}; bring the code up to date")
            }
        };
        self.misshapen(name, version, reason)
    }

    fn misshapen(&self, name: &str, version: SchemaVersion, reason: String) -> StoreError {
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

/// Why an event is none of a domain type, although serde may read it into that type: the fields it looks for are there.
enum Unlike {
    /// The type has no event of this name.
    Foreign,
    /// The type knows older versions of it only.
    Newer { known: SchemaVersion },
}

/// An event of this name and version as one of a domain type: by the type's shapes, and where it does not tell them by
/// what the event calls itself once it is read.
fn known<E: DomainEvent>(
    name: &str,
    version: SchemaVersion,
    read: impl FnOnce() -> Result<E, StoreError>,
) -> Result<Result<E, Unlike>, StoreError> {
    match E::shape_of(name) {
        Some(shape) if version > shape.version => Ok(Err(Unlike::Newer { known: shape.version })),
        Some(_) => read().map(Ok),
        None if !E::shapes().is_empty() => Ok(Err(Unlike::Foreign)),
        None => {
            let event = read()?;
            let known = event.schema_version();
            Ok(match event.event_type() == name {
                true if version > known => Err(Unlike::Newer { known }),
                true => Ok(event),
                false => Err(Unlike::Foreign),
            })
        }
    }
}
