//! Process managers: they react to events with commands, keep state of their own, and wait for times.
//!
//! [`ProcessManager`] is what a user writes, [`RunningProcess`] runs it, [`Reaction`] is what one reaction does: a unit of
//! work, and timeouts. How timeouts come due is in [`timeouts`](crate::timeouts).

mod definition;
mod reaction;
mod options;
mod error;
mod records;
mod feed;
mod cursor;
mod worker;
mod runner;
#[cfg(feature = "testing")]
mod quiet;

pub use definition::{DueTimeout, ProcessManager};
pub use error::{ProcessError, TimeoutError};
pub use options::ProcessOptions;
#[cfg(feature = "testing")]
pub(crate) use quiet::until_quiet;
pub use reaction::Reaction;
pub(crate) use records::{CURSORS, marks_of};
pub use records::{ParkedReaction, Trigger};
pub use runner::RunningProcess;
