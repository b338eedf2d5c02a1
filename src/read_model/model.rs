//! What a read model is, and what is known of a stored one.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::IndexSpec;
use crate::backend::Position;
use crate::clock::Timestamp;
use crate::store::{StoreError, StoredEvent};
use crate::subject::{AggregateId, InvalidToken};

/// A document that queries read.
///
/// It is stored as serde writes it to JSON, under the key `<type>.<id>` of the context's bucket of read models. An id may
/// have several tokens, so that patterns can ask for parts of it: `board.JFK.*.*`.
///
/// ```
/// use cim_persistence::read_model::{IndexSpec, ReadModel};
/// use cim_persistence::subject::{AggregateId, InvalidToken};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct Board { origin: String, carrier: String, flight: u32, flights: u64 }
///
/// impl ReadModel for Board {
///     const MODEL_TYPE: &'static str = "board";
///     fn id(&self) -> Result<AggregateId, InvalidToken> {
///         AggregateId::from_tokens([&self.origin, &self.carrier, &self.flight.to_string()])
///     }
///     fn indexes() -> Vec<IndexSpec> {
///         vec![IndexSpec::on(["carrier"])]
///     }
/// }
/// ```
pub trait ReadModel: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// The stable name of this kind of model: `A-Z a-z 0-9 _ -`, at most 64 bytes.
    const MODEL_TYPE: &'static str;

    /// The version of its shape. Default 1. Stored models of another version are refused, unless an
    /// [`Evolution`](crate::evolution::Evolution) leads from it to this one.
    const SCHEMA_VERSION: u32 = 1;

    /// Its id among the models of its type.
    ///
    /// # Errors
    /// [`InvalidToken`] when what the id is made from cannot be one.
    fn id(&self) -> Result<AggregateId, InvalidToken>;

    /// The indexes that are kept with it. Default none.
    fn indexes() -> Vec<IndexSpec> {
        Vec::new()
    }

    /// What an event does to it; called through [`Changes::apply_event`](crate::projection::Changes::apply_event). Default
    /// nothing, for models that are changed otherwise.
    ///
    /// # Errors
    /// When the event does not have the shape it should have.
    fn apply_event(&mut self, _event: &StoredEvent) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A model as it is stored, with what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored<M> {
    /// The model.
    pub model: M,
    /// What is known of it.
    pub metadata: ReadModelMetadata,
}

/// What is known of a stored model.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadModelMetadata {
    /// The name of its kind.
    pub model_type: String,
    /// Its id.
    pub id: AggregateId,
    /// The version of the shape it was written in.
    pub schema_version: u32,
    /// The same, if whoever wrote it said so; else it is read as it is.
    pub(super) stated_version: Option<u32>,
    /// The revision of its key: grows with every change.
    pub revision: u64,
    /// The last event it holds; `None` for a model that was saved by hand.
    pub position: Option<Position>,
    /// When the server stored it.
    pub updated_at: Timestamp,
    /// What was said about it when it was saved by hand.
    pub metadata: BTreeMap<String, String>,
}
