//! Read models: what queries read, one JSON document per key of one bucket, found by subject pattern.
//!
//! [`ReadModel`] is what a user writes, [`ReadModelStore`] saves, loads and finds models. Who keeps them current by events is
//! [`projection`](crate::projection). Any client of NATS reads a model as plain JSON by its key.

mod model;
mod error;
pub(crate) mod layout;
pub(crate) mod index;
mod pattern;
mod resolve;
mod models;
mod scan;
mod indexed;
mod index_build;
mod save;
mod store;
mod watch;
mod mapping;
mod mapped;
mod newest;
mod live;
mod view;

pub use error::ReadModelError;
pub use index::{INDEXED_TEXT_BYTES, IndexLookup, IndexSpec, MAX_INDEX_ENTRIES, MAX_INDEX_FIELDS};
pub use index_build::IndexCheck;
pub use live::{LiveOptions, LiveState, LiveView, Staleness, Undecodable};
pub use mapped::Mapped;
pub use mapping::{Mapping, MappingError};
pub use model::{ReadModel, ReadModelMetadata, Stored};
pub use models::Models;
pub use pattern::ModelPattern;
pub use save::{ExpectedRevision, SaveModel};
pub use store::ReadModelStore;
pub use view::{
    MAX_VIEW_ITEMS, MaterializedView, ViewDefinition, ViewItem, ViewKeeper, ViewResult, ViewStatus,
};
pub use watch::ModelChange;
