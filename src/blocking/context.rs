//! A context, and the events in it.

use super::{Projections, ReadModelStore, Repository, RunningProjection, Runtime};
use crate::backend::nats::Connection;
use crate::backend::{ConnectError, ConnectionConfig, Position, ReadFrom};
use crate::event::NonEmpty;
use crate::event_log::LogStatus;
use crate::projection::{Projection, ProjectionError, ProjectionOptions};
use crate::repository::{Aggregate, RepositoryError};
use crate::store::{
    self, Appended, CommitInfo, EventFilter, ExpectedVersion, Head, NatsRepositoryConfig, NewEvent,
    Ports, StoreError, StoredEvent,
};
use crate::subject::{AggregateId, AggregateType};

/// One bounded context; see [`store::Context`]. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Context {
    inner: store::Context,
    runtime: Runtime,
}

impl Context {
    /// As [`store::Context::connect`].
    ///
    /// # Errors
    /// As there.
    pub fn connect(runtime: &Runtime, url: &str, context: &str) -> Result<Self, StoreError> {
        let inner = runtime.wait(store::Context::connect(url, context))?;
        Ok(Self { inner, runtime: runtime.clone() })
    }

    /// As [`Connection::connect`]: a connection that contexts are opened on.
    ///
    /// # Errors
    /// As there.
    pub fn connection(
        runtime: &Runtime,
        config: &ConnectionConfig,
    ) -> Result<Connection, ConnectError> {
        runtime.wait(Connection::connect(config))
    }

    /// As [`store::Context::provision`], on a connection of the same runtime.
    ///
    /// # Errors
    /// As there.
    pub fn provision(
        runtime: &Runtime,
        connection: &Connection,
        config: &NatsRepositoryConfig,
    ) -> Result<Self, StoreError> {
        let inner = runtime.wait(store::Context::provision(connection, config))?;
        Ok(Self { inner, runtime: runtime.clone() })
    }

    /// As [`store::Context::open`], on a connection of the same runtime.
    ///
    /// # Errors
    /// As there.
    pub fn open(
        runtime: &Runtime,
        connection: &Connection,
        config: &NatsRepositoryConfig,
    ) -> Result<Self, StoreError> {
        let inner = runtime.wait(store::Context::open(connection, config))?;
        Ok(Self { inner, runtime: runtime.clone() })
    }

    /// As [`store::Context::on`].
    ///
    /// # Errors
    /// As there.
    pub fn on(
        runtime: &Runtime,
        ports: Ports,
        config: &NatsRepositoryConfig,
    ) -> Result<Self, StoreError> {
        let inner = runtime.wait(async { store::Context::on(ports, config) })?;
        Ok(Self { inner, runtime: runtime.clone() })
    }

    /// The async side of it, for [`Runtime::wait`] and for async code: its tasks run on the runtime of this facade,
    /// as long as a handle of that is kept.
    pub fn as_async(&self) -> &store::Context {
        &self.inner
    }

    /// The runtime.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The aggregates of one type; as [`Repository::of`](crate::repository::Repository::of).
    ///
    /// # Errors
    /// As there.
    pub fn repository<A: Aggregate + Send + Sync + 'static>(
        &self,
    ) -> Result<Repository<A>, RepositoryError> {
        let inner = crate::repository::Repository::of(&self.inner)?;
        Ok(Repository::new(inner, self.runtime.clone()))
    }

    /// The read models.
    pub fn read_models(&self) -> ReadModelStore {
        let inner = crate::read_model::ReadModelStore::new(&self.inner);
        ReadModelStore::new(inner, self.runtime.clone())
    }

    /// Starts a projection; as [`RunningProjection::start`](crate::projection::RunningProjection::start).
    ///
    /// # Errors
    /// As there.
    pub fn start_projection<P: Projection>(
        &self,
        projection: P,
        options: ProjectionOptions,
    ) -> Result<RunningProjection, ProjectionError> {
        let start =
            async { crate::projection::RunningProjection::start(&self.inner, projection, options) };
        Ok(RunningProjection::new(self.runtime.wait(start)?, self.runtime.clone()))
    }

    /// The projections of the context, as they are seen from the outside.
    pub fn projections(&self) -> Projections {
        let inner = crate::projection::Projections::of(&self.inner);
        Projections::new(inner, self.runtime.clone())
    }

    /// As [`store::Context::flush`].
    pub fn flush(&self) {
        self.runtime.wait(self.inner.flush());
    }

    /// As [`store::Context::status`].
    ///
    /// # Errors
    /// As there.
    pub fn status(&self) -> Result<LogStatus, StoreError> {
        self.runtime.wait(self.inner.status())
    }

    /// As [`store::Context::head`].
    ///
    /// # Errors
    /// As there.
    pub fn head(
        &self,
        aggregate: &AggregateType,
        id: &AggregateId,
        from: ReadFrom,
    ) -> Result<Head, StoreError> {
        self.runtime.wait(self.inner.head(aggregate, id, from))
    }

    /// As [`store::Context::append`].
    ///
    /// # Errors
    /// As there.
    pub fn append(
        &self,
        aggregate: &AggregateType,
        id: &AggregateId,
        expected: ExpectedVersion,
        events: &NonEmpty<NewEvent>,
        info: &CommitInfo,
    ) -> Result<Appended, StoreError> {
        self.runtime.wait(self.inner.append(aggregate, id, expected, events, info))
    }

    /// As [`store::Context::append_batch`].
    ///
    /// # Errors
    /// As there.
    pub fn append_batch(
        &self,
        parts: &NonEmpty<(AggregateType, AggregateId, ExpectedVersion, NonEmpty<NewEvent>)>,
        info: &CommitInfo,
    ) -> Result<Vec<Appended>, StoreError> {
        self.runtime.wait(self.inner.append_batch(parts, info))
    }

    /// As [`store::Context::get_events`].
    ///
    /// # Errors
    /// As there.
    pub fn get_events(
        &self,
        aggregate: &AggregateType,
        id: &AggregateId,
        after_version: u64,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.runtime.wait(self.inner.get_events(aggregate, id, after_version))
    }

    /// As [`store::Context::get_events_after`].
    ///
    /// # Errors
    /// As there.
    pub fn get_events_after(
        &self,
        position: Position,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.runtime.wait(self.inner.get_events_after(position, limit))
    }

    /// As [`store::Context::load_events`].
    ///
    /// # Errors
    /// As there.
    pub fn load_events(&self, filters: &[EventFilter]) -> Result<Vec<StoredEvent>, StoreError> {
        self.runtime.wait(self.inner.load_events(filters))
    }

    /// As [`store::Context::stream_after`]: every event of the context after a position, in constant memory.
    pub fn events_after(
        &self,
        position: Position,
    ) -> impl Iterator<Item = Result<StoredEvent, StoreError>> + Send + use<> {
        self.runtime.iterate(self.inner.stream_after(position))
    }
}
