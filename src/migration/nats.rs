//! Settings of the streams and buckets of a context on a server.

use super::MigrationError;
use crate::backend::nats::{Connection, change_settings, settings_of};
use crate::backend::{StreamSettings, StreamSpec, TopologyError};
use crate::store::{NatsRepositoryConfig, StoreError};

/// One of the streams of a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManagedStream {
    /// The events.
    Events,
    /// The bucket of current state.
    State,
    /// The bucket of snapshots.
    Snapshots,
    /// The bucket of read models.
    ReadModels,
    /// The bucket of the ledger.
    Meta,
}

/// The streams and buckets of a context, for migrations that change their settings. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct ManagedStreams {
    connection: Connection,
    streams: Vec<StreamSpec>,
}

impl ManagedStreams {
    /// Those that a configuration names. No I/O. Changing them needs the right to publish to `STREAM.INFO` and
    /// `STREAM.UPDATE` of the API.
    ///
    /// # Errors
    /// [`StoreError::InvalidToken`] and [`StoreError::Topology`] for names that cannot be names.
    pub fn of(connection: &Connection, config: &NatsRepositoryConfig) -> Result<Self, StoreError> {
        let streams = config.topology()?.streams().to_vec();
        Ok(Self { connection: connection.clone(), streams })
    }

    pub(super) async fn settings(
        &self,
        stream: ManagedStream,
    ) -> Result<StreamSettings, MigrationError> {
        Ok(settings_of(&self.connection, self.spec(stream)).await?)
    }

    /// Changes what differs, unless the stream could lose something with it.
    pub(super) async fn change(
        &self,
        stream: ManagedStream,
        before: &StreamSettings,
        after: &StreamSettings,
    ) -> Result<(), MigrationError> {
        Ok(change_settings(&self.connection, self.spec(stream), before, after).await?)
    }

    /// Refuses settings with which a stream could lose something.
    pub(super) fn check(
        &self,
        stream: ManagedStream,
        settings: &StreamSettings,
    ) -> Result<(), MigrationError> {
        let spec = self.spec(stream);
        let stream = spec.name().to_owned();
        let mismatch = |settings| TopologyError::Mismatch { stream, settings };
        Ok(spec.check(settings).map_err(mismatch)?)
    }

    fn spec(&self, stream: ManagedStream) -> &StreamSpec {
        // The order of a topology.
        &self.streams[match stream {
            ManagedStream::Events => 0,
            ManagedStream::State => 1,
            ManagedStream::Snapshots => 2,
            ManagedStream::ReadModels => 3,
            ManagedStream::Meta => 4,
        }]
    }
}
