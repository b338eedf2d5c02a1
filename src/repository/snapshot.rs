//! Snapshots: state at a version, kept beside the events.

use std::sync::Arc;

use cid::Cid;

use super::load::Rules;
use super::loaded::Loaded;
use super::record::{self, Unusable};
use super::{Aggregate, Freshness, Repository, RepositoryError, observe};
use crate::backend::{BackendError, ReadFrom};
use crate::event::NonEmpty;
use crate::ipld::{Block, BlockFormat};
use crate::state::{Change, Expected, Key, KeyWrite, Offer};
use crate::store::StoreError;
use crate::subject::{AggregateId, Pattern};

impl<A: Aggregate + Send + Sync + 'static> Repository<A> {
    /// Takes a snapshot of the newest state and returns the CID of its block.
    ///
    /// A snapshot is a block also where events are plain JSON. One of this version that is damaged or of another shape is
    /// replaced. One that is there already is read through the leader.
    ///
    /// # Errors
    /// [`RepositoryError::NotFound`]; [`RepositoryError::State`] when the state cannot be encoded;
    /// [`RepositoryError::Store`].
    #[tracing::instrument(level = "debug", skip_all, fields(
        context = %self.context.scheme().context(), aggregate = %self.aggregate, id, outcome))]
    pub async fn create_snapshot(&self, id: &A::Id) -> Result<Cid, RepositoryError> {
        observe::operation("create_snapshot", async {
            let key = self.key_of(id)?;
            let loaded = self.current(id, &key, Rules::of(Freshness::Latest)).await?;
            if !loaded.exists() {
                return Err(self.not_found(&key, &loaded));
            }
            self.write_snapshot(&key, &loaded).await
        })
        .await
    }

    /// Takes the snapshot that was asked for with a commit. Without it the commit is stored all the same, and whoever were told
    /// of a failure might commit again.
    pub(super) async fn snapshot_asked_for(&self, key: &AggregateId, loaded: &Loaded<A>) {
        if let Err(error) = self.write_snapshot(key, loaded).await {
            metrics::counter!("cim_snapshots_failed_total").increment(1);
            tracing::warn!(
                context = %self.context.scheme().context(),
                aggregate = %self.aggregate,
                id = %key,
                version = loaded.head.version,
                %error,
                "the events are stored, the snapshot that was asked for with them is not"
            );
        }
    }

    async fn write_snapshot(
        &self,
        key: &AggregateId,
        loaded: &Loaded<A>,
    ) -> Result<Cid, RepositoryError> {
        let (block, cid) = self.snapshot_block(key, loaded)?;
        let slot = record::snapshot_key(&self.aggregate, key, loaded.head.version);
        let bucket = self.context.snapshots().bucket();
        let write = |revision| {
            let change = Change::Put(block.bytes.clone());
            KeyWrite::new(slot.clone(), change, Expected::Revision(revision))
        };
        match bucket.write(NonEmpty::one(write(0))).await {
            Ok(_) => return Ok(cid),
            Err(BackendError::Conflict { .. }) => {}
            Err(error) => return Err(StoreError::from(error).into()),
        }
        // The state at a version never changes, but its shape does, and a record may be damaged.
        let there = bucket.get(&slot, ReadFrom::Leader).await.map_err(StoreError::from)?;
        if there.value.as_ref() != Some(&block.bytes) {
            bucket.write(NonEmpty::one(write(there.revision))).await.map_err(StoreError::from)?;
        }
        Ok(cid)
    }

    fn snapshot_block(
        &self,
        key: &AggregateId,
        loaded: &Loaded<A>,
    ) -> Result<(Block, Cid), RepositoryError> {
        let format = match self.context.format() {
            format @ BlockFormat::Ipld(..) => format,
            BlockFormat::PlainJson => BlockFormat::default(),
        };
        let failed = |reason| RepositoryError::State {
            aggregate_type: self.aggregate.to_string(),
            id: key.to_string(),
            reason,
        };
        let context = self.context.scheme().context();
        let block =
            record::encode(format, context, &self.aggregate, key, loaded).map_err(failed)?;
        let cid = block.cid.ok_or_else(|| failed("the format has no CID".to_owned()))?;
        Ok((block, cid))
    }

    /// Offers a snapshot for writing behind the commit, if the policy says so.
    pub(super) fn snapshot_if_due(&self, key: &AggregateId, before: u64, loaded: &Arc<Loaded<A>>) {
        let version = loaded.head.version;
        if !self.snapshots.is_due(before, version) || loaded.deleted {
            return;
        }
        let slot = record::snapshot_key(&self.aggregate, key, version);
        let (repository, key, shared) = (self.clone(), key.clone(), Arc::clone(loaded));
        let encode = move || match repository.snapshot_block(&key, &shared) {
            Ok((block, _)) => Some(block.bytes),
            Err(error) => {
                tracing::warn!(%error, "a snapshot cannot be encoded and is not taken");
                None
            }
        };
        let (replaces, encode) = (record::replaces, Box::new(encode));
        self.context.snapshots().offer(slot, Offer { version, over: None, replaces, encode });
    }

    /// A snapshot at or before a version, if there is one that can be read: the one taken last, which one round trip
    /// finds. Where that one is of a later version, all are listed, and the newest at or before the version is read.
    pub(super) async fn snapshot_before(
        &self,
        key: &AggregateId,
        version: u64,
    ) -> Option<Loaded<A>> {
        let bucket = self.context.snapshots().bucket();
        let pattern = format!("{}.{}.*", self.aggregate, key.as_str());
        let newest = match bucket.newest(&Pattern::parse(&pattern).ok()?).await {
            Ok(newest) => newest?,
            Err(error) => {
                tracing::warn!(aggregate = %self.aggregate, id = %key, %error, "snapshots cannot be read");
                return None;
            }
        };
        match newest.value.filter(|_| version_in(&newest.key).is_some_and(|found| found <= version))
        {
            Some(value) => self.read_snapshot(key, &value),
            None => self.listed_snapshot(key, &pattern, version).await,
        }
    }

    /// The newest snapshot at or before a version, looked for among all of them.
    async fn listed_snapshot(
        &self,
        key: &AggregateId,
        pattern: &str,
        version: u64,
    ) -> Option<Loaded<A>> {
        let bucket = self.context.snapshots().bucket();
        let keys = match bucket.keys(pattern).await {
            Ok(keys) => keys,
            Err(error) => {
                tracing::warn!(aggregate = %self.aggregate, id = %key, %error, "snapshots cannot be listed");
                return None;
            }
        };
        let newest: Option<Key> = keys
            .into_iter()
            .filter_map(|slot| version_in(&slot).map(|found| (found, slot)))
            .filter(|(found, _)| *found <= version)
            .max_by_key(|(found, _)| *found)
            .map(|(_, slot)| slot);
        let slot = bucket.get(&newest?, ReadFrom::Nearest).await.ok()?;
        self.read_snapshot(key, &slot.value?)
    }

    fn read_snapshot(&self, key: &AggregateId, value: &[u8]) -> Option<Loaded<A>> {
        record::decode(value, &self.context, &self.aggregate, key)
            .inspect_err(|error| match error {
                Unusable::OtherShape(reason) => {
                    tracing::debug!(aggregate = %self.aggregate, id = %key, reason, "a snapshot is not used");
                }
                Unusable::Wrong(reason) => {
                    tracing::warn!(aggregate = %self.aggregate, id = %key, reason, "a snapshot is not used");
                }
            })
            .ok()
    }
}

fn version_in(slot: &Key) -> Option<u64> {
    slot.as_str().rsplit('.').next()?.parse().ok()
}
