//! What an event does to read models, written down by a projection and carried out by its runner.
//!
//! A projection never reads: it says which models change and how. So the runner can fetch the models of many events by
//! one request, and a projection is a plain function that a test can call.

use std::any::Any;
use std::fmt;

use bytes::Bytes;

use super::Rejection;
use crate::read_model::ReadModel;
use crate::store::StoredEvent;
use crate::subject::{AggregateId, InvalidToken};

/// The changes that one event makes, in the order they were made.
///
/// ```
/// # use cim_persistence::projection::Changes;
/// # use cim_persistence::read_model::ReadModel;
/// # use cim_persistence::subject::{AggregateId, InvalidToken, ModelType};
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
/// # struct Visits { page: String, count: u64 }
/// # impl ReadModel for Visits {
/// #     const MODEL_TYPE: &'static str = "visits";
/// #     fn id(&self) -> Result<AggregateId, InvalidToken> { AggregateId::new(&self.page) }
/// # }
/// # fn example(changes: &mut Changes) -> Result<(), InvalidToken> {
/// let page = AggregateId::new("start")?;
/// changes.upsert(&page, |visits: &mut Visits| {
///     visits.page = "start".to_owned();
///     visits.count += 1;
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Changes {
    pub(super) list: Vec<Change>,
}

/// One change of one model.
pub(super) struct Change {
    pub(super) target: Target,
    /// An empty place for a model of the target's Rust type.
    pub(super) place: fn() -> Box<dyn Place>,
    pub(super) apply: Apply,
}

type Apply = Box<dyn FnOnce(&mut dyn Place) -> Result<(), Rejection> + Send>;

/// A model, by its type's name and its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Target {
    pub(super) model: &'static str,
    pub(super) id: AggregateId,
}

impl Changes {
    /// Changes a model; one that does not exist yet begins as its default.
    pub fn upsert<M: ReadModel + Default>(
        &mut self,
        id: &AggregateId,
        change: impl FnOnce(&mut M) + Send + 'static,
    ) {
        self.change(id, |model| change(model.get_or_insert_with(M::default)));
    }

    /// Changes a model if it exists.
    pub fn update<M: ReadModel>(
        &mut self,
        id: &AggregateId,
        change: impl FnOnce(&mut M) + Send + 'static,
    ) {
        self.change(id, |model: &mut Option<M>| {
            if let Some(model) = model {
                change(model);
            }
        });
    }

    /// Sets a model, whatever it was.
    ///
    /// # Errors
    /// [`InvalidToken`] when its own id cannot be one.
    pub fn put<M: ReadModel>(&mut self, model: M) -> Result<(), InvalidToken> {
        let id = model.id()?;
        self.change(&id, |place| *place = Some(model));
        Ok(())
    }

    /// Deletes a model if it exists.
    pub fn delete<M: ReadModel>(&mut self, id: &AggregateId) {
        self.change(id, |model: &mut Option<M>| *model = None);
    }

    /// Changes a model as its own [`ReadModel::apply_event`] says; one that does not exist yet begins as its default.
    pub fn apply_event<M: ReadModel + Default>(&mut self, id: &AggregateId, event: &StoredEvent) {
        let event = event.clone();
        self.try_change(id, move |model: &mut Option<M>| {
            Ok(model.get_or_insert_with(M::default).apply_event(&event)?)
        });
    }

    /// Changes, makes or deletes a model, by what it is now; `None` stands for no model.
    pub fn change<M: ReadModel>(
        &mut self,
        id: &AggregateId,
        change: impl FnOnce(&mut Option<M>) + Send + 'static,
    ) {
        self.try_change(id, |model| {
            change(model);
            Ok(())
        });
    }

    /// As [`change`](Self::change), for a change that may find that the event cannot be used.
    pub fn try_change<M: ReadModel>(
        &mut self,
        id: &AggregateId,
        change: impl FnOnce(&mut Option<M>) -> Result<(), Rejection> + Send + 'static,
    ) {
        self.list.push(Change {
            target: Target { model: M::MODEL_TYPE, id: id.clone() },
            place: || Box::new(Typed::<M> { model: None }),
            apply: Box::new(|place| match place.as_any().downcast_mut::<Typed<M>>() {
                Some(typed) => change(&mut typed.model),
                None => Err(format!("two Rust types are called {}", M::MODEL_TYPE).into()),
            }),
        });
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter().map(|change| &change.target)).finish()
    }
}

/// Where a model is held while its type is not known.
pub(super) trait Place: Send + Sync {
    fn as_any(&mut self) -> &mut dyn Any;
    /// The `Option` of the model.
    fn held(&self) -> &dyn Any;
    fn is_empty(&self) -> bool;
    fn read(&mut self, stored: &[u8]) -> Result<(), serde_json::Error>;
    /// The model as it is stored; `None` for no model.
    fn written(&self) -> Result<Option<Bytes>, serde_json::Error>;
    fn document(&self) -> Result<Option<serde_json::Value>, serde_json::Error>;
}

struct Typed<M> {
    model: Option<M>,
}

impl<M: ReadModel> Place for Typed<M> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn held(&self) -> &dyn Any {
        &self.model
    }

    fn is_empty(&self) -> bool {
        self.model.is_none()
    }

    fn read(&mut self, stored: &[u8]) -> Result<(), serde_json::Error> {
        self.model = Some(serde_json::from_slice(stored)?);
        Ok(())
    }

    fn written(&self) -> Result<Option<Bytes>, serde_json::Error> {
        self.model.as_ref().map(|model| serde_json::to_vec(model).map(Bytes::from)).transpose()
    }

    fn document(&self) -> Result<Option<serde_json::Value>, serde_json::Error> {
        // By way of the text that is stored: serde_json makes another number of an f32 that it is given directly.
        self.written()?.map(|written| serde_json::from_slice(&written)).transpose()
    }
}

impl fmt::Debug for dyn Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a model")
    }
}
