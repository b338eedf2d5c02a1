//! Live views: a copy of some models in memory, kept current by a watch and asked at the speed of memory.
//!
//! What the copy is made of is in `contents.rs`, how it is asked in `query.rs`, who keeps it current in `follow.rs`.

mod contents;
mod query;
mod follow;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::{ModelPattern, Models, ReadModelError};
use crate::backend::BackendError;
use crate::specification::{Field, field, fields_of};
use contents::Contents;

pub use contents::Undecodable;
pub(super) use query::Moment;

/// How a live view is made.
///
/// ```
/// use cim_persistence::read_model::LiveOptions;
/// let options = LiveOptions::default().index("carrier").index("last.delay");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveOptions {
    /// The fields of the stored documents by which models are found without looking at all of them.
    pub indexes: Vec<Field>,
}

impl LiveOptions {
    /// Finds models by one more field, a path of names with dots between them.
    #[must_use]
    pub fn index(mut self, path: &str) -> Self {
        self.indexes.push(field(path));
        self
    }
}

/// A copy in memory of the models that a pattern means, kept current by a task of its own.
///
/// It is as current as its watch: usually some milliseconds behind the server, more when the server cannot be reached;
/// [`staleness`](Self::staleness) says how much, [`catch_up`](Self::catch_up) and [`wait_for`](Self::wait_for) wait until it is
/// not. When a rebuild is switched to, readers see the models of before until all new ones are there. Cloning is cheap
/// and shares the copy; with the last clone the task ends.
///
/// ```
/// # #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
/// # struct Board { origin: String, carrier: String, delay: i64 }
/// # impl cim_persistence::read_model::ReadModel for Board {
/// #     const MODEL_TYPE: &'static str = "board";
/// #     fn id(&self) -> Result<cim_persistence::subject::AggregateId, cim_persistence::subject::InvalidToken> {
/// #         cim_persistence::subject::AggregateId::from_tokens([&self.origin, &self.carrier])
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use cim_persistence::state::MemoryKeyValue;
/// use std::time::Duration;
/// use cim_persistence::read_model::{LiveOptions, LiveView, ModelPattern, ReadModelStore};
/// use cim_persistence::specification::{SearchOptions, field};
///
/// # let store = ReadModelStore::on(std::sync::Arc::new(MemoryKeyValue::new("readmodels")));
/// store.save(&Board { origin: "JFK".into(), carrier: "B6".into(), delay: 45 }).await?;
/// let boards = store.of::<Board>();
/// let view = LiveView::start(&boards, &ModelPattern::all("board"), LiveOptions::default().index("carrier")).await?;
/// assert_eq!(view.equal("carrier", "B6")?.len(), 1);
///
/// let saved = store.save(&Board { origin: "LGA".into(), carrier: "B6".into(), delay: 5 }).await?;
/// view.wait_for(saved, Duration::from_secs(5)).await?;
/// let late = field("carrier").eq("B6").and(field("delay").gt(30));
/// let page = view.query(None, &late, &SearchOptions::default())?;
/// assert_eq!((page.items[0].model.origin.as_str(), page.total), ("JFK", 1));
/// # Ok(())
/// # }
/// ```
pub struct LiveView<T> {
    shared: Arc<Shared<T>>,
    _task: Arc<Task>,
}

impl<T> Clone for LiveView<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), _task: Arc::clone(&self._task) }
    }
}

impl<T> fmt::Debug for LiveView<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern = self.shared.pattern.to_string();
        f.debug_struct("LiveView")
            .field("pattern", &pattern)
            .field("staleness", &self.staleness())
            .finish()
    }
}

/// How current a live view is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Staleness {
    /// What it is doing.
    pub state: LiveState,
    /// Everything that was stored longer ago than this is in it. A check of every other second keeps it small.
    pub age: Duration,
    /// The last change of a model that was seen.
    pub revision: u64,
}

/// What a live view is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LiveState {
    /// It follows, and the last check found nothing missing.
    Current,
    /// A rebuild was switched to; its models are being read. Readers see those of before.
    Resetting,
    /// The server does not answer, or not as it should. It is tried again and again.
    Unreachable {
        /// What happened last.
        reason: String,
    },
}

impl<T: DeserializeOwned + Send + Sync + 'static> LiveView<T> {
    /// Reads the models that a pattern means and returns when all are there.
    ///
    /// Costs what [`Models::watch`] costs, and memory for each model, its document and its place in each index. While the
    /// models are built for the first time, or the server does not answer, it waits; dropped, nothing remains.
    ///
    /// # Errors
    /// [`ReadModelError::OutsideStore`] when the pattern means another type; [`ReadModelError::Specification`] for an
    /// index on a field that does not exist; [`ReadModelError::Backend`] and others that waiting does not mend.
    pub async fn start(
        models: &Models<T>,
        pattern: &ModelPattern,
        options: LiveOptions,
    ) -> Result<Self, ReadModelError> {
        let known = fields_of::<T>();
        check(&options.indexes, known)?;
        let first = Progress {
            revision: 0,
            generation: None,
            state: LiveState::Resetting,
            verified: Instant::now(),
        };
        let shared = Arc::new(Shared {
            contents: RwLock::new(Contents::new(&options.indexes)),
            models: models.clone(),
            pattern: pattern.clone(),
            fields: options.indexes,
            known,
            progress: watch::Sender::new(first),
        });
        let (ready, is_ready) = oneshot::channel();
        let task = Arc::new(Task::spawn(follow::keep(Arc::clone(&shared), ready)));
        match is_ready.await {
            Ok(read) => read.map(|()| Self { shared, _task: task }),
            Err(_) => Err(BackendError::unavailable("the task of a live view ended").into()),
        }
    }

    /// Waits until everything that was stored before this call is in the view, at most so long. Some round trips.
    ///
    /// # Errors
    /// [`ReadModelError::Behind`] when the time is over; [`ReadModelError::NotBuilt`], [`ReadModelError::Backend`].
    pub async fn catch_up(&self, patience: Duration) -> Result<(), ReadModelError> {
        match timeout(patience, self.shared.verify()).await {
            Ok(verified) => verified,
            Err(_) => Err(self.behind(None, patience)),
        }
    }
}

impl<T> LiveView<T> {
    /// Waits until the view holds a change with this revision or a later one, at most so long. No round trip.
    ///
    /// It must be the revision of a model that the view's pattern means, as saving one returns it; others may never come.
    ///
    /// # Errors
    /// [`ReadModelError::Behind`] when the time is over.
    pub async fn wait_for(&self, revision: u64, patience: Duration) -> Result<(), ReadModelError> {
        let mut progress = self.shared.progress.subscribe();
        let reached = progress.wait_for(|progress| progress.revision >= revision);
        match timeout(patience, reached).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.behind(Some(revision), patience)),
        }
    }

    /// How current it is.
    pub fn staleness(&self) -> Staleness {
        let Progress { revision, state, verified, .. } = self.shared.progress.borrow().clone();
        Staleness { state, age: verified.elapsed(), revision }
    }

    /// The models that are not in the view because they do not decode, or are of another version that no upcasters lead
    /// from, by id.
    pub fn errors(&self) -> Vec<Undecodable> {
        self.shared.contents().undecodable.values().cloned().collect()
    }

    /// How many models it holds.
    pub fn len(&self) -> usize {
        self.shared.contents().models.len()
    }

    /// Whether it holds no model.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it holds models of.
    pub fn pattern(&self) -> &ModelPattern {
        &self.shared.pattern
    }

    /// Waits until it holds something else than at this moment.
    pub(super) async fn changed_since(&self, moment: Moment) {
        let mut progress = self.shared.progress.subscribe();
        // The sender lives as long as this view.
        drop(progress.wait_for(|progress| Moment::of(progress) != moment).await);
    }

    fn behind(&self, revision: Option<u64>, waited: Duration) -> ReadModelError {
        let seen = self.shared.progress.borrow().revision;
        ReadModelError::Behind { revision, seen, waited }
    }
}

/// What the handles and the task have in common.
struct Shared<T> {
    models: Models<T>,
    pattern: ModelPattern,
    fields: Vec<Field>,
    /// The names of the documents' fields, where they are known.
    known: Option<&'static [&'static str]>,
    contents: RwLock<Contents<T>>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Clone)]
struct Progress {
    revision: u64,
    generation: Option<u64>,
    state: LiveState,
    /// Everything stored before this moment was seen.
    verified: Instant,
}

impl<T> Shared<T> {
    fn contents(&self) -> RwLockReadGuard<'_, Contents<T>> {
        self.contents.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that ends with its handle.
#[derive(Debug)]
pub(super) struct Task(AbortHandle);

impl Task {
    pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn check(indexes: &[Field], known: Option<&[&str]>) -> Result<(), ReadModelError> {
    for index in indexes {
        // What can be asked about can be indexed.
        let asked = index.clone().is_null().compile()?;
        if let Some(known) = known {
            asked.check_fields(known)?;
        }
    }
    Ok(())
}
