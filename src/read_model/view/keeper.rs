//! Keeping the results of views current: for each view a live view of its models, asked anew after every change.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use tokio::time::sleep;

use super::{Record, ViewDefinition, ViewItem, ViewResult, all_views, checked, name_of};
use super::{record_of, write_of};
use crate::backend::{BackendError, ReadFrom, Start};
use crate::clock::Timestamp;
use crate::event::NonEmpty;
use crate::read_model::live::{LiveOptions, LiveView, Moment, Task};
use crate::read_model::{ReadModelError, ReadModelStore};
use crate::state::{Entry, Key, KeyValue, Watched};

/// How long a result is left alone before the next one: changes that come meanwhile are one.
const REST: Duration = Duration::from_millis(20);

/// How long is waited after a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// Keeps the results of all views of a store current, until it is dropped.
///
/// It holds the models of each view in memory. Several keepers of one store do no harm: a result is written only over an
/// older one. A result lags some ten milliseconds behind its models.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use cim_persistence::state::MemoryKeyValue;
/// use cim_persistence::read_model::{ReadModelStore, ViewDefinition, ViewKeeper, ViewStatus};
/// use cim_persistence::specification::{SearchOptions, field};
/// use cim_persistence::subject::AggregateId;
///
/// # let store = ReadModelStore::on(std::sync::Arc::new(MemoryKeyValue::new("readmodels")));
/// let keeper = ViewKeeper::start(&store);
/// let worst = SearchOptions::default().order_by("-delay")?.limit(10);
/// store.create_view("worst", ViewDefinition::new("board.>", field("delay").gt(30), worst)).await?;
///
/// let boards = store.untyped("board")?;
/// let id = AggregateId::new("JFK")?;
/// boards.save_document(&id, &serde_json::json!({"delay": 45}), Default::default()).await?;
/// let view = loop {
///     match store.get_view("worst").await? {
///         Some(view) if view.status == ViewStatus::UpToDate => break view,
///         _ => tokio::task::yield_now().await,
///     }
/// };
/// assert_eq!(view.result.map(|result| result.total), Some(1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ViewKeeper {
    _task: Task,
}

impl ViewKeeper {
    /// Begins to keep the views of a store, those to come as well. Must be called within a runtime of tokio.
    pub fn start(store: &ReadModelStore) -> Self {
        Self { _task: Task::spawn(keep_all(store.clone())) }
    }
}

async fn keep_all(store: ReadModelStore) {
    let mut kept = HashMap::new();
    loop {
        if let Err(error) = follow_definitions(&store, &mut kept).await {
            tracing::warn!(%error, "the keeper of views begins again");
        }
        sleep(AGAIN).await;
    }
}

/// Starts and ends the keeping of single views until the watch fails.
async fn follow_definitions(
    store: &ReadModelStore,
    kept: &mut HashMap<Key, (ViewDefinition, Task)>,
) -> Result<(), ReadModelError> {
    let mut watched = store.reader.bucket.watch(all_views()?, Start::Latest);
    while let Some(watched) = watched.try_next().await? {
        let Watched::Entry(Entry { key, value, .. }) = watched else { continue };
        let definition = match value.map(|value| record_of(&key, &value)).transpose() {
            Ok(record) => record.map(|record| record.definition),
            Err(error) => {
                tracing::warn!(%error, "a view is not kept");
                None
            }
        };
        match definition {
            None => drop(kept.remove(&key)),
            Some(definition) if kept.get(&key).is_some_and(|(old, _)| *old == definition) => {}
            Some(definition) => {
                let one = KeptView { store: store.clone(), key: key.clone(), definition };
                let definition = one.definition.clone();
                kept.insert(key, (definition, Task::spawn(one.keep())));
            }
        }
    }
    Ok(())
}

struct KeptView {
    store: ReadModelStore,
    key: Key,
    definition: ViewDefinition,
}

/// What an attempt to compute a result came to.
type Outcome = Result<ViewResult, String>;

impl KeptView {
    async fn keep(self) {
        loop {
            let error = match self.follow().await {
                Ok(()) => return,
                Err(error) => error,
            };
            tracing::warn!(key = %self.key, %error, "a view's result is not kept");
            if let Err(error) = self.store_outcome(&Err(error.to_string())).await {
                tracing::warn!(key = %self.key, %error, "a view's failure is not stored");
            }
            sleep(AGAIN).await;
        }
    }

    /// Stores a new result after each change; ends well when the view is no more as it was.
    async fn follow(&self) -> Result<(), ReadModelError> {
        let (pattern, compiled) = checked(&name_of(&self.key), &self.definition)?;
        let models = self.store.untyped(pattern.model_type())?;
        let view = LiveView::start(&models, &pattern, LiveOptions::default()).await?;
        loop {
            let (page, moment) =
                view.page_of_documents(compiled.clone(), &self.definition.options)?;
            let items = page.items.into_iter();
            let items = items.map(|found| ViewItem { id: found.id, document: found.document });
            let outcome = match view.errors().first() {
                Some(bad) => {
                    Err(format!("{} at revision {}: {}", bad.id, bad.revision, bad.reason))
                }
                None => Ok(result(page.total, items.collect(), moment)),
            };
            match self.store_outcome(&outcome).await {
                Ok(Stored::Current) => {}
                Ok(Stored::Gone) => return Ok(()),
                Err(error) => return Err(error),
            }
            view.changed_since(moment).await;
            sleep(REST).await;
        }
    }

    /// Writes a result that is newer than the stored one, or why there is none.
    async fn store_outcome(&self, outcome: &Outcome) -> Result<Stored, ReadModelError> {
        let bucket: &Arc<dyn KeyValue> = &self.store.reader.bucket;
        loop {
            let slot = bucket.get(&self.key, ReadFrom::Leader).await?;
            let Some(value) = slot.value else { return Ok(Stored::Gone) };
            let stored = record_of(&self.key, &value)?;
            if stored.definition != self.definition {
                return Ok(Stored::Gone);
            }
            let Some(record) = changed(stored, outcome) else { return Ok(Stored::Current) };
            let write = write_of(&self.key, &record, slot.revision);
            match bucket.write(NonEmpty::one(write)).await {
                Ok(_) => return Ok(Stored::Current),
                Err(BackendError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What became of an outcome.
enum Stored {
    /// It, or a newer one, is stored.
    Current,
    /// The view was dropped, or defined anew.
    Gone,
}

fn result(total: usize, items: Vec<ViewItem>, moment: Moment) -> ViewResult {
    let Moment { revision, generation } = moment;
    let computed_at = Timestamp::now();
    ViewResult { total, items, revision, generation: generation.unwrap_or_default(), computed_at }
}

/// The record with an outcome, or nothing when it says the same or something newer already.
fn changed(stored: Record, outcome: &Outcome) -> Option<Record> {
    match outcome {
        Ok(result) => {
            let moment = |result: &ViewResult| (result.generation, result.revision);
            let newer = stored.result.as_ref().is_none_or(|old| moment(old) < moment(result));
            let mends = stored.failure.is_some()
                && stored.result.as_ref().is_none_or(|old| moment(old) <= moment(result));
            let record = Record { result: Some(result.clone()), failure: None, ..stored };
            (newer || mends).then_some(record)
        }
        Err(failure) if stored.failure.as_ref() == Some(failure) => None,
        Err(failure) => Some(Record { failure: Some(failure.clone()), ..stored }),
    }
}
