//! An event store on that log, with ids, positions, metadata and errors of its own, and with one flaw at a time where a
//! test wants to see it found.

use std::collections::{BTreeMap, HashMap};

use cim_persistence::backend::{BackendError, Guard, NewMessage, Position, StoredMessage};
use cim_persistence::event::{Headers, NonEmpty};
use cim_persistence::event_log::{EventLog, LogQuery};
use cim_persistence::ipld::Codec;
use cim_persistence::store::{
    EventFilter, EventStore, ExpectedVersion, Loaded, NewEvent, Recorded, StoreFailure, StreamId,
};
use cim_persistence::subject::{AggregateType, EventType, Subject};
use futures::TryStreamExt;
use ipld_core::ipld::Ipld;

use crate::log::TextLog;

/// What is said about an event.
pub(crate) type Notes = BTreeMap<String, String>;

type Event = Recorded<String, u64, Notes>;

const TYPE: &str = "Type";
const SCHEMA: &str = "Schema";
/// What the names of the headers that hold notes begin with.
const NOTE: &str = "Note-";

/// What a store does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    IgnoresGuards,
    /// Appends once, also where whatever version is right.
    GivesUp,
    /// Keeps the kind of data only, and numbers.
    LosesData,
    LosesSchemaVersion,
    LosesMetadata,
    MetadataOnFirstOnly,
    ReturnsFirstPosition,
    FiltersNoEventType,
    FindsNothingWithoutStream,
    /// Finds a few events only when it is asked for all.
    FindsFewOfAll,
}

#[derive(Debug)]
pub(crate) struct TextStore {
    log: TextLog,
    flaw: Option<Flaw>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum TextError {
    #[error("version {actual}, not {expected}")]
    Conflict { expected: u64, actual: u64 },
    #[error(transparent)]
    Log(#[from] BackendError),
}

impl StoreFailure for TextError {
    fn conflict(&self) -> Option<(u64, u64)> {
        match self {
            Self::Conflict { expected, actual } => Some((*expected, *actual)),
            Self::Log(_) => None,
        }
    }
}

impl TextStore {
    pub(crate) fn new(flaw: Option<Flaw>) -> Self {
        let log = match flaw {
            Some(Flaw::IgnoresGuards) => TextLog::without_guards(),
            _ => TextLog::new(),
        };
        Self { log, flaw }
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    async fn messages(&self, filter: &str) -> Result<Vec<StoredMessage>, BackendError> {
        let query = LogQuery { filter: Some(filter.to_owned()), after: Position::START };
        self.log.read(query).try_collect().await
    }

    fn messages_of(
        &self,
        subject: &Subject,
        over: Position,
        events: &NonEmpty<NewEvent>,
        notes: &Notes,
    ) -> NonEmpty<NewMessage> {
        let message = |(place, event): (usize, &NewEvent)| {
            let mut headers = Headers::new();
            headers.push(TYPE, event.event_type.as_str());
            if !self.has(Flaw::LosesSchemaVersion) {
                headers.push(SCHEMA, event.schema_version.to_string());
            }
            let is_noted = !self.has(Flaw::LosesMetadata)
                && (place == 0 || !self.has(Flaw::MetadataOnFirstOnly));
            for (name, note) in notes.iter().filter(|_| is_noted) {
                headers.push(format!("{NOTE}{name}"), note);
            }
            let data = match self.has(Flaw::LosesData) {
                true => kind_of(&event.data),
                false => event.data.clone(),
            };
            let payload = serde_ipld_dagcbor::to_vec(&data).unwrap().into();
            let guard = if place == 0 { Guard::Last(over) } else { Guard::Free };
            NewMessage { subject: subject.clone(), headers, payload, guard }
        };
        NonEmpty::from_vec(events.iter().enumerate().map(message).collect()).unwrap()
    }

    fn passes(&self, filter: &EventFilter<String, u64>, event: &Event) -> bool {
        if filter.stream().is_none() && self.has(Flaw::FindsNothingWithoutStream) {
            return false;
        }
        if *filter == EventFilter::all() && self.has(Flaw::FindsFewOfAll) {
            return event.position <= 10;
        }
        let of_stream = filter.stream().is_none_or(|(aggregate, id)| {
            *aggregate == event.stream.aggregate && id.is_none_or(|id| *id == event.stream.id)
        });
        let of_type = filter.event_type().is_none_or(|wanted| *wanted == event.event_type);
        let of_type = of_type || self.has(Flaw::FiltersNoEventType);
        of_stream && of_type && event.position > *filter.position()
    }
}

impl EventStore for TextStore {
    type Id = String;
    type Position = u64;
    type Error = TextError;
    type Codec = Codec;
    type Metadata = Notes;

    fn codec(&self) -> &Codec {
        &Codec::DagCbor
    }

    async fn stream_version(&self, stream: &StreamId<String>) -> Result<Option<u64>, TextError> {
        let count = self.messages(subject(stream).as_str()).await?.len() as u64;
        Ok((count > 0).then_some(count))
    }

    async fn append(
        &self,
        stream: &StreamId<String>,
        expected: ExpectedVersion,
        events: NonEmpty<NewEvent>,
        notes: Notes,
    ) -> Result<(u64, u64), TextError> {
        let (subject, count) = (subject(stream), events.len().get() as u64);
        let gives_up = self.has(Flaw::GivesUp) && expected == ExpectedVersion::Any;
        loop {
            let history = self.messages(subject.as_str()).await?;
            let (actual, last) = (history.len() as u64, history.last());
            let expected = match expected {
                ExpectedVersion::Any => actual,
                ExpectedVersion::NoStream => 0,
                ExpectedVersion::Exact(version) => version,
            };
            if expected != actual {
                return Err(TextError::Conflict { expected, actual });
            }
            let over = last.map_or(Position::START, |message| message.position);
            let messages = self.messages_of(&subject, over, &events, &notes);
            // Others write between the look and the write, which only the guard notices.
            tokio::task::yield_now().await;
            match self.log.publish_batch(messages).await {
                Ok(first) if self.has(Flaw::ReturnsFirstPosition) => {
                    return Ok((actual + count, first.get() + 1 - count));
                }
                Ok(last) => return Ok((actual + count, last.get())),
                Err(BackendError::Conflict { .. }) if !gives_up => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn load_events(
        &self,
        filters: &[EventFilter<String, u64>],
    ) -> Result<Loaded<Self>, TextError> {
        let mut versions = HashMap::new();
        let mut found = Vec::new();
        for message in self.messages("text.>").await? {
            let version: &mut u64 = versions.entry(message.subject.clone()).or_default();
            *version += 1;
            let event = event(&message, *version);
            if filters.iter().any(|filter| self.passes(filter, &event)) {
                found.push(event);
            }
        }
        Ok(found)
    }
}

/// Where the events of an aggregate lie. Its id has to be a token.
fn subject(stream: &StreamId<String>) -> Subject {
    Subject::parse(&format!("text.{}.{}", stream.aggregate, stream.id)).unwrap()
}

fn event(message: &StoredMessage, version: u64) -> Event {
    let (_, stream) = message.subject.as_str().split_once('.').unwrap();
    let (aggregate, id) = stream.split_once('.').unwrap();
    let header = |name| message.headers.get(name);
    let note = |(name, value): (&str, &str)| {
        name.strip_prefix(NOTE).map(|name| (name.to_owned(), value.to_owned()))
    };
    Recorded {
        stream: StreamId::new(AggregateType::new(aggregate).unwrap(), id.to_owned()),
        version,
        position: message.position.get(),
        event_type: EventType::new(header(TYPE).unwrap()).unwrap(),
        schema_version: header(SCHEMA).map_or(1, |version| version.parse().unwrap()),
        data: serde_ipld_dagcbor::from_slice(&message.payload).unwrap(),
        metadata: message.headers.iter().filter_map(note).collect(),
    }
}

/// The data without what it says, apart from a number.
fn kind_of(data: &Ipld) -> Ipld {
    match data {
        Ipld::String(_) => Ipld::String(String::new()),
        Ipld::List(_) => Ipld::List(Vec::new()),
        Ipld::Map(_) => Ipld::Map(BTreeMap::new()),
        other => other.clone(),
    }
}
