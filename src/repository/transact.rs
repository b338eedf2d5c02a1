//! One call from loading to the commit: decide on the newest state, store, try again when others were first.

use std::sync::Arc;

use super::load::Rules;
use super::loaded::Loaded;
use super::{
    Aggregate, Freshness, Handle, IntoDecision, Repository, RepositoryError, TransactError,
    TransactOptions,
};
use crate::backend::Position;
use crate::store::StoreError;
use crate::subject::{AggregateId, Identity};

/// What a transaction came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transacted<R> {
    /// What the decision replied.
    pub reply: R,
    /// The aggregate's version now.
    pub version: u64,
    /// The position of its last event: what a query can wait for.
    pub position: Position,
    /// How many events the decision made; 0 when there was nothing to do.
    pub events: usize,
    /// How often it was decided.
    pub attempts: u32,
}

/// What one attempt came to.
enum Attempt<R> {
    Done(Transacted<R>),
    /// Somebody else committed in between.
    Conflict,
}

impl<A: Aggregate + Send + Sync + 'static> Repository<A> {
    /// Loads an aggregate, decides on it and stores the events of the decision; when others commit in between it loads
    /// and decides again, at most ten times in all.
    ///
    /// The decision gets the aggregate's state, that of a new one when it has no events, and returns events, events with
    /// a reply, or a rejection. It is pure and may be called several times. No events mean that nothing is stored. Two
    /// round trips when nobody interferes.
    ///
    /// # Errors
    /// [`TransactError::Rejected`] with the decision's rejection; [`RepositoryError::Transition`] when the decision leads to a
    /// stage that may not follow; [`RepositoryError::NotFound`] for a deleted aggregate;
    /// [`RepositoryError::VersionConflict`] when others were first every time; else as [`save`](Self::save).
    ///
    /// ```
    /// # use cim_persistence::prelude::*;
    /// # use cim_persistence::repository::{Repository, TransactError};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Clone, Serialize, Deserialize)]
    /// # struct Counter { name: String, count: u64 }
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Counted;
    /// # impl DomainEvent for Counted { fn event_type(&self) -> &'static str { "counted" } }
    /// # impl Aggregate for Counter {
    /// #     const TYPE: &'static str = "counter";
    /// #     type Id = String;
    /// #     type Event = Counted;
    /// #     fn new(name: &String) -> Self { Counter { name: name.clone(), count: 0 } }
    /// #     fn id(&self) -> &String { &self.name }
    /// #     fn apply(&mut self, _: &Counted) { self.count += 1 }
    /// # }
    /// # async fn example(counters: Repository<Counter>) -> Result<(), TransactError<&'static str>> {
    /// let counted = counters
    ///     .transact(&"visits".to_owned(), |counter| match counter.count {
    ///         0..1000 => Ok((vec![Counted], counter.count + 1)),
    ///         _ => Err("full"),
    ///     })
    ///     .await?;
    /// println!("{} visits, stored at {}", counted.reply, counted.position);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn transact<D, R>(
        &self,
        id: &A::Id,
        decide: impl FnMut(&A) -> Result<D, R>,
    ) -> Result<Transacted<D::Reply>, TransactError<R>>
    where
        D: IntoDecision<A::Event>,
    {
        self.transact_with(id, TransactOptions::default(), decide).await
    }

    /// As [`transact`](Self::transact), with options.
    ///
    /// # Errors
    /// As [`transact`](Self::transact).
    #[tracing::instrument(level = "debug", skip_all, fields(
        context = %self.context.scheme().context(), aggregate = %self.aggregate, id, version, position, outcome, attempts))]
    pub async fn transact_with<D, R>(
        &self,
        id: &A::Id,
        options: TransactOptions,
        mut decide: impl FnMut(&A) -> Result<D, R>,
    ) -> Result<Transacted<D::Reply>, TransactError<R>>
    where
        D: IntoDecision<A::Event>,
    {
        let key = id.to_aggregate_id().map_err(RepositoryError::from)?;
        let span = tracing::Span::current();
        span.record("id", key.as_str());
        let mut freshness = options.freshness;
        let mut conflict = None;
        let mut attempt = 1;
        loop {
            let base = match conflict.take() {
                None => self.current(id, &key, Rules::of(freshness)).await?,
                Some(before) => self.overtaken(id, &key, before).await?,
            };
            if base.deleted {
                if matches!(freshness, Freshness::Cached(_)) {
                    freshness = Freshness::Current;
                    continue;
                }
                return Err(self.not_found(&key, &base).into());
            }
            match self.attempt(&key, &base, &options, attempt, &mut decide).await {
                // What the cache says without a look at the stream is no ground for a no.
                Err(
                    TransactError::Rejected(_)
                    | TransactError::Repository(RepositoryError::Transition { .. }),
                ) if matches!(freshness, Freshness::Cached(_)) => {
                    freshness = Freshness::Current;
                }
                Ok(Attempt::Conflict) if attempt >= options.attempts => {
                    return Err(self.explained(&key, base.head.version).await.into());
                }
                Ok(Attempt::Conflict) => {
                    freshness = Freshness::Latest;
                    conflict = Some(base.head.position);
                    attempt += 1;
                }
                Ok(Attempt::Done(done)) => {
                    span.record(
                        "outcome",
                        if done.events > 0 { "stored" } else { "nothing to do" },
                    );
                    span.record("version", done.version);
                    span.record("position", done.position.get());
                    span.record("attempts", attempt);
                    return Ok(done);
                }
                Err(error) => {
                    let rejected = matches!(error, TransactError::Rejected(_));
                    span.record("outcome", if rejected { "rejected" } else { "error" });
                    return Err(error);
                }
            }
        }
    }

    async fn attempt<D, R>(
        &self,
        key: &AggregateId,
        base: &Arc<Loaded<A>>,
        options: &TransactOptions,
        attempts: u32,
        decide: &mut impl FnMut(&A) -> Result<D, R>,
    ) -> Result<Attempt<D::Reply>, TransactError<R>>
    where
        D: IntoDecision<A::Event>,
    {
        let (events, reply) = decide(&base.state).map_err(TransactError::Rejected)?.into_decision();
        let count = events.len();
        if events.is_empty() {
            let (version, position) = (base.head.version, base.head.position);
            return Ok(Attempt::Done(Transacted { reply, version, position, events: 0, attempts }));
        }
        let prepared = self.decided(key, Arc::clone(base), &events, &options.save.info())?;
        drop(events);
        let loaded = match self.commit(key, prepared, |_| ()).await {
            Ok(loaded) => loaded,
            Err(StoreError::Conflict { .. }) => return Ok(Attempt::Conflict),
            Err(error) => return Err(error.into()),
        };
        if options.save.create_snapshot {
            self.write_snapshot(key, &loaded).await?;
        }
        let (version, position) = (loaded.head.version, loaded.head.position);
        Ok(Attempt::Done(Transacted { reply, version, position, events: count, attempts }))
    }

    /// Lets the aggregate handle a command, once: a conflict is returned to the caller.
    ///
    /// # Errors
    /// As [`transact`](Self::transact).
    pub async fn execute_command<C>(
        &self,
        id: &A::Id,
        command: &C,
    ) -> Result<Transacted<()>, TransactError<A::Rejection>>
    where
        A: Handle<C>,
    {
        let options = TransactOptions { attempts: 1, ..TransactOptions::default() };
        self.transact_with(id, options, |aggregate| aggregate.handle(command)).await
    }

    /// Lets the aggregate handle a command, again when others commit in between, at most ten times in all.
    ///
    /// # Errors
    /// As [`transact`](Self::transact).
    pub async fn execute_with_retry<C>(
        &self,
        id: &A::Id,
        command: &C,
    ) -> Result<Transacted<()>, TransactError<A::Rejection>>
    where
        A: Handle<C>,
    {
        self.transact(id, |aggregate| aggregate.handle(command)).await
    }
}
