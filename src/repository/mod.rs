//! Aggregates: loading, deciding, saving.
//!
//! The domain's side is [`Aggregate`] and [`Handle`], pure and synchronous. The service's side is [`Repository`],
//! which keeps an aggregate's state as derived data and its events as the only authority.

mod aggregate;
mod error;
mod options;
mod loaded;
mod record;
mod observe;
mod kept;
mod load;
mod past;
mod history;
mod save;
mod part;
mod snapshot;
mod transact;
mod scan;
mod search;
mod as_of;
mod nats;

use std::sync::Arc;

use quick_cache::sync::Cache;

pub use aggregate::{Aggregate, Handle, IntoDecision};
pub use error::{RepositoryError, TransactError};
pub use options::{
    AggregateMetadata, Freshness, LoadOptions, SaveOptions, SnapshotPolicy, TransactOptions,
};
pub use search::{QueryFreshness, QueryOptions};
pub use transact::Transacted;

use crate::store::Context;
use crate::subject::{AggregateId, AggregateType};
use loaded::Cached;
pub(crate) use part::{Part, Tracked};

/// A [`Repository`] under the name that says what it stands on; the same type. Made of a client by [`Repository::new`].
pub type NatsRepository<A> = Repository<A>;

/// The aggregates of one type in one context, on a server or in memory. Cloning is cheap and shares the cache.
///
/// Everything it returns follows from the aggregate's events. State, snapshots and the cache only save reading them
/// again: each is compared with the newest event before it is believed, unless the caller accepts it unseen
/// ([`Freshness`]), and then the expectation at the commit decides.
///
/// Its methods may be dropped half-way: a commit is then stored whole or not at all, and the cache stays right.
pub struct Repository<A> {
    context: Context,
    aggregate: AggregateType,
    cache: Option<Arc<Cache<AggregateId, Cached<A>>>>,
    snapshots: SnapshotPolicy,
}

impl<A> Clone for Repository<A> {
    fn clone(&self) -> Self {
        Self {
            context: self.context.clone(),
            aggregate: self.aggregate.clone(),
            cache: self.cache.clone(),
            snapshots: self.snapshots,
        }
    }
}

impl<A> std::fmt::Debug for Repository<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository")
            .field("context", self.context.scheme().context())
            .field("aggregate", &self.aggregate)
            .field("cached", &self.cache.as_ref().map_or(0, |cache| cache.len()))
            .field("snapshots", &self.snapshots)
            .finish()
    }
}

impl<A: Aggregate + Send + Sync + 'static> Repository<A> {
    /// The aggregates of type `A` in a context. No round trip.
    ///
    /// # Errors
    /// [`RepositoryError::Store`] when [`Aggregate::TYPE`] is not a name.
    pub fn of(context: &Context) -> Result<Self, RepositoryError> {
        Self::named(context, A::TYPE)
    }

    /// As [`of`](Self::of), under another name than the type's own.
    ///
    /// # Errors
    /// [`RepositoryError::Store`] when it is not a name.
    pub fn named(context: &Context, aggregate_type: &str) -> Result<Self, RepositoryError> {
        let size = context.cache_size();
        Ok(Self {
            aggregate: AggregateType::new(aggregate_type)
                .map_err(crate::store::StoreError::InvalidToken)?,
            cache: (size > 0).then(|| Arc::new(Cache::new(size))),
            snapshots: SnapshotPolicy::Never,
            context: context.clone(),
        })
    }

    /// Takes snapshots as the policy says. Default: never, since current state is kept anyway.
    pub fn with_snapshots(mut self, policy: SnapshotPolicy) -> Self {
        self.snapshots = policy;
        self
    }

    /// The context.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The name of the aggregate type.
    pub fn aggregate_type(&self) -> &AggregateType {
        &self.aggregate
    }
}
