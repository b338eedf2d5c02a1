//! How aggregates are saved and loaded, and what is known of them.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::time::Duration;

use cid::Cid;
use uuid::Uuid;

use crate::backend::Position;
use crate::clock::Timestamp;
use crate::event::{Metadata, Tag};
use crate::store::{CommitInfo, ExpectedVersion, StoreError, StoredEvent};
use crate::subject::{AggregateId, AggregateType, Subject};

/// How events are saved.
///
/// ```
/// use cim_persistence::event::{Metadata, Tag};
/// use cim_persistence::repository::SaveOptions;
/// use cim_persistence::store::ExpectedVersion;
///
/// let options = SaveOptions {
///     expected_version: ExpectedVersion::Exact(3),
///     metadata: Metadata::new([("user", "kim")])?,
///     tags: vec![Tag::new("urgent")?],
///     ..SaveOptions::default()
/// };
/// # Ok::<(), cim_persistence::event::InvalidMetadata>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SaveOptions {
    /// The version the aggregate must have. Default: none, so a save without options creates.
    pub expected_version: ExpectedVersion,
    /// Whether a snapshot of the new version is taken, before the call returns. When that fails it is logged and counted, and
    /// the call succeeds all the same, for the events are stored.
    pub create_snapshot: bool,
    /// Free text that is stored with each event.
    pub metadata: Metadata,
    /// Labels of the aggregate, stored with each event; an aggregate keeps those of all its events. They count as metadata,
    /// which is bounded.
    pub tags: Vec<Tag>,
    /// What the events belong to; by default the id of the first of them.
    pub correlation_id: Option<Uuid>,
    /// What caused them: the id of a command or an event.
    pub causation_id: Option<Uuid>,
}

impl SaveOptions {
    /// The options for an aggregate that was loaded: nobody may have changed it since.
    pub fn after(loaded: &AggregateMetadata) -> Self {
        ExpectedVersion::Exact(loaded.version).into()
    }

    pub(crate) fn info(&self) -> Result<CommitInfo, StoreError> {
        Ok(CommitInfo {
            metadata: self.metadata.clone().with_tags(&self.tags)?,
            correlation_id: self.correlation_id,
            causation_id: self.causation_id,
        })
    }
}

impl From<ExpectedVersion> for SaveOptions {
    fn from(expected_version: ExpectedVersion) -> Self {
        Self { expected_version, ..Self::default() }
    }
}

/// How new a loaded aggregate must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freshness {
    /// As any replica has it now. On a replicated stream that may be a moment behind; the expectation at the commit
    /// catches it.
    #[default]
    Current,
    /// As the stream's leader has it: every commit acknowledged before the call is seen.
    Latest,
    /// As the cache has it, if it was compared with the stream at most this long ago; no round trip then.
    Cached(Duration),
}

/// How an aggregate is loaded.
///
/// ```
/// use cim_persistence::repository::LoadOptions;
/// let third = LoadOptions { version: Some(3), ..LoadOptions::default() };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOptions {
    /// Load as of this version. With `as_of` too, whichever comes first.
    pub version: Option<u64>,
    /// Load as of this time: up to, but without, the first event that occurred later.
    pub as_of: Option<Timestamp>,
    /// Whether the metadata that is returned holds the aggregate's events as well. They are read from the first.
    pub include_events: bool,
    /// Whether kept state and snapshots may be used. Default true; without, every event is replayed and verified.
    pub use_snapshot: bool,
    /// The most events that may be replayed; more is an error, never a state that is half there.
    pub max_events: Option<usize>,
    /// How new the aggregate must be.
    pub freshness: Freshness,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            version: None,
            as_of: None,
            include_events: false,
            use_snapshot: true,
            max_events: None,
            freshness: Freshness::Current,
        }
    }
}

/// How a transaction is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactOptions {
    /// How often it is tried in all when others commit in between. Default 10.
    pub attempts: u32,
    /// How new the state of the first decision must be. A rejection, and a decision without events, stand only on state that
    /// the stream's leader says is the newest.
    pub freshness: Freshness,
    /// What is stored with the events. Its `expected_version` is not used.
    pub save: SaveOptions,
}

impl Default for TransactOptions {
    fn default() -> Self {
        Self { attempts: 10, freshness: Freshness::Current, save: SaveOptions::default() }
    }
}

/// When snapshots are taken by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SnapshotPolicy {
    /// Never; only when asked for.
    #[default]
    Never,
    /// After each commit.
    Always,
    /// After each commit that reaches or passes a multiple of this version.
    Every(NonZeroU64),
}

impl SnapshotPolicy {
    pub(crate) fn is_due(self, before: u64, after: u64) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Every(n) => before / n < after / n,
        }
    }
}

/// What is known of an aggregate beside its state.
#[derive(Debug, Clone)]
pub struct AggregateMetadata {
    /// Its id.
    pub aggregate_id: AggregateId,
    /// Its kind.
    pub aggregate_type: AggregateType,
    /// The version of its last event.
    pub version: u64,
    /// When its last event occurred.
    pub last_modified: Timestamp,
    /// The CID of its state; `None` without IPLD, and where the state cannot be encoded, which is logged as a warning.
    pub state_cid: Option<Cid>,
    /// The address of its current state, `cim.aggregates.<context>.<aggregate>.<id>.state` by default.
    pub subject: Subject,
    /// The metadata of its last event.
    pub metadata: Metadata,
    /// The tags of all its events.
    pub tags: BTreeSet<Tag>,
    /// The position of its last event: what a query can wait for.
    pub position: Position,
    /// The CID of its last event, which covers its whole history; `None` without IPLD.
    pub head_cid: Option<Cid>,
    /// Its events, if [`LoadOptions::include_events`] asked for them.
    pub events: Vec<StoredEvent>,
}
