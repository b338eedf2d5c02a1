//! Stored values as they are read today: what was written in an old shape is changed into the newest one on its way to the
//! code, and never where it is stored.
//!
//! - [`Evolution`] holds the [`Upcast`]s of a context, for events, for kept state and snapshots, and for read models. It is
//!   checked when it is built, and handed to [`Context::with_evolution`](crate::store::Context::with_evolution); from there
//!   on repositories, projections, subscriptions and read models read the newest shapes.
//! - [`Reshape`] has what upcasters need to change a value.
//! - [`Transcoder`]s carry types that serde does not carry as wanted: [`As`] is their place in a type, [`Transcoders`] finds
//!   them by name.
//!
//! Pure: no I/O, no async, and nothing is known of stores. A value has been verified, CID and all, before it gets here.

mod build;
mod chain;
mod reshape;
mod transcode;
mod transcoders;
mod upcast;

#[cfg(test)]
mod tests;

pub use build::{EvolutionBuilder, EvolutionError};
pub use chain::{Evolution, Evolved, UpcastError};
pub use reshape::{Reshape, ReshapeError};
pub use transcode::{As, Tagged, TranscodeError, Transcoder, WireForm};
pub use transcoders::Transcoders;
pub use upcast::{Kind, Refusal, Upcast};
