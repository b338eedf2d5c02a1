//! Reshaping the event stream of a context on a server, and switching its services to the new one.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;

use super::{Copied, EventCopy, PATIENCE, Transform};
use crate::backend::nats::{Connection, change_settings, create_stream, find_settings};
use crate::backend::{BackendError, Position, ReadFrom, Replicas, StreamSettings, StreamSpec};
use crate::clock::Timestamp;
use crate::event::NonEmpty;
use crate::event_log::{EventLog, NatsLog};
use crate::migration::MigrationError;
use crate::migration::held::patiently;
use crate::migration::models::unreadable;
use crate::migration::records::{FORMAT, stream_key};
use crate::state::{Change, Expected, KeyValue, KeyWrite, NatsKeyValue};
use crate::store::{Context, NatsRepositoryConfig, Ports, StoreError};

/// Which stream holds the events of a context, where it is not the one that is configured.
#[derive(Debug, Serialize, Deserialize)]
struct StreamPointer {
    format: u32,
    stream: String,
    /// The streams before it, the oldest first.
    before: Vec<String>,
    switched_at: Timestamp,
}

/// A switch that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Switched {
    /// What the new stream held, as it was verified; `None` where an earlier call had come to the end.
    pub copied: Option<Copied>,
    /// The position before the first one of the new stream.
    pub before: Position,
}

/// The configuration with the event stream that the context has now. Two round trips at most.
///
/// A service asks this before it opens the context. One that does not, and was told the name of a stream that was
/// switched away from, is refused when it opens: that stream takes no events any more.
///
/// # Errors
/// [`MigrationError::Unreadable`]; [`MigrationError::Backend`].
///
/// ```no_run
/// # use cim_persistence::{Connection, Context, NatsRepositoryConfig};
/// use cim_persistence::migration::reshape::current_stream;
/// # async fn example(connection: Connection) -> Result<(), Box<dyn std::error::Error>> {
/// let config = current_stream(&connection, &NatsRepositoryConfig::for_context("bank")).await?;
/// let bank = Context::open(&connection, &config).await?;
/// # Ok(())
/// # }
/// ```
pub async fn current_stream(
    connection: &Connection,
    config: &NatsRepositoryConfig,
) -> Result<NatsRepositoryConfig, MigrationError> {
    let meta = NatsKeyValue::attach(connection, &config.names().meta_bucket);
    let mut config = config.clone();
    if let (_, Some(pointer)) = pointer(&meta).await? {
        config.event_stream_name = pointer.stream;
    }
    Ok(config)
}

async fn pointer(meta: &NatsKeyValue) -> Result<(u64, Option<StreamPointer>), MigrationError> {
    let key = stream_key();
    let slot = match patiently(PATIENCE, || meta.get(&key, ReadFrom::Leader)).await {
        // A context that nobody has provisioned.
        Err(BackendError::NotFound { .. }) => return Ok((0, None)),
        slot => slot?,
    };
    let decode = |value: bytes::Bytes| serde_json::from_slice(&value);
    let pointer = slot.value.map(decode).transpose().map_err(|error| unreadable(&key, &error))?;
    Ok((slot.revision, pointer))
}

/// What is copied into a stream: the one that the context has. Where that is the new one already, a switch told so and may have
/// been interrupted before its end, so it is the one before.
async fn old_stream(
    meta: &NatsKeyValue,
    configured: String,
    new: &str,
) -> Result<String, MigrationError> {
    let old = match pointer(meta).await?.1 {
        Some(mut told) if told.stream == new => told.before.pop(),
        Some(told) => Some(told.stream),
        None => Some(configured),
    };
    old.filter(|old| old != new).ok_or_else(|| MigrationError::Copy {
        reason: format!("stream {new} is the one to copy; give the new one another name"),
    })
}

/// The event stream of a context, on its way into another one.
///
/// 1. [`begin`](Self::begin) makes the new stream. Nothing is published to it but the copy.
/// 2. [`copy`](EventCopy::copy), by [`copier`](Self::copier), while services go on; as often as one likes.
/// 3. [`switch`](Self::switch) stops writers, copies the rest, verifies all of it, and lets writers go on, to the new stream.
///
/// Positions of the new stream are greater than all of the old one, so no guard that was taken from the old stream holds in the
/// new one: a service that was not started anew meets conflicts and stores nothing, except aggregates that it begins. Services
/// are started anew with [`current_stream`]. Kept state and snapshots are then derived anew, and projections, which know a log by
/// its time of creation, stop until they are told to rebuild.
///
/// Process managers, handlers of effects and relays go on in the new stream behind the last message that they were done with: the
/// switch moves their records (`=process.`, `=effects.`, `=outbox.` among the read models), and what relays hold. Stop them before,
/// and start them after it. Where they say that the log was replaced, a switch was interrupted: call it again, before the next
/// reshape. What their parked records say of positions is of the old stream. Never delete their records after a switch: they would
/// do everything again, and the marks of a process's instances name positions of the old stream.
///
/// The new stream does not know the ids of messages that were saved shortly before the switch. Whoever saves outbox messages again,
/// because the outcome is unknown, looks whether they are there after a switch.
pub struct StreamReshape {
    connection: Connection,
    old: StreamSpec,
    new: StreamSpec,
    copier: EventCopy,
    meta: NatsKeyValue,
    before: Position,
}

/// Positions of a new stream begin at the next multiple of this.
const ROUND: u64 = 1_000_000_000_000;

/// How long a new stream remembers message ids as long as it is copied to, the least that a server takes: what was stored under
/// one id hours apart comes within a moment.
const WINDOW: Duration = Duration::from_millis(100);

/// How long is waited for what was published before writers were stopped.
const SETTLE: Duration = Duration::from_millis(250);

impl StreamReshape {
    /// Makes the new stream, or finds the one that was begun. The old one is the stream that the context has now, as
    /// [`current_stream`] tells it, and without a switch the one that `config` names; where a switch to `name` was interrupted or is
    /// done, the one before. A few round trips.
    ///
    /// The user needs the right to create and to update streams, to publish to `cim.reshape.<name>.>`, and to read the new stream
    /// as services read the old one; the README lists it all.
    ///
    /// # Errors
    /// [`MigrationError::Stream`] when a stream is missing, cannot be made, or `name` is no name; [`MigrationError::Copy`]
    /// when `name` is the stream that the context has, or another that is none of this; [`MigrationError::Backend`].
    pub async fn begin(
        connection: &Connection,
        config: &NatsRepositoryConfig,
        name: &str,
    ) -> Result<Self, MigrationError> {
        let (scheme, names) = (config.scheme().map_err(StoreError::from)?, config.names());
        let replicas = Replicas::try_from(config.replicas)?;
        let new = StreamSpec::events(name, &scheme, replicas)?;
        let meta = NatsKeyValue::attach(connection, &names.meta_bucket);
        let event_stream_name = old_stream(&meta, names.event_stream, name).await?;
        let old = StreamSpec::events(&event_stream_name, &scheme, replicas)?;
        let config = NatsRepositoryConfig { event_stream_name, ..config.clone() };
        let from = Context::on(Ports::nats(connection, &config), &config)?;
        let last = patiently(PATIENCE, || from.log().status()).await?.last.get();
        let before = (last / ROUND + 1) * ROUND;
        let found = match find_settings(connection, &new).await? {
            Some(found) => found,
            None => {
                let mut wanted = json!(copying(&new));
                wanted["first_seq"] = json!(before + 1);
                create_stream(connection, &new, &wanted).await?
            }
        };
        if found.subjects != copying(&new).subjects && found.subjects != new.settings().subjects {
            let reason = format!("stream {name} is there already and takes {:?}", found.subjects);
            return Err(MigrationError::Copy { reason });
        }
        let to: Arc<dyn EventLog> = Arc::new(NatsLog::attach(connection, name));
        let prefix = ingest(&new);
        let copier = EventCopy { from, to, prefix, patience: PATIENCE };
        let connection = connection.clone();
        let mut reshape = Self { connection, old, new, copier, meta, before: Position::START };
        reshape.before = reshape.first().await?;
        Ok(reshape)
    }

    /// What copies.
    pub fn copier(&self) -> &EventCopy {
        &self.copier
    }

    /// Stops writers, copies the rest, verifies everything, tells services of the new stream, lets writers go on, and moves the
    /// records of those who follow the events.
    ///
    /// From the first moment to the last, nothing that is appended is stored; since no server answers, its outcome is called
    /// unknown when the service's patience ends. That takes as long as verifying, which reads both streams whole. Interrupted, it is
    /// called again, or [`abandon`](Self::abandon) is.
    ///
    /// # Errors
    /// [`MigrationError::Copy`] when the copy is not what it should be, [`MigrationError::Refused`] when a process manager has reacted
    /// to more than its record says: writers are stopped then. Any other [`MigrationError`].
    pub async fn switch(&self, transform: impl Transform) -> Result<Switched, MigrationError> {
        let settings = self.settings(&self.new).await?;
        if settings.subjects == self.new.settings().subjects {
            self.tell().await?;
            self.copier.move_followers().await?;
            return Ok(Switched { copied: None, before: self.before });
        }
        let now = self.settings(&self.old).await?;
        let stopped = StreamSettings { subjects: vec![frozen(&self.old)], ..now.clone() };
        change_settings(&self.connection, &self.old, &now, &stopped).await?;
        // What the server had taken before may be stored a moment later.
        sleep(SETTLE).await;
        self.copier.copy(&transform).await?;
        let copied = self.copier.verify(&transform).await?;
        let last = patiently(PATIENCE, || self.copier.from.log().status()).await?.last;
        if last != copied.up_to || last > self.before {
            let reason = format!("the original went on to position {last} meanwhile");
            return Err(MigrationError::Copy { reason });
        }
        self.copier.check_processes().await?;
        // Told first: who opens the context now reads the whole copy, and cannot write for a moment.
        self.tell().await?;
        let subjects = self.new.settings().subjects.clone();
        let duplicate_window = settings.duplicate_window.max(self.new.settings().duplicate_window);
        let open = StreamSettings {
            subjects,
            subject_transform: None,
            duplicate_window,
            ..settings.clone()
        };
        change_settings(&self.connection, &self.new, &settings, &open).await?;
        // Now that nobody goes back to the old stream.
        self.copier.move_followers().await?;
        let copied = Some(copied);
        Ok(Switched { copied, before: self.before })
    }

    /// Lets writers go on with the old stream, after a switch that did not come to its end. The new stream stays as it is.
    ///
    /// # Errors
    /// [`MigrationError::Copy`] when the switch was done; [`MigrationError::Stream`]; [`MigrationError::Backend`].
    pub async fn abandon(&self) -> Result<(), MigrationError> {
        let new = self.settings(&self.new).await?;
        if new.subjects == self.new.settings().subjects {
            let reason = format!("stream {} takes events already", self.new.name());
            return Err(MigrationError::Copy { reason });
        }
        let (revision, told) = pointer(&self.meta).await?;
        if let Some(mut told) = told.filter(|told| told.stream == self.new.name()) {
            told.stream = self.old.name().to_owned();
            told.before.retain(|name| name != self.old.name());
            self.point(&told, revision).await?;
        }
        let now = self.settings(&self.old).await?;
        let subjects = self.old.settings().subjects.clone();
        let open = StreamSettings { subjects, ..now.clone() };
        Ok(change_settings(&self.connection, &self.old, &now, &open).await?)
    }

    async fn tell(&self) -> Result<(), MigrationError> {
        let (revision, told) = pointer(&self.meta).await?;
        let mut before = match told {
            Some(told) if told.stream == self.new.name() => return Ok(()),
            told => told.map(|told| told.before).unwrap_or_default(),
        };
        before.push(self.old.name().to_owned());
        let (stream, switched_at) = (self.new.name().to_owned(), self.copier.from.clock().now());
        self.point(&StreamPointer { format: FORMAT, stream, before, switched_at }, revision).await
    }

    async fn point(&self, pointer: &StreamPointer, revision: u64) -> Result<(), MigrationError> {
        let json = serde_json::to_vec(pointer).expect("a record of texts and numbers is JSON");
        let expected = Expected::Revision(revision);
        let write = KeyWrite::new(stream_key(), Change::Put(json.into()), expected);
        self.meta.write(NonEmpty::one(write)).await?;
        Ok(())
    }

    async fn settings(&self, spec: &StreamSpec) -> Result<StreamSettings, MigrationError> {
        Ok(crate::backend::nats::settings_of(&self.connection, spec).await?)
    }

    /// The position before the first one of the new stream, a multiple of [`ROUND`].
    async fn first(&self) -> Result<Position, MigrationError> {
        let status = patiently(PATIENCE, || self.copier.to.status()).await?;
        Ok(Position::new(status.last.get() / ROUND * ROUND))
    }
}

/// What stands before the subjects of a copy.
fn ingest(spec: &StreamSpec) -> String {
    format!("cim.reshape.{}.", spec.name())
}

/// What a stream takes that takes no events any more: nothing that anybody publishes.
fn frozen(spec: &StreamSpec) -> String {
    format!("cim.frozen.{}.>", spec.name())
}

/// The settings of a new stream as long as it is copied to: two streams cannot take the same subjects, so the copy is
/// published under others, and stored under its own.
fn copying(spec: &StreamSpec) -> StreamSettings {
    let source = format!("{}>", ingest(spec));
    StreamSettings {
        subjects: vec![source.clone()],
        subject_transform: Some(json!({ "src": source, "dest": ">" })),
        duplicate_window: Some(WINDOW),
        ..spec.settings().clone()
    }
}
