//! Where the writes of a migration go: to the buckets, each batch with the fence; or, in a dry run, into memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use uuid::Uuid;

use super::MigrationError;
use super::held::{Held, patiently};
use super::records::{At, Fence, Tally, fence_key};
use crate::backend::ReadFrom;
use crate::event::{Headers, NonEmpty};
use crate::state::{Change, Entry, Key, KeyValue, KeyWrite, Slot};
use crate::store::Context;
use crate::subject::Pattern;

/// How long is waited before a replica that is behind is asked again.
const PAUSE: Duration = Duration::from_millis(5);

/// One of the buckets that hold what can be migrated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Place {
    Models,
    State,
    Snapshots,
}

impl Place {
    /// In the order in which fences are taken.
    pub(super) const ALL: [Self; 3] = [Self::Models, Self::State, Self::Snapshots];

    /// The bucket; none where no state is kept.
    pub(super) fn bucket(self, context: &Context) -> Option<Arc<dyn KeyValue>> {
        match self {
            Self::Models => Some(Arc::clone(context.read_models())),
            Self::State => context.state().map(|writer| Arc::clone(writer.bucket())),
            Self::Snapshots => Some(Arc::clone(context.snapshots().bucket())),
        }
    }
}

/// Where the writes go.
#[derive(Debug)]
pub(super) enum Target {
    Stored(BTreeMap<Place, Held<Fence>>),
    Imagined(BTreeMap<Place, Imagined>),
}

/// A bucket as it would be.
#[derive(Debug)]
pub(super) struct Imagined {
    bucket: Arc<dyn KeyValue>,
    changed: BTreeMap<Key, (Option<Bytes>, Headers)>,
    at: Option<At>,
    tally: Tally,
}

impl Target {
    /// Takes the fences of all buckets, before anything is known of them: from then on no earlier runner writes.
    pub(super) async fn fenced(
        context: &Context,
        epoch: u64,
        run: Uuid,
        patience: Duration,
    ) -> Result<Self, MigrationError> {
        let mut fences = BTreeMap::new();
        for place in Place::ALL {
            let Some(bucket) = place.bucket(context) else { continue };
            let body = |found: Option<Fence>| {
                let fresh = || Fence { run, ..Fence::default() };
                found.filter(|fence| fence.run == run).unwrap_or_else(fresh)
            };
            let held = Held::join(bucket, fence_key(), patience, epoch, body).await?;
            fences.insert(place, held);
        }
        Ok(Self::Stored(fences))
    }

    pub(super) fn imagined(context: &Context) -> Self {
        let buckets = Place::ALL.into_iter().filter_map(|place| {
            let bucket = place.bucket(context)?;
            let (changed, at, tally) = Default::default();
            Some((place, Imagined { bucket, changed, at, tally }))
        });
        Self::Imagined(buckets.collect())
    }

    pub(super) fn has(&self, place: Place) -> bool {
        match self {
            Self::Stored(fences) => fences.contains_key(&place),
            Self::Imagined(buckets) => buckets.contains_key(&place),
        }
    }

    pub(super) fn is_imagined(&self) -> bool {
        matches!(self, Self::Imagined(_))
    }

    /// How far the run is there.
    pub(super) fn at(&self, place: Place) -> Option<&At> {
        match self {
            Self::Stored(fences) => fences.get(&place)?.body().at.as_ref(),
            Self::Imagined(buckets) => buckets.get(&place)?.at.as_ref(),
        }
    }

    /// Whether something may have been written there that is not known.
    pub(super) fn is_open(&self, place: Place) -> bool {
        match self {
            Self::Stored(fences) => fences.get(&place).is_some_and(Held::is_open),
            Self::Imagined(_) => false,
        }
    }

    pub(super) fn tally_of(&self, place: Place) -> Tally {
        match self {
            Self::Stored(fences) => fences.get(&place).map(|held| held.body().tally),
            Self::Imagined(buckets) => buckets.get(&place).map(|bucket| bucket.tally),
        }
        .unwrap_or_default()
    }

    pub(super) fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        Place::ALL.into_iter().for_each(|place| tally.add(self.tally_of(place)));
        tally
    }

    /// One batch, and how far the run is with it. False when something was not as expected: read it again.
    pub(super) async fn write(
        &mut self,
        place: Place,
        writes: Vec<KeyWrite>,
        at: At,
        tally: Tally,
    ) -> Result<bool, MigrationError> {
        match self {
            Self::Stored(fences) => {
                let Some(held) = fences.get_mut(&place) else { return Ok(true) };
                let mut body = held.body().clone();
                body.at = Some(at);
                body.tally.add(tally);
                held.commit(writes, body).await
            }
            Self::Imagined(buckets) => {
                let Some(bucket) = buckets.get_mut(&place) else { return Ok(true) };
                bucket.changed.extend(writes.into_iter().map(|write| {
                    let value = match write.change {
                        Change::Put(value) => Some(value),
                        Change::Delete => None,
                    };
                    (write.key, (value, write.headers))
                }));
                bucket.at = Some(at);
                bucket.tally.add(tally);
                Ok(true)
            }
        }
    }

    /// All keys that match, in the order of their texts.
    pub(super) async fn keys(
        &self,
        place: Place,
        pattern: &Pattern,
        patience: Duration,
    ) -> Result<Vec<Key>, MigrationError> {
        let Some(bucket) = self.bucket(place) else { return Ok(Vec::new()) };
        let mut keys = patiently(patience, || bucket.keys(pattern.as_str())).await?;
        if let Self::Imagined(buckets) = self {
            let imagined = buckets.get(&place).into_iter().flat_map(|bucket| bucket.changed.keys());
            keys.extend(imagined.filter(|key| pattern.matches(key.as_str())).cloned());
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    /// The entries of keys that hold a value, in the order of the keys. One round trip for up to a thousand.
    ///
    /// The fence is asked for as well: a replica that has it as it was written last has everything that was written before.
    pub(super) async fn entries(
        &self,
        place: Place,
        keys: &[Key],
        patience: Duration,
    ) -> Result<Vec<Entry>, MigrationError> {
        let Some(bucket) = self.bucket(place) else { return Ok(Vec::new()) };
        let fence = fence_key();
        let mut patterns = NonEmpty::one(Pattern::parse(fence.as_str())?);
        for key in keys {
            patterns.push(Pattern::parse(key.as_str())?);
        }
        let found = loop {
            let read = || async { bucket.matching(&patterns).await?.all() };
            let found = patiently(patience, read).await?;
            let seen = found.iter().find(|entry| entry.key == fence).map(|entry| entry.revision);
            if seen.unwrap_or(0) >= self.revision(place) {
                break found;
            }
            sleep(PAUSE).await;
        };
        let mut entries: HashMap<Key, Entry> =
            found.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        if let Self::Imagined(buckets) = self {
            for key in keys {
                let Some(bucket) = buckets.get(&place) else { break };
                let Some((value, headers)) = bucket.changed.get(key) else { continue };
                let written_at = crate::clock::Timestamp::default();
                let (value, headers) = (value.clone(), headers.clone());
                let entry = Entry { key: key.clone(), revision: 0, written_at, headers, value };
                entries.insert(key.clone(), entry);
            }
        }
        let entries = keys.iter().filter_map(|key| entries.remove(key));
        Ok(entries.filter(|entry| entry.value.is_some()).collect())
    }

    /// What one key holds, as the leader sees it.
    pub(super) async fn get(
        &self,
        place: Place,
        key: &Key,
        patience: Duration,
    ) -> Result<Slot, MigrationError> {
        if let Self::Imagined(buckets) = self
            && let Some((value, _)) = buckets.get(&place).and_then(|b| b.changed.get(key))
        {
            return Ok(Slot { revision: 0, value: value.clone() });
        }
        let Some(bucket) = self.bucket(place) else { return Ok(Slot::default()) };
        Ok(patiently(patience, || bucket.get(key, ReadFrom::Leader)).await?)
    }

    /// The revision of the fence, 0 without one.
    fn revision(&self, place: Place) -> u64 {
        match self {
            Self::Stored(fences) => fences.get(&place).map_or(0, Held::revision),
            Self::Imagined(_) => 0,
        }
    }

    fn bucket(&self, place: Place) -> Option<&Arc<dyn KeyValue>> {
        match self {
            Self::Stored(fences) => fences.get(&place).map(Held::bucket),
            Self::Imagined(buckets) => buckets.get(&place).map(|bucket| &bucket.bucket),
        }
    }
}
