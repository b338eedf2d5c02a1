//! What a subject is: tokens, the escape of ids, the scheme of names, patterns, addresses.
//!
//! Pure: no I/O, no async. Everything that becomes part of a subject or a key is checked here, before any of
//! it reaches a server. What a message holds is in [`event`](crate::event).

mod token;
mod id;
mod literal;
mod scheme;
mod pattern;
mod event_pattern;
mod aggregate_pattern;
mod address;
mod timeout;

pub use address::{Address, InvalidAddress, Location};
pub use aggregate_pattern::AggregatePattern;
pub use event_pattern::{EventPattern, HeaderFilter};
pub use id::{AggregateId, Identity, MAX_ID_BYTES};
pub use literal::{InvalidSubject, Subject};
pub use pattern::{InvalidPattern, MAX_PATTERN_BYTES, Pattern};
pub use scheme::{MAX_PREFIX_BYTES, Names, SubjectScheme};
pub use timeout::{TimeoutAddress, TimeoutSubjects};
pub use token::{
    AggregateType, ConstraintName, ContextName, EventType, InvalidToken, MAX_NAME_BYTES, ModelType,
};

#[cfg(test)]
mod tests;
