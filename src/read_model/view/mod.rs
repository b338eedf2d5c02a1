//! Materialized views: queries that are stored under a name, with a result that is kept current.
//!
//! Here they are made, read, listed and dropped; who computes the results is in `keeper.rs`. A view is one JSON document
//! under the key `=view.<name>` of the bucket of read models, so any client of NATS reads definition and result.

mod keeper;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::sleep;

use super::{ModelPattern, Models, ReadModelError, ReadModelStore};
use crate::backend::{BackendError, Count, ReadFrom, Start};
use crate::clock::Timestamp;
use crate::event::NonEmpty;
use crate::specification::{Compiled, SearchOptions, Specification};
use crate::state::{Change, Entry, Expected, Key, KeyWrite, Watched};
use crate::subject::{ModelType, Pattern};

pub use keeper::ViewKeeper;

/// How many models a view's result may hold: it is one message.
pub const MAX_VIEW_ITEMS: usize = 1000;

/// The query of a materialized view.
///
/// ```
/// use cim_persistence::read_model::ViewDefinition;
/// use cim_persistence::specification::{SearchOptions, SpecificationError, field};
///
/// let latest = SearchOptions::default().order_by("-delay")?.limit(10);
/// let definition = ViewDefinition::new("board.JFK.*.*", field("carrier").eq("B6"), latest);
/// # Ok::<(), SpecificationError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViewDefinition {
    /// Which models it is of; the first token is their type.
    pub pattern: String,
    /// What holds for those in the result, by the fields as they are stored.
    pub specification: Specification,
    /// Order, fields and number. A limit, of at most [`MAX_VIEW_ITEMS`], is needed; a cursor is refused.
    pub options: SearchOptions,
}

impl ViewDefinition {
    /// The models of a pattern that are as specified, as the options want them.
    pub fn new(
        pattern: impl Into<String>,
        specification: Specification,
        options: SearchOptions,
    ) -> Self {
        Self { pattern: pattern.into(), specification, options }
    }
}

/// A stored query with its result.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MaterializedView {
    /// Its name.
    pub name: String,
    /// The query.
    pub definition: ViewDefinition,
    /// The last result; `None` before the first.
    pub result: Option<ViewResult>,
    /// How current the result was when it was read.
    pub status: ViewStatus,
}

/// What a view's query found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViewResult {
    /// How many models are as specified, those beyond the limit included.
    pub total: usize,
    /// The models, in order.
    pub items: Vec<ViewItem>,
    /// It is the result as of this revision: the last change of a model of the pattern by then.
    pub revision: u64,
    /// The generation of the models.
    pub generation: u64,
    /// When it was computed, by the clock of who computed it.
    pub computed_at: Timestamp,
}

/// One model of a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViewItem {
    /// Its id, escaped as in its key.
    pub id: String,
    /// The stored document, or those fields of it that the options ask for.
    pub document: Value,
}

/// How current the result of a view is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ViewStatus {
    /// No model of the pattern has changed since.
    UpToDate,
    /// Models have changed since, or there is no result yet.
    Lagging {
        /// How many models have changed, or are there when a whole new result is needed.
        behind_by: u64,
    },
    /// The models are being built for the first time.
    Building,
    /// The last attempt to compute the result failed; the result is an older one.
    Failed {
        /// Why.
        error: String,
    },
}

/// What is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    format: u32,
    #[serde(flatten)]
    definition: ViewDefinition,
    result: Option<ViewResult>,
    failure: Option<String>,
}

const FORMAT: u32 = 1;

/// How often making a view is tried because another one makes or drops it meanwhile, and how long is waited.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

impl ReadModelStore {
    /// Stores a query under a name. A running [`ViewKeeper`] computes its result. Two round trips.
    ///
    /// The same definition again changes nothing.
    ///
    /// # Errors
    /// [`ReadModelError::ViewExists`] when the name has another definition; [`ReadModelError::InvalidView`],
    /// [`ReadModelError::Specification`] and errors of names and patterns for what cannot be a view.
    pub async fn create_view(
        &self,
        name: &str,
        definition: ViewDefinition,
    ) -> Result<(), ReadModelError> {
        let key = key_of(name)?;
        let _used_by_the_keeper = checked(name, &definition)?;
        let bucket = &self.reader.bucket;
        let record = Record { format: FORMAT, definition, result: None, failure: None };
        for _ in 0..ATTEMPTS {
            let slot = bucket.get(&key, ReadFrom::Leader).await?;
            if let Some(value) = &slot.value {
                return match record_of(&key, value)?.definition == record.definition {
                    true => Ok(()),
                    false => Err(ReadModelError::ViewExists { name: name.to_owned() }),
                };
            }
            match bucket.write(NonEmpty::one(write_of(&key, &record, slot.revision))).await {
                Ok(_) => return Ok(()),
                // Another one was first, perhaps with the same definition.
                Err(BackendError::Conflict { .. }) => sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
        let detail = format!("view {name} is made and dropped all the time");
        Err(BackendError::Conflict { detail }.into())
    }

    /// A view with its result and how current that is; `None` when there is none of this name.
    ///
    /// The status is found out, not remembered: it asks what has changed since the result. Some round trips.
    ///
    /// # Errors
    /// [`ReadModelError::ViewRecord`] when what is stored is no view; [`ReadModelError::Backend`].
    pub async fn get_view(&self, name: &str) -> Result<Option<MaterializedView>, ReadModelError> {
        let key = key_of(name)?;
        let slot = self.reader.bucket.get(&key, ReadFrom::Leader).await?;
        let Some(value) = slot.value else { return Ok(None) };
        let Record { definition, result, failure, .. } = record_of(&key, &value)?;
        let status = match failure {
            Some(error) => ViewStatus::Failed { error },
            None => self.status(&definition, result.as_ref()).await?,
        };
        Ok(Some(MaterializedView { name: name.to_owned(), definition, result, status }))
    }

    /// The names and definitions of all views, by name.
    ///
    /// # Errors
    /// As [`get_view`](Self::get_view).
    pub async fn list_views(&self) -> Result<Vec<(String, ViewDefinition)>, ReadModelError> {
        let mut watched = self.reader.bucket.watch(all_views()?, Start::Latest);
        let mut views = BTreeMap::new();
        while let Some(Watched::Entry(Entry { key, value, .. })) = watched.try_next().await? {
            let definition = value.map(|value| record_of(&key, &value)).transpose()?;
            views.insert(name_of(&key), definition.map(|record| record.definition));
        }
        let there = |(name, definition): (_, Option<_>)| definition.map(|there| (name, there));
        Ok(views.into_iter().filter_map(there).collect())
    }

    /// Deletes a view and its result, and says whether there was one. Two round trips.
    ///
    /// # Errors
    /// [`ReadModelError::InvalidToken`] for a name that is none, [`ReadModelError::Backend`].
    pub async fn drop_view(&self, name: &str) -> Result<bool, ReadModelError> {
        let key = key_of(name)?;
        let slot = self.reader.bucket.get(&key, ReadFrom::Leader).await?;
        if slot.value.is_none() {
            return Ok(false);
        }
        let delete = KeyWrite::new(key, Change::Delete, Expected::Anything);
        self.reader.bucket.write(NonEmpty::one(delete)).await?;
        Ok(true)
    }

    async fn status(
        &self,
        definition: &ViewDefinition,
        result: Option<&ViewResult>,
    ) -> Result<ViewStatus, ReadModelError> {
        let pattern = ModelPattern::of_any_type(&definition.pattern)?;
        let models = self.untyped(pattern.model_type())?;
        match behind_by(&models, &pattern, result).await {
            Ok(None) => Ok(ViewStatus::UpToDate),
            Ok(Some(behind_by)) => Ok(ViewStatus::Lagging { behind_by }),
            Err(ReadModelError::NotBuilt { .. }) => Ok(ViewStatus::Building),
            Err(error) => Err(error),
        }
    }
}

async fn behind_by(
    models: &Models<Value>,
    pattern: &ModelPattern,
    result: Option<&ViewResult>,
) -> Result<Option<u64>, ReadModelError> {
    if let Some(result) = result {
        let newest = models.newest(pattern, result.revision).await?;
        if newest.generation == result.generation {
            return Ok((newest.changes > 0).then_some(newest.changes));
        }
    }
    Ok(Some(match models.estimate(pattern).await? {
        Count::Exactly(models) | Count::MoreThan(models) => models,
    }))
}

/// What a definition means, when it is one.
fn checked(
    name: &str,
    definition: &ViewDefinition,
) -> Result<(ModelPattern, Compiled), ReadModelError> {
    let invalid = |reason| ReadModelError::InvalidView { name: name.to_owned(), reason };
    let pattern = ModelPattern::of_any_type(&definition.pattern)?;
    let compiled = definition.specification.clone().compile()?;
    match definition.options.limit {
        Some(limit) if limit <= MAX_VIEW_ITEMS => {}
        _ => return Err(invalid("its options need a limit of at most 1000")),
    }
    if definition.options.cursor.is_some() {
        return Err(invalid("its options have a cursor, which belongs to another result"));
    }
    // An order or a field without a name is found now and not by the keeper.
    crate::specification::Selection::<()>::new(compiled.clone(), &definition.options, "")?;
    Ok((pattern, compiled))
}

fn key_of(name: &str) -> Result<Key, ReadModelError> {
    Ok(Key::new(format!("=view.{}", ModelType::new(name)?.as_str()))?)
}

fn name_of(key: &Key) -> String {
    key.as_str().split_once('.').map_or("", |(_, name)| name).to_owned()
}

fn all_views() -> Result<NonEmpty<Pattern>, ReadModelError> {
    Ok(NonEmpty::one(Pattern::parse("=view.*")?))
}

fn record_of(key: &Key, value: &[u8]) -> Result<Record, ReadModelError> {
    serde_json::from_slice(value).map_err(|error| ReadModelError::ViewRecord {
        key: key.to_string(),
        reason: error.to_string(),
    })
}

fn write_of(key: &Key, record: &Record, revision: u64) -> KeyWrite {
    let json = serde_json::to_vec(record).expect("views have string keys and finite numbers");
    KeyWrite::new(key.clone(), Change::Put(json.into()), Expected::Revision(revision))
}
