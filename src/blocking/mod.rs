//! The crate for callers that are not async: the same operations, each waiting until it is done.
//!
//! A [`Runtime`] is started once and shared. What is opened on it lives on threads of its own, so a call may be made from
//! any thread: outside of every runtime, within one of either kind, even from a task of this one. It blocks the calling thread as long as
//! it takes; within an async function that is somebody else's runtime, which is why such a function should use the async side.
//!
//! The types here wrap those of the same name and add nothing but waiting; errors, guarantees and round trips are told
//! there. What has no counterpart here is waited for with [`Runtime::wait`].
//!
//! ```no_run
//! use cim_persistence::blocking::{Context, Runtime};
//! # use cim_persistence::prelude::*;
//! # fn example<Account: Aggregate<Id = String> + Send + Sync + 'static>(booked: Account::Event)
//! #     -> Result<(), Box<dyn std::error::Error>> {
//!
//! let runtime = Runtime::start()?;
//! let bank = Context::connect(&runtime, "nats://127.0.0.1:4222", "bank")?;
//! let accounts = bank.repository::<Account>()?;
//! accounts.save(&Account::new(&"kim".to_owned()), vec![booked], ExpectedVersion::NoStream)?;
//! # Ok(())
//! # }
//! # use cim_persistence::ExpectedVersion;
//! ```

mod runtime;
mod context;
mod repository;
mod read_model;
mod projection;

pub use context::Context;
pub use projection::{Projections, RunningProjection};
pub use read_model::{Models, ReadModelStore};
pub use repository::Repository;
pub use runtime::{Items, Runtime};
