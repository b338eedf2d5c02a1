//! The traits a domain implements and a service calls. `use cim_persistence::prelude::*;`

pub use crate::event::DomainEvent;
pub use crate::lifecycle::Staged;
pub use crate::repository::{Aggregate, Handle, IntoDecision};
pub use crate::store::{EventStore, StoreFailure};
pub use crate::subject::Identity;
