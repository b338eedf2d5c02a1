//! What can go wrong with read models.

use std::time::Duration;

use super::MappingError;
use crate::backend::BackendError;
use crate::specification::SpecificationError;
use crate::state::InvalidKey;
use crate::subject::{InvalidPattern, InvalidToken};

/// A failure of reading or writing read models.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadModelError {
    /// The models are still being built for the first time. Ask again when the projection has caught up, or wait for it.
    #[error(
        "models of type {model_type} are being built by projection {projection}; wait for it to catch up"
    )]
    NotBuilt {
        /// The model type.
        model_type: String,
        /// Who builds them.
        projection: String,
    },
    /// A rebuild was switched to while a long query ran. Its results so far are of the generation before. Query again.
    #[error("models of type {model_type} were rebuilt while the query ran; query again")]
    Switched {
        /// The model type.
        model_type: String,
    },
    /// The models are kept by a projection; saving by hand would be undone. Save under another type.
    #[error(
        "models of type {model_type} are kept by projection {projection}; save under another type"
    )]
    KeptByProjection {
        /// The model type.
        model_type: String,
        /// Who keeps them.
        projection: String,
    },
    /// A pattern asks for something else than models of this type. Begin it with the type, as in `board.JFK.*`.
    #[error(
        "pattern {pattern:?} does not name models of type {model_type}; begin it with {model_type}."
    )]
    OutsideStore {
        /// The pattern.
        pattern: String,
        /// The model type.
        model_type: String,
    },
    /// A stored model does not have the shape that the code expects. Rebuild the projection, or restore the old shape.
    #[error("{key} at revision {revision} does not decode: {reason}")]
    Shape {
        /// The key.
        key: String,
        /// Its revision.
        revision: u64,
        /// Why not.
        reason: String,
    },
    /// A stored model was written in another version of its shape than the code has. Add upcasters, rebuild the
    /// projection, save the model anew, or bring the code up to date.
    #[error("{key} at revision {revision} has schema version {stored}, the code has {expected}")]
    OtherSchema {
        /// The key.
        key: String,
        /// Its revision.
        revision: u64,
        /// The version it was written in.
        stored: u32,
        /// The version of the code.
        expected: u32,
    },
    /// A model cannot be written as JSON. Nothing was sent.
    #[error("a model of type {model_type} cannot be encoded: {reason}")]
    Encode {
        /// The model type.
        model_type: String,
        /// Why not.
        reason: String,
    },
    /// The model has another revision than expected. Nothing was written. Load it again.
    #[error("{key} has revision {actual}, not {expected}; load it again")]
    Conflict {
        /// The key.
        key: String,
        /// The revision that was expected; 0 for none.
        expected: u64,
        /// The revision it has; 0 for none.
        actual: u64,
    },
    /// The pointer of a model type does not decode. Look at the key.
    #[error("{key} does not say who keeps the models: {reason}")]
    Pointer {
        /// The key.
        key: String,
        /// Why not.
        reason: String,
    },
    /// A live view does not hold everything that a pattern means. Ask the store, or start a view of more.
    #[error("pattern {pattern} means more than the live view of {view} holds; ask the store")]
    OutsideView {
        /// The pattern.
        pattern: String,
        /// What the view holds.
        view: String,
    },
    /// A live view has no index on a field. Declare it when the view is started, or query.
    #[error("the live view has no index on {field:?}; it has {indexes:?}")]
    NoIndex {
        /// The field.
        field: String,
        /// The fields that have one.
        indexes: Vec<String>,
    },
    /// A live view did not become current in time. Wait longer, or ask the store.
    #[error(
        "the live view is at revision {seen} after {waited:?} and not yet at {}; wait longer or ask the store",
        revision.map_or("what is stored".to_owned(), |revision| revision.to_string())
    )]
    Behind {
        /// What was waited for; `None` for everything that is stored.
        revision: Option<u64>,
        /// The revision it has.
        seen: u64,
        /// How long was waited.
        waited: Duration,
    },
    /// A materialized view of this name has another definition. Take another name, or drop that one.
    #[error("view {name} exists with another definition; take another name or drop it")]
    ViewExists {
        /// The name.
        name: String,
    },
    /// A definition cannot be that of a view. Correct it as the reason says; nothing was sent.
    #[error("view {name} cannot be made: {reason}")]
    InvalidView {
        /// The name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// What is stored under a view's key is no view. Look at the key; drop the view and make it again.
    #[error("{key} is no view: {reason}; drop it and make it again")]
    ViewRecord {
        /// The key.
        key: String,
        /// Why not.
        reason: String,
    },
    /// A specification or its options cannot be used. Correct them.
    #[error(transparent)]
    Specification(#[from] SpecificationError),
    /// A name or an id cannot be used. Nothing was sent.
    #[error(transparent)]
    InvalidToken(#[from] InvalidToken),
    /// A pattern is none. Nothing was sent.
    #[error(transparent)]
    InvalidPattern(#[from] InvalidPattern),
    /// A key cannot be used. Nothing was sent.
    #[error(transparent)]
    InvalidKey(#[from] InvalidKey),
    /// An index cannot be used as it is declared. Nothing was sent. Change the declaration.
    #[error("index on {index} cannot be kept: {reason}")]
    InvalidIndex {
        /// The fields of the index.
        index: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An index is not complete: nobody has built it for the models that are there. Build it, or query without it.
    #[error("the index on {index} of models of type {model_type} is not complete; build it first")]
    IndexNotReady {
        /// The model type.
        model_type: String,
        /// The fields of the index.
        index: String,
    },
    /// An index cannot answer what it is asked.
    #[error("index on {index} cannot be asked this: {reason}")]
    InvalidLookup {
        /// The fields of the index.
        index: String,
        /// Why not.
        reason: String,
    },
    /// A model would have more entries in one index than it may. Nothing was written. Index a field with fewer values.
    #[error(
        "a model has {entries} entries in the index on {index}, more than it may; index another field"
    )]
    TooManyEntries {
        /// The fields of the index.
        index: String,
        /// How many there are.
        entries: usize,
    },
    /// A model and its document cannot be made from each other. Correct the mapping, or what is stored.
    #[error("{model_type} {id}: {source}")]
    Mapping {
        /// The model type.
        model_type: String,
        /// The model's id.
        id: String,
        /// What is wrong.
        source: MappingError,
    },
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}
