//! What a domain says of its events.

use serde::{Deserialize, Serialize};

/// The version of an event type's shape, starting at 1.
pub type SchemaVersion = u32;

/// The event type that marks an aggregate as deleted. No domain event may have it.
pub const TOMBSTONE: &str = "cim-tombstone";

/// What an event type looks like now: its name, and the newest version of its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shape {
    /// The stable name of the event type.
    pub name: &'static str,
    /// The newest version of its shape, which is the one that is written.
    pub version: SchemaVersion,
}

/// A fact of the domain: what happened to one aggregate.
///
/// Usually an enum whose variants are the events of one aggregate type, and derived:
///
/// ```
/// use cim_persistence::DomainEvent;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize, DomainEvent)]
/// enum AccountEvent {
///     Opened { owner: String },
///     Deposited { cents: u64 },
/// }
///
/// assert_eq!(AccountEvent::Deposited { cents: 1 }.event_type(), "deposited");
/// ```
///
/// An event's data is stored as serde writes it, so a field that is renamed or removed makes older events unreadable;
/// give a new shape a new [`schema_version`](Self::schema_version), and an upcaster from the old one
/// ([`evolution`](crate::evolution)).
///
/// Written by hand it is, for the same types and with the same result:
///
/// ```
/// # use cim_persistence::event::{DomainEvent, Shape};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # enum AccountEvent { Opened { owner: String }, Deposited { cents: u64 } }
/// impl DomainEvent for AccountEvent {
///     fn event_type(&self) -> &'static str {
///         match self {
///             AccountEvent::Opened { .. } => "opened",
///             AccountEvent::Deposited { .. } => "deposited",
///         }
///     }
///
///     fn shapes() -> &'static [Shape] {
///         &[Shape { name: "opened", version: 1 }, Shape { name: "deposited", version: 1 }]
///     }
/// }
/// ```
pub trait DomainEvent: Serialize + for<'de> Deserialize<'de> {
    /// The stable name of this event's type: a name of `A-Z a-z 0-9 _ -`, at most 64 bytes, never changed once stored.
    fn event_type(&self) -> &'static str;

    /// The version of this event type's shape. Default 1.
    fn schema_version(&self) -> SchemaVersion {
        1
    }

    /// Every event type there is of this type, each once, as it is written now. Default: none, which means that it is not
    /// known.
    ///
    /// Stored events of older versions are changed into these shapes before they are read, where upcasters lead there. An
    /// event of another type, or of a newer version, is not read into this type: the code is older than what is stored.
    /// Where the shapes are not known, that is told by what was read: an event that calls itself otherwise than it is stored,
    /// or is of an older version, is none of this type.
    fn shapes() -> &'static [Shape] {
        &[]
    }

    /// The shape of the event type with this name, if it is known to be one of this type.
    fn shape_of(name: &str) -> Option<&'static Shape> {
        Self::shapes().iter().find(|shape| shape.name == name)
    }
}

/// A list with at least one element.
///
/// ```
/// use cim_persistence::event::NonEmpty;
/// let list = NonEmpty::from([1, 2]);
/// assert_eq!(list.len().get(), 2);
/// assert_eq!(NonEmpty::<u8>::from_vec(vec![]), None);
/// ```
///
/// An empty array is refused by the compiler:
///
/// ```compile_fail
/// let list = cim_persistence::event::NonEmpty::<u8>::from([]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NonEmpty<T>(Vec<T>);

impl<T> NonEmpty<T> {
    /// A list of one element.
    pub fn one(element: T) -> Self {
        Self(vec![element])
    }

    /// The list, or `None` when it is empty.
    pub fn from_vec(list: Vec<T>) -> Option<Self> {
        (!list.is_empty()).then_some(Self(list))
    }

    /// Adds an element at the end.
    pub fn push(&mut self, element: T) {
        self.0.push(element);
    }

    /// How many elements there are.
    pub fn len(&self) -> std::num::NonZeroUsize {
        std::num::NonZeroUsize::new(self.0.len()).expect("a NonEmpty is never built empty")
    }

    /// The first element.
    pub fn first(&self) -> &T {
        &self.0[0]
    }

    /// The last element.
    pub fn last(&self) -> &T {
        &self.0[self.0.len() - 1]
    }

    /// The elements.
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }

    /// The elements in order.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    /// The list as a vector.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const N: usize> From<[T; N]> for NonEmpty<T> {
    fn from(list: [T; N]) -> Self {
        const { assert!(N > 0, "a NonEmpty needs at least one element") };
        Self(list.into())
    }
}

impl<T> IntoIterator for NonEmpty<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a NonEmpty<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
