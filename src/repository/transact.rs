//! One call from loading to the commit: decide on the newest state, store, try again when others were first.

use std::sync::Arc;
use std::time::Instant;

use super::load::Rules;
use super::loaded::Loaded;
use super::{
    Aggregate, Freshness, Handle, IntoDecision, Repository, RepositoryError, TransactError,
    TransactOptions, observe,
};
use crate::backend::Position;
use crate::store::StoreError;
use crate::subject::AggregateId;

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

/// Whether nothing was to be stored, so that no guard has shown whether the state was the newest.
fn rests_on_reading<R, E>(outcome: &Result<Attempt<R>, TransactError<E>>) -> bool {
    match outcome {
        Ok(Attempt::Done(done)) => done.events == 0,
        Ok(Attempt::Conflict) => false,
        Err(TransactError::Rejected(_)) => true,
        Err(TransactError::Repository(error)) => {
            matches!(error, RepositoryError::Transition { .. } | RepositoryError::NotFound { .. })
        }
    }
}

impl<A: Aggregate + Send + Sync + 'static> Repository<A> {
    /// Loads an aggregate, decides on it and stores the events of the decision; when others commit in between it loads
    /// and decides again, at most ten times in all.
    ///
    /// The decision gets the aggregate's state, that of a new one when it has no events, and returns events, events with
    /// a reply, or a rejection. It is pure and may be called several times. No events mean that nothing is stored. Two
    /// round trips when nobody interferes.
    ///
    /// Events are guarded by the version they were decided on. A rejection, and a decision without events, have no commit
    /// that would show that the state was not the newest: they stand only when the stream's leader, in one round trip more,
    /// says that it was, and else are decided again.
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
        let (begun, mut attempts) = (Instant::now(), 1);
        let result = self.decided_and_stored(id, &options, &mut attempts, &mut decide).await;
        observe::transacted(begun, &result, attempts);
        result
    }

    async fn decided_and_stored<D, R>(
        &self,
        id: &A::Id,
        options: &TransactOptions,
        attempts: &mut u32,
        decide: &mut impl FnMut(&A) -> Result<D, R>,
    ) -> Result<Transacted<D::Reply>, TransactError<R>>
    where
        D: IntoDecision<A::Event>,
    {
        let key = self.key_of(id)?;
        let (mut freshness, mut conflict) = (options.freshness, None);
        loop {
            let base = match conflict.take() {
                None => self.current(id, &key, Rules::of(freshness)).await?,
                Some(before) => self.overtaken(id, &key, before).await?,
            };
            let outcome = self.attempt(&key, &base, options, *attempts, decide).await;
            if rests_on_reading(&outcome)
                && freshness != Freshness::Latest
                && self.newest_position(&key).await? != base.head.position
            {
                freshness = Freshness::Latest;
                continue;
            }
            match outcome? {
                Attempt::Done(done) => return Ok(done),
                Attempt::Conflict if *attempts >= options.attempts => {
                    return Err(self.explained(&key, base.head.version).await.into());
                }
                Attempt::Conflict => {
                    freshness = Freshness::Latest;
                    conflict = Some(base.head.position);
                    *attempts += 1;
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
        if base.deleted {
            return Err(self.not_found(key, base).into());
        }
        let (events, reply) = decide(&base.state).map_err(TransactError::Rejected)?.into_decision();
        let count = events.len();
        if events.is_empty() {
            let (version, position) = (base.head.version, base.head.position);
            return Ok(Attempt::Done(Transacted { reply, version, position, events: 0, attempts }));
        }
        let prepared = self.decided(key, Arc::clone(base), &events, &options.save.info()?)?;
        drop(events);
        let loaded = match self.commit(key, prepared, |_| ()).await {
            Ok(loaded) => loaded,
            Err(StoreError::Conflict { .. }) => return Ok(Attempt::Conflict),
            Err(error) => return Err(error.into()),
        };
        if options.save.create_snapshot {
            self.snapshot_asked_for(key, &loaded).await;
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
