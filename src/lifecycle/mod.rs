//! The stages of a life: which there are, which may follow which, and what is refused.
//!
//! Pure: no I/O, no async. An aggregate names its stage in [`Aggregate::stage`](crate::Aggregate::stage); that nothing is
//! stored which leads to a forbidden one is the business of the repository, `src/repository/loaded.rs`.

mod table;
mod stage;
mod declare;

pub(crate) use stage::check;
pub use stage::{InvalidTransition, Stage, Staged};
pub use table::{InvalidLifecycle, Lifecycle, MAX_STAGES, Row};

#[cfg(test)]
mod tests;
