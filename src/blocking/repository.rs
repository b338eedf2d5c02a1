//! Aggregates.

use cid::Cid;

use super::Runtime;
use crate::repository::{
    self, Aggregate, AggregateMetadata, Handle, IntoDecision, LoadOptions, RepositoryError,
    SaveOptions, SnapshotPolicy, TransactError, TransactOptions, Transacted,
};
use crate::store::{Head, StoredEvent};

/// The aggregates of one type; see [`repository::Repository`]. Cloning is cheap and shares the cache.
pub struct Repository<A> {
    inner: repository::Repository<A>,
    runtime: Runtime,
}

impl<A> Clone for Repository<A> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), runtime: self.runtime.clone() }
    }
}

impl<A> std::fmt::Debug for Repository<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl<A: Aggregate + Send + Sync + 'static> Repository<A> {
    pub(super) fn new(inner: repository::Repository<A>, runtime: Runtime) -> Self {
        Self { inner, runtime }
    }

    /// The async side of it.
    pub fn as_async(&self) -> &repository::Repository<A> {
        &self.inner
    }

    /// As [`repository::Repository::with_snapshots`].
    pub fn with_snapshots(self, policy: SnapshotPolicy) -> Self {
        Self { inner: self.inner.with_snapshots(policy), ..self }
    }

    /// As [`repository::Repository::save`].
    ///
    /// # Errors
    /// As there.
    pub fn save(
        &self,
        aggregate: &A,
        events: Vec<A::Event>,
        options: impl Into<SaveOptions>,
    ) -> Result<AggregateMetadata, RepositoryError> {
        self.runtime.wait(self.inner.save(aggregate, events, options))
    }

    /// As [`repository::Repository::load`].
    ///
    /// # Errors
    /// As there.
    pub fn load(
        &self,
        id: &A::Id,
        options: LoadOptions,
    ) -> Result<(A, AggregateMetadata), RepositoryError> {
        self.runtime.wait(self.inner.load(id, options))
    }

    /// As [`repository::Repository::get_at_version`].
    ///
    /// # Errors
    /// As there.
    pub fn get_at_version(
        &self,
        id: &A::Id,
        version: u64,
    ) -> Result<(A, AggregateMetadata), RepositoryError> {
        self.runtime.wait(self.inner.get_at_version(id, version))
    }

    /// As [`repository::Repository::transact`]. The decision runs on the calling thread.
    ///
    /// # Errors
    /// As there.
    pub fn transact<D, R>(
        &self,
        id: &A::Id,
        decide: impl FnMut(&A) -> Result<D, R>,
    ) -> Result<Transacted<D::Reply>, TransactError<R>>
    where
        D: IntoDecision<A::Event>,
    {
        self.runtime.wait(self.inner.transact(id, decide))
    }

    /// As [`repository::Repository::transact_with`].
    ///
    /// # Errors
    /// As there.
    pub fn transact_with<D, R>(
        &self,
        id: &A::Id,
        options: TransactOptions,
        decide: impl FnMut(&A) -> Result<D, R>,
    ) -> Result<Transacted<D::Reply>, TransactError<R>>
    where
        D: IntoDecision<A::Event>,
    {
        self.runtime.wait(self.inner.transact_with(id, options, decide))
    }

    /// As [`repository::Repository::execute_command`].
    ///
    /// # Errors
    /// As there.
    pub fn execute_command<C>(
        &self,
        id: &A::Id,
        command: &C,
    ) -> Result<Transacted<()>, TransactError<A::Rejection>>
    where
        A: Handle<C>,
    {
        self.runtime.wait(self.inner.execute_command(id, command))
    }

    /// As [`repository::Repository::execute_with_retry`].
    ///
    /// # Errors
    /// As there.
    pub fn execute_with_retry<C>(
        &self,
        id: &A::Id,
        command: &C,
    ) -> Result<Transacted<()>, TransactError<A::Rejection>>
    where
        A: Handle<C>,
    {
        self.runtime.wait(self.inner.execute_with_retry(id, command))
    }

    /// As [`repository::Repository::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete(
        &self,
        id: &A::Id,
        options: impl Into<SaveOptions>,
    ) -> Result<AggregateMetadata, RepositoryError> {
        self.runtime.wait(self.inner.delete(id, options))
    }

    /// As [`repository::Repository::exists`].
    ///
    /// # Errors
    /// As there.
    pub fn exists(&self, id: &A::Id) -> Result<bool, RepositoryError> {
        self.runtime.wait(self.inner.exists(id))
    }

    /// As [`repository::Repository::get_history`].
    ///
    /// # Errors
    /// As there.
    pub fn get_history(
        &self,
        id: &A::Id,
        from: Option<u64>,
        to: Option<u64>,
    ) -> Result<Vec<StoredEvent>, RepositoryError> {
        self.runtime.wait(self.inner.get_history(id, from, to))
    }

    /// As [`repository::Repository::verify`].
    ///
    /// # Errors
    /// As there.
    pub fn verify(&self, id: &A::Id) -> Result<Head, RepositoryError> {
        self.runtime.wait(self.inner.verify(id))
    }

    /// As [`repository::Repository::create_snapshot`].
    ///
    /// # Errors
    /// As there.
    pub fn create_snapshot(&self, id: &A::Id) -> Result<Cid, RepositoryError> {
        self.runtime.wait(self.inner.create_snapshot(id))
    }
}
