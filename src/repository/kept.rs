//! What is derived from the events and kept beside them: the cache and the current state in its bucket.

use std::sync::Arc;
use std::time::Instant;

use quick_cache::sync::{EntryAction, EntryResult};

use super::loaded::{Cached, Loaded};
use super::{Aggregate, Repository, record};
use crate::backend::ReadFrom;
use crate::subject::AggregateId;

impl<A: Aggregate + Send + Sync + 'static> Repository<A> {
    /// Current state as it is kept, if it is there and can be read. It is believed only after a look at the events.
    pub(super) async fn kept(&self, key: &AggregateId) -> Option<Arc<Loaded<A>>> {
        let bucket = self.context.state()?.bucket();
        let slot_key = record::state_key(&self.aggregate, key).ok()?;
        let slot = match bucket.get(&slot_key, ReadFrom::Nearest).await {
            Ok(slot) => slot,
            Err(error) => {
                tracing::warn!(aggregate = %self.aggregate, id = %key, %error, "kept state cannot be read");
                return None;
            }
        };
        match record::decode(&slot.value?, &self.context, &self.aggregate, key) {
            Ok(loaded) => {
                // Whoever describes what is loaded needs the CID of its state, and meets the error. The newest event, to which
                // it is compared, is mostly still on its way.
                drop(loaded.state_cid(self.context.format()));
                Some(Arc::new(loaded))
            }
            Err(reason) => {
                self.distrust(key, &reason);
                None
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
        let Some(writer) = self.context.state() else { return };
        let Ok(slot_key) = record::state_key(&self.aggregate, key) else { return };
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
        writer.offer(slot_key, loaded.head.version, record::replaces, Box::new(encode));
    }

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
