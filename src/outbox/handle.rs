//! The outbox of a context.

use crate::store::Context;

/// The outbox of a context. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Outbox {
    pub(super) context: Context,
}

impl Outbox {
    /// The outbox of a context. No round trip.
    pub fn of(context: &Context) -> Self {
        Self { context: context.clone() }
    }
}
