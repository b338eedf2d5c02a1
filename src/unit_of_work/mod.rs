//! The unit of work: changes to several aggregates, claims on unique values and messages, committed together or not at
//! all.
//!
//! A unit gathers in memory; nothing is sent before [`UnitOfWork::commit`]. What one atomic batch looks like is in
//! `commit`, how the whole is tried again after a conflict in `run`, what runs around a commit in `hooks`, and who
//! owns which unique value in `unique`.

mod error;
mod hooks;
mod unique;
mod commit;
mod run;

use std::any::Any;

pub use commit::Committed;
pub use error::{DecisionError, HookError, HookFailure, UnitError};
pub use hooks::Summary;
pub use run::UnitOptions;
pub use unique::{Owner, UniqueValues};

use crate::backend::NewMessage;
use crate::outbox::OutboxMessage;
use crate::repository::{
    Aggregate, Freshness, Handle, IntoDecision, Part, Repository, RepositoryError, Tracked,
};
use crate::store::{CommitInfo, Context};
use crate::subject::Identity;
use hooks::Hooks;
use unique::Claims;

/// Changes that are committed together, in one atomic batch.
///
/// Each aggregate that was loaded is either changed, and then its events are stored only if nobody else changed it, or it
/// was only read, and then the whole is stored only if it is still what was read. All aggregates are of one context, that of
/// the unit.
///
/// Dropping a unit gives up what it gathered; nothing was sent. Once [`commit`](Self::commit) was called it goes on to its
/// end, also when its future is dropped.
///
/// ```
/// # use cim_persistence::prelude::*;
/// # use cim_persistence::{Context, Repository};
/// # use cim_persistence::unit_of_work::{UnitError, UnitOfWork};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Clone, Serialize, Deserialize)]
/// # struct Account { number: String, balance: i64 }
/// # #[derive(Serialize, Deserialize)]
/// # struct Booked(i64);
/// # impl DomainEvent for Booked { fn event_type(&self) -> &'static str { "booked" } }
/// # impl Aggregate for Account {
/// #     const TYPE: &'static str = "account";
/// #     type Id = String;
/// #     type Event = Booked;
/// #     fn new(number: &String) -> Self { Account { number: number.clone(), balance: 0 } }
/// #     fn id(&self) -> &String { &self.number }
/// #     fn apply(&mut self, booked: &Booked) { self.balance += booked.0 }
/// # }
/// # async fn example(context: &Context, accounts: &Repository<Account>, from: &String, to: &String) -> Result<(), UnitError> {
/// let mut unit = UnitOfWork::begin(context);
/// if unit.load(accounts, from).await?.balance >= 10 {
///     unit.record(accounts, from, vec![Booked(-10)]).await?;
///     unit.record(accounts, to, vec![Booked(10)]).await?;
/// }
/// let committed = unit.commit().await?;
/// println!("stored at {}", committed.position);
/// # Ok(())
/// # }
/// ```
pub struct UnitOfWork {
    context: Context,
    info: CommitInfo,
    freshness: Freshness,
    parts: Vec<Box<dyn Part>>,
    claims: Claims,
    outbox: Vec<OutboxMessage>,
    notes: Vec<NewMessage>,
    hooks: Hooks,
}

impl std::fmt::Debug for UnitOfWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let summary = self.summary();
        f.debug_struct("UnitOfWork")
            .field("context", self.context.scheme().context())
            .field("aggregates", &summary.aggregates)
            .field("messages", &summary.messages)
            .finish_non_exhaustive()
    }
}

impl UnitOfWork {
    /// Begins a unit in a context. No round trip.
    pub fn begin(context: &Context) -> Self {
        Self {
            context: context.clone(),
            info: CommitInfo::default(),
            freshness: Freshness::Current,
            parts: Vec::new(),
            claims: Claims::default(),
            outbox: Vec::new(),
            notes: Vec::new(),
            hooks: Hooks::new(),
        }
    }

    /// What all events and messages of the unit say of it: metadata, correlation, causation.
    pub fn describe(&mut self, info: CommitInfo) {
        self.info = info;
    }

    /// The context.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// An aggregate as this unit sees it: as it is stored, a new one when it has no events, with what was recorded here.
    ///
    /// The commit fails if somebody else changes it first, also when this unit only read it. One round trip, none when the
    /// unit has it already. When it is dropped the unit is as before.
    ///
    /// # Errors
    /// [`UnitError::Repository`], [`RepositoryError::NotFound`] for a deleted aggregate
    /// in it; [`UnitError::AnotherContext`], [`UnitError::AnotherType`].
    pub async fn load<A>(&mut self, repository: &Repository<A>, id: &A::Id) -> Result<&A, UnitError>
    where
        A: Aggregate + Send + Sync + 'static,
        A::Event: Send,
    {
        Ok(self.tracked(repository, id).await?.state())
    }

    /// The version an aggregate was loaded with: 0 when it has no events. Loads it, if the unit does not have it.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn version<A>(
        &mut self,
        repository: &Repository<A>,
        id: &A::Id,
    ) -> Result<u64, UnitError>
    where
        A: Aggregate + Send + Sync + 'static,
        A::Event: Send,
    {
        Ok(self.tracked(repository, id).await?.loaded_version())
    }

    /// Records events of an aggregate, and gives its state with them. Loads it, if the unit does not have it.
    ///
    /// # Errors
    /// As [`load`](Self::load); [`UnitError::Repository`] for an event whose type is not a name.
    pub async fn record<A>(
        &mut self,
        repository: &Repository<A>,
        id: &A::Id,
        events: Vec<A::Event>,
    ) -> Result<&A, UnitError>
    where
        A: Aggregate + Send + Sync + 'static,
        A::Event: Send,
    {
        let tracked = self.tracked(repository, id).await?;
        tracked.record(events)?;
        Ok(tracked.state())
    }

    /// Decides on an aggregate's state and records the events of the decision. Loads it, if the unit does not have it.
    ///
    /// # Errors
    /// [`DecisionError::Rejected`] with the decision's no, which leaves the unit as it was; else as
    /// [`record`](Self::record).
    pub async fn decide<A, D, R>(
        &mut self,
        repository: &Repository<A>,
        id: &A::Id,
        decide: impl FnOnce(&A) -> Result<D, R>,
    ) -> Result<D::Reply, DecisionError<R>>
    where
        A: Aggregate + Send + Sync + 'static,
        A::Event: Send,
        D: IntoDecision<A::Event>,
    {
        let tracked = self.tracked(repository, id).await?;
        let (events, reply) =
            decide(tracked.state()).map_err(DecisionError::Rejected)?.into_decision();
        tracked.record(events).map_err(UnitError::from)?;
        Ok(reply)
    }

    /// Lets an aggregate handle a command. Loads it, if the unit does not have it.
    ///
    /// # Errors
    /// As [`decide`](Self::decide).
    pub async fn handle<A, C>(
        &mut self,
        repository: &Repository<A>,
        id: &A::Id,
        command: &C,
    ) -> Result<(), DecisionError<A::Rejection>>
    where
        A: Handle<C> + Send + Sync + 'static,
        A::Event: Send,
    {
        self.decide(repository, id, |aggregate| aggregate.handle(command)).await
    }

    /// Records that an aggregate is deleted, as [`Repository::delete`] does. Loads it, if the unit does not have it.
    ///
    /// # Errors
    /// As [`load`](Self::load); [`RepositoryError::NotFound`] when there is nothing to
    /// delete.
    pub async fn delete<A>(
        &mut self,
        repository: &Repository<A>,
        id: &A::Id,
    ) -> Result<(), UnitError>
    where
        A: Aggregate + Send + Sync + 'static,
        A::Event: Send,
    {
        Ok(self.tracked(repository, id).await?.delete()?)
    }

    async fn tracked<A>(
        &mut self,
        repository: &Repository<A>,
        id: &A::Id,
    ) -> Result<&mut Tracked<A>, UnitError>
    where
        A: Aggregate + Send + Sync + 'static,
        A::Event: Send,
    {
        if !self.context.is(repository.context()) {
            return Err(UnitError::AnotherContext {
                unit: self.context.scheme().context().to_string(),
                other: repository.context().scheme().context().to_string(),
            });
        }
        let key = id.to_aggregate_id().map_err(RepositoryError::from)?;
        let subject = self.context.scheme().events_of(repository.aggregate_type(), &key);
        let known = self.parts.iter().position(|part| *part.subject() == subject);
        let index = match known {
            Some(index) => index,
            None => {
                self.parts.push(Box::new(repository.track(id, self.freshness).await?));
                self.parts.len() - 1
            }
        };
        let part: &mut dyn Any = &mut *self.parts[index];
        part.downcast_mut().ok_or_else(|| UnitError::AnotherType {
            aggregate_type: repository.aggregate_type().to_string(),
            id: key.to_string(),
        })
    }

    /// Sends a message to others if the unit is committed: it is stored in the same commit and published by a
    /// relay later, at least once. It carries the unit's correlation and causation.
    ///
    /// A message that is refused fails the commit with [`UnitError::Outbox`].
    pub fn send(&mut self, message: OutboxMessage) {
        self.outbox.push(message);
    }

    /// Adds a message of another kind to the commit, such as the mark of a worker; at most one guarded on each subject.
    pub(crate) fn note(&mut self, message: NewMessage) {
        self.notes.push(message);
    }

    /// Loads through the leader from now on, as is needed after a conflict.
    pub(crate) fn read_latest(&mut self) {
        self.freshness = Freshness::Latest;
    }

    /// Gives up what was gathered and runs the hooks for that. Nothing was sent.
    ///
    /// Returns the hooks that did not do their work.
    pub async fn rollback(mut self) -> Vec<HookFailure> {
        self.roll_back().await
    }

    async fn roll_back(&mut self) -> Vec<HookFailure> {
        let summary = self.summary();
        let mut failures = self.hooks.before_rollback(&summary).await;
        self.parts.clear();
        self.outbox.clear();
        self.notes.clear();
        self.claims = Claims::default();
        failures.extend(self.hooks.after_rollback(&summary).await);
        failures
    }

    fn summary(&self) -> Summary {
        let changed = |part: &dyn Part| {
            let ((aggregate, id), events) = (part.name(), part.recorded());
            (events > 0).then(|| (aggregate.clone(), id.clone(), events))
        };
        Summary {
            aggregates: self.parts.iter().filter_map(|part| changed(part.as_ref())).collect(),
            messages: self.outbox.len(),
        }
    }
}
