//! Repositories straight from a NATS client.

use super::{Aggregate, Repository, RepositoryError};
use crate::backend::nats::Connection;
use crate::store::{Context, NatsRepositoryConfig};

impl<A: Aggregate + Send + Sync + 'static> Repository<A> {
    /// The aggregates of one type, on a client that the service has already connected.
    ///
    /// Opens the context that `config` describes and makes what is missing of it. The client is checked as
    /// [`Connection::connect`] does: the server's version, JetStream, and whether the servers are durable, which is
    /// reported, or required, as the configuration says. Where several repositories share a context, open it once with
    /// [`Context::open`] and take each from it with [`of`](Self::of): they then share one committer as well.
    ///
    /// # Errors
    /// [`RepositoryError::Store`] when `aggregate_type` is not a name, the client is not connected yet, the server is
    /// too old, has no JetStream or is not as durable as required, or the context cannot be opened.
    ///
    /// ```no_run
    /// # use cim_persistence::prelude::*;
    /// # use cim_persistence::repository::NatsRepository;
    /// # use cim_persistence::store::NatsRepositoryConfig;
    /// # async fn example<MyAggregate: Aggregate + Send + Sync + 'static>() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = async_nats::connect("nats://127.0.0.1:4222").await?;
    /// let config = NatsRepositoryConfig::default();
    /// let repository =
    ///     NatsRepository::<MyAggregate>::new(client, config, "MyAggregate".to_string()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn new(
        client: async_nats::Client,
        config: NatsRepositoryConfig,
        aggregate_type: String,
    ) -> Result<Self, RepositoryError> {
        let connection = Connection::from_client(client);
        let context = Context::open_or_provision(&connection, &config).await?;
        Self::named(&context, &aggregate_type)
    }
}
