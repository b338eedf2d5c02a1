//! What a projection keeps of itself in the bucket of its models: checkpoint, lease, status, wishes, parked events.
//!
//! All are JSON, so that any client can read them. Their keys begin with `=`, which no model type does.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::ProjectionError;
use crate::backend::{Position, ReadFrom};
use crate::clock::Timestamp;
use crate::state::{Change, Expected, InvalidKey, Key, KeyValue, KeyWrite};

/// The keys of a projection.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    name: String,
}

impl Keys {
    pub(super) fn of(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    pub(super) fn checkpoint(&self, generation: u64) -> Result<Key, InvalidKey> {
        Key::new(format!("=checkpoint.{}.{generation}", self.name))
    }

    pub(super) fn all_checkpoints(&self) -> String {
        format!("=checkpoint.{}.*", self.name)
    }

    /// One for each version of the code, so that an old one keeps its models fresh while a new one builds its own.
    pub(super) fn lease(&self, version: u32) -> Result<Key, InvalidKey> {
        Key::new(format!("=lease.{}.{version}", self.name))
    }

    pub(super) fn status(&self) -> Result<Key, InvalidKey> {
        Key::new(format!("=projection.{}", self.name))
    }

    pub(super) fn control(&self) -> Result<Key, InvalidKey> {
        Key::new(format!("=control.{}", self.name))
    }

    /// How far a handler of effects is.
    pub(super) fn effects(&self) -> Result<Key, InvalidKey> {
        Key::new(format!("{EFFECTS}{}", self.name))
    }

    pub(super) fn effects_lease(&self) -> Result<Key, InvalidKey> {
        Key::new(format!("=lease.{}.effects", self.name))
    }

    pub(super) fn parked(&self, position: Position) -> Result<Key, InvalidKey> {
        Key::new(format!("=parked.{}.{position}", self.name))
    }

    pub(super) fn all_parked(&self) -> String {
        format!("=parked.{}.*", self.name)
    }
}

/// What the keys of all that say how far effects are begin with.
pub(crate) const EFFECTS: &str = "=effects.";

/// The generation whose checkpoint lies under a key.
pub(super) fn generation_of(checkpoint: &Key) -> Option<u64> {
    checkpoint.as_str().rsplit_once('.')?.1.parse().ok()
}

/// How far a generation of a projection is. The one record that decides what took effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) format: u32,
    /// The version of the projection that builds this generation.
    pub(crate) version: u32,
    /// The last event that took effect, or was passed over.
    pub(crate) position: Position,
    /// That message's CID, or its id where there is none, to know the log by.
    pub(crate) mark: Option<String>,
    /// When the log was created, to know it by.
    pub(crate) log_created: Timestamp,
    /// How many events took effect.
    pub(crate) events: u64,
    /// How many events were parked.
    pub(crate) parked: u64,
    /// The number of the wish to rebuild that this generation fulfils.
    pub(crate) rebuild: u64,
    /// Who wrote it, anew for each write: by this an answer that was lost is told from another's write.
    pub(crate) writer: Uuid,
}

/// What operators wish.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Control {
    pub(super) format: u32,
    pub(super) paused: bool,
    /// How often a rebuild was wished for.
    pub(super) rebuild: u64,
}

/// An event that a projection could not use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parked {
    /// The wire format: 1.
    pub format: u32,
    /// Where the event lies.
    pub position: Position,
    /// The generation that could not use it.
    pub generation: u64,
    /// The event's type, as far as it could be read.
    pub event_type: Option<String>,
    /// Why not; the first 4096 bytes of it.
    pub reason: String,
    /// When that was.
    pub parked_at: Timestamp,
}

/// How much of a reason is kept. What a service says may be longer than any message.
const REASON: usize = 4096;

/// A reason as a record keeps it.
pub(crate) fn kept(reason: &str) -> String {
    if reason.len() <= REASON {
        return reason.to_owned();
    }
    let end = (0..=REASON).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or_default();
    format!("{} …", &reason[..end])
}

/// The form of all these records.
pub(super) const FORMAT: u32 = 1;

/// A record with the revision of its key.
#[derive(Debug, Clone)]
pub(super) struct Held<T> {
    pub(super) record: T,
    pub(super) revision: u64,
}

/// What a key holds, as the leader sees it; a revision without a record for none.
pub(crate) async fn read<T: DeserializeOwned>(
    bucket: &dyn KeyValue,
    key: &Key,
) -> Result<(u64, Option<T>), ProjectionError> {
    let slot = bucket.get(key, ReadFrom::Leader).await?;
    let record = slot.value.map(|value| decode(key, &value)).transpose()?;
    Ok((slot.revision, record))
}

pub(super) fn decode<T: DeserializeOwned>(key: &Key, value: &[u8]) -> Result<T, ProjectionError> {
    serde_json::from_slice(value).map_err(|error| ProjectionError::Record {
        key: key.to_string(),
        reason: error.to_string(),
    })
}

pub(crate) fn put<T: Serialize>(key: Key, record: &T, expected: Expected) -> KeyWrite {
    let json = serde_json::to_vec(record).expect("records have string keys and finite numbers");
    KeyWrite::new(key, Change::Put(json.into()), expected)
}
