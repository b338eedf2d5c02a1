//! Models that are stored by a mapping.

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Mapping, MappingError, Models, ReadModelError, SaveModel, Stored};
use crate::subject::AggregateId;

/// The models of one type, each a `D` for the service and a document as a [`Mapping`] makes it for the store.
///
/// From [`ReadModelStore::mapped`](super::ReadModelStore::mapped). Indexes, patterns and specifications name the fields of the
/// document.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use cim_persistence::read_model::{Mapping, ReadModelStore};
/// use cim_persistence::subject::AggregateId;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Tea { name: String, cents: u64 }
///
/// # let store = ReadModelStore::on(std::sync::Arc::new(cim_persistence::state::MemoryKeyValue::new("models")));
/// let teas = store.mapped("tea", Mapping::<Tea>::new().rename("name", "title"))?;
/// let id = AggregateId::new("green")?;
/// teas.save(&id, &Tea { name: "Green".to_owned(), cents: 250 }, Default::default()).await?;
/// assert_eq!(teas.load(&id).await?.unwrap().model.name, "Green");
/// assert_eq!(teas.documents().load(&id).await?.unwrap().model["title"], "Green");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Mapped<D> {
    documents: Models<Value>,
    mapping: Mapping<D>,
}

impl<D> Clone for Mapped<D> {
    fn clone(&self) -> Self {
        Self { documents: self.documents.clone(), mapping: self.mapping.clone() }
    }
}

impl<D> Mapped<D> {
    pub(super) fn new(documents: Models<Value>, mapping: Mapping<D>) -> Self {
        Self { documents, mapping }
    }

    /// The models as they are stored: for deleting, listing, watching, indexes.
    pub fn documents(&self) -> &Models<Value> {
        &self.documents
    }

    fn refused(&self, id: &AggregateId, source: MappingError) -> ReadModelError {
        let model_type = self.documents.model_type().to_owned();
        ReadModelError::Mapping { model_type, id: id.to_string(), source }
    }
}

impl<D: Serialize> Mapped<D> {
    /// Saves a model as its mapping makes it, and returns its new revision. Two round trips.
    ///
    /// # Errors
    /// [`ReadModelError::Mapping`], and as [`Models::save`].
    pub async fn save(
        &self,
        id: &AggregateId,
        model: &D,
        how: SaveModel,
    ) -> Result<u64, ReadModelError> {
        let document = self.mapping.to_document(model).map_err(|e| self.refused(id, e))?;
        self.documents.save_document(id, &document, how).await
    }
}

impl<D: DeserializeOwned + Send + 'static> Mapped<D> {
    /// A model; `None` when there is none. One round trip.
    ///
    /// # Errors
    /// [`ReadModelError::Mapping`], and as [`Models::load`].
    pub async fn load(&self, id: &AggregateId) -> Result<Option<Stored<D>>, ReadModelError> {
        self.documents.load(id).await?.map(|stored| self.read(stored)).transpose()
    }

    /// The models that a pattern means; [`Models::query`] says more.
    ///
    /// # Errors
    /// As [`Models::query`], and [`ReadModelError::Mapping`] as an item of the stream.
    pub async fn query(
        &self,
        pattern: Option<&str>,
    ) -> Result<BoxStream<'static, Result<Stored<D>, ReadModelError>>, ReadModelError> {
        let mapped = self.clone();
        let documents = self.documents.query(pattern).await?;
        Ok(documents.and_then(move |stored| std::future::ready(mapped.read(stored))).boxed())
    }

    fn read(&self, stored: Stored<Value>) -> Result<Stored<D>, ReadModelError> {
        let Stored { model, metadata } = stored;
        let model = self.mapping.from_document(model).map_err(|e| self.refused(&metadata.id, e))?;
        Ok(Stored { model, metadata })
    }
}
