//! What can go wrong with routes, and with a message at one of them.

use std::error::Error;

use super::Operation;
use crate::subject::InvalidPattern;

/// What a handler fails with.
pub type HandlerError = Box<dyn Error + Send + Sync>;

/// Why a route was not added or a message not routed. Nothing happened then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RoutingError {
    /// The router's permissions do not permit it. Add a rule that allows it, unless one denies it.
    #[error(
        "{operation:?} on {pattern} is not permitted; allow it, and see whether a rule denies it"
    )]
    Denied {
        /// What was wanted.
        operation: Operation,
        /// On what subject or pattern.
        pattern: String,
    },
    /// A route names a handler that is not there. Register it first.
    #[error("there is no handler {handler:?}; register it before its routes are added")]
    NoHandler {
        /// The name.
        handler: String,
    },
    /// A handler of that name is there already. Choose another name.
    #[error("there is a handler {handler:?} already; choose another name")]
    HandlerTwice {
        /// The name.
        handler: String,
    },
    /// The subject of a message is none. Correct it.
    #[error(transparent)]
    Subject(#[from] InvalidPattern),
    /// The subject of a message has a wildcard: it is a pattern. Put tokens in place of wildcards.
    #[error(
        "{subject:?} is a pattern, and a message lies on one subject; write tokens in place of wildcards"
    )]
    Wildcard {
        /// The text.
        subject: String,
    },
}

/// Why a handler did not do its work. The other routes of the message are not touched by it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// The handler failed. What can be done, its error tells; it may be handed the message again.
    #[error("the handler failed")]
    Failed(#[source] HandlerError),
    /// The handler panicked. Correct the handler.
    #[error("the handler panicked: {message}")]
    Panicked {
        /// The text of the panic.
        message: String,
    },
}
