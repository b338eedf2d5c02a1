//! What a context needs on a server, as data: its streams and buckets, and how they must be set.
//!
//! Pure. [`provision`](super::nats::provision) and [`verify`](super::nats::verify) put it on a server and compare.

mod error;
mod settings;
mod spec;

use crate::subject::{Names, SubjectScheme};

pub use error::{SettingMismatch, TopologyError};
pub use settings::{Discard, Retention, Storage, StreamSettings};
pub use spec::{DUPLICATE_WINDOW, MAX_CONSUMERS, MIN_MESSAGE_BYTES, StreamSpec};

/// How many servers hold each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Replicas {
    /// One: a disk that breaks takes the data with it. For development.
    #[default]
    One,
    /// Three: one server may fail.
    Three,
    /// Five: two servers may fail.
    Five,
}

impl Replicas {
    /// The number.
    pub const fn count(self) -> u64 {
        match self {
            Self::One => 1,
            Self::Three => 3,
            Self::Five => 5,
        }
    }
}

impl TryFrom<usize> for Replicas {
    type Error = TopologyError;

    /// # Errors
    /// [`TopologyError::Replicas`] for anything but 1, 3 and 5.
    fn try_from(count: usize) -> Result<Self, TopologyError> {
        match count {
            1 => Ok(Self::One),
            3 => Ok(Self::Three),
            5 => Ok(Self::Five),
            found => Err(TopologyError::Replicas { found }),
        }
    }
}

/// Everything that one context needs on a server.
///
/// ```
/// use cim_persistence::backend::{Replicas, Topology};
/// use cim_persistence::subject::{ContextName, Names, SubjectScheme};
///
/// let context = ContextName::new("sales")?;
/// let names = Names::of(&context);
/// let scheme = SubjectScheme::new(context, "cim.events", "cim.aggregates")?;
/// let topology = Topology::new(&scheme, &names, Replicas::Three)?;
/// let streams: Vec<&str> = topology.streams().iter().map(|stream| stream.name()).collect();
/// assert_eq!(streams[..2], ["CIM-EVENTS-sales", "KV_cim-state-sales"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    streams: Vec<StreamSpec>,
}

impl Topology {
    /// The streams and the buckets of a context, with these names, on so many servers.
    ///
    /// # Errors
    /// [`TopologyError::Name`] when a name cannot be one, [`TopologyError::SameBucket`] when two buckets share one.
    pub fn new(
        scheme: &SubjectScheme,
        names: &Names,
        replicas: Replicas,
    ) -> Result<Self, TopologyError> {
        let buckets = [
            &names.state_bucket,
            &names.snapshot_bucket,
            &names.read_model_bucket,
            &names.meta_bucket,
        ];
        for (i, bucket) in buckets.iter().enumerate() {
            if buckets[..i].contains(bucket) {
                return Err(TopologyError::SameBucket { bucket: bucket.to_string() });
            }
        }
        let mut streams = vec![StreamSpec::events(&names.event_stream, scheme, replicas)?];
        for bucket in buckets {
            streams.push(StreamSpec::bucket(bucket, replicas)?);
        }
        streams.push(StreamSpec::timeouts(&names.timeout_stream, scheme, replicas)?);
        Ok(Self { streams })
    }

    /// The streams, that of the events first and that of the timeouts last; a bucket is the stream `KV_<bucket>`.
    pub fn streams(&self) -> &[StreamSpec] {
        &self.streams
    }
}
