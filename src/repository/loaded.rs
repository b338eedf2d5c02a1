//! An aggregate in memory: its state, and the head of the history it follows from.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use cid::Cid;

use super::{Aggregate, AggregateMetadata, RepositoryError};
use crate::clock::Timestamp;
use crate::event::{Metadata, Tag};
use crate::ipld::{Block, BlockFormat, ChainError};
use crate::lifecycle::{self, InvalidTransition};
use crate::store::{Head, IntegrityError, StoreError, StoredEvent};
use crate::subject::{AggregateId, AggregateType, Identity, SubjectScheme};

/// State with what it follows from.
#[derive(Debug, Clone)]
pub(super) struct Loaded<A> {
    pub(super) state: A,
    pub(super) head: Head,
    pub(super) modified: Timestamp,
    pub(super) metadata: Metadata,
    pub(super) tags: BTreeSet<Tag>,
    pub(super) deleted: bool,
    /// The CID of the state, once somebody asked for it; `None` where no block can hold the state.
    pub(super) state_cid: OnceLock<Option<Cid>>,
}

/// What the cache holds.
#[derive(Debug)]
pub(super) struct Cached<A> {
    pub(super) loaded: Arc<Loaded<A>>,
    /// When it was last seen to be the newest.
    pub(super) compared: Instant,
}

impl<A> Clone for Cached<A> {
    fn clone(&self) -> Self {
        Self { loaded: Arc::clone(&self.loaded), compared: self.compared }
    }
}

impl<A: Aggregate> Loaded<A> {
    /// The aggregate before its first event.
    pub(super) fn empty(id: &A::Id) -> Self {
        Self {
            state: A::new(id),
            head: Head::default(),
            modified: Timestamp::default(),
            metadata: Metadata::default(),
            tags: BTreeSet::new(),
            deleted: false,
            state_cid: OnceLock::new(),
        }
    }

    /// Whether there is an aggregate at all.
    pub(super) fn exists(&self) -> bool {
        self.head.version > 0 && !self.deleted
    }

    /// Replays one stored event, which must continue the history.
    pub(super) fn replay(&mut self, event: &StoredEvent) -> Result<(), RepositoryError> {
        self.check_continues(event)?;
        if event.is_tombstone() {
            self.bury()?;
        } else {
            self.revive()?;
            self.apply_stored(event)?;
        }
        self.note(Head::of(event), event.occurred_at(), event.metadata());
        Ok(())
    }

    /// Applies what a stored event is today: several events perhaps, or none, of one version of the aggregate.
    fn apply_stored(&mut self, event: &StoredEvent) -> Result<(), StoreError> {
        if !event.is_changed() {
            self.state.apply(&event.domain_event()?);
            return Ok(());
        }
        let events: Vec<A::Event> = event.events()?;
        events.iter().for_each(|event| self.state.apply(event));
        Ok(())
    }

    /// Applies events that are being committed, unless the aggregate's lifecycle forbids what they lead to. What they do
    /// to the head is [`note`](Self::note)d when they are stored.
    pub(super) fn apply_new(
        &mut self,
        aggregate: &AggregateType,
        id: &AggregateId,
        events: &[A::Event],
    ) -> Result<(), RepositoryError> {
        let begins = !self.exists();
        self.revive()?;
        self.live_through(begins, events).map_err(|source| RepositoryError::Transition {
            aggregate_type: aggregate.to_string(),
            id: id.to_string(),
            source,
        })
    }

    fn live_through(&mut self, begins: bool, events: &[A::Event]) -> Result<(), InvalidTransition> {
        let mut stage = self.state.stage();
        if begins {
            lifecycle::check(None, stage)?;
        }
        for event in events {
            self.state.apply(event);
            let next = self.state.stage();
            lifecycle::check(stage, next)?;
            stage = next;
        }
        Ok(())
    }

    pub(super) fn bury(&mut self) -> Result<(), RepositoryError> {
        self.deleted = true;
        self.state = self.blank()?;
        self.tags.clear();
        Ok(())
    }

    /// An aggregate that was deleted and has events again begins anew.
    fn revive(&mut self) -> Result<(), RepositoryError> {
        if self.deleted {
            self.deleted = false;
            self.state = self.blank()?;
        }
        Ok(())
    }

    fn blank(&self) -> Result<A, RepositoryError> {
        let id = self.state.id().to_aggregate_id()?;
        Ok(A::new(&A::Id::from_aggregate_id(&id)?))
    }

    pub(super) fn note(&mut self, head: Head, modified: Timestamp, metadata: &Metadata) {
        self.head = head;
        self.modified = modified;
        self.metadata = metadata.clone();
        self.tags.extend(metadata.tags());
        self.state_cid = OnceLock::new();
    }

    /// The CID of the state; `None` without IPLD, and where no block can hold the state. The state is encoded for it once.
    ///
    /// No error, because whatever is known of an aggregate beside its events is derived from them: these are stored, and
    /// the state follows from them, whether or not it can be written down.
    pub(super) fn state_cid(&self, format: BlockFormat) -> Option<Cid> {
        if format == BlockFormat::PlainJson {
            return None;
        }
        *self.state_cid.get_or_init(|| match Block::cid(format, &self.state) {
            Ok(cid) => cid,
            Err(reason) => {
                let (aggregate, version) = (A::TYPE, self.head.version);
                let id = self.state.id().to_aggregate_id().ok();
                let id = id.as_ref().map(tracing::field::display);
                tracing::warn!(
                    aggregate,
                    id,
                    version,
                    reason,
                    "state that cannot be encoded has no CID"
                );
                None
            }
        })
    }

    fn check_continues(&self, event: &StoredEvent) -> Result<(), StoreError> {
        let expected = self.head.version.saturating_add(1);
        let source = if event.version().checked_sub(1) != Some(self.head.version) {
            ChainError::Version { expected, found: event.version() }
        } else if event.previous() != self.head.cid.as_ref() {
            ChainError::Link {
                version: expected,
                expected: self.head.cid.map(Box::new),
                found: event.previous().copied().map(Box::new),
            }
        } else {
            return Ok(());
        };
        Err(StoreError::Integrity {
            subject: format!("{}/{}", event.aggregate_type(), event.aggregate_id()),
            position: event.position().get(),
            source: IntegrityError::Chain(source),
        })
    }

    /// What is known of the aggregate beside its state.
    pub(super) fn describe(
        &self,
        scheme: &SubjectScheme,
        format: BlockFormat,
        aggregate: &AggregateType,
        id: &AggregateId,
    ) -> AggregateMetadata {
        AggregateMetadata {
            aggregate_id: id.clone(),
            aggregate_type: aggregate.clone(),
            version: self.head.version,
            last_modified: self.modified,
            state_cid: self.state_cid(format),
            subject: scheme.state_of(aggregate, id),
            metadata: self.metadata.clone(),
            tags: self.tags.clone(),
            position: self.head.position,
            head_cid: self.head.cid,
            events: Vec::new(),
        }
    }
}
