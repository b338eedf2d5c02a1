//! Which aggregates a pattern means, each with its state: compared with the events, or as it is kept.
//!
//! What is asked of them is in `search.rs`; how they were at an earlier moment is in `as_of.rs`.

use std::collections::{HashMap, HashSet};
use std::future::ready;
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt, TryStreamExt, future};

use super::kept::Base;
use super::load::Rules;
use super::loaded::Loaded;
use super::{Aggregate, Freshness, QueryFreshness, Repository, RepositoryError, record};
use crate::backend::{Bound, Followed, Matching, ReadFrom, Start, StoredMessage, TailQuery};
use crate::event::NonEmpty;
use crate::state::{Entry, Key, KeyValue, Slot, each_once};
use crate::store::{StoreError, StoredEvent};
use crate::subject::{AggregateId, AggregatePattern, Identity, Pattern};

/// How many aggregates are brought up to their events at once.
pub(super) const AT_ONCE: usize = 16;

/// How many kept states one request asks for.
const STATES_AT_ONCE: usize = 500;

/// An aggregate and its state.
pub(super) type Member<A> = (AggregateId, Arc<Loaded<A>>);

pub(super) type Members<A> = BoxStream<'static, Result<Member<A>, RepositoryError>>;

/// What was found of one aggregate: a state that is kept, its last event, or both.
pub(super) struct Seen<A> {
    pub(super) key: AggregateId,
    pub(super) kept: Base<A>,
    pub(super) last: Option<StoredEvent>,
}

impl<A> Repository<A>
where
    A: Aggregate + Send + Sync + 'static,
    A::Id: Send + Sync,
{
    /// The pattern of a text; all aggregates of the type for `None`.
    pub(super) fn pattern(&self, text: Option<&str>) -> Result<AggregatePattern, RepositoryError> {
        let scheme = self.context.scheme();
        match text {
            Some(text) => Ok(AggregatePattern::parse(scheme, &self.aggregate, text)?),
            None => Ok(AggregatePattern::all(scheme, &self.aggregate)),
        }
    }

    /// The aggregates that a pattern means and that exist, in no order.
    pub(super) async fn members(
        &self,
        pattern: &AggregatePattern,
        freshness: QueryFreshness,
    ) -> Result<Members<A>, RepositoryError> {
        let members = match (freshness, self.context.state()) {
            (QueryFreshness::Kept, Some(state)) => {
                self.kept_members(state.bucket(), pattern).await?
            }
            _ => self.checked_members(pattern).await?,
        };
        Ok(members.try_filter(|(_, loaded)| ready(loaded.exists())).boxed())
    }

    async fn checked_members(
        &self,
        pattern: &AggregatePattern,
    ) -> Result<Members<A>, RepositoryError> {
        let (subjects, keys) = (one_or_two(pattern.subjects()), one_or_two(pattern.keys()));
        let kept = async {
            let bucket = self.context.state()?.bucket();
            let found = bucket.matching(&keys).await;
            Some(found.unwrap_or_else(|error| {
                tracing::warn!(aggregate = %self.aggregate, %error, "kept states cannot be read");
                Matching::All(Vec::new())
            }))
        };
        let heads = self.context.log().matching(&subjects, Bound::Newest);
        let (heads, kept) = future::join(heads, kept).await;
        let seen = match (heads.map_err(StoreError::from)?, kept) {
            (Matching::All(heads), Some(Matching::All(kept))) => {
                let seen = self.both(self.verified_all(heads)?, kept);
                stream::iter(seen).map(Ok).boxed()
            }
            (Matching::All(heads), _) => {
                let heads = self.verified_all(heads)?;
                self.with_kept(stream::iter(heads).map(Ok)).boxed()
            }
            (Matching::TooMany, _) => self.with_kept(self.all_heads(subjects)).boxed(),
        };
        let repository = self.clone();
        let brought_up = seen.map(move |seen| {
            let repository = repository.clone();
            async move { repository.member(seen?).await }
        });
        Ok(brought_up.buffered(AT_ONCE).boxed())
    }

    /// What is kept and what was last stored, by aggregate. One of the two may be missing: the state where it was not
    /// written yet, the event where the replica that answered is behind.
    fn both(&self, heads: Vec<StoredEvent>, kept: Vec<Entry>) -> Vec<Seen<A>> {
        let mut kept: HashMap<AggregateId, Base<A>> = kept
            .into_iter()
            .filter_map(|entry| {
                let id = self.id_in(&entry.key)?;
                let base = self.decoded(&id, slot(entry));
                Some((id, base))
            })
            .collect();
        let mut seen: Vec<Seen<A>> = heads
            .into_iter()
            .map(|last| {
                let key = last.aggregate_id().clone();
                Seen { kept: kept.remove(&key).unwrap_or_default(), key, last: Some(last) }
            })
            .collect();
        let rest = kept.into_iter().filter(|(_, base)| base.loaded.is_some());
        seen.extend(rest.map(|(key, kept)| Seen { key, kept, last: None }));
        seen
    }

    /// Last events, each with the state that is kept; so many states at a time.
    pub(super) fn with_kept(
        &self,
        heads: impl Stream<Item = Result<StoredEvent, RepositoryError>> + Send + 'static,
    ) -> impl Stream<Item = Result<Seen<A>, RepositoryError>> + Send + 'static {
        let repository = self.clone();
        heads
            .try_chunks(STATES_AT_ONCE)
            .map_err(|error| error.1)
            .and_then(move |heads| {
                let repository = repository.clone();
                async move { Ok(repository.chunk_with_kept(heads).await) }
            })
            .map_ok(|seen| stream::iter(seen).map(Ok))
            .try_flatten()
    }

    async fn chunk_with_kept(&self, heads: Vec<StoredEvent>) -> Vec<Seen<A>> {
        let slots = match self.context.state() {
            Some(state) => {
                let key_of =
                    |last: &StoredEvent| record::state_key(&self.aggregate, last.aggregate_id());
                let keys: Vec<Key> = heads.iter().map(key_of).collect();
                state.bucket().get_many(&keys).await.unwrap_or_else(|error| {
                    tracing::warn!(aggregate = %self.aggregate, %error, "kept states cannot be read");
                    Vec::new()
                })
            }
            None => Vec::new(),
        };
        let slots = slots.into_iter().chain(std::iter::repeat_with(Slot::default));
        let seen = heads.into_iter().zip(slots).map(|(last, slot)| {
            let key = last.aggregate_id().clone();
            Seen { kept: self.decoded(&key, slot), key, last: Some(last) }
        });
        seen.collect()
    }

    /// The last event of each aggregate, however many there are; each aggregate once.
    fn all_heads(
        &self,
        subjects: NonEmpty<Pattern>,
    ) -> impl Stream<Item = Result<StoredEvent, RepositoryError>> + Send + 'static {
        let repository = self.clone();
        let mut handed_out = HashSet::new();
        self.context
            .log()
            .follow(TailQuery { patterns: subjects, start: Start::Latest })
            .try_take_while(|followed| ready(Ok(*followed != Followed::CaughtUp)))
            .map(move |followed| match followed {
                Ok(Followed::Message(message)) => repository.verified_head(message).map(Some),
                Ok(Followed::CaughtUp) => Ok(None),
                Err(error) => Err(StoreError::from(error).into()),
            })
            .try_filter_map(move |head| {
                // One that was written again meanwhile may come again.
                ready(Ok(head.filter(|head| handed_out.insert(head.aggregate_id().clone()))))
            })
    }

    async fn member(&self, seen: Seen<A>) -> Result<Member<A>, RepositoryError> {
        let id = A::Id::from_aggregate_id(&seen.key)?;
        let cached = self.cache.as_ref().and_then(|cache| cache.get(&seen.key));
        let further = |cached: &Arc<Loaded<A>>| match &seen.kept.loaded {
            Some(kept) => cached.head.position > kept.head.position,
            // In place of a record that cannot be used one is derived and written.
            None => seen.kept.revision.is_none(),
        };
        let cached = cached.map(|cached| cached.loaded).filter(further);
        let base = cached.map(Base::cached).unwrap_or(seen.kept);
        let rules = Rules::of(Freshness::Current);
        let loaded = self.brought_up(&id, &seen.key, base, seen.last, rules).await?;
        Ok((seen.key, loaded))
    }

    async fn kept_members(
        &self,
        bucket: &Arc<dyn KeyValue>,
        pattern: &AggregatePattern,
    ) -> Result<Members<A>, RepositoryError> {
        let keys = one_or_two(pattern.keys());
        let entries = match bucket.matching(&keys).await.map_err(StoreError::from)? {
            Matching::All(entries) => stream::iter(entries).map(Ok).boxed(),
            Matching::TooMany => each_once(bucket.watch(keys, Start::Latest)).boxed(),
        };
        let repository = self.clone();
        let members = entries.map(move |entry| {
            let repository = repository.clone();
            async move { repository.kept_member(entry.map_err(StoreError::from)?).await }
        });
        Ok(members.buffered(AT_ONCE).try_filter_map(|member| ready(Ok(member))).boxed())
    }

    /// The aggregate of a record, from its events where the record cannot be read.
    async fn kept_member(&self, entry: Entry) -> Result<Option<Member<A>>, RepositoryError> {
        let Some(key) = self.id_in(&entry.key).filter(|_| entry.value.is_some()) else {
            return Ok(None);
        };
        let id = A::Id::from_aggregate_id(&key)?;
        let base = self.decoded(&key, slot(entry));
        let loaded = match base.loaded {
            Some(loaded) => loaded,
            None => {
                let last =
                    self.context.last_event(&self.aggregate, &key, ReadFrom::Nearest).await?;
                self.brought_up(&id, &key, base, last, Rules::of(Freshness::Current)).await?
            }
        };
        Ok(Some((key, loaded)))
    }

    pub(super) fn verified_all(
        &self,
        messages: Vec<StoredMessage>,
    ) -> Result<Vec<StoredEvent>, RepositoryError> {
        messages.into_iter().map(|message| self.verified_head(message)).collect()
    }

    pub(super) fn verified_head(
        &self,
        message: StoredMessage,
    ) -> Result<StoredEvent, RepositoryError> {
        Ok(self.context.verifier().verify(message)?)
    }

    /// Whose state lies under a key; nobody's where the key was not made by this crate.
    fn id_in(&self, key: &Key) -> Option<AggregateId> {
        let escaped = key.as_str().strip_prefix(self.aggregate.as_str())?.strip_prefix('.')?;
        AggregateId::from_escaped(escaped).ok()
    }
}

fn slot(entry: Entry) -> Slot {
    Slot { revision: entry.revision, value: entry.value }
}

pub(super) fn one_or_two(patterns: &[Pattern]) -> NonEmpty<Pattern> {
    NonEmpty::from_vec(patterns.to_vec()).expect("an aggregate pattern holds one at least")
}
