//! How a process manager is run.

use std::time::Duration;

use crate::projection::{FirstStart, PoisonPolicy};

/// How a process manager is run. The default begins with the first event, and stops at one that it cannot react to.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// Where it begins if it has never run. Default [`FirstStart::Beginning`].
    pub first: FirstStart,
    /// What to do with an event or a timeout that it cannot react to.
    pub poison: PoisonPolicy,
    /// How long an active instance that is not heard of is waited for before another takes over. Default 5 s. It does not
    /// matter for what takes effect, only for who does the work.
    pub lease: Duration,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        Self {
            first: FirstStart::Beginning,
            poison: PoisonPolicy::default(),
            lease: Duration::from_secs(5),
        }
    }
}
