//! How a projection is run.

use std::time::Duration;

/// How a projection is run. The default stops at an event that cannot be used, so that nothing is skipped unseen.
#[derive(Debug, Clone)]
pub struct ProjectionOptions {
    /// What to do with an event that cannot be used.
    pub poison: PoisonPolicy,
    /// How long an active instance that is not heard of is waited for before another takes over. Default 5 s. It does not
    /// matter for what takes effect, only for who does the work.
    pub lease: Duration,
}

impl Default for ProjectionOptions {
    fn default() -> Self {
        Self { poison: PoisonPolicy::default(), lease: Duration::from_secs(5) }
    }
}

/// What to do with an event that a projection cannot use: one that does not decode or cannot be trusted, that
/// `project` refuses, or at which it panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoisonPolicy {
    /// How often it is tried again. Default 0.
    pub retries: u32,
    /// How long is waited before the first retry; twice as long before each that follows, at most 30 s. Default 100 ms.
    pub pause: Duration,
    /// What follows then. Default [`Then::Stop`].
    pub then: Then,
}

impl PoisonPolicy {
    /// Stop at once.
    pub const STOP: Self = Self { retries: 0, pause: Duration::from_millis(100), then: Then::Stop };
    /// Park at once.
    pub const PARK: Self = Self { retries: 0, pause: Duration::from_millis(100), then: Then::Park };

    /// The same policy after so many retries, with a pause before the first.
    pub fn after_retries(self, retries: u32, pause: Duration) -> Self {
        Self { retries, pause, ..self }
    }
}

impl Default for PoisonPolicy {
    fn default() -> Self {
        Self::STOP
    }
}

/// What follows when an event stays unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The projection stops and says why. Nothing of the event took effect; started again, it tries it again.
    Stop,
    /// The event is parked with the reason, under the key `=parked.<projection>.<position>`, and the projection goes on.
    Park,
}
