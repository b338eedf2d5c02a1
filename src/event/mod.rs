//! What an event is: the envelope around a domain event, its metadata, its headers.
//!
//! Pure: no I/O, no async. How an envelope becomes bytes is in [`ipld`](crate::ipld).

mod domain;
mod envelope;
mod headers;
mod metadata;

pub use domain::{DomainEvent, NonEmpty, SchemaVersion, Shape, TOMBSTONE};
pub use envelope::Envelope;
pub(crate) use envelope::parse_uuid;
pub use headers::{HeaderMismatch, Headers, names};
pub use metadata::{InvalidMetadata, MAX_METADATA_BYTES, Metadata, Tag};
