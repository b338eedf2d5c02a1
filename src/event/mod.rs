//! What an event is: the envelope around a domain event, its metadata, its headers.
//!
//! Pure: no I/O, no async. How an envelope becomes bytes is in [`ipld`](crate::ipld).

mod domain;
mod envelope;
mod headers;
mod metadata;

/// Implements [`DomainEvent`](trait@DomainEvent) for an enum whose variants are events, or for a struct that is one.
///
/// | entry | says | default |
/// |---|---|---|
/// | `name` | the stable name of the event type | the variant's in snake case: `OrderPlaced` is `order_placed`, `HTTPCalled` is `http_called` |
/// | `version` | the version of its shape, from 1 on | 1 |
///
/// ```
/// use cim_persistence::DomainEvent;
/// use cim_persistence::event::Shape;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, DomainEvent)]
/// enum OrderEvent {
///     #[event(version = 2)]
///     OrderPlaced { customer: String, items: Vec<String> },
///     #[event(name = "order_shipped")]
///     Sent(String),
///     Cancelled,
/// }
///
/// assert_eq!(OrderEvent::Sent("DHL".to_owned()).event_type(), "order_shipped");
/// assert_eq!(OrderEvent::Cancelled.schema_version(), 1);
/// let placed = Shape { name: "order_placed", version: 2 };
/// assert_eq!(OrderEvent::shape_of("order_placed"), Some(&placed));
///
/// #[derive(Serialize, Deserialize, DomainEvent)]
/// #[event(name = "booked")]
/// struct Booking { cents: i64 }
///
/// assert_eq!(Booking { cents: 5 }.event_type(), "booked");
/// ```
///
/// Name and version are stored beside the data. **The data is what serde makes of the type**, whatever the names say here:
/// `Sent("DHL")` above is stored as `{"Sent":"DHL"}` under the type `order_shipped`. Whoever renames a variant therefore
/// keeps the stored name by `#[event(name = "…")]` and the data by `#[serde(rename = "…")]`, or raises the version and
/// writes an upcaster. `testing::SchemaLock` (feature `testing`) notices when that is forgotten.
///
/// The compiler refuses a name that repeats, is no name (`A-Z a-z 0-9 _ -`, 1 to 64 bytes) or begins with `cim-`, a
/// version 0, and the attribute where no event is. The type has to be `Serialize` and `Deserialize`; where it has type
/// parameters, it is an event whenever it is both. A service that depends on this crate under another name adds
/// `extern crate other_name as cim_persistence;` to its root.
pub use cim_persistence_derive::DomainEvent;
pub use domain::{DomainEvent, NonEmpty, SchemaVersion, Shape, TOMBSTONE};
pub use envelope::Envelope;
pub(crate) use envelope::parse_uuid;
pub use headers::{HeaderMismatch, Headers, names};
pub use metadata::{InvalidMetadata, MAX_METADATA_BYTES, Metadata, Tag};

/// What the derive macro names, so that a service needs no serde of its own name for it.
#[doc(hidden)]
pub mod __private {
    pub use serde::{Deserialize, Serialize};
}
