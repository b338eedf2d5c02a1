//! Projections: read models kept current by the events of a context, each event taking effect once.
//!
//! [`Projection`] is what a user writes, [`RunningProjection`] runs it, [`Projections`] is how the others see it: status,
//! waiting for a position, pause, rebuild. Where models lie and how they are read is in
//! [`read_model`](crate::read_model).
//!
//! [`Effects`] act outside, at least once. [`Fold`] is state made when it is asked for, [`ModelsAsOf`] the models of a
//! projection as they were.

mod definition;
mod changes;
mod options;
mod status;
mod error;
mod records;
mod feed;
mod session;
mod batches;
mod pump;
mod pointers;
mod generations;
mod control;
mod runner;
mod running;
mod effects;
mod fold;
mod as_of;
#[cfg(feature = "testing")]
mod trial;

pub(crate) use definition::read_today;
pub(crate) use feed::{PAUSE, mark};
pub(crate) use generations::check_log;
pub(crate) use records::{Checkpoint, EFFECTS, kept, put, read};
pub(crate) use session::panic_text;

pub use as_of::ModelsAsOf;
pub use changes::Changes;
pub use control::Projections;
pub use definition::{Declared, EventSet, Projection, Rejection};
pub use effects::{Effects, FirstStart, MOST_REPEATED, RunningEffects};
pub use error::ProjectionError;
pub use feed::Selection;
pub use fold::{
    Fold, Folded, load_projection, load_projection_as_of, load_projection_with_snapshot,
};
pub use options::{PoisonPolicy, ProjectionOptions, Then};
pub use records::Parked;
pub use running::RunningProjection;
pub use status::{ProjectionReport, ProjectionStatus, RebuildProgress};
#[cfg(feature = "testing")]
pub(crate) use trial::Trial;
