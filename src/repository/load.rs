//! Loading: from the cache, kept state or a snapshot, and always compared with the events.

use std::sync::Arc;
use std::time::Instant;

use futures::future::{self, OptionFuture};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};

use super::kept::Base;
use super::loaded::Loaded;
use super::{
    Aggregate, AggregateMetadata, Freshness, LoadOptions, Repository, RepositoryError, observe,
};
use crate::backend::{BackendError, Position, ReadFrom, StoredMessage};
use crate::store::{Head, StoreError, StoredEvent};
use crate::subject::{AggregateId, Identity};

/// How often a replica that is behind is asked again, and how long is waited in between.
pub(super) const CATCH_UP_ATTEMPTS: u32 = 20;
pub(super) const CATCH_UP_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// State that lags so many events behind when it is loaded is offered for writing again.
const STALE_STATE: u64 = 16;

/// The events of one aggregate, oldest first.
type History = BoxStream<'static, Result<StoredEvent, StoreError>>;

/// What a load may use and how far it may go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) freshness: Freshness,
    pub(super) use_snapshot: bool,
    pub(super) max_events: Option<usize>,
}

impl Rules {
    pub(super) fn of(freshness: Freshness) -> Self {
        Self { freshness, use_snapshot: true, max_events: None }
    }
}

impl<A: Aggregate + Send + Sync + 'static> Repository<A> {
    /// Loads an aggregate: its newest state, or its state at a version or a time.
    ///
    /// The newest state takes one round trip when it is cached or kept, and one more when events followed it. Where it agrees
    /// with the newest event in position, version and CID, that event's block is not looked at;
    /// [`verify`](Self::verify) looks at all of them. An older state is replayed from a snapshot before it. That something
    /// is not there takes one round trip more, to the stream's leader: a replica may just be behind.
    ///
    /// # Errors
    /// [`RepositoryError::NotFound`] when it has no events, was deleted, or did not exist yet at that time;
    /// [`RepositoryError::NoSuchVersion`], [`RepositoryError::TooManyEvents`]; [`RepositoryError::Store`] when the
    /// store fails or what it holds cannot be trusted.
    #[tracing::instrument(level = "debug", skip_all, fields(
        context = %self.context.scheme().context(), aggregate = %self.aggregate, id, version, position, outcome))]
    pub async fn load(
        &self,
        id: &A::Id,
        options: LoadOptions,
    ) -> Result<(A, AggregateMetadata), RepositoryError> {
        let begun = Instant::now();
        let result = self.load_as(id, options).await;
        observe::loaded(begun, &result);
        result
    }

    async fn load_as(
        &self,
        id: &A::Id,
        options: LoadOptions,
    ) -> Result<(A, AggregateMetadata), RepositoryError> {
        let key = self.key_of(id)?;
        let rules = Rules {
            freshness: options.freshness,
            use_snapshot: options.use_snapshot,
            max_events: options.max_events,
        };
        let newest = options.version.is_none() && options.as_of.is_none();
        let (loaded, events) = match newest && !options.include_events {
            true => (self.existing(id, &key, rules).await?, Vec::new()),
            // Boxed like all that the usual load does not need, because it would make the future of every load large.
            false => Box::pin(self.past_as_fresh(id, &key, &options, rules)).await?,
        };
        if !loaded.exists() {
            return Err(self.not_found(&key, &loaded));
        }
        let mut metadata = self.describe(&key, &loaded);
        metadata.events = events;
        Ok((Arc::unwrap_or_clone(loaded).state, metadata))
    }

    /// The state at a version, as [`load`](Self::load) with [`LoadOptions::version`].
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn get_at_version(
        &self,
        id: &A::Id,
        version: u64,
    ) -> Result<(A, AggregateMetadata), RepositoryError> {
        self.load(id, LoadOptions { version: Some(version), ..LoadOptions::default() }).await
    }

    /// The newest state. That there is no aggregate is said only of what the leader says is the newest.
    async fn existing(
        &self,
        id: &A::Id,
        key: &AggregateId,
        rules: Rules,
    ) -> Result<Arc<Loaded<A>>, RepositoryError> {
        let loaded = self.current(id, key, rules).await?;
        if loaded.exists() || rules.freshness == Freshness::Latest {
            return Ok(loaded);
        }
        Box::pin(async {
            match self.newest_position(key).await? == loaded.head.position {
                true => Ok(loaded),
                false => {
                    self.current(id, key, Rules { freshness: Freshness::Latest, ..rules }).await
                }
            }
        })
        .await
    }

    /// Where the aggregate's last event is, as the stream's leader sees it. One round trip.
    pub(super) async fn newest_position(&self, key: &AggregateId) -> Result<Position, StoreError> {
        let last = self.context.last_message(&self.aggregate, key, ReadFrom::Leader).await?;
        Ok(last.map_or(Position::START, |message| message.position))
    }

    /// The newest state as it is found, whether the aggregate exists or not.
    pub(super) async fn current(
        &self,
        id: &A::Id,
        key: &AggregateId,
        rules: Rules,
    ) -> Result<Arc<Loaded<A>>, RepositoryError> {
        let cached = self.cache.as_ref().filter(|_| rules.use_snapshot).and_then(|c| c.get(key));
        if let (Freshness::Cached(age), Some(cached)) = (rules.freshness, &cached)
            && cached.compared.elapsed() <= age
        {
            return Ok(Arc::clone(&cached.loaded));
        }
        let asked = Instant::now();
        let from = match rules.freshness {
            Freshness::Latest => ReadFrom::Leader,
            Freshness::Current | Freshness::Cached(_) => ReadFrom::Nearest,
        };
        let loaded = match (cached, self.context.state(), from) {
            (Some(cached), _, _) => {
                let last = self.context.last_message(&self.aggregate, key, from).await?;
                self.compared(id, key, Base::cached(cached.loaded), last, rules).await?
            }
            (None, Some(_), _) if rules.use_snapshot => {
                let last = self.context.last_message(&self.aggregate, key, from);
                // In this order, because a server answers the later of two requests first: it is the one whose goroutine runs
                // next. The state is decoded while the event is still on its way, a twentieth of the time of a load.
                let (last, kept) = future::join(last, self.kept(key)).await;
                self.compared(id, key, kept, last?, rules).await?
            }
            (None, _, ReadFrom::Leader) => {
                let last = self.context.last_message(&self.aggregate, key, from).await?;
                self.compared(id, key, Base::default(), last, rules).await?
            }
            (None, _, ReadFrom::Nearest) => {
                Arc::new(Box::pin(self.replayed(id, key, rules)).await?.0)
            }
        };
        self.remember(key, &loaded, asked);
        Ok(loaded)
    }

    /// The newest state after a conflict on a base that ended at `before`.
    ///
    /// A replicated stream also refuses a write because of one that is still under way; that one is seen a moment later.
    pub(super) async fn overtaken(
        &self,
        id: &A::Id,
        key: &AggregateId,
        before: Position,
    ) -> Result<Arc<Loaded<A>>, RepositoryError> {
        let latest = || self.current(id, key, Rules::of(Freshness::Latest));
        let mut loaded = latest().await?;
        for _ in 0..CATCH_UP_ATTEMPTS {
            if loaded.head.position != before {
                break;
            }
            tokio::time::sleep(CATCH_UP_PAUSE).await;
            loaded = latest().await?;
        }
        Ok(loaded)
    }

    /// The base, if the newest message says that it is the event with which the base ends: as in most cases, in which
    /// nothing of that event is needed. Else it is read, and the base brought up to it.
    async fn compared(
        &self,
        id: &A::Id,
        key: &AggregateId,
        base: Base<A>,
        last: Option<StoredMessage>,
        rules: Rules,
    ) -> Result<Arc<Loaded<A>>, RepositoryError> {
        if let (Some(base), Some(last)) = (&base.loaded, &last)
            && base.head.is_at(last)
        {
            return Ok(Arc::clone(base));
        }
        let last = last.map(|message| self.context.verifier().verify(message)).transpose()?;
        // Boxed like all that the usual load does not need, because it would make the future of every load large.
        Box::pin(self.brought_up(id, key, base, last, rules)).await
    }

    /// Brings a base up to the newest event, or replays everything where the base does not fit the events.
    pub(super) async fn brought_up(
        &self,
        id: &A::Id,
        key: &AggregateId,
        base: Base<A>,
        last: Option<StoredEvent>,
        rules: Rules,
    ) -> Result<Arc<Loaded<A>>, RepositoryError> {
        let Base { loaded: base, revision } = base;
        // What was found not to be there is no base, and no event that came since contradicts it.
        let Some(base) = base.filter(|base| base.head.version > 0) else {
            let Some(last) = last else { return Ok(Arc::new(Loaded::empty(id))) };
            return self.derived(id, key, revision, &last, rules).await;
        };
        let last = match last {
            Some(last) if last.position() >= base.head.position => Some(last),
            // The replica is behind the base, or the log has lost what the base follows from.
            _ => self.context.last_event(&self.aggregate, key, ReadFrom::Leader).await?,
        };
        let Some(last) = last else {
            self.distrust(key, "the log holds no event of it");
            self.forget(key);
            return Ok(Arc::new(Loaded::empty(id)));
        };
        if last.position() <= base.head.position && Head::of(&last) != base.head {
            // Positions only grow, so the base follows from a log that is not this one. The events may not show it: they may
            // have come further than the base at positions before its own.
            self.distrust(
                key,
                "the log ends before the event that it ends with, or has another one there",
            );
            self.forget(key);
            return self.derived(id, key, revision, &last, rules).await;
        }
        match self.extended(Arc::clone(&base), key, &last, rules).await {
            Ok(loaded) => {
                if loaded.head.version - base.head.version >= STALE_STATE {
                    self.keep(key, &loaded);
                }
                Ok(loaded)
            }
            Err(RepositoryError::Store(StoreError::Integrity { source, .. })) => {
                self.distrust(key, &source.to_string());
                // The cache keeps the later of two versions, and this one may be beyond the log.
                self.forget(key);
                self.derived(id, key, revision, &last, rules).await
            }
            Err(error) => Err(error),
        }
    }

    /// Everything replayed, up to `last` at least, and offered for writing, over the record of a revision if there is a
    /// wrong one.
    async fn derived(
        &self,
        id: &A::Id,
        key: &AggregateId,
        wrong: Option<u64>,
        last: &StoredEvent,
        rules: Rules,
    ) -> Result<Arc<Loaded<A>>, RepositoryError> {
        let loaded = Arc::new(Box::pin(self.replayed_to(id, key, last, rules)).await?);
        self.keep_over(key, &loaded, wrong);
        Ok(loaded)
    }

    /// The base with the events up to `last`.
    async fn extended(
        &self,
        base: Arc<Loaded<A>>,
        key: &AggregateId,
        last: &StoredEvent,
        rules: Rules,
    ) -> Result<Arc<Loaded<A>>, RepositoryError> {
        if base.head == Head::of(last) {
            return Ok(base);
        }
        let mut loaded = Arc::unwrap_or_clone(base);
        let from = loaded.head.version;
        if last.version().checked_sub(1) == Some(from) {
            self.check_limit(key, 1, rules)?;
            loaded.replay(last)?;
            return Ok(Arc::new(loaded));
        }
        if last.version() <= from {
            // Another event where the base ends: replaying it reports how they differ.
            loaded.replay(last)?;
        }
        Box::pin(self.catch_up(&mut loaded, from, key, last.position(), rules)).await?;
        Ok(Arc::new(loaded))
    }

    /// Everything replayed, up to `last` at least.
    async fn replayed_to(
        &self,
        id: &A::Id,
        key: &AggregateId,
        last: &StoredEvent,
        rules: Rules,
    ) -> Result<Loaded<A>, RepositoryError> {
        if last.version() == 1 {
            self.check_limit(key, 1, rules)?;
            let mut loaded = Loaded::empty(id);
            loaded.replay(last)?;
            return Ok(loaded);
        }
        let (mut loaded, from) = self.replayed(id, key, rules).await?;
        self.catch_up(&mut loaded, from, key, last.position(), rules).await?;
        Ok(loaded)
    }

    /// Replays what follows until `target` is reached; a replica that is behind is asked again. All that is replayed
    /// since the version `from` counts.
    async fn catch_up(
        &self,
        loaded: &mut Loaded<A>,
        from: u64,
        key: &AggregateId,
        target: Position,
        rules: Rules,
    ) -> Result<(), RepositoryError> {
        for attempt in 0..CATCH_UP_ATTEMPTS {
            if loaded.head.position >= target {
                return Ok(());
            }
            if attempt > 0 {
                tokio::time::sleep(CATCH_UP_PAUSE).await;
            }
            let tail = self.context.history(&self.aggregate, key, loaded.head.position);
            self.replay_all(loaded, from, key, tail, rules).await?;
        }
        match loaded.head.position >= target {
            true => Ok(()),
            false => Err(behind().into()),
        }
    }

    /// The whole history, from the newest snapshot if there is one, and the version it was replayed from. The first events
    /// are asked for at the same time as the snapshot.
    async fn replayed(
        &self,
        id: &A::Id,
        key: &AggregateId,
        rules: Rules,
    ) -> Result<(Loaded<A>, u64), RepositoryError> {
        let mut history = self.context.history(&self.aggregate, key, Position::START);
        let snapshot: OptionFuture<_> =
            rules.use_snapshot.then(|| self.snapshot_before(key, u64::MAX)).into();
        let (snapshot, first) = future::join(snapshot, history.next()).await;
        if let Some(snapshot) = snapshot.flatten()
            && let Some((mut loaded, tail)) = self.continued(key, snapshot).await?
        {
            let from = loaded.head.version;
            self.replay_all(&mut loaded, from, key, tail, rules).await?;
            return Ok((loaded, from));
        }
        let mut loaded = Loaded::empty(id);
        let history = futures::stream::iter(first).chain(history);
        self.replay_all(&mut loaded, 0, key, history, rules).await?;
        Ok((loaded, 0))
    }

    /// A snapshot with the events after it, if the log holds the event that it ends with.
    pub(super) async fn continued(
        &self,
        key: &AggregateId,
        snapshot: Loaded<A>,
    ) -> Result<Option<(Loaded<A>, History)>, RepositoryError> {
        let before = Position::new(snapshot.head.position.get().saturating_sub(1));
        for attempt in 0..CATCH_UP_ATTEMPTS {
            let mut history = self.context.history(&self.aggregate, key, before);
            let last = history.try_next().await?;
            if last.as_ref().is_some_and(|last| Head::of(last) == snapshot.head) {
                return Ok(Some((snapshot, history)));
            }
            // Nothing is there also where a replica is behind. Only the leader can tell, and it is asked once.
            let behind = last.is_none()
                && (attempt > 0 || self.newest_position(key).await? >= snapshot.head.position);
            if !behind {
                self.distrust(key, "the log does not hold the event that a snapshot ends with");
                return Ok(None);
            }
            tokio::time::sleep(CATCH_UP_PAUSE).await;
        }
        // Without the snapshot the aggregate is as the replicas have it that stay behind.
        Ok(None)
    }

    async fn replay_all(
        &self,
        loaded: &mut Loaded<A>,
        from: u64,
        key: &AggregateId,
        mut events: impl Stream<Item = Result<StoredEvent, StoreError>> + Unpin,
        rules: Rules,
    ) -> Result<(), RepositoryError> {
        let before = loaded.head.version;
        while let Some(event) = events.try_next().await? {
            self.check_limit(key, (loaded.head.version - from).saturating_add(1), rules)?;
            loaded.replay(&event)?;
        }
        let replayed = loaded.head.version - before;
        metrics::histogram!("cim_load_replayed_events").record(replayed as f64);
        Ok(())
    }

    pub(super) fn check_limit(
        &self,
        key: &AggregateId,
        replayed: u64,
        rules: Rules,
    ) -> Result<(), RepositoryError> {
        match rules.max_events {
            Some(limit) if replayed > limit as u64 => Err(RepositoryError::TooManyEvents {
                aggregate_type: self.aggregate.to_string(),
                id: key.to_string(),
                limit,
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn not_found(&self, key: &AggregateId, loaded: &Loaded<A>) -> RepositoryError {
        self.not_found_id(key, loaded.deleted.then_some(loaded.head.version))
    }

    pub(super) fn not_found_id(&self, key: &AggregateId, deleted: Option<u64>) -> RepositoryError {
        let aggregate_type = self.aggregate.to_string();
        RepositoryError::NotFound { aggregate_type, id: key.to_string(), deleted }
    }

    /// The id as it is stored, which the span of the operation tells.
    pub(super) fn key_of(&self, id: &A::Id) -> Result<AggregateId, RepositoryError> {
        let key = id.to_aggregate_id()?;
        tracing::Span::current().record("id", tracing::field::display(&key));
        Ok(key)
    }

    pub(super) fn describe(&self, key: &AggregateId, loaded: &Loaded<A>) -> AggregateMetadata {
        loaded.describe(self.context.scheme(), self.context.format(), &self.aggregate, key)
    }
}

pub(super) fn behind() -> StoreError {
    BackendError::unavailable("the replica that answers stays behind the stream's leader").into()
}
