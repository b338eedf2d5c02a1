//! Events by stream: appended with the version a stream must have, found again by its type, its slug and its id.
//!
//! A thin view of a [`Context`] for services that think in streams with a readable name; what is stored is the same, and
//! aggregates of such an id can be read here. The store as a trait is in `event_store.rs`.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use futures::stream::BoxStream;
use uuid::Uuid;

use super::{CommitInfo, Context, ExpectedVersion, Head, NewEvent, StoreError, StoredEvent};
use crate::backend::{BackendError, Bound, Matching, Position, StoredMessage};
use crate::event::{NonEmpty, names};
use crate::event_log::LogQuery;
use crate::subject::{AggregateId, AggregateType, EventType, InvalidToken, Pattern, SubjectScheme};

/// What identifies a stream: its type, a slug that people read, and an id.
///
/// - in the store it is the aggregate of that type with an id of two tokens, the slug and the id;
/// - all three are part of the key, so two streams of a type may share a slug, and a slug never changes;
/// - slug and id are any text that an [`AggregateId`] takes, together at most 128 bytes.
///
/// ```
/// use cim_persistence::store::StreamKey;
/// use cim_persistence::subject::AggregateType;
///
/// let key = StreamKey::new(AggregateType::new("order")?, "two-chairs", "4711")?;
/// assert_eq!(key.to_string(), "order/two-chairs/4711");
/// # Ok::<(), cim_persistence::subject::InvalidToken>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    stream_type: AggregateType,
    slug: String,
    id: String,
    aggregate: AggregateId,
}

impl StreamKey {
    /// The stream of this type with this slug and this id.
    ///
    /// # Errors
    /// [`InvalidToken`] when the slug or the id cannot be a token of an id.
    pub fn new(
        stream_type: AggregateType,
        slug: impl Into<String>,
        id: impl Into<String>,
    ) -> Result<Self, InvalidToken> {
        let (slug, id) = (slug.into(), id.into());
        let aggregate = AggregateId::from_tokens([&slug, &id])?;
        Ok(Self { stream_type, slug, id, aggregate })
    }

    /// The stream's type: that of the aggregate.
    pub fn stream_type(&self) -> &AggregateType {
        &self.stream_type
    }

    /// Its slug.
    pub fn slug(&self) -> &str {
        &self.slug
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The id of the aggregate that it is in the store.
    pub fn aggregate_id(&self) -> &AggregateId {
        &self.aggregate
    }

    /// The stream that an aggregate is, if its id has two tokens.
    fn of(stream_type: AggregateType, aggregate: AggregateId) -> Option<Self> {
        let tokens: Vec<String> = aggregate.tokens().collect();
        let [slug, id] = <[String; 2]>::try_from(tokens).ok()?;
        Some(Self { stream_type, slug, id, aggregate })
    }
}

impl std::fmt::Display for StreamKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.stream_type, self.slug, self.id)
    }
}

/// Some of the streams of a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Streams {
    /// Every stream.
    All,
    /// Those of one type.
    OfType(AggregateType),
    /// Those of one type that have this slug.
    WithSlug(AggregateType, String),
    /// Those of one type that have this id, whatever their slug.
    WithId(AggregateType, String),
    /// This one.
    One(StreamKey),
}

impl Streams {
    fn pattern(&self, scheme: &SubjectScheme) -> Result<Pattern, StoreError> {
        let (stream_type, id) = match self {
            Self::All => ("*".to_owned(), "*.*".to_owned()),
            Self::OfType(kind) => (kind.to_string(), "*.*".to_owned()),
            Self::WithSlug(kind, slug) => {
                (kind.to_string(), format!("{}.*", AggregateId::new(slug)?.as_str()))
            }
            Self::WithId(kind, id) => {
                (kind.to_string(), format!("*.{}", AggregateId::new(id)?.as_str()))
            }
            Self::One(key) => (key.stream_type.to_string(), key.aggregate.as_str().to_owned()),
        };
        let pattern = format!("{}{stream_type}.{id}", scheme.event_prefix());
        Ok(Pattern::parse(&pattern).expect("names, escaped tokens and wildcards make a pattern"))
    }
}

/// A stream and where it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamHead {
    /// The stream.
    pub stream: StreamKey,
    /// Version, position and CID of its last event.
    pub head: Head,
}

/// The streams of a context. Cloning is cheap.
///
/// ```
/// # #[cfg(feature = "testing")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use cim_persistence::store::{Context, NatsRepositoryConfig, Ports};
/// use cim_persistence::event::NonEmpty;
/// use cim_persistence::store::{EventStreams, NewEvent, StreamKey, Streams};
/// use cim_persistence::subject::{AggregateType, EventType};
/// use uuid::Uuid;
///
/// # let context = Context::on(Ports::in_memory(), &NatsRepositoryConfig::for_context("shop"))?;
/// let streams = EventStreams::of(&context);
/// let order = StreamKey::new(AggregateType::new("order")?, "two-chairs", "4711")?;
/// let placed = EventType::new("placed")?;
/// let event = NewEvent { event_type: placed.clone(), schema_version: 1, data: "oak".to_owned().into() };
///
/// let position = streams.append(&order, NonEmpty::one(event), 0, Uuid::now_v7()).await?;
/// let last = streams.last_of_types(&Streams::All, &NonEmpty::one(placed)).await?;
/// assert_eq!(last.map(|event| event.position()), Some(position));
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "testing"))]
/// # fn main() {}
/// ```
#[derive(Debug, Clone)]
pub struct EventStreams {
    context: Context,
}

impl EventStreams {
    /// Those of this context.
    pub fn of(context: &Context) -> Self {
        Self { context: context.clone() }
    }

    /// Appends events to a stream that has this version, 0 for a new one, and returns the position of the last. Round
    /// trips as for [`Context::append`].
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it has another version, and nothing is stored then; else as [`Context::append`].
    pub async fn append(
        &self,
        stream: &StreamKey,
        events: NonEmpty<NewEvent>,
        stream_version: u64,
        correlation_id: Uuid,
    ) -> Result<Position, StoreError> {
        let (kind, id) = (&stream.stream_type, &stream.aggregate);
        let expected = ExpectedVersion::Exact(stream_version);
        let info = CommitInfo { correlation_id: Some(correlation_id), ..CommitInfo::default() };
        Ok(self.context.append(kind, id, expected, &events, &info).await?.head.position)
    }

    /// The events of one stream after a version, oldest first.
    ///
    /// # Errors
    /// As [`Context::get_events`].
    pub async fn get(
        &self,
        stream: &StreamKey,
        after_version: u64,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.context.get_events(&stream.stream_type, &stream.aggregate, after_version).await
    }

    /// Every event of the context after a position, also of aggregates that are no streams;
    /// [`Context::stream_after`] says more.
    pub fn get_all(&self, after: Position) -> BoxStream<'static, Result<StoredEvent, StoreError>> {
        self.context.stream_after(after)
    }

    /// The streams that there are, by type, slug and id. One round trip for up to 1024 of them; for more, their events are
    /// read from the first one on. Any replica may answer, so a stream that began a moment ago may be missing.
    ///
    /// # Errors
    /// [`StoreError::InvalidToken`] for a slug or an id that cannot be one; [`StoreError::Backend`];
    /// [`StoreError::Integrity`] when a last event cannot be trusted.
    pub async fn list(&self, streams: &Streams) -> Result<Vec<StreamHead>, StoreError> {
        let pattern = streams.pattern(self.context.scheme())?;
        let lasts = match self.lasts(&pattern).await? {
            Matching::All(lasts) => lasts,
            Matching::TooMany => self.lasts_by_reading(&pattern).await?,
        };
        let mut heads = Vec::with_capacity(lasts.len());
        for message in lasts {
            let last = self.verify(message)?;
            let (kind, id) = (last.aggregate_type().clone(), last.aggregate_id().clone());
            let head = Head::of(&last);
            heads.extend(StreamKey::of(kind, id).map(|stream| StreamHead { stream, head }));
        }
        heads.sort_by(|one, other| one.stream.cmp(&other.stream));
        Ok(heads)
    }

    /// The newest event that has any of these types, among some of the streams; `None` when there is none.
    ///
    /// One round trip when the newest event of a stream is one, and the events after it are read; without such a stream, or
    /// with more than 1024 streams, all events of those streams. Types are compared by their headers, and only what is
    /// returned is decoded and verified. Any replica may answer.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn last_of_types(
        &self,
        streams: &Streams,
        types: &NonEmpty<EventType>,
    ) -> Result<Option<StoredEvent>, StoreError> {
        let pattern = streams.pattern(self.context.scheme())?;
        let wanted = |message: &StoredMessage| {
            let header = message.headers.get(names::EVENT_TYPE);
            types.iter().any(|wanted| header == Some(wanted.as_str()))
        };
        let (mut newest, mut end) = (None, Position::START);
        if let Matching::All(lasts) = self.lasts(&pattern).await? {
            end = lasts.last().map_or(end, |last| last.position);
            newest = lasts.into_iter().rfind(wanted);
            if end == Position::START {
                return Ok(None);
            }
        }
        let after = newest.as_ref().map_or(Position::START, |message| message.position);
        if newest.is_none() || after < end {
            let mut messages = self.read(&pattern, after);
            while let Some(message) = messages.try_next().await? {
                if wanted(&message) {
                    newest = Some(message);
                }
            }
        }
        newest.map(|message| self.verify(message)).transpose()
    }

    /// The last message of each stream, in order of position.
    async fn lasts(&self, pattern: &Pattern) -> Result<Matching<StoredMessage>, StoreError> {
        let patterns = NonEmpty::one(pattern.clone());
        Ok(self.context.log().matching(&patterns, Bound::Newest).await?)
    }

    async fn lasts_by_reading(&self, pattern: &Pattern) -> Result<Vec<StoredMessage>, StoreError> {
        let mut lasts = BTreeMap::new();
        let mut messages = self.read(pattern, Position::START);
        while let Some(message) = messages.try_next().await? {
            lasts.insert(message.subject.to_string(), message);
        }
        Ok(lasts.into_values().collect())
    }

    fn read(
        &self,
        pattern: &Pattern,
        after: Position,
    ) -> BoxStream<'static, Result<StoredMessage, BackendError>> {
        self.context.log().read(LogQuery { filter: Some(pattern.as_str().to_owned()), after })
    }

    fn verify(&self, message: StoredMessage) -> Result<StoredEvent, StoreError> {
        self.context.verifier().verify(message)
    }
}
