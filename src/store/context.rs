//! The handle of one context.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::encode::{Encoded, Encoder};
use super::{CommitInfo, Head, NatsRepositoryConfig, StoreError, StoredEvent, Verifier};
use crate::backend::{BackendError, NewMessage, ReadFrom, StoredMessage};
use crate::clock::{Clock, IdSource, System};
use crate::event::{NonEmpty, SchemaVersion};
use crate::event_log::{Commit, CommitError, CommitPolicy, Committer, EventLog, LogStatus, Stored};
use crate::evolution::Evolution;
use crate::ipld::BlockFormat;
use crate::state::{KeyValue, StateWriter};
use crate::subject::{AggregateId, AggregateType, EventType, SubjectScheme};
use crate::timeouts::TimeoutQueue;

/// What a context stands on: its stream and its buckets, and where time and ids come from.
#[derive(Debug, Clone)]
pub struct Ports {
    /// The event stream.
    pub log: Arc<dyn EventLog>,
    /// The bucket of current state.
    pub state: Arc<dyn KeyValue>,
    /// The bucket of snapshots.
    pub snapshots: Arc<dyn KeyValue>,
    /// The bucket of read models, their indexes and the checkpoints of projections.
    pub read_models: Arc<dyn KeyValue>,
    /// The timeouts; without them nothing can be scheduled.
    pub timeouts: Option<Arc<dyn TimeoutQueue>>,
    /// The bucket of what is known of the context itself: its migrations.
    pub meta: Arc<dyn KeyValue>,
    /// The clock that says when events occurred.
    pub clock: Arc<dyn Clock>,
    /// Where event ids come from.
    pub ids: Arc<dyn IdSource>,
}

impl Ports {
    /// Ports with the machine's clock and UUIDs of version 7, and without timeouts. What belongs into the meta bucket
    /// lies with the read models, under keys of its own, unless [`meta`](Self::meta) is set to another bucket.
    pub fn new(
        log: Arc<dyn EventLog>,
        state: Arc<dyn KeyValue>,
        snapshots: Arc<dyn KeyValue>,
        read_models: Arc<dyn KeyValue>,
    ) -> Self {
        let (meta, timeouts) = (Arc::clone(&read_models), None);
        let (clock, ids) = (Arc::new(System), Arc::new(System));
        Self { log, state, snapshots, read_models, timeouts, meta, clock, ids }
    }

    /// A stream and buckets in memory, new and empty. Gone with the last handle.
    #[cfg(feature = "testing")]
    pub fn in_memory() -> Self {
        use crate::event_log::MemoryLog;
        use crate::state::MemoryKeyValue;
        use crate::timeouts::MemoryTimeouts;
        let bucket = |name: &str| Arc::new(MemoryKeyValue::new(name));
        let log = Arc::new(MemoryLog::new());
        let ports = Self::new(log, bucket("state"), bucket("snapshots"), bucket("readmodels"));
        Self { timeouts: Some(Arc::new(MemoryTimeouts::new())), meta: bucket("meta"), ..ports }
    }
}

/// One bounded context: the one handle an application shares. Cloning is cheap.
///
/// It holds the connection, the committer that gathers the commits of all its users, and the writer of current
/// state. Repositories are made from it.
#[derive(Debug, Clone)]
pub struct Context {
    inner: Arc<Inner>,
    verifier: Arc<Verifier>,
}

#[derive(Debug)]
struct Inner {
    encoder: Encoder,
    log: Arc<dyn EventLog>,
    committer: Committer,
    state: Option<StateWriter>,
    snapshots: StateWriter,
    read_models: Arc<dyn KeyValue>,
    timeouts: Option<Arc<dyn TimeoutQueue>>,
    meta: Arc<dyn KeyValue>,
    cache_size: usize,
}

impl Context {
    /// Opens a context on ports. Starts its background tasks on the current tokio runtime; no round trip.
    ///
    /// # Errors
    /// [`StoreError::InvalidToken`] when the configuration's context or prefixes are not names.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn on(ports: Ports, config: &NatsRepositoryConfig) -> Result<Self, StoreError> {
        let encoder = Encoder {
            scheme: config.scheme()?,
            format: config.format(),
            clock: ports.clock,
            ids: ports.ids,
        };
        let policy = CommitPolicy { patience: config.patience() };
        let inner = Inner {
            encoder,
            committer: Committer::start(Arc::clone(&ports.log), policy),
            log: ports.log,
            state: config.keep_state.then(|| StateWriter::start(ports.state)),
            snapshots: StateWriter::start(ports.snapshots),
            read_models: ports.read_models,
            timeouts: ports.timeouts,
            meta: ports.meta,
            cache_size: config.cache_size,
        };
        let (scheme, format) = (inner.encoder.scheme.clone(), inner.encoder.format);
        let verifier = Verifier { scheme, format, evolution: None };
        Ok(Self { inner: Arc::new(inner), verifier: Arc::new(verifier) })
    }

    /// Reads what is stored in old shapes as the newest, in everything that is made from this handle: repositories,
    /// subscriptions, projections, read models. What is stored does not change, and handles made before read as before.
    ///
    /// Filters and patterns go by what is stored: whoever asks for an event type by name names its old types as well.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use cim_persistence::store::Ports;
    /// use cim_persistence::evolution::{Evolution, Reshape, Upcast};
    /// use cim_persistence::{Context, NatsRepositoryConfig};
    ///
    /// let evolution = Evolution::builder()
    ///     .event("placed", 2)
    ///     .upcast(Upcast::event("placed", 1, |mut value| {
    ///         value.rename("total", "cents")?;
    ///         Ok(value)
    ///     }))
    ///     .build()?;
    /// // On a server: `Context::connect("nats://127.0.0.1:4222", "shop").await?`.
    /// let shop = Context::on(Ports::in_memory(), &NatsRepositoryConfig::for_context("shop"))?
    ///     .with_evolution(evolution);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_evolution(self, evolution: impl Into<Arc<Evolution>>) -> Self {
        let evolution = Some(evolution.into());
        let verifier = Verifier { evolution, ..Verifier::clone(&self.verifier) };
        Self { verifier: Arc::new(verifier), ..self }
    }

    /// How stored values have changed their shapes, if it was said.
    pub fn evolution(&self) -> Option<&Arc<Evolution>> {
        self.verifier.evolution.as_ref()
    }

    /// What events are verified and read with.
    pub(crate) fn verifier(&self) -> &Arc<Verifier> {
        &self.verifier
    }

    /// The subjects of the context.
    pub fn scheme(&self) -> &SubjectScheme {
        &self.inner.encoder.scheme
    }

    /// How blocks are written.
    pub fn format(&self) -> BlockFormat {
        self.inner.encoder.format
    }

    /// The event stream, as bytes.
    pub fn log(&self) -> &Arc<dyn EventLog> {
        &self.inner.log
    }

    pub(crate) fn state(&self) -> Option<&StateWriter> {
        self.inner.state.as_ref()
    }

    pub(crate) fn snapshots(&self) -> &StateWriter {
        &self.inner.snapshots
    }

    /// The bucket of read models, as bytes.
    pub fn read_models(&self) -> &Arc<dyn KeyValue> {
        &self.inner.read_models
    }

    /// The timeouts, where there are any.
    pub fn timeouts(&self) -> Option<&Arc<dyn TimeoutQueue>> {
        self.inner.timeouts.as_ref()
    }

    /// The bucket of what is known of the context itself, as bytes.
    pub fn meta(&self) -> &Arc<dyn KeyValue> {
        &self.inner.meta
    }

    /// The clock that says when events occurred.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.encoder.clock
    }

    pub(crate) fn cache_size(&self) -> usize {
        self.inner.cache_size
    }

    pub(crate) fn encoder(&self) -> &Encoder {
        &self.inner.encoder
    }

    /// Waits until the current state of everything committed before the call is written, or of a later version; what is
    /// committed meanwhile does not prolong it. Returns at once where the runtime has ended that the context was opened on.
    ///
    /// Useful before a planned end; nothing is lost without it, because state is derived from the events.
    pub async fn flush(&self) {
        if let Some(state) = self.state() {
            state.flush().await;
        }
        self.snapshots().flush().await;
    }

    /// What the event stream says of itself. One round trip to its leader.
    ///
    /// # Errors
    /// [`StoreError::Backend`].
    pub async fn status(&self) -> Result<LogStatus, StoreError> {
        Ok(self.inner.log.status().await?)
    }

    /// Where an aggregate's history ends. One round trip.
    ///
    /// # Errors
    /// [`StoreError::Backend`]; [`StoreError::Integrity`] when the last event cannot be trusted.
    pub async fn head(
        &self,
        aggregate: &AggregateType,
        id: &AggregateId,
        from: ReadFrom,
    ) -> Result<Head, StoreError> {
        let last = self.last_event(aggregate, id, from).await?;
        Ok(last.as_ref().map(Head::of).unwrap_or_default())
    }

    pub(crate) async fn last_event(
        &self,
        aggregate: &AggregateType,
        id: &AggregateId,
        from: ReadFrom,
    ) -> Result<Option<StoredEvent>, StoreError> {
        let message = self.last_message(aggregate, id, from).await?;
        message.map(|message| self.verifier().verify(message)).transpose()
    }

    /// The last event as it is stored, not verified.
    pub(crate) async fn last_message(
        &self,
        aggregate: &AggregateType,
        id: &AggregateId,
        from: ReadFrom,
    ) -> Result<Option<StoredMessage>, StoreError> {
        let subject = self.scheme().events_of(aggregate, id);
        Ok(self.inner.log.last(&subject, from).await?)
    }

    pub(crate) fn encode<'a, D: Serialize + 'a>(
        &self,
        aggregate: &AggregateType,
        id: &AggregateId,
        head: &Head,
        info: &CommitInfo,
        events: impl Iterator<Item = (EventType, SchemaVersion, &'a D)>,
    ) -> Result<Encoded, StoreError> {
        self.inner.encoder.encode(aggregate, id, head, info, events)
    }

    /// Stores encoded messages. A conflict is returned without its versions: only a reader of the head knows them.
    pub(crate) async fn commit(&self, messages: Vec<NewMessage>) -> Result<Stored, StoreError> {
        let messages = NonEmpty::from_vec(messages).ok_or(StoreError::Empty)?;
        // Every encoder guards the first message of an aggregate.
        let commit = Commit::new(messages).map_err(|_| StoreError::Empty)?;
        self.store(commit).await.map_err(StoreError::of_commit)
    }

    /// Stores a commit, unless it holds more than a batch may.
    pub(crate) async fn store(&self, commit: Commit) -> Result<Stored, CommitError> {
        let (actual, limit) = (commit.len(), self.inner.log.limits().max_batch_messages);
        if actual > limit {
            return Err(CommitError::Refused(BackendError::TooMany { actual, limit }));
        }
        self.inner.committer.commit(commit).await
    }

    /// Whether two handles are of one context, opened once.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Where the ids of events and messages come from.
    pub(crate) fn ids(&self) -> &Arc<dyn IdSource> {
        &self.inner.encoder.ids
    }

    /// The version of an aggregate on which a commit after `expected` met a conflict, through the leader.
    ///
    /// A replicated stream also refuses a write because of one that is still under way; that one is seen a moment later.
    pub(crate) async fn overtaken(
        &self,
        aggregate: &AggregateType,
        id: &AggregateId,
        expected: u64,
    ) -> Result<u64, StoreError> {
        let mut head = self.head(aggregate, id, ReadFrom::Leader).await?;
        for _ in 0..OVERTAKEN_ATTEMPTS {
            if head.version != expected {
                break;
            }
            tokio::time::sleep(OVERTAKEN_PAUSE).await;
            head = self.head(aggregate, id, ReadFrom::Leader).await?;
        }
        Ok(head.version)
    }
}

/// How often the write that was first is looked for, and how long is waited in between.
const OVERTAKEN_ATTEMPTS: u32 = 20;
const OVERTAKEN_PAUSE: Duration = Duration::from_millis(10);

impl Head {
    pub(crate) fn of(event: &StoredEvent) -> Self {
        Self { version: event.version(), position: event.position(), cid: event.cid().copied() }
    }

    /// Whether it is a later head of the same history in the same stream.
    pub(crate) fn is_beyond(&self, other: &Self) -> bool {
        self.version > other.version && self.position > other.position
    }

    /// Whether a message says that it is the event with which the history ends here. Nothing else of it is looked at.
    pub(crate) fn is_at(&self, message: &StoredMessage) -> bool {
        message.position == self.position
            && message.headers.name_event(self.version, self.cid.as_ref())
    }
}
