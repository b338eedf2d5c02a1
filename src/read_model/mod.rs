//! Read models: documents that are made to be queried, in one bucket, readable by any NATS client as plain JSON.
//!
//! What they are is in `model.rs`, where they lie in `layout.rs`, what a change of one writes in `document.rs`, how they are
//! found by their fields in `index.rs`. They are derived data: a projection keeps them, or a service saves them by hand.

mod error;
mod model;
mod layout;
mod index;
mod document;

pub use error::ReadModelError;
pub use index::{INDEXED_TEXT_BYTES, IndexLookup, IndexSpec, MAX_INDEX_ENTRIES, MAX_INDEX_FIELDS};
pub use model::{ReadModel, ReadModelList, ReadModelMetadata};
