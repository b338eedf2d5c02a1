//! Upcasters in a chain, and values on their way through it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use ipld_core::ipld::Ipld;

use super::upcast::Step;
use super::{EvolutionBuilder, Kind, Refusal, Upcast};
use crate::event::{SchemaVersion, Shape};

/// How the stored values of a context have changed their shapes: every [`Upcast`], checked when it was built. Shared by
/// everything that reads, and never changed.
///
/// A name of an event type means the same in all aggregates of the context.
///
/// ```
/// use cim_persistence::evolution::{Evolution, Kind, Reshape, Upcast};
/// use ipld_core::ipld;
///
/// let evolution = Evolution::builder()
///     .event("placed", 3)
///     .upcast(Upcast::event("placed", 1, |mut value| {
///         value.rename("total", "cents")?;
///         Ok(value)
///     }))
///     .upcast(Upcast::event("placed", 2, |mut value| {
///         value.put("currency", "EUR")?;
///         Ok(value)
///     }))
///     .build()?;
/// let today = evolution.evolve(Kind::Event, "placed", 1, ipld!({ "total": 12 }))?;
/// assert_eq!(today[0].value, ipld!({ "cents": 12, "currency": "EUR" }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Evolution {
    pub(super) lines: HashMap<Kind, HashMap<&'static str, Line>>,
}

/// The shapes of one name.
#[derive(Default)]
pub(super) struct Line {
    /// None for a name that is not written any more.
    pub(super) newest: Option<SchemaVersion>,
    pub(super) steps: HashMap<SchemaVersion, Upcast>,
}

/// A stored value as it is read today.
#[derive(Debug, Clone, PartialEq)]
pub struct Evolved {
    /// Its name: an event type, an aggregate type or a model type.
    pub name: Cow<'static, str>,
    /// The version of its shape.
    pub version: SchemaVersion,
    /// The value.
    pub value: Ipld,
}

/// Why a stored value could not be changed into the newest shape.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpcastError {
    /// The upcaster cannot take the value. Correct the upcaster: what is stored stays as it is.
    #[error("the upcaster of {kind} {name} version {version} refuses the value: {source}")]
    Refused {
        /// What kind of value it is.
        kind: Kind,
        /// Its name.
        name: &'static str,
        /// The version the upcaster is for.
        version: SchemaVersion,
        /// What the upcaster said.
        #[source]
        source: Refusal,
    },
    /// The upcaster made a shape that it was not declared to make. Name the shape where the upcaster is made.
    #[error(
        "the upcaster of event {name} version {version} made {made} version {made_version}, which it does not name"
    )]
    Undeclared {
        /// The event type the upcaster is for.
        name: &'static str,
        /// The version the upcaster is for.
        version: SchemaVersion,
        /// The event type it made.
        made: &'static str,
        /// The version it made.
        made_version: SchemaVersion,
    },
    /// The value was written by newer code. Bring this code up to date.
    #[error(
        "{kind} {name} has version {version}, and this code knows versions up to {newest}; bring it up to date"
    )]
    Newer {
        /// What kind of value it is.
        kind: Kind,
        /// Its name.
        name: String,
        /// The version it was written in.
        version: SchemaVersion,
        /// The newest version this code knows.
        newest: SchemaVersion,
    },
}

impl Evolution {
    /// Nothing declared yet.
    pub fn builder() -> EvolutionBuilder {
        EvolutionBuilder::default()
    }

    /// Whether a value of this shape is read otherwise than it is stored, or not at all because it is newer than the code.
    pub fn changes(&self, kind: Kind, name: &str, version: SchemaVersion) -> bool {
        self.line(kind, name).is_some_and(|line| {
            line.steps.contains_key(&version) || line.newest.is_some_and(|newest| version > newest)
        })
    }

    /// What a stored value is today, in the newest shapes: itself where nothing is known of its name, one value where it was
    /// changed or renamed, several where it was split, none where it was dropped.
    ///
    /// # Errors
    /// [`UpcastError`].
    pub fn evolve(
        &self,
        kind: Kind,
        name: &str,
        version: SchemaVersion,
        value: Ipld,
    ) -> Result<Vec<Evolved>, UpcastError> {
        let name = match self.lines.get(&kind).and_then(|lines| lines.get_key_value(name)) {
            Some((known, Line { newest, .. })) => {
                check_age(kind, known, version, *newest)?;
                Cow::Borrowed(*known)
            }
            None => Cow::Owned(name.to_owned()),
        };
        let mut todo = vec![Evolved { name, version, value }];
        let mut done = Vec::with_capacity(1);
        while let Some(next) = todo.pop() {
            match self.step(kind, &next.name, next.version) {
                None => done.push(next),
                Some(upcast) => upcast.run(next.value, &mut todo)?,
            }
        }
        Ok(done)
    }

    /// The way of a state or model from one version to a later one; `None` when no steps lead there.
    pub(crate) fn path(
        &self,
        kind: Kind,
        name: &str,
        from: SchemaVersion,
        to: SchemaVersion,
    ) -> Option<Path<'_>> {
        let line = self.line(kind, name).filter(|_| from < to)?;
        (from..to).map(|version| line.steps.get(&version)).collect::<Option<_>>().map(Path)
    }

    fn line(&self, kind: Kind, name: &str) -> Option<&Line> {
        self.lines.get(&kind)?.get(name)
    }

    fn step(&self, kind: Kind, name: &str, version: SchemaVersion) -> Option<&Upcast> {
        self.line(kind, name)?.steps.get(&version)
    }
}

/// Steps that make one value of one.
#[derive(Debug)]
pub(crate) struct Path<'e>(Vec<&'e Upcast>);

impl Path<'_> {
    pub(crate) fn take(&self, mut value: Ipld) -> Result<Ipld, UpcastError> {
        let mut made = Vec::with_capacity(1);
        for upcast in &self.0 {
            upcast.run(value, &mut made)?;
            value = made.pop().map_or(Ipld::Null, |made: Evolved| made.value);
        }
        Ok(value)
    }
}

impl Upcast {
    /// Takes the step. What is made goes on top of `todo`, the first on top.
    fn run(&self, value: Ipld, todo: &mut Vec<Evolved>) -> Result<(), UpcastError> {
        let Shape { name, version } = self.from;
        let refused = |source| UpcastError::Refused { kind: self.kind, name, version, source };
        match &self.step {
            Step::One(step) => {
                let value = step(value).map_err(refused)?;
                todo.extend(self.to.first().map(|shape| Evolved::of(*shape, value)));
            }
            Step::Several(step) => {
                let made = step(value).map_err(refused)?;
                if let Some((shape, _)) = made.iter().find(|(shape, _)| !self.to.contains(shape)) {
                    return Err(UpcastError::Undeclared {
                        name,
                        version,
                        made: shape.name,
                        made_version: shape.version,
                    });
                }
                todo.extend(made.into_iter().rev().map(|(shape, value)| Evolved::of(shape, value)));
            }
        }
        Ok(())
    }
}

impl Evolved {
    fn of(shape: Shape, value: Ipld) -> Self {
        Self { name: Cow::Borrowed(shape.name), version: shape.version, value }
    }
}

fn check_age(
    kind: Kind,
    name: &str,
    version: SchemaVersion,
    newest: Option<SchemaVersion>,
) -> Result<(), UpcastError> {
    match newest {
        Some(newest) if version > newest => {
            Err(UpcastError::Newer { kind, name: name.to_owned(), version, newest })
        }
        _ => Ok(()),
    }
}

impl fmt::Debug for Evolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines.iter().flat_map(|(kind, lines)| {
            lines.iter().map(move |(name, line)| {
                let mut from: Vec<_> = line.steps.keys().copied().collect();
                from.sort_unstable();
                (*kind, *name, line.newest, from)
            })
        });
        let mut lines: Vec<_> = lines.collect();
        lines.sort_unstable();
        f.debug_struct("Evolution").field("lines", &lines).finish()
    }
}
