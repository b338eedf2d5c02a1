//! The read models of a context.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::BoxStream;
use serde_json::Value;

use super::resolve::Reader;
use super::{
    ExpectedRevision, Mapped, Mapping, Models, ReadModel, ReadModelError, SaveModel, Stored,
};
use crate::evolution::Evolution;
use crate::specification::ReadModelList;
use crate::state::KeyValue;
use crate::store::Context;
use crate::subject::{AggregateId, ModelType};

/// The read models of a context, all types. Cloning is cheap.
///
/// ```
/// # #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// # struct Board { origin: String, carrier: String, flights: u64 }
/// # impl cim_persistence::read_model::ReadModel for Board {
/// #     const MODEL_TYPE: &'static str = "board";
/// #     fn id(&self) -> Result<cim_persistence::subject::AggregateId, cim_persistence::subject::InvalidToken> {
/// #         cim_persistence::subject::AggregateId::from_tokens([&self.origin, &self.carrier])
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use cim_persistence::state::MemoryKeyValue;
/// use cim_persistence::read_model::ReadModelStore;
/// use futures::TryStreamExt;
///
/// # let store = ReadModelStore::on(Arc::new(MemoryKeyValue::new("readmodels")));
/// // On a server: ReadModelStore::of(&context)
/// store.save(&Board { origin: "JFK".into(), carrier: "B6".into(), flights: 3 }).await?;
/// let boards: Vec<_> = store.query::<Board>(Some("board.JFK.*")).await?.try_collect().await?;
/// assert_eq!(boards[0].model.flights, 3);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ReadModelStore {
    pub(super) reader: Reader,
}

impl ReadModelStore {
    /// Those of a context.
    pub fn new(context: &Context) -> Self {
        let store = Self::on(Arc::clone(context.read_models()));
        match context.evolution() {
            Some(evolution) => store.with_evolution(Arc::clone(evolution)),
            None => store,
        }
    }

    /// Reads models of old shapes as the newest. Indexes, conditions and documents without a type see a model as it is
    /// stored, until it is written again.
    #[must_use]
    pub fn with_evolution(mut self, evolution: impl Into<Arc<Evolution>>) -> Self {
        self.reader.evolution = Some(evolution.into());
        self
    }

    /// Those in a bucket.
    pub fn on(bucket: Arc<dyn KeyValue>) -> Self {
        Self { reader: Reader::new(bucket) }
    }

    /// The models of one type.
    pub fn of<M: ReadModel>(&self) -> Models<M> {
        Models::new(self.reader.clone(), M::MODEL_TYPE, Some(M::SCHEMA_VERSION), M::indexes())
    }

    /// The models of one type as JSON documents.
    ///
    /// # Errors
    /// [`ReadModelError::InvalidToken`] when the name is none.
    pub fn untyped(&self, model_type: &str) -> Result<Models<Value>, ReadModelError> {
        let model = ModelType::new(model_type)?;
        Ok(Models::new(self.reader.clone(), model.as_str(), None, Vec::new()))
    }

    /// Models that are stored as a mapping makes them.
    ///
    /// # Errors
    /// [`ReadModelError::InvalidToken`] when the name is none.
    pub fn mapped<D>(
        &self,
        model_type: &str,
        mapping: Mapping<D>,
    ) -> Result<Mapped<D>, ReadModelError> {
        Ok(Mapped::new(self.untyped(model_type)?, mapping))
    }

    /// Saves a model, whatever revision it has, and returns its new one; [`Models::save`] says more.
    ///
    /// # Errors
    /// As [`Models::save`].
    pub async fn save<M: ReadModel>(&self, model: &M) -> Result<u64, ReadModelError> {
        self.save_with(model, BTreeMap::new()).await
    }

    /// Saves a model with something said about it.
    ///
    /// # Errors
    /// As [`Models::save`].
    pub async fn save_with<M: ReadModel>(
        &self,
        model: &M,
        metadata: BTreeMap<String, String>,
    ) -> Result<u64, ReadModelError> {
        self.of::<M>().save(model, SaveModel { metadata, ..SaveModel::default() }).await
    }

    /// A model; `None` when there is none.
    ///
    /// # Errors
    /// As [`Models::load`].
    pub async fn load<M: ReadModel>(
        &self,
        id: &AggregateId,
    ) -> Result<Option<Stored<M>>, ReadModelError> {
        self.of::<M>().load(id).await
    }

    /// Deletes a model.
    ///
    /// # Errors
    /// As [`Models::delete`].
    pub async fn delete<M: ReadModel>(&self, id: &AggregateId) -> Result<(), ReadModelError> {
        self.of::<M>().delete(id, ExpectedRevision::Any).await
    }

    /// The models by id, page by page.
    ///
    /// # Errors
    /// As [`Models::list`].
    pub async fn list<M: ReadModel>(
        &self,
        limit: usize,
        offset: usize,
    ) -> Result<ReadModelList<Stored<M>>, ReadModelError> {
        self.of::<M>().list(limit, offset).await
    }

    /// The models that a pattern means.
    ///
    /// # Errors
    /// As [`Models::query`].
    pub async fn query<M: ReadModel>(
        &self,
        pattern: Option<&str>,
    ) -> Result<BoxStream<'static, Result<Stored<M>, ReadModelError>>, ReadModelError> {
        self.of::<M>().query(pattern).await
    }
}
