//! What is derived from the events and kept beside them: the cache and the current state in its bucket.

use std::sync::Arc;
use std::time::Instant;

use quick_cache::sync::{EntryAction, EntryResult};

use super::loaded::{Cached, Loaded};
use super::record::{self, Unusable};
use super::{Aggregate, Repository};
use crate::backend::ReadFrom;
use crate::state::{Offer, Slot};
use crate::subject::AggregateId;

/// What a load begins with. It is believed only after a look at the events.
pub(super) struct Base<A> {
    pub(super) loaded: Option<Arc<Loaded<A>>>,
    /// The revision of the record that it was read from, or that there is and cannot be read. Where the record is wrong, what
    /// is derived instead is written over it.
    pub(super) revision: Option<u64>,
}

impl<A> Base<A> {
    pub(super) fn cached(loaded: Arc<Loaded<A>>) -> Self {
        Self { loaded: Some(loaded), revision: None }
    }
}

impl<A> Default for Base<A> {
    /// Nothing.
    fn default() -> Self {
        Self { loaded: None, revision: None }
    }
}

impl<A: Aggregate + Send + Sync + 'static> Repository<A> {
    /// Current state as it is kept, if it is there and can be read.
    pub(super) async fn kept(&self, key: &AggregateId) -> Base<A> {
        let base = self.kept_slot(key).await.map(|slot| self.decoded(key, slot));
        let base = base.unwrap_or_default();
        if let Some(loaded) = &base.loaded {
            // Whoever describes what is loaded needs the CID of its state. The newest event, to which it is compared, is
            // mostly still on its way.
            let _ = loaded.state_cid(self.context.format());
        }
        base
    }

    async fn kept_slot(&self, key: &AggregateId) -> Option<Slot> {
        let bucket = self.context.state()?.bucket();
        let slot_key = record::state_key(&self.aggregate, key);
        let slot = bucket.get(&slot_key, ReadFrom::Nearest).await;
        slot.inspect_err(|error| {
            tracing::warn!(aggregate = %self.aggregate, id = %key, %error, "kept state cannot be read");
        })
        .ok()
    }

    /// What the bucket holds of an aggregate.
    pub(super) fn decoded(&self, key: &AggregateId, slot: Slot) -> Base<A> {
        let Some(value) = slot.value else { return Base::default() };
        match record::decode(&value, &self.context, &self.aggregate, key) {
            Ok(loaded) => Base { loaded: Some(Arc::new(loaded)), revision: Some(slot.revision) },
            Err(Unusable::OtherShape(reason)) => {
                tracing::debug!(aggregate = %self.aggregate, id = %key, reason, "kept state is not used");
                Base::default()
            }
            Err(Unusable::Wrong(reason)) => {
                self.distrust(key, &reason);
                Base { loaded: None, revision: Some(slot.revision) }
            }
        }
    }

    /// Puts what was loaded or saved into the cache, unless the cache knows a later version.
    pub(super) fn remember(&self, key: &AggregateId, loaded: &Arc<Loaded<A>>, compared: Instant) {
        let Some(cache) = &self.cache else { return };
        let mut new = Cached { loaded: Arc::clone(loaded), compared };
        let entry = cache.entry(key, None, |_, cached| {
            if !cached.loaded.head.is_beyond(&loaded.head) {
                std::mem::swap(cached, &mut new);
            }
            EntryAction::Retain(())
        });
        if let EntryResult::Vacant(place) = entry {
            // It fails only when the cache was told to forget the key meanwhile.
            let _ = place.insert(new);
        }
    }

    /// Offers the state for writing behind.
    pub(super) fn keep(&self, key: &AggregateId, loaded: &Arc<Loaded<A>>) {
        self.keep_over(key, loaded, None);
    }

    /// Offers the state for writing behind, over a record that is wrong. If that one is gone by then, a later state stays.
    pub(super) fn keep_over(&self, key: &AggregateId, loaded: &Arc<Loaded<A>>, over: Option<u64>) {
        let Some(writer) = self.context.state() else { return };
        let slot_key = record::state_key(&self.aggregate, key);
        let (context, aggregate, id) =
            (self.context.scheme().context().clone(), self.aggregate.clone(), key.clone());
        let (format, shared) = (self.context.format(), Arc::clone(loaded));
        let encode = move || match record::encode(format, &context, &aggregate, &id, &shared) {
            Ok(block) => Some(block.bytes),
            Err(reason) => {
                tracing::warn!(%aggregate, %id, reason, "state cannot be encoded and is not kept");
                None
            }
        };
        let (version, encode) = (loaded.head.version, Box::new(encode));
        writer.offer(slot_key, Offer { version, over, replaces: record::replaces, encode });
    }

    /// Counts and reports a record that cannot have been derived from the events that the log holds. One of another shape
    /// is none of these, and none is one that a replica cannot confirm yet.
    pub(super) fn distrust(&self, key: &AggregateId, reason: &str) {
        metrics::counter!("cim_state_distrusted_total").increment(1);
        tracing::warn!(
            context = %self.context.scheme().context(),
            aggregate = %self.aggregate,
            id = %key,
            reason,
            "derived state disagrees with the events and is not used"
        );
    }
}
