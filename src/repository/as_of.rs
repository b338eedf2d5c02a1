//! Many aggregates as they were at one moment, consistent with each other.
//!
//! How one aggregate is loaded as of a version or a time is in `load.rs`.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::future::ready;
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use super::load::{CATCH_UP_ATTEMPTS, CATCH_UP_PAUSE, Rules, behind};
use super::loaded::Loaded;
use super::past::{Past, Until};
use super::scan::{AT_ONCE, Member, Members, Seen, one_or_two};
use super::{Aggregate, AggregateMetadata, Freshness, Repository, RepositoryError};
use crate::backend::{Bound, Followed, Matching, Position, Start, StoredMessage, TailQuery};
use crate::store::{Head, StoreError, StoredEvent};
use crate::subject::{AggregateId, AggregatePattern, Identity};

/// A history that the first answer holds is read sooner than its snapshots are listed.
const SHORT_HISTORY: u64 = 128;

impl<A> Repository<A>
where
    A: Aggregate + Send + Sync + 'static,
    A::Id: Send + Sync,
{
    /// The aggregates that a pattern means, by id, all as they were at one moment; all of the type for `None`.
    ///
    /// Each is what [`load`](Self::load) gives at the version it had then, and a commit over several of them is seen
    /// whole or not at all, unless the position that is given lies within it. Those that had no event yet, or were
    /// deleted, are not among them. [`Bound::Newest`] is the end of the stream when the call begins,
    /// [`Bound::Position`] what was stored up to there, that event included, and [`Bound::Time`] what the server stored
    /// before a time, by its own clock; that one is as the replica has it that answers.
    ///
    /// Up to 1024 aggregates take one round trip for the last events and one per five hundred kept states; for each
    /// that was changed since, its events up to then are replayed, from a snapshot if there is one. For more aggregates
    /// their events are read from the first one on, once, and all of them are held in memory.
    ///
    /// # Errors
    /// [`RepositoryError::Pattern`] for the pattern; [`RepositoryError::Store`] when the store fails, an event cannot be
    /// trusted or an id is not of the aggregate's type.
    ///
    /// ```
    /// # use cim_persistence::repository::{Aggregate, Repository, RepositoryError, AggregateMetadata};
    /// use cim_persistence::backend::Bound;
    /// # async fn example<A>(accounts: Repository<A>, closing: AggregateMetadata) -> Result<(), RepositoryError>
    /// # where A: Aggregate + Send + Sync + 'static, A::Id: Send + Sync {
    /// let when_closed = Bound::Position(closing.position);
    /// let balances = accounts.load_matching(Some("account.berlin.*"), when_closed).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn load_matching(
        &self,
        subject_pattern: Option<&str>,
        bound: Bound,
    ) -> Result<Vec<(A, AggregateMetadata)>, RepositoryError> {
        let found = self.stream_matching(subject_pattern, bound).await?;
        let mut found: Vec<_> = found.try_collect().await?;
        found.sort_unstable_by(|(_, one), (_, other)| one.aggregate_id.cmp(&other.aggregate_id));
        Ok(found)
    }

    /// As [`load_matching`](Self::load_matching), one aggregate after the other and in no order.
    ///
    /// Up to 1024 aggregates are loaded while the stream is polled. More are there when the call returns. An error ends
    /// the stream.
    ///
    /// # Errors
    /// As [`load_matching`](Self::load_matching).
    pub async fn stream_matching(
        &self,
        subject_pattern: Option<&str>,
        bound: Bound,
    ) -> Result<BoxStream<'static, Result<(A, AggregateMetadata), RepositoryError>>, RepositoryError>
    {
        let members = self.members_as_of(&self.pattern(subject_pattern)?, bound).await?;
        let repository = self.clone();
        Ok(members
            .try_filter(|(_, loaded)| ready(loaded.exists()))
            .and_then(move |member| ready(repository.given(member)))
            .boxed())
    }

    async fn members_as_of(
        &self,
        pattern: &AggregatePattern,
        bound: Bound,
    ) -> Result<Members<A>, RepositoryError> {
        // A position is the same moment for whoever answers; what is newest is not.
        let bound = match bound {
            Bound::Newest => Bound::Position(self.context.status().await?.last),
            other => other,
        };
        let subjects = one_or_two(pattern.subjects());
        let heads = self.context.log().matching(&subjects, bound).await;
        let Matching::All(heads) = heads.map_err(StoreError::from)? else {
            let members = self.replayed_as_of(pattern, bound).await?;
            return Ok(stream::iter(members).map(Ok).boxed());
        };
        let heads = self.verified_all(heads)?;
        let repository = self.clone();
        let members = self.with_kept(stream::iter(heads).map(Ok)).map(move |seen| {
            let repository = repository.clone();
            async move { repository.member_at(seen?).await }
        });
        Ok(members.buffered(AT_ONCE).try_filter_map(|member| ready(Ok(member))).boxed())
    }

    async fn member_at(&self, seen: Seen<A>) -> Result<Option<Member<A>>, RepositoryError> {
        let Some(last) = seen.last else { return Ok(None) };
        let loaded = self.at(&seen.key, seen.kept.loaded, &last).await?;
        Ok(Some((seen.key, loaded)))
    }

    /// An aggregate as it was when `last` was its last event.
    async fn at(
        &self,
        key: &AggregateId,
        kept: Option<Arc<Loaded<A>>>,
        last: &StoredEvent,
    ) -> Result<Arc<Loaded<A>>, RepositoryError> {
        let wanted = Head::of(last);
        if let Some(kept) = kept.filter(|kept| kept.head.position <= wanted.position) {
            match self.forwarded(kept, key, last).await {
                Ok(loaded) if loaded.head == wanted => return Ok(loaded),
                Ok(_) => self.distrust(key, "it does not lead to the event that was asked for"),
                Err(RepositoryError::Store(StoreError::Integrity { source, .. })) => {
                    self.distrust(key, &source.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        let id = A::Id::from_aggregate_id(key)?;
        let mut loaded = Loaded::empty(&id);
        if wanted.version == 1 {
            loaded.replay(last)?;
            return Ok(Arc::new(loaded));
        }
        let use_snapshot = wanted.version > SHORT_HISTORY;
        let rules = Rules { use_snapshot, ..Rules::of(Freshness::Current) };
        for _ in 0..CATCH_UP_ATTEMPTS {
            let until = Until { version: wanted.version, time: None };
            let Past { mut loaded, is_all } = self.past(&id, key, until, rules, None).await?;
            if loaded.head == wanted {
                return Ok(Arc::new(loaded));
            }
            if !is_all {
                // Another event in that place: replaying it reports how they differ.
                loaded.replay(last)?;
            }
            tokio::time::sleep(CATCH_UP_PAUSE).await;
        }
        Err(behind().into())
    }

    /// Kept state with the events after it, up to `last` and no further.
    async fn forwarded(
        &self,
        kept: Arc<Loaded<A>>,
        key: &AggregateId,
        last: &StoredEvent,
    ) -> Result<Arc<Loaded<A>>, RepositoryError> {
        if kept.head == Head::of(last) {
            return Ok(kept);
        }
        let mut loaded = Arc::unwrap_or_clone(kept);
        let mut attempts = 0..CATCH_UP_ATTEMPTS;
        // Otherwise nothing can lie between the two, or they disagree.
        while loaded.head.position < last.position()
            && last.version().saturating_sub(1) > loaded.head.version
        {
            if self.follow(&mut loaded, key, last.position()).await? {
                break;
            }
            // The replica that answered is behind the one that knew the last event.
            attempts.next().ok_or_else(behind)?;
            tokio::time::sleep(CATCH_UP_PAUSE).await;
        }
        loaded.replay(last)?;
        Ok(Arc::new(loaded))
    }

    /// Replays the events before a position, and says whether the replica that answered has one there or later.
    async fn follow(
        &self,
        loaded: &mut Loaded<A>,
        key: &AggregateId,
        until: Position,
    ) -> Result<bool, RepositoryError> {
        let mut history = self.context.history(&self.aggregate, key, loaded.head.position);
        while let Some(event) = history.try_next().await? {
            if event.position() >= until {
                return Ok(true);
            }
            loaded.replay(&event)?;
        }
        Ok(false)
    }

    /// What all events up to the bound add up to, read in the order in which they were stored.
    async fn replayed_as_of(
        &self,
        pattern: &AggregatePattern,
        bound: Bound,
    ) -> Result<Vec<Member<A>>, RepositoryError> {
        let patterns = one_or_two(pattern.subjects());
        let start = Start::After(Position::START);
        let mut followed = self.context.log().follow(TailQuery { patterns, start });
        let mut members: BTreeMap<AggregateId, Loaded<A>> = BTreeMap::new();
        while let Some(Followed::Message(message)) =
            followed.try_next().await.map_err(StoreError::from)?
            && is_within(&message, bound)
        {
            let event = self.verified_head(message)?;
            let loaded = match members.entry(event.aggregate_id().clone()) {
                Entry::Occupied(there) => there.into_mut(),
                Entry::Vacant(place) => {
                    let id = A::Id::from_aggregate_id(place.key())?;
                    place.insert(Loaded::empty(&id))
                }
            };
            loaded.replay(&event)?;
        }
        Ok(members.into_iter().map(|(key, loaded)| (key, Arc::new(loaded))).collect())
    }
}

fn is_within(message: &StoredMessage, bound: Bound) -> bool {
    match bound {
        Bound::Newest => true,
        Bound::Position(position) => message.position <= position,
        Bound::Time(time) => message.time < time,
    }
}
