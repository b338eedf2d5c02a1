//! The settings of a stream that matter here.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// When a stream lets a message go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Retention {
    /// When a limit says so, and never without one.
    #[default]
    Limits,
    /// When every consumer has it.
    Interest,
    /// When any consumer has it.
    WorkQueue,
}

/// What a full stream does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discard {
    /// Drops its oldest message.
    #[default]
    Old,
    /// Refuses the new message.
    New,
}

/// Where a stream lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// On disk.
    #[default]
    File,
    /// In memory.
    Memory,
}

/// The settings of a stream, as far as they decide what it keeps and accepts.
///
/// Its JSON is that of JetStream's own stream configuration. The default is a server's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamSettings {
    /// The stream's name.
    pub name: String,
    /// The patterns of the subjects that it stores.
    pub subjects: Vec<String>,
    /// When it lets a message go.
    pub retention: Retention,
    /// What it does when it is full.
    pub discard: Discard,
    /// Where it lies.
    pub storage: Storage,
    /// On how many servers.
    pub num_replicas: u64,
    /// The most messages.
    #[serde(with = "limit")]
    pub max_msgs: Option<u64>,
    /// The most bytes.
    #[serde(with = "limit")]
    pub max_bytes: Option<u64>,
    /// The longest that a message stays.
    #[serde(with = "nanos")]
    pub max_age: Option<Duration>,
    /// The most messages of one subject.
    #[serde(with = "limit")]
    pub max_msgs_per_subject: Option<u64>,
    /// The largest message, in bytes.
    #[serde(with = "limit")]
    pub max_msg_size: Option<u64>,
    /// The most consumers.
    #[serde(with = "limit")]
    pub max_consumers: Option<u64>,
    /// How long message ids are remembered.
    #[serde(with = "nanos")]
    pub duplicate_window: Option<Duration>,
    /// Whether writes are not acknowledged.
    pub no_ack: bool,
    /// Whether nothing can be written any more.
    pub sealed: bool,
    /// Whether single messages cannot be deleted.
    pub deny_delete: bool,
    /// Whether subjects cannot be purged.
    pub deny_purge: bool,
    /// Whether a message may replace all earlier ones of its subject.
    #[serde(rename = "allow_rollup_hdrs")]
    pub allow_rollup: bool,
    /// Whether any replica may answer a read.
    pub allow_direct: bool,
    /// Whether several messages can be stored all or none.
    pub allow_atomic: bool,
    /// Whether a message may say when it vanishes.
    pub allow_msg_ttl: bool,
    /// Whether the server rewrites payloads as counters.
    pub allow_msg_counter: bool,
    /// Whether a message may be one that the server publishes later and then removes.
    pub allow_msg_schedules: bool,
    /// How writes reach the disk: `async` acknowledges them before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persist_mode: Option<String>,
    /// The stream that this one copies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Value>,
    /// The streams that this one gathers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sources: Option<Value>,
    /// How subjects are rewritten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_transform: Option<Value>,
}

macro_rules! display {
    ($($name:ty { $($value:pat => $text:literal),+ })+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($value => $text),+ })
            }
        }
    )+};
}

display! {
    Retention { Self::Limits => "limits", Self::Interest => "interest", Self::WorkQueue => "workqueue" }
    Discard { Self::Old => "old", Self::New => "new" }
    Storage { Self::File => "file", Self::Memory => "memory" }
}

/// A limit: on the wire -1 or 0 for none.
mod limit {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(limit: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        Ok(u64::try_from(i64::deserialize(from)?).ok().filter(|limit| *limit > 0))
    }
}

/// A time in nanoseconds: on the wire 0 for none.
mod nanos {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let nanos = time.map_or(0, |time| time.as_nanos());
        to.serialize_i64(i64::try_from(nanos).unwrap_or(i64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let nanos = u64::try_from(i64::deserialize(from)?).ok().filter(|nanos| *nanos > 0);
        Ok(nanos.map(Duration::from_nanos))
    }
}
