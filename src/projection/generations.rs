//! Generations: which one readers see, which one is being built, and how one follows another.
//!
//! Each model type has a pointer, `=model.<type>`, that readers look at together with the model. All pointers of a
//! projection move in one atomic batch.

use super::error::ProjectionError;
use super::feed::{PAUSE, mark};
use super::pointers::{self, Kept};
use super::records::{Checkpoint, FORMAT, Held, Keys, generation_of, put, read};
use super::{Declared, Projection};
use crate::backend::{BackendError, Position, ReadFrom, StoredMessage};
use crate::event::NonEmpty;
use crate::event_log::{EventLog, LogQuery, status_since};
use crate::lease::is_held;
use crate::read_model::index::Index;
use crate::read_model::layout::{self, IndexState, Pointer, Shelf};
use crate::state::{Expected, Key, KeyValue, KeyWrite};
use crate::store::Context;

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::sleep;
use uuid::Uuid;

/// What an instance has to do.
pub(super) struct Plan {
    /// The generation that readers see, kept current.
    pub(super) live: Option<(u64, Held<Checkpoint>)>,
    /// The generation that is being built, and the pointers that move when it is done.
    pub(super) building: Option<Building>,
    /// What readers see, whoever keeps it.
    pub(super) visible: Option<u64>,
    /// The lease of the newer version that a rebuild is left to.
    pub(super) newer: Option<Key>,
    /// The types of which earlier generations may be left.
    pub(super) untidy: Vec<Kept>,
}

pub(super) struct Building {
    pub(super) generation: u64,
    pub(super) checkpoint: Held<Checkpoint>,
    pointers: Vec<(Declared, Held<Pointer>)>,
}

/// Finds out where a projection stands, and begins a generation if one is needed.
pub(super) async fn plan<P: Projection>(
    context: &Context,
    rebuild: u64,
    lease: Duration,
) -> Result<Plan, ProjectionError> {
    let bucket = context.read_models().as_ref();
    let keys = Keys::of(P::NAME);
    let kept = pointers::kept::<P>(bucket).await?;
    let visible = pointers::visible(&kept);
    let seen = match visible {
        Some(generation) => {
            read_checkpoint(bucket, &keys, generation).await?.map(|c| (generation, c))
        }
        None => None,
    };
    if let Some((_, checkpoint)) = &seen
        && checkpoint.record.version > P::VERSION
    {
        return Err(outdated::<P>(checkpoint.record.version));
    }
    // A type that was added is in no generation yet.
    let mut declared = kept.iter().filter(|kept| kept.declared.is_some());
    let whole = declared.all(|kept| kept.pointer.record.generation == visible);
    let live = seen.filter(|(_, checkpoint)| whole && checkpoint.record.version == P::VERSION);
    let fulfilled =
        live.as_ref().is_some_and(|(_, checkpoint)| checkpoint.record.rebuild >= rebuild);
    if fulfilled {
        if let Some((_, checkpoint)) = &live {
            check_log(context, P::NAME, &checkpoint.record).await?;
        }
        let untidy = pointers::untidy(kept);
        return Ok(Plan { live, building: None, visible, newer: None, untidy });
    }
    // A log that is not the one it was is no reason not to build anew.
    let live = match live {
        Some(live) if is_same_log(context, P::NAME, &live.1.record).await? => Some(live),
        _ => None,
    };
    if let Some((newer, key)) = newer_builder::<P>(bucket, &keys, &kept).await? {
        // Two versions that build would each undo what the other began.
        if live.is_some() {
            tracing::info!(
                projection = P::NAME,
                newer,
                "a newer version builds; this one does not"
            );
            let (newer, untidy) = (Some(key), Vec::new());
            return Ok(Plan { live, building: None, visible, newer, untidy });
        }
        if is_held(bucket, &key, lease).await? {
            return Err(outdated::<P>(newer));
        }
    }
    let building = building::<P>(context, &keys, kept, rebuild).await?;
    Ok(Plan { live, building: Some(building), visible, newer: None, untidy: Vec::new() })
}

fn outdated<P: Projection>(newer: u32) -> ProjectionError {
    ProjectionError::Outdated { projection: P::NAME.to_owned(), own: P::VERSION, newer }
}

/// The newer version of the projection that is building a generation, or was when it ended, and its lease.
async fn newer_builder<P: Projection>(
    bucket: &dyn KeyValue,
    keys: &Keys,
    kept: &[Kept],
) -> Result<Option<(u32, Key)>, ProjectionError> {
    let building = kept.iter().filter_map(|kept| kept.pointer.record.building).max();
    let Some(generation) = building else { return Ok(None) };
    let checkpoint = read_checkpoint(bucket, keys, generation).await?;
    let version = checkpoint.map_or(0, |checkpoint| checkpoint.record.version);
    if version <= P::VERSION {
        return Ok(None);
    }
    // One that was stopped has given its lease back.
    let lease = keys.lease(version)?;
    let given_back = bucket.get(&lease, ReadFrom::Leader).await?.value.is_none();
    Ok((!given_back).then_some((version, lease)))
}

/// Waits until the newer version that a rebuild was left to is gone, so that this one may build after all. As long as that
/// cannot be seen, it is not.
pub(super) async fn gone(context: &Context, newer: Option<Key>, lease: Duration) {
    let Some(key) = newer else { return std::future::pending().await };
    loop {
        match is_held(context.read_models().as_ref(), &key, lease).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::debug!(%error, %key, "the lease of a newer version is not seen");
                sleep(lease).await;
            }
        }
    }
}

/// The generation that readers see.
pub(super) async fn visible<P: Projection>(
    context: &Context,
) -> Result<Option<u64>, ProjectionError> {
    Ok(pointers::visible(&pointers::kept::<P>(context.read_models().as_ref()).await?))
}

async fn read_checkpoint(
    bucket: &dyn KeyValue,
    keys: &Keys,
    generation: u64,
) -> Result<Option<Held<Checkpoint>>, ProjectionError> {
    let (revision, record) = read(bucket, &keys.checkpoint(generation)?).await?;
    Ok(record.map(|record| Held { record, revision }))
}

/// The generations that end when another is begun: all that have a checkpoint, but for the one that readers see.
async fn given_up(
    bucket: &dyn KeyValue,
    checkpoints: &[Key],
    kept: &[Kept],
) -> Result<BTreeSet<u64>, BackendError> {
    let mut given_up: BTreeSet<u64> =
        kept.iter().filter_map(|kept| kept.pointer.record.building).collect();
    for keys in checkpoints.chunks(ASKED) {
        let there = keys.iter().zip(bucket.get_many(keys).await?);
        let there = there.filter(|(_, slot)| slot.value.is_some());
        given_up.extend(there.filter_map(|(key, _)| generation_of(key)));
    }
    if let Some(visible) = pointers::visible(kept) {
        given_up.remove(&visible);
    }
    Ok(given_up)
}

/// How many keys one request asks for.
const ASKED: usize = 1000;

/// The generation that is being built already, or a new one.
async fn building<P: Projection>(
    context: &Context,
    keys: &Keys,
    mut kept: Vec<Kept>,
    rebuild: u64,
) -> Result<Building, ProjectionError> {
    let bucket = context.read_models().as_ref();
    let newest = |pointer: &Pointer| pointer.building.max(pointer.generation).unwrap_or(0);
    let latest = kept.iter().map(|kept| newest(&kept.pointer.record)).max().unwrap_or(0);
    let mut declared = kept.iter().filter(|kept| kept.declared.is_some());
    let begun = declared.all(|kept| kept.pointer.record.building == Some(latest));
    if begun && let Some(checkpoint) = read_checkpoint(bucket, keys, latest).await? {
        let ours = checkpoint.record.version == P::VERSION && checkpoint.record.rebuild >= rebuild;
        if ours && is_same_log(context, P::NAME, &checkpoint.record).await? {
            return Ok(Building { generation: latest, checkpoint, pointers: declared_of(kept) });
        }
    }
    let checkpoints = bucket.keys(&keys.all_checkpoints()).await?;
    // The key of a checkpoint that was there once is not free, whatever became of its pointers.
    let last = checkpoints.iter().filter_map(generation_of).max();
    let generation = last.map_or(latest, |last| last.max(latest)).saturating_add(1);
    let given_up = given_up(bucket, &checkpoints, &kept).await?;
    let checkpoint = Checkpoint {
        format: FORMAT,
        version: P::VERSION,
        position: Position::START,
        mark: None,
        log_created: context.status().await?.created,
        events: 0,
        parked: 0,
        rebuild,
        writer: Uuid::new_v4(),
    };
    let key = keys.checkpoint(generation)?;
    let mut writes = vec![put(key, &checkpoint, Expected::Revision(0))];
    for Kept { key, declared, pointer: Held { record, revision } } in &mut kept {
        if declared.is_none() && record.building.is_none() {
            continue;
        }
        record.building = declared.is_some().then_some(generation);
        // Of a type that is new here nothing is there but what was saved by hand.
        if *revision > 0 {
            record.retired.extend(&given_up);
        }
        writes.push(put(key.clone(), record, Expected::Revision(*revision)));
    }
    let mut pointers = declared_of(kept);
    for (kind, _) in &pointers {
        // Of nothing, every index is complete.
        let shelf = Shelf::new(kind.model, generation);
        let states = Index::all(&kind.indexes)?.into_iter();
        writes.extend(states.map(|index| IndexState::Ready.write(shelf.index_state(index.name()))));
    }
    for generation in given_up {
        // So that nobody writes to it any more, or waits for it.
        writes.push(layout::cleared(keys.checkpoint(generation)?));
    }
    let writes = NonEmpty::from_vec(writes).expect("the checkpoint is in it");
    let revisions = bucket.write(writes).await?;
    for ((_, held), revision) in pointers.iter_mut().zip(&revisions[1..]) {
        held.revision = *revision;
    }
    let checkpoint = Held { record: checkpoint, revision: revisions[0] };
    Ok(Building { generation, checkpoint, pointers })
}

fn declared_of(kept: Vec<Kept>) -> Vec<(Declared, Held<Pointer>)> {
    let declared = |Kept { declared, pointer, .. }| Some((declared?, pointer));
    kept.into_iter().filter_map(declared).collect()
}

/// The checkpoint of the generation that another is to follow.
pub(super) struct Left {
    key: Key,
    position: Position,
    expected: Expected,
}

impl Left {
    /// Whether readers would go back.
    pub(super) fn is_ahead_of(&self, built: &Held<Checkpoint>) -> bool {
        self.position > built.record.position
    }
}

/// Where readers are. What this version keeps may go no further; an older version does as it likes, and would have the
/// last word for ever if it were waited for.
pub(super) async fn left<P: Projection>(
    context: &Context,
    visible: Option<u64>,
    ours: bool,
) -> Result<Option<Left>, ProjectionError> {
    let Some(generation) = visible else { return Ok(None) };
    let key = Keys::of(P::NAME).checkpoint(generation)?;
    let (revision, record) = read::<Checkpoint>(context.read_models().as_ref(), &key).await?;
    let expected = if ours { Expected::Revision(revision) } else { Expected::Anything };
    Ok(record.map(|record| Left { key, position: record.position, expected }))
}

/// Shows readers the generation that was built, all its models at once. The checkpoint of the one before goes with that,
/// so that nobody writes to it any more, or waits for it.
pub(super) async fn switch(
    bucket: &dyn KeyValue,
    building: Building,
    left: Option<Left>,
) -> Result<(), ProjectionError> {
    let mut writes = Vec::new();
    if let Some(Left { key, expected, .. }) = left {
        writes.push(KeyWrite { expected, ..layout::cleared(key) });
    }
    for (kind, mut held) in building.pointers {
        held.record.retired.extend(held.record.generation);
        let record = Pointer {
            generation: Some(building.generation),
            schema_version: kind.schema_version,
            building: None,
            ..held.record
        };
        let expected = Expected::Revision(held.revision);
        writes.push(put(layout::pointer_key(kind.model)?, &record, expected));
    }
    let writes = NonEmpty::from_vec(writes).expect("a projection keeps at least one kind of model");
    bucket.write(writes).await?;
    Ok(())
}

pub(super) async fn is_same_log(
    context: &Context,
    projection: &str,
    checkpoint: &Checkpoint,
) -> Result<bool, ProjectionError> {
    match check_log(context, projection, checkpoint).await {
        Ok(()) => Ok(true),
        Err(ProjectionError::LogTruncated { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Refuses a log that is not the one that a checkpoint was made on. Two round trips, more while it seems to be too short.
pub(crate) async fn check_log(
    context: &Context,
    projection: &str,
    checkpoint: &Checkpoint,
) -> Result<(), ProjectionError> {
    let truncated = |reason: String| ProjectionError::LogTruncated {
        projection: projection.to_owned(),
        position: checkpoint.position.get(),
        reason,
    };
    let log = context.log().as_ref();
    let status = status_since(log, checkpoint.log_created, checkpoint.position).await?;
    if status.created != checkpoint.log_created {
        return Err(truncated(format!("but it was made anew on {}", status.created)));
    }
    if status.last < checkpoint.position {
        return Err(truncated(format!("but it ends at {}", status.last)));
    }
    let Some(wanted) = &checkpoint.mark else { return Ok(()) };
    match claimed_at(log, checkpoint.position).await? {
        Some(found) if found == *wanted => Ok(()),
        found => Err(truncated(format!(
            "but holds {} there, not {wanted}",
            found.as_deref().unwrap_or("nothing of that kind")
        ))),
    }
}

async fn claimed_at(
    log: &dyn EventLog,
    position: Position,
) -> Result<Option<String>, BackendError> {
    let message = message_at(log, position).await?;
    Ok(message.and_then(|message| mark(&message.headers)))
}

/// The message at a position that the log has reached. A replica that has not is asked again.
async fn message_at(
    log: &dyn EventLog,
    position: Position,
) -> Result<Option<StoredMessage>, BackendError> {
    for _ in 0..LOOKS {
        if let Some(message) = first_from(log, position).await? {
            return Ok(Some(message).filter(|message| message.position == position));
        }
        sleep(PAUSE).await;
    }
    Err(BackendError::unavailable(format!("no replica has come to position {position} of the log")))
}

/// How often is looked for a message that is there.
const LOOKS: u32 = 10;

/// The message at a position, or the first one behind it, as far as a replica knows.
pub(super) async fn first_from(
    log: &dyn EventLog,
    position: Position,
) -> Result<Option<StoredMessage>, BackendError> {
    let after = Position::new(position.get().saturating_sub(1));
    log.read(LogQuery { filter: None, after }).next().await.transpose()
}
