//! What a subject is: tokens, the escape of ids, the scheme of names, patterns.
//!
//! Pure: no I/O, no async. Everything that becomes part of a subject or a key is checked here, before any of
//! it reaches a server. What a message holds is in [`event`](crate::event).

mod scheme;
mod token;

pub use scheme::{Names, Subject, SubjectScheme};
pub use token::{
    AggregateId, AggregateType, ContextName, EventType, Identity, InvalidToken, MAX_ID_BYTES,
    MAX_NAME_BYTES,
};
