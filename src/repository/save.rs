//! Saving: events onto a history, guarded by its head.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::load::Rules;
use super::loaded::Loaded;
use super::{
    Aggregate, AggregateMetadata, Freshness, Repository, RepositoryError, SaveOptions, observe,
};
use crate::event::{NonEmpty, TOMBSTONE};
use crate::store::{CommitInfo, ExpectedVersion, Head, StoreError, named};
use crate::subject::{AggregateId, EventType};

/// As many events as most commits have, or more.
const USUAL_EVENTS: usize = 4;

/// How often a save that expects no version in particular is tried.
const ANY_ATTEMPTS: usize = 16;

impl<A: Aggregate + Send + Sync + 'static> Repository<A> {
    /// Appends events to an aggregate's history, all or none.
    ///
    /// Of `aggregate` only the id is read; it does not matter whether the events were applied to it already. The state
    /// that is cached and kept is replayed from the events. One round trip when the aggregate is cached or new, else
    /// one before it to load. The state is written behind; a snapshot, if asked for, before the call returns: when that
    /// fails it is logged and counted, for the events are stored.
    ///
    /// # Errors
    /// [`RepositoryError::VersionConflict`] when the aggregate has another version than
    /// [`SaveOptions::expected_version`], [`RepositoryError::NoEvents`], [`RepositoryError::Transition`] when the events lead
    /// to a stage that may not follow, [`RepositoryError::Store`]. Nothing is stored then, except after [`StoreError::OutcomeUnknown`] and
    /// [`StoreError::Closed`], when it may be.
    #[tracing::instrument(level = "debug", skip_all, fields(
        context = %self.context.scheme().context(), aggregate = %self.aggregate, id, version, position, outcome, attempts))]
    pub async fn save(
        &self,
        aggregate: &A,
        events: Vec<A::Event>,
        options: impl Into<SaveOptions>,
    ) -> Result<AggregateMetadata, RepositoryError> {
        let begun = Instant::now();
        let result = self.save_events(aggregate.id(), &events, &options.into()).await;
        observe::saved(begun, &result);
        result
    }

    /// Marks the aggregate as deleted, by a tombstone at the end of its history. Loading it says then that it is not
    /// found; its history stays. Events saved later with the tombstone's version begin it anew.
    ///
    /// With the default options, which expect no version, whatever version there is gets deleted. Two round trips, the first
    /// to the stream's leader; no snapshot is taken.
    ///
    /// # Errors
    /// [`RepositoryError::NotFound`] when it does not exist; else as [`save`](Self::save).
    #[tracing::instrument(level = "debug", skip_all, fields(
        context = %self.context.scheme().context(), aggregate = %self.aggregate, id, version, position, outcome, attempts))]
    pub async fn delete(
        &self,
        id: &A::Id,
        options: impl Into<SaveOptions>,
    ) -> Result<AggregateMetadata, RepositoryError> {
        let begun = Instant::now();
        let result = self.bury(id, &options.into()).await;
        observe::saved(begun, &result);
        result
    }

    async fn save_events(
        &self,
        id: &A::Id,
        events: &[A::Event],
        options: &SaveOptions,
    ) -> Result<AggregateMetadata, RepositoryError> {
        let key = self.key_of(id)?;
        if events.is_empty() {
            return Err(RepositoryError::NoEvents);
        }
        let info = options.info()?;
        let saved = self
            .attempts(id, &key, (options.expected_version, Freshness::Current), |base| {
                self.decided(&key, base, events, &info)
            })
            .await?;
        if options.create_snapshot {
            Box::pin(self.snapshot_asked_for(&key, &saved)).await;
        }
        Ok(self.describe(&key, &saved))
    }

    async fn bury(
        &self,
        id: &A::Id,
        options: &SaveOptions,
    ) -> Result<AggregateMetadata, RepositoryError> {
        let key = self.key_of(id)?;
        let expected = match options.expected_version {
            ExpectedVersion::NoStream => ExpectedVersion::Any,
            other => other,
        };
        let tombstone = [(EventType::new(TOMBSTONE)?, 1, &())];
        let buried = self
            .attempts(id, &key, (expected, Freshness::Latest), |mut base| {
                if !base.exists() {
                    return Err(self.not_found(&key, &base));
                }
                let head = base.head;
                Arc::make_mut(&mut base).bury()?;
                self.encoded(&key, &head, &options.info()?, tombstone.iter().cloned(), base)
            })
            .await?;
        Ok(self.describe(&key, &buried))
    }

    /// Loads what the expectation asks for, prepares a commit on it and stores it; again and again if nothing in
    /// particular is expected. Then it is loaded as new as that.
    async fn attempts(
        &self,
        id: &A::Id,
        key: &AggregateId,
        (expected, freshness): (ExpectedVersion, Freshness),
        prepare: impl Fn(Arc<Loaded<A>>) -> Result<Prepared<A>, RepositoryError>,
    ) -> Result<Arc<Loaded<A>>, RepositoryError> {
        let mut conflict = None;
        let most = if expected.is_any() { ANY_ATTEMPTS } else { 1 };
        let mut attempts = 0;
        loop {
            attempts += 1;
            tracing::Span::current().record("attempts", attempts);
            let base = match conflict.take() {
                None => self.base(id, key, expected, freshness).await?,
                // Boxed like all that a save seldom needs, because it would make the future of every save large.
                Some(before) => Box::pin(self.overtaken(id, key, before)).await?,
            };
            let (version, position) = (base.head.version, base.head.position);
            // Whoever describes what is stored needs the CID of its state.
            let meanwhile = |loaded: &Loaded<A>| _ = loaded.state_cid(self.context.format());
            let prepared = prepare(base)?;
            match self.commit(key, prepared, meanwhile).await {
                Err(StoreError::Conflict { .. }) if attempts < most => conflict = Some(position),
                Err(StoreError::Conflict { .. }) => {
                    return Err(Box::pin(self.explained(key, version)).await);
                }
                result => return Ok(result?),
            }
        }
    }

    /// The aggregate as the expectation wants it.
    async fn base(
        &self,
        id: &A::Id,
        key: &AggregateId,
        expected: ExpectedVersion,
        freshness: Freshness,
    ) -> Result<Arc<Loaded<A>>, RepositoryError> {
        let version = match expected {
            ExpectedVersion::NoStream | ExpectedVersion::Exact(0) => {
                return Ok(Arc::new(Loaded::empty(id)));
            }
            ExpectedVersion::Any => {
                return Box::pin(self.current(id, key, Rules::of(freshness))).await;
            }
            ExpectedVersion::Exact(version) => version,
        };
        // A cached state of that version needs no look at the stream: the guard will compare it.
        let cached = self.cache.as_ref().and_then(|cache| cache.get(key));
        if let Some(cached) = cached.filter(|cached| cached.loaded.head.version == version) {
            return Ok(cached.loaded);
        }
        let mut loaded = Box::pin(self.current(id, key, Rules::of(Freshness::Current))).await?;
        if loaded.head.version < version {
            loaded = Box::pin(self.current(id, key, Rules::of(Freshness::Latest))).await?;
        }
        let actual = loaded.head.version;
        match actual == version {
            true => Ok(loaded),
            false => Err(RepositoryError::VersionConflict { expected: version, actual }),
        }
    }

    /// The commit of domain events on a base.
    pub(super) fn decided(
        &self,
        key: &AggregateId,
        mut base: Arc<Loaded<A>>,
        events: &[A::Event],
        info: &CommitInfo,
    ) -> Result<Prepared<A>, RepositoryError> {
        let mut types = SmallVec::<[_; USUAL_EVENTS]>::new();
        for event in events {
            let (event_type, schema_version) = named(event)?;
            types.push((event_type, schema_version, event));
        }
        let head = base.head;
        Arc::make_mut(&mut base).apply_new(&self.aggregate, key, events)?;
        self.encoded(key, &head, info, types.into_iter(), base)
    }

    fn encoded<'a, D: serde::Serialize + 'a>(
        &self,
        key: &AggregateId,
        head: &Head,
        info: &CommitInfo,
        events: impl Iterator<Item = (EventType, u32, &'a D)>,
        mut loaded: Arc<Loaded<A>>,
    ) -> Result<Prepared<A>, RepositoryError> {
        let encoded = self.context.encode(&self.aggregate, key, head, info, events)?;
        let new_head = Head { version: encoded.version, position: head.position, cid: encoded.cid };
        Arc::make_mut(&mut loaded).note(new_head, encoded.occurred_at, &info.metadata);
        Ok(Prepared { before: head.version, messages: encoded.messages, loaded })
    }

    /// Stores what was prepared, and makes its state the cached and kept one. While the server works, `meanwhile` is done
    /// with that state, of which only the position is not known yet.
    pub(super) async fn commit(
        &self,
        key: &AggregateId,
        prepared: Prepared<A>,
        meanwhile: impl FnOnce(&Loaded<A>),
    ) -> Result<Arc<Loaded<A>>, StoreError> {
        let begun = Instant::now();
        let Prepared { before, messages, mut loaded } = prepared;
        let mut storing = pin!(self.context.commit(messages.into_vec()));
        let mut meanwhile = Some(meanwhile);
        let result = poll_fn(|cx| {
            let result = storing.as_mut().poll(cx);
            if let Some(meanwhile) = meanwhile.take() {
                meanwhile(&loaded);
            }
            result
        })
        .await;
        let stored = result.inspect_err(|_| self.forget(key))?;
        Arc::make_mut(&mut loaded).head.position = stored.last;
        self.remember(key, &loaded, begun);
        self.keep(key, &loaded);
        self.snapshot_if_due(key, before, &loaded);
        Ok(loaded)
    }

    /// Whatever was cached may be what the commit failed on.
    pub(super) fn forget(&self, key: &AggregateId) {
        if let Some(cache) = &self.cache {
            cache.remove(key);
        }
    }

    /// A conflict with the version that is stored, read through the leader.
    pub(super) async fn explained(&self, key: &AggregateId, expected: u64) -> RepositoryError {
        match self.context.overtaken(&self.aggregate, key, expected).await {
            Ok(actual) => RepositoryError::VersionConflict { expected, actual },
            Err(error) => error.into(),
        }
    }
}

/// A commit and the state it leads to. The position in its head is filled in when it is stored.
pub(super) struct Prepared<A> {
    before: u64,
    messages: NonEmpty<crate::backend::NewMessage>,
    /// Nobody else has it yet. Behind a pointer, because what a future holds is copied with it.
    loaded: Arc<Loaded<A>>,
}
