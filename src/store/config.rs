//! How a context is laid out and used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backend::Durability;
use crate::ipld::{BlockFormat, Codec, Hash};
use crate::subject::{ContextName, InvalidToken, Names, SubjectScheme};

/// The layout and the habits of one context. Every field has a default, so name only what differs:
///
/// ```
/// use cim_persistence::store::NatsRepositoryConfig;
/// let config = NatsRepositoryConfig { context: "sales".into(), cache_size: 1000, ..Default::default() };
/// assert_eq!(config.names().event_stream, "CIM-EVENTS-sales");
/// ```
///
/// In every name `{context}` stands for the context's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsRepositoryConfig {
    /// The bounded context. Default `default`.
    pub context: String,
    /// The stream of the events. Default `CIM-EVENTS-{context}`.
    pub event_stream_name: String,
    /// The bucket of the aggregates' current state. Default `cim-state-{context}`.
    pub aggregate_stream_name: String,
    /// The bucket of the read models. Default `cim-readmodels-{context}`.
    pub read_model_bucket: String,
    /// The bucket of the snapshots. Default `cim-snapshots-{context}`.
    pub snapshot_bucket: String,
    /// The bucket of the records of migrations. Default `cim-meta-{context}`.
    pub meta_bucket: String,
    /// The stream of the timeouts. Default `CIM-TIMEOUTS-{context}`.
    pub timeout_stream_name: String,
    /// What the subjects of events start with. Default `cim.events`.
    pub event_subject_prefix: String,
    /// What the addresses of aggregates start with. Default `cim.aggregates`.
    pub aggregate_subject_prefix: String,
    /// How many aggregates each repository keeps in memory; 0 for none. Default 10,000.
    pub cache_size: usize,
    /// Whether events are IPLD blocks with a CID, chained. Default true. Without, they are plain JSON and nothing
    /// proves that a history is unchanged.
    pub enable_ipld: bool,
    /// The codec of the blocks. Default DAG-CBOR.
    pub codec: Codec,
    /// The hash in the CIDs. Default SHA2-256.
    pub hash: Hash,
    /// Whether each aggregate's current state is kept in its bucket, written behind the append. Default true.
    pub keep_state: bool,
    /// How many servers hold each stream: 1, 3 or 5. Default 1; use 3 for data that matters.
    pub replicas: usize,
    /// What to do about servers that are not durable when the context is opened. Default: a warning, once a connection.
    pub durability: Durability,
    /// How long an unknown outcome is looked into before it is reported, in milliseconds. Default 30,000.
    pub patience_ms: u64,
}

impl Default for NatsRepositoryConfig {
    fn default() -> Self {
        Self {
            context: "default".into(),
            event_stream_name: "CIM-EVENTS-{context}".into(),
            aggregate_stream_name: "cim-state-{context}".into(),
            read_model_bucket: "cim-readmodels-{context}".into(),
            snapshot_bucket: "cim-snapshots-{context}".into(),
            meta_bucket: "cim-meta-{context}".into(),
            timeout_stream_name: "CIM-TIMEOUTS-{context}".into(),
            event_subject_prefix: "cim.events".into(),
            aggregate_subject_prefix: "cim.aggregates".into(),
            cache_size: 10_000,
            enable_ipld: true,
            codec: Codec::DagCbor,
            hash: Hash::Sha2,
            keep_state: true,
            replicas: 1,
            durability: Durability::Reported,
            patience_ms: 30_000,
        }
    }
}

impl NatsRepositoryConfig {
    /// The defaults for one context.
    pub fn for_context(context: impl Into<String>) -> Self {
        Self { context: context.into(), ..Self::default() }
    }

    /// The names of the streams and the buckets.
    pub fn names(&self) -> Names {
        let named = |template: &str| template.replace("{context}", &self.context);
        Names {
            event_stream: named(&self.event_stream_name),
            state_bucket: named(&self.aggregate_stream_name),
            snapshot_bucket: named(&self.snapshot_bucket),
            read_model_bucket: named(&self.read_model_bucket),
            meta_bucket: named(&self.meta_bucket),
            timeout_stream: named(&self.timeout_stream_name),
        }
    }

    /// How blocks are written.
    pub fn format(&self) -> BlockFormat {
        match self.enable_ipld {
            true => BlockFormat::Ipld(self.codec, self.hash),
            false => BlockFormat::PlainJson,
        }
    }

    /// The subjects of the context.
    ///
    /// # Errors
    /// [`InvalidToken`] when the context's name or a prefix is not made of names.
    pub fn scheme(&self) -> Result<SubjectScheme, InvalidToken> {
        let context = ContextName::new(&self.context)?;
        SubjectScheme::new(context, &self.event_subject_prefix, &self.aggregate_subject_prefix)
    }

    pub(crate) fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms)
    }
}
