//! A library that lends books, small enough to be read at a glance.

use std::sync::atomic::{AtomicU32, Ordering};

use cim_persistence::prelude::*;
use cim_persistence::projection::{Changes, Declared, Projection, Rejection};
use cim_persistence::read_model::ReadModel;
use cim_persistence::store::{EventFilter, StoredEvent};
use cim_persistence::subject::{AggregateId, AggregateType, InvalidToken};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Book {
    pub(crate) isbn: String,
    pub(crate) lent_to: Option<String>,
    pub(crate) times_lent: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum BookEvent {
    Lent {
        reader: String,
    },
    Returned,
    /// Serde writes it and cannot read it back.
    Unreadable(OneWay),
    /// No block can hold it.
    Measured {
        weight: f64,
    },
}

pub(crate) fn lent(reader: &str) -> BookEvent {
    BookEvent::Lent { reader: reader.to_owned() }
}

impl DomainEvent for BookEvent {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Lent { .. } => "lent",
            Self::Returned => "returned",
            Self::Unreadable(_) => "unreadable",
            Self::Measured { .. } => "measured",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OneWay;

impl Serialize for OneWay {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(7)
    }
}

impl<'de> Deserialize<'de> for OneWay {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|_| Self)
    }
}

impl Aggregate for Book {
    const TYPE: &'static str = "book";
    type Id = String;
    type Event = BookEvent;
    fn new(isbn: &String) -> Self {
        Self { isbn: isbn.clone(), lent_to: None, times_lent: 0 }
    }
    fn id(&self) -> &String {
        &self.isbn
    }
    fn apply(&mut self, event: &BookEvent) {
        match event {
            BookEvent::Lent { reader } => {
                self.lent_to = Some(reader.clone());
                self.times_lent += 1;
            }
            BookEvent::Returned => self.lent_to = None,
            BookEvent::Unreadable(_) | BookEvent::Measured { .. } => {}
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AlreadyLent {
    pub(crate) to: String,
}

pub(crate) struct Lend(pub(crate) &'static str);
pub(crate) struct Return;
pub(crate) struct Record(pub(crate) BookEvent);

impl Handle<Lend> for Book {
    type Rejection = AlreadyLent;
    fn handle(&self, lend: &Lend) -> Result<Vec<BookEvent>, AlreadyLent> {
        match &self.lent_to {
            None => Ok(vec![lent(lend.0)]),
            Some(reader) if reader == lend.0 => Ok(vec![]),
            Some(reader) => Err(AlreadyLent { to: reader.clone() }),
        }
    }
}

impl Handle<Return> for Book {
    type Rejection = &'static str;
    fn handle(&self, _: &Return) -> Result<Vec<BookEvent>, &'static str> {
        if self.lent_to.is_some() { Ok(vec![BookEvent::Returned]) } else { Err("not lent") }
    }
}

impl Handle<Record> for Book {
    type Rejection = ();
    fn handle(&self, record: &Record) -> Result<Vec<BookEvent>, ()> {
        Ok(vec![record.0.clone()])
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reader {
    pub(crate) name: String,
    pub(crate) books: u32,
}

impl ReadModel for Reader {
    const MODEL_TYPE: &'static str = "reader";
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::new(&self.name)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Undeclared;

impl ReadModel for Undeclared {
    const MODEL_TYPE: &'static str = "undeclared";
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::new("one")
    }
}

/// How many books each reader ever had. Some names make it misbehave.
#[derive(Default)]
pub(crate) struct Readers {
    calls: AtomicU32,
}

impl Projection for Readers {
    const NAME: &'static str = "readers";
    type Event = BookEvent;
    fn models() -> Vec<Declared> {
        vec![Declared::of::<Reader>()]
    }
    fn filters() -> Vec<EventFilter> {
        vec![EventFilter::for_type(AggregateType::new("book").unwrap())]
    }
    fn project(
        &self,
        event: BookEvent,
        _: &StoredEvent,
        changes: &mut Changes,
    ) -> Result<(), Rejection> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let BookEvent::Lent { reader: name } = event else { return Ok(()) };
        let reader = AggregateId::new(&name)?;
        match name.as_str() {
            "nobody" => {
                changes.delete::<Reader>(&AggregateId::new("kim")?);
                return Err("nobody reads".into());
            }
            "stranger" => changes.put(Undeclared)?,
            "leaver" => changes.delete::<Reader>(&AggregateId::new("kim")?),
            "moody" => changes.upsert(&reader, move |reader: &mut Reader| reader.books += call),
            _ => changes.upsert(&reader, move |reader: &mut Reader| {
                reader.name = name;
                reader.books += 1;
            }),
        }
        Ok(())
    }
}
