//! One step from a stored shape to the next.

use std::error::Error;
use std::fmt;

use ipld_core::ipld::Ipld;

use crate::event::{SchemaVersion, Shape};

/// Why an upcaster, or a transcoder, cannot take a value.
pub type Refusal = Box<dyn Error + Send + Sync>;

/// What a stored value is. Names mean something within a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An event; its name is the event type.
    Event,
    /// Kept state or a snapshot; its name is the aggregate type.
    State,
    /// A read model; its name is the model type.
    Model,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Event => "event",
            Self::State => "state of",
            Self::Model => "model",
        })
    }
}

impl From<(&'static str, SchemaVersion)> for Shape {
    fn from((name, version): (&'static str, SchemaVersion)) -> Self {
        Self { name, version }
    }
}

/// A step from one shape to the next ones: a plain function from a stored value to what it would be if it were written one
/// version later. It must say the same for the same value, because values are read again and again.
///
/// What it gets is the event, state or model as serde wrote it, so an event of an enum lies within its variant:
/// `{"Placed": {"total": 12}}`. A type that reads the version before as it is needs a step as well; that is [`Ok`].
///
/// ```
/// use cim_persistence::evolution::{Reshape, Upcast};
///
/// let cents = Upcast::event("placed", 1, |mut value| {
///     value.within("Placed")?.rename("total", "cents")?;
///     Ok(value)
/// });
/// let same = Upcast::event("placed", 2, Ok);
/// let gone = Upcast::dropped(("pinged", 1));
/// ```
pub struct Upcast {
    pub(super) kind: Kind,
    pub(super) from: Shape,
    pub(super) to: Vec<Shape>,
    pub(super) step: Step,
}

/// What makes something of a stored value.
type Made<T> = Box<dyn Fn(Ipld) -> Result<T, Refusal> + Send + Sync>;

/// What a step makes of a value.
pub(super) enum Step {
    /// One value, of the only shape there is.
    One(Made<Ipld>),
    /// Any number of values of the shapes that were named.
    Several(Made<Vec<(Shape, Ipld)>>),
}

impl Upcast {
    /// From a version of an event type to the next version.
    pub fn event(
        name: &'static str,
        from: SchemaVersion,
        step: impl Fn(Ipld) -> Result<Ipld, Refusal> + Send + Sync + 'static,
    ) -> Self {
        Self::next(Kind::Event, name, from, step)
    }

    /// From a version of the state of an aggregate type to the next version; for kept state and for snapshots.
    pub fn state(
        aggregate_type: &'static str,
        from: SchemaVersion,
        step: impl Fn(Ipld) -> Result<Ipld, Refusal> + Send + Sync + 'static,
    ) -> Self {
        Self::next(Kind::State, aggregate_type, from, step)
    }

    /// From a version of a type of read models to the next version.
    pub fn model(
        model_type: &'static str,
        from: SchemaVersion,
        step: impl Fn(Ipld) -> Result<Ipld, Refusal> + Send + Sync + 'static,
    ) -> Self {
        Self::next(Kind::Model, model_type, from, step)
    }

    /// From an event type that has another name today. A variant of an enum is renamed within the value as well:
    /// [`Reshape::rename`](super::Reshape::rename).
    pub fn renamed(
        from: impl Into<Shape>,
        to: impl Into<Shape>,
        step: impl Fn(Ipld) -> Result<Ipld, Refusal> + Send + Sync + 'static,
    ) -> Self {
        let step = Step::One(Box::new(step));
        Self { kind: Kind::Event, from: from.into(), to: vec![to.into()], step }
    }

    /// From an event that is several today, or one of several. The step gives values of the shapes in `to`, in the order in
    /// which they happened; any number of each, so none at all is possible too.
    pub fn split<T: Into<Shape>, S: Into<Shape>>(
        from: impl Into<Shape>,
        to: impl IntoIterator<Item = T>,
        step: impl Fn(Ipld) -> Result<Vec<(S, Ipld)>, Refusal> + Send + Sync + 'static,
    ) -> Self {
        let several = move |value| {
            let made = step(value)?;
            Ok(made.into_iter().map(|(shape, value)| (shape.into(), value)).collect())
        };
        let to = to.into_iter().map(Into::into).collect();
        let step = Step::Several(Box::new(several));
        Self { kind: Kind::Event, from: from.into(), to, step }
    }

    /// From an event that means nothing today. It stays in its aggregate's history and keeps its version there.
    pub fn dropped(from: impl Into<Shape>) -> Self {
        let step = Step::Several(Box::new(|_| Ok(Vec::new())));
        Self { kind: Kind::Event, from: from.into(), to: Vec::new(), step }
    }

    fn next(
        kind: Kind,
        name: &'static str,
        from: SchemaVersion,
        step: impl Fn(Ipld) -> Result<Ipld, Refusal> + Send + Sync + 'static,
    ) -> Self {
        let to = Shape { name, version: from.saturating_add(1) };
        let from = Shape { name, version: from };
        Self { kind, from, to: vec![to], step: Step::One(Box::new(step)) }
    }
}

impl fmt::Debug for Upcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upcast")
            .field("kind", &self.kind)
            .field("from", &self.from)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}
