//! Contexts on NATS.

use std::sync::Arc;

use super::{Context, NatsRepositoryConfig, Ports, StoreError};
use crate::backend::nats::Connection;
use crate::event_log::NatsLog;
use crate::state::NatsKeyValue;

impl Ports {
    /// The streams and buckets that a configuration names, which must exist. No round trip.
    pub fn nats(connection: &Connection, config: &NatsRepositoryConfig) -> Self {
        Self::new(
            Arc::new(NatsLog::attach(connection, &config.event_stream())),
            Arc::new(NatsKeyValue::attach(connection, &config.state_bucket())),
            Arc::new(NatsKeyValue::attach(connection, &config.snapshots())),
        )
    }
}

impl Context {
    /// Opens a context whose streams and buckets are known to be there. No round trip.
    pub(crate) fn attach(
        connection: &Connection,
        config: &NatsRepositoryConfig,
    ) -> Result<Self, StoreError> {
        Self::on(Ports::nats(connection, config), config)
    }
}
