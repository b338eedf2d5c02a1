//! The event store as a trait: what a store of any kind does, and what the conformance suite asks of it.

use std::future::Future;
use std::marker::PhantomData;

use ipld_core::ipld::Ipld;

use super::{CommitInfo, Context, Head, NewEvent, StoreError, StoredEvent};
use crate::backend::{Position, ReadFrom};
use crate::event::{Metadata, NonEmpty, SchemaVersion};
use crate::ipld::BlockFormat;
use crate::subject::{AggregateId, AggregateType, EventType, SubjectScheme};

/// Which version an aggregate must have for a commit to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExpectedVersion {
    /// Whatever it is: the newest version is read and the append repeated until it fits.
    Any,
    /// None: the aggregate must not exist. The default, because nothing is overwritten by it.
    #[default]
    NoStream,
    /// Exactly this one.
    Exact(u64),
}

impl ExpectedVersion {
    pub(crate) fn is_any(self) -> bool {
        self == Self::Any
    }
}

/// An aggregate of a store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamId<Id> {
    /// The kind of aggregate.
    pub aggregate: AggregateType,
    /// Its id.
    pub id: Id,
}

impl<Id> StreamId<Id> {
    /// The aggregate of this kind with this id.
    pub fn new(aggregate: AggregateType, id: Id) -> Self {
        Self { aggregate, id }
    }
}

/// What an append came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The aggregate's new head: version, position and CID of its last event.
    pub head: Head,
}

/// Which events are wanted.
///
/// ```
/// use cim_persistence::backend::Position;
/// use cim_persistence::store::EventFilter;
/// use cim_persistence::subject::{AggregateType, EventType};
///
/// let shipped: EventFilter = EventFilter::for_event(EventType::new("shipped")?).after(Position::new(42));
/// let orders: EventFilter = EventFilter::for_type(AggregateType::new("order")?);
/// # Ok::<(), cim_persistence::subject::InvalidToken>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter<Id = AggregateId, P = Position> {
    pub(crate) stream: Option<(AggregateType, Option<Id>)>,
    pub(crate) event_type: Option<EventType>,
    pub(crate) after: P,
}

impl<Id, P: Default> EventFilter<Id, P> {
    /// Every event.
    pub fn all() -> Self {
        Self { stream: None, event_type: None, after: P::default() }
    }

    /// The events of one type, of every aggregate.
    pub fn for_event(event_type: EventType) -> Self {
        Self { event_type: Some(event_type), ..Self::all() }
    }

    /// The events of one aggregate.
    pub fn for_aggregate(aggregate: AggregateType, id: Id) -> Self {
        Self { stream: Some((aggregate, Some(id))), ..Self::all() }
    }

    /// The events of every aggregate of one type.
    pub fn for_type(aggregate: AggregateType) -> Self {
        Self { stream: Some((aggregate, None)), ..Self::all() }
    }
}

impl<Id, P> EventFilter<Id, P> {
    /// Of these, the events of one type.
    pub fn and_event(mut self, event_type: EventType) -> Self {
        self.event_type = Some(event_type);
        self
    }

    /// Of these, the events after a position.
    pub fn after(mut self, position: P) -> Self {
        self.after = position;
        self
    }

    /// The aggregate type and the id that are asked for.
    pub fn stream(&self) -> Option<(&AggregateType, Option<&Id>)> {
        self.stream.as_ref().map(|(aggregate, id)| (aggregate, id.as_ref()))
    }

    /// The event type that is asked for.
    pub fn event_type(&self) -> Option<&EventType> {
        self.event_type.as_ref()
    }

    /// The position after which events are asked for.
    pub fn position(&self) -> &P {
        &self.after
    }
}

impl EventFilter {
    /// The part that a server filters: the subject or the pattern of the subjects that these events are stored on.
    pub(crate) fn subjects(&self, scheme: &SubjectScheme) -> String {
        match &self.stream {
            Some((aggregate, Some(id))) => scheme.events_of(aggregate, id).to_string(),
            Some((aggregate, None)) => scheme.events_of_type(aggregate),
            None => scheme.all_events(),
        }
    }
}

/// What a store's error is about, as far as every store has it.
pub trait StoreFailure: std::error::Error {
    /// The expected and the actual version, if another writer was first.
    fn conflict(&self) -> Option<(u64, u64)>;
}

/// An event as any store gives it back.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded<Id, P, M> {
    /// Whose event it is.
    pub stream: StreamId<Id>,
    /// Its place in that history, from 1.
    pub version: u64,
    /// Its place in the store.
    pub position: P,
    /// Its type.
    pub event_type: EventType,
    /// The version of its shape.
    pub schema_version: SchemaVersion,
    /// The event itself, in the shape that is stored.
    pub data: Ipld,
    /// What was said about it.
    pub metadata: M,
}

/// What [`EventStore::load_events`] returns.
pub type Loaded<S> =
    Vec<Recorded<<S as EventStore>::Id, <S as EventStore>::Position, <S as EventStore>::Metadata>>;

/// A store of events. [`Context`] is one; the conformance suite says what every one must do.
pub trait EventStore: Send + Sync {
    /// What identifies an aggregate within its type.
    type Id: Clone + Send + Sync;
    /// A place in the order of all events.
    type Position: Copy + Ord + Default + std::fmt::Debug + Send + Sync;
    /// What goes wrong.
    type Error: StoreFailure + Send + Sync + 'static;
    /// How events become bytes.
    type Codec;
    /// What is stored beside each event.
    type Metadata: Clone + Default + Send + Sync;

    /// How this store writes events.
    fn codec(&self) -> &Self::Codec;

    /// The version of an aggregate, `None` when it has no events.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn stream_version(
        &self,
        stream: &StreamId<Self::Id>,
    ) -> impl Future<Output = Result<Option<u64>, Self::Error>> + Send;

    /// Appends events if the aggregate has the expected version, and returns its new version and the position of the
    /// last event.
    ///
    /// # Errors
    /// A conflict when it has another version; then nothing is stored.
    fn append(
        &self,
        stream: &StreamId<Self::Id>,
        expected: ExpectedVersion,
        events: NonEmpty<NewEvent>,
        metadata: Self::Metadata,
    ) -> impl Future<Output = Result<(u64, Self::Position), Self::Error>> + Send;

    /// Appends the first events of an aggregate.
    ///
    /// # Errors
    /// A conflict when it has any.
    fn append_expecting_new(
        &self,
        stream: &StreamId<Self::Id>,
        events: NonEmpty<NewEvent>,
        metadata: Self::Metadata,
    ) -> impl Future<Output = Result<(u64, Self::Position), Self::Error>> + Send {
        self.append(stream, ExpectedVersion::NoStream, events, metadata)
    }

    /// The events that pass any of the filters, each once, ordered by position.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn load_events(
        &self,
        filters: &[EventFilter<Self::Id, Self::Position>],
    ) -> impl Future<Output = Result<Loaded<Self>, Self::Error>> + Send;

    /// Begins a transaction on one aggregate: [`Optimistic`] with the version it must have, [`Unchecked`] without.
    fn begin<C: Concurrency>(
        &self,
        stream: StreamId<Self::Id>,
        expected: C::Expected,
    ) -> Transaction<'_, Self, C> {
        Transaction {
            store: self,
            stream,
            expected: C::expected(expected),
            events: Vec::new(),
            concurrency: PhantomData,
        }
    }
}

/// How a transaction meets other writers.
pub trait Concurrency: Send + Sync {
    /// What it must be told when it begins.
    type Expected;

    /// What that means for the commit.
    fn expected(expected: Self::Expected) -> ExpectedVersion;
}

/// The commit is refused when the aggregate has another version; 0 means that it has no events.
#[derive(Debug, Clone, Copy)]
pub struct Optimistic;

impl Concurrency for Optimistic {
    type Expected = u64;
    fn expected(version: u64) -> ExpectedVersion {
        match version {
            0 => ExpectedVersion::NoStream,
            version => ExpectedVersion::Exact(version),
        }
    }
}

/// The commit is appended whatever others did.
#[derive(Debug, Clone, Copy)]
pub struct Unchecked;

impl Concurrency for Unchecked {
    type Expected = ();
    fn expected((): ()) -> ExpectedVersion {
        ExpectedVersion::Any
    }
}

/// Events gathered for one commit. Dropped, it leaves no trace.
#[derive(Debug)]
#[must_use = "a transaction that is not committed is discarded"]
pub struct Transaction<'s, S: EventStore + ?Sized, C> {
    store: &'s S,
    stream: StreamId<S::Id>,
    expected: ExpectedVersion,
    events: Vec<NewEvent>,
    concurrency: PhantomData<C>,
}

impl<S: EventStore + ?Sized, C: Concurrency> Transaction<'_, S, C> {
    /// Adds an event. Nothing is sent.
    pub fn append(&mut self, event: NewEvent) -> &mut Self {
        self.events.push(event);
        self
    }

    /// Stores all events or none; `None` when there are none.
    ///
    /// # Errors
    /// As [`EventStore::append`].
    pub async fn commit(
        self,
        metadata: S::Metadata,
    ) -> Result<Option<(u64, S::Position)>, S::Error> {
        match NonEmpty::from_vec(self.events) {
            None => Ok(None),
            Some(events) => {
                self.store.append(&self.stream, self.expected, events, metadata).await.map(Some)
            }
        }
    }
}

impl StoreFailure for StoreError {
    fn conflict(&self) -> Option<(u64, u64)> {
        match self {
            Self::Conflict { expected, actual } => Some((*expected, *actual)),
            _ => None,
        }
    }
}

impl EventStore for Context {
    type Id = AggregateId;
    type Position = Position;
    type Error = StoreError;
    type Codec = BlockFormat;
    type Metadata = Metadata;

    fn codec(&self) -> &BlockFormat {
        &self.encoder().format
    }

    async fn stream_version(
        &self,
        stream: &StreamId<AggregateId>,
    ) -> Result<Option<u64>, StoreError> {
        let head = self.head(&stream.aggregate, &stream.id, ReadFrom::Leader).await?;
        Ok((head.version > 0).then_some(head.version))
    }

    async fn append(
        &self,
        stream: &StreamId<AggregateId>,
        expected: ExpectedVersion,
        events: NonEmpty<NewEvent>,
        metadata: Metadata,
    ) -> Result<(u64, Position), StoreError> {
        let info = CommitInfo { metadata, ..CommitInfo::default() };
        let Appended { head } =
            Context::append(self, &stream.aggregate, &stream.id, expected, &events, &info).await?;
        Ok((head.version, head.position))
    }

    async fn load_events(&self, filters: &[EventFilter]) -> Result<Loaded<Self>, StoreError> {
        let events = Context::load_events(self, filters).await?;
        events.into_iter().map(recorded).collect()
    }
}

fn recorded(event: StoredEvent) -> Result<Recorded<AggregateId, Position, Metadata>, StoreError> {
    Ok(Recorded {
        stream: StreamId::new(event.aggregate_type().clone(), event.aggregate_id().clone()),
        version: event.version(),
        position: event.position(),
        event_type: event.event_type().clone(),
        schema_version: event.schema_version(),
        data: event.stored_data()?,
        metadata: event.metadata().clone(),
    })
}
