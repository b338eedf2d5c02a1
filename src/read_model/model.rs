//! What a domain says of its read models, and what is stored beside them.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::index::IndexSpec;
use crate::backend::Position;
use crate::clock::Timestamp;
use crate::event::{Metadata, SchemaVersion};
use crate::store::{StoreError, StoredEvent};
use crate::subject::{AggregateId, Identity, ModelType};

/// A document that is made to be queried. It is stored as plain JSON, as serde writes it.
///
/// An id of several tokens lets patterns match them one by one: below, `board.JFK.*.*` are the boards of one airport.
///
/// ```
/// use cim_persistence::read_model::{IndexSpec, ReadModel};
/// use cim_persistence::subject::{AggregateId, InvalidToken};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Board { origin: String, carrier: String, number: u32, delay: i64 }
///
/// impl ReadModel for Board {
///     const TYPE: &'static str = "board";
///     type Id = AggregateId;
///     fn id(&self) -> Result<AggregateId, InvalidToken> {
///         AggregateId::from_tokens([&self.origin, &self.carrier, &self.number.to_string()])
///     }
///     fn indexes() -> Vec<IndexSpec> {
///         vec![IndexSpec::on(["carrier"]), IndexSpec::on(["delay"])]
///     }
/// }
/// ```
pub trait ReadModel: Serialize + DeserializeOwned + Clone + Send + 'static {
    /// The name of the model type: `A-Z a-z 0-9 _ -`, at most 64 bytes.
    const TYPE: &'static str;

    /// The version of the model's shape. Raise it when a shape that is already stored changes. Default 1.
    const SCHEMA_VERSION: SchemaVersion = 1;

    /// What identifies a model.
    type Id: Identity;

    /// Which model this is. Never changes.
    ///
    /// # Errors
    /// What the id type answers to what cannot be an id.
    fn id(&self) -> Result<Self::Id, crate::subject::InvalidToken>;

    /// What an event does to the model, for projections that leave it to their models. By default nothing.
    ///
    /// # Errors
    /// [`StoreError::Shape`] when the event's data is not what was expected.
    fn apply_event(&mut self, event: &StoredEvent) -> Result<(), StoreError> {
        let _ = event;
        Ok(())
    }

    /// The indexes that are kept, each in the same atomic batch as the model. Default none.
    fn indexes() -> Vec<IndexSpec> {
        Vec::new()
    }
}

/// What is known of a stored read model beside the model itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadModelMetadata {
    /// Its type.
    pub model_type: ModelType,
    /// Its id.
    pub id: AggregateId,
    /// The version of the shape that it was saved in.
    pub schema_version: SchemaVersion,
    /// The revision of its last change; grows with every change in the store.
    pub revision: u64,
    /// The last event that was applied to it; `None` when it was saved by hand.
    pub position: Option<Position>,
    /// When it was saved, by the server's clock.
    pub updated_at: Timestamp,
    /// What whoever saved it said about it.
    pub metadata: Metadata,
}

/// A page of the read models of one type, ordered by the text of their ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadModelList<T> {
    /// How many were passed over.
    pub offset: usize,
    /// How many were asked for.
    pub limit: usize,
    /// How many there are in all.
    pub total: usize,
    /// The models of this page.
    pub items: Vec<T>,
}
