//! Contexts on NATS.

use std::sync::Arc;

use super::{Context, NatsRepositoryConfig, Ports, StoreError};
use crate::backend::nats::{Connection, provision, verify};
use crate::backend::{ConnectionConfig, Replicas, Topology, TopologyError};
use crate::event_log::NatsLog;
use crate::state::NatsKeyValue;
use crate::subject::ContextName;
use crate::timeouts::{NatsTimeouts, TimeoutQueue};

impl Ports {
    /// The streams and buckets that a configuration names. They must exist; no round trip looks for them.
    pub fn nats(connection: &Connection, config: &NatsRepositoryConfig) -> Self {
        let names = config.names();
        let ports = Self::new(
            Arc::new(NatsLog::attach(connection, &names.event_stream)),
            Arc::new(NatsKeyValue::attach(connection, &names.state_bucket)),
            Arc::new(NatsKeyValue::attach(connection, &names.snapshot_bucket)),
            Arc::new(NatsKeyValue::attach(connection, &names.read_model_bucket)),
        );
        // A context that is not a name is refused when it is opened.
        let timeouts = ContextName::new(&config.context).ok().map(|context| {
            let queue = NatsTimeouts::attach(connection, &names.timeout_stream, &context);
            Arc::new(queue) as Arc<dyn TimeoutQueue>
        });
        let meta = Arc::new(NatsKeyValue::attach(connection, &names.meta_bucket));
        Self { timeouts, meta, ..ports }
    }
}

impl Context {
    /// The shortest way: connects, makes what is missing, and opens the context with the default layout.
    ///
    /// # Errors
    /// As [`Connection::connect`] and [`provision`](Self::provision).
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use cim_persistence::store::Context;
    /// let bank = Context::connect("nats://127.0.0.1:4222", "bank").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(url: &str, context: &str) -> Result<Self, StoreError> {
        let connection = Connection::connect(&ConnectionConfig::new(url)).await?;
        Self::provision(&connection, &NatsRepositoryConfig::for_context(context)).await
    }

    /// Makes the streams and buckets that are missing, checks those that are there, and opens the context.
    ///
    /// Safe to be called by several processes at once. One round trip for each stream that exists, two for each that
    /// is made, and two on a client of the service's own that nobody has checked yet, for JetStream and durability. A
    /// service without the right to create streams uses [`open`](Self::open).
    ///
    /// # Errors
    /// [`StoreError::Connect`] when the server is too old, has no JetStream, or is not durable where that is required,
    /// and when a client of the service's own is not connected yet;
    /// [`StoreError::Topology`] when a stream cannot be made, or is set so that it can lose events.
    pub async fn provision(
        connection: &Connection,
        config: &NatsRepositoryConfig,
    ) -> Result<Self, StoreError> {
        let topology = config.topology()?;
        connection.check(config.durability).await?;
        provision(connection, &topology).await?;
        Self::on(Ports::nats(connection, config), config)
    }

    /// Opens a context whose streams and buckets an operator has made. Checks them and changes nothing; one round trip
    /// each, and two as in [`provision`](Self::provision).
    ///
    /// # Errors
    /// [`StoreError::Connect`] when the server is too old, has no JetStream, or is not durable where that is required,
    /// and when a client of the service's own is not connected yet;
    /// [`StoreError::Topology`] when a stream or bucket is missing, or is set so that it can lose events.
    pub async fn open(
        connection: &Connection,
        config: &NatsRepositoryConfig,
    ) -> Result<Self, StoreError> {
        let topology = config.topology()?;
        connection.check(config.durability).await?;
        verify(connection, &topology).await?;
        Self::on(Ports::nats(connection, config), config)
    }

    /// Opens a context, and provisions it first if something of it is missing.
    pub(crate) async fn open_or_provision(
        connection: &Connection,
        config: &NatsRepositoryConfig,
    ) -> Result<Self, StoreError> {
        match Self::open(connection, config).await {
            Err(StoreError::Topology(TopologyError::Missing { .. })) => {
                Self::provision(connection, config).await
            }
            result => result,
        }
    }
}

impl NatsRepositoryConfig {
    /// The streams and buckets this configuration stands for, with the settings they must have.
    ///
    /// # Errors
    /// [`StoreError::InvalidToken`] and [`StoreError::Topology`] for names that cannot be names.
    pub fn topology(&self) -> Result<Topology, StoreError> {
        let replicas = Replicas::try_from(self.replicas)?;
        Ok(Topology::new(&self.scheme()?, &self.names(), replicas)?)
    }
}
