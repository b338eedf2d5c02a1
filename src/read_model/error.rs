//! What can go wrong when read models are saved or read.

use crate::backend::BackendError;
use crate::event::SchemaVersion;
use crate::subject::{InvalidPattern, InvalidToken, ModelType, ProjectionName};

/// A failure of the read-model store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadModelError {
    /// The models of this type are being built for the first time. Wait until the projection has caught up.
    #[error(
        "read models {model_type} are being built by projection {projection} for the first time; wait until it has caught up"
    )]
    NotBuilt {
        /// The type.
        model_type: ModelType,
        /// The projection that builds them.
        projection: ProjectionName,
    },
    /// A projection keeps the models of this type, so nobody else changes them. Change what it does with events, or save
    /// under another type.
    #[error(
        "read models {model_type} are kept by projection {projection}; save under another type"
    )]
    KeptByProjection {
        /// The type.
        model_type: ModelType,
        /// The projection that keeps them.
        projection: ProjectionName,
    },
    /// A pattern does not name models of this type. Begin it with the type, and write `>` for all of them.
    #[error(
        "pattern {pattern:?} lies outside the read models {model_type}; begin it with \"{model_type}.\", as in \"{model_type}.>\""
    )]
    OutsideStore {
        /// The pattern.
        pattern: String,
        /// The type that was asked for.
        model_type: ModelType,
    },
    /// A text is no pattern at all; see the error.
    #[error(transparent)]
    InvalidPattern(#[from] InvalidPattern),
    /// A model type is no name, or a model's id is refused. Nothing was sent.
    #[error(transparent)]
    InvalidId(#[from] InvalidToken),
    /// A stored model does not have the shape that the code expects. Save it anew, rebuild the projection, or restore the
    /// shape.
    #[error("read model {key} at revision {revision} does not decode: {reason}")]
    Shape {
        /// The model's key.
        key: String,
        /// Its revision.
        revision: u64,
        /// Why not.
        reason: String,
    },
    /// A stored model has another schema version than the code. Rebuild the projection, or bring the code up to date.
    #[error(
        "read model {key} at revision {revision} has schema version {stored}, the code has {expected}"
    )]
    OtherSchema {
        /// The model's key.
        key: String,
        /// Its revision.
        revision: u64,
        /// The version it was saved with.
        stored: SchemaVersion,
        /// The version of the code.
        expected: SchemaVersion,
    },
    /// A model cannot be written as JSON. Nothing was sent. Correct its type.
    #[error("read model {model_type} {id} cannot be written as JSON: {reason}")]
    Encode {
        /// The type.
        model_type: ModelType,
        /// The model's id.
        id: String,
        /// Why not.
        reason: String,
    },
    /// The model has another revision than expected. Nothing was stored. Load it again and decide again.
    #[error(
        "read model {key} was expected at revision {expected}, but has revision {actual}; load it again"
    )]
    Conflict {
        /// The model's key.
        key: String,
        /// The revision that was expected; 0 for none.
        expected: u64,
        /// The revision that is stored; 0 for none.
        actual: u64,
    },
    /// The model was changed by others each time it should be saved. Nothing was stored. Try again later.
    #[error("read model {key} was changed by others {attempts} times in a row; try again later")]
    Contended {
        /// The model's key.
        key: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// A model is larger than the server accepts. Nothing was sent. Divide it, or raise `max_payload`.
    #[error(
        "read model {key} has {actual} bytes with its headers, over the server's limit of {limit}; divide it"
    )]
    TooLarge {
        /// The model's key.
        key: String,
        /// Its size in bytes.
        actual: usize,
        /// The server's `max_payload` in bytes.
        limit: usize,
    },
    /// An index cannot be. Correct its fields.
    #[error("index on {index:?} is refused: {reason}")]
    InvalidIndex {
        /// Its fields.
        index: String,
        /// What is wrong.
        reason: String,
    },
    /// An index cannot be asked that. Correct what is asked.
    #[error("index on {index:?} cannot be asked this: {reason}")]
    InvalidLookup {
        /// Its fields.
        index: String,
        /// What is wrong.
        reason: String,
    },
    /// A model would have too many entries in one index: the elements of the arrays in its fields, multiplied. Nothing was
    /// sent. Index another field.
    #[error("index on {index:?} would have {entries} entries for one read model, more than {max}; index another field", max = super::MAX_INDEX_ENTRIES)]
    TooManyEntries {
        /// The index's fields.
        index: String,
        /// How many entries there would be, at least.
        entries: usize,
    },
    /// An index was never built, or is still being built. Build it, or wait.
    #[error(
        "index on {index:?} of read models {model_type} is not ready; build it, or wait until it is built"
    )]
    IndexNotReady {
        /// The type.
        model_type: ModelType,
        /// The index's fields.
        index: String,
    },
    /// The models were replaced by a new generation while they were read. Read them again.
    #[error(
        "read models {model_type} were replaced by a rebuilt generation while they were read; read them again"
    )]
    Replaced {
        /// The type.
        model_type: ModelType,
    },
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}
