//! Gathering upcasters and what they must lead to, and checking them before anything is read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use super::chain::Line;
use super::{Evolution, Kind, Upcast};
use crate::event::{DomainEvent, SchemaVersion, Shape};
use crate::subject::{AggregateType, EventType, InvalidToken, ModelType};

/// Why upcasters do not add up to an [`Evolution`]. A mistake in the code: correct it before it runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvolutionError {
    /// A name cannot be one. Correct it.
    #[error(transparent)]
    Name(#[from] InvalidToken),
    /// A name is reserved. Name the event otherwise.
    #[error("event type {name:?} is reserved; name the event otherwise")]
    Reserved {
        /// The name.
        name: &'static str,
    },
    /// A version is 0. Versions are counted from 1.
    #[error("{kind} {name} cannot have version 0; versions are counted from 1")]
    VersionZero {
        /// What kind of value it is.
        kind: Kind,
        /// Its name.
        name: &'static str,
    },
    /// A domain type does not say which shapes it has. Derive `DomainEvent`, write `DomainEvent::shapes`, or declare its
    /// event types one by one with [`EvolutionBuilder::event`].
    #[error(
        "{type_name} does not say which shapes it has; write DomainEvent::shapes for it, or declare each event type"
    )]
    NoShapes {
        /// The Rust type.
        type_name: &'static str,
    },
    /// A name is declared with two newest versions. Declare it once; give event types names that are different in the whole
    /// context.
    #[error(
        "{kind} {name} is declared with version {first} and with version {second} as the newest; declare it once"
    )]
    Declared {
        /// What kind of value it is.
        kind: Kind,
        /// Its name.
        name: &'static str,
        /// The version declared first.
        first: SchemaVersion,
        /// The version declared after it.
        second: SchemaVersion,
    },
    /// Two steps begin at the same shape. Leave one out.
    #[error("two upcasters begin at {kind} {name} version {version}; leave one out")]
    Repeated {
        /// What kind of value it is.
        kind: Kind,
        /// Its name.
        name: &'static str,
        /// The version.
        version: SchemaVersion,
    },
    /// Steps lead back to where they began, so no value would ever arrive. Lead them to the newest version.
    #[error("upcasters lead in a circle: {}", Circle(.kind, .circle))]
    Loop {
        /// What kind of values they are.
        kind: Kind,
        /// The shapes of the circle; the last leads to the first.
        circle: Vec<Shape>,
    },
    /// A step begins at or names a version that is newer than the declared one. Declare the newest version, or correct the
    /// step.
    #[error(
        "an upcaster names {kind} {name} version {version}, but {newest} is declared as the newest"
    )]
    Beyond {
        /// What kind of value it is.
        kind: Kind,
        /// Its name.
        name: &'static str,
        /// The version that the step names.
        version: SchemaVersion,
        /// The version that was declared.
        newest: SchemaVersion,
    },
    /// A step begins at the newest version, which is what the code writes. Declare a newer one, or leave the step out.
    #[error(
        "an upcaster begins at {kind} {name} version {version}, which is declared as the newest"
    )]
    FromNewest {
        /// What kind of value it is.
        kind: Kind,
        /// Its name.
        name: &'static str,
        /// The version.
        version: SchemaVersion,
    },
    /// A version leads nowhere: stored values of it could not be read. Add a step from it; for one that is read as it is,
    /// the step is `Ok`.
    #[error(
        "{kind} {name} version {from} has no path to {}; add an upcaster from it",
        newest.map_or("a declared shape".to_owned(), |newest| format!("version {newest}"))
    )]
    NoPath {
        /// What kind of value it is.
        kind: Kind,
        /// Its name.
        name: &'static str,
        /// The version without a step.
        from: SchemaVersion,
        /// The newest version; `None` for a name that is not declared.
        newest: Option<SchemaVersion>,
    },
}

/// What an [`Evolution`] is built from. Modules add their own shapes and steps, in any order.
///
/// Every version from 1 to the newest must lead to a declared shape, or to nothing where it is dropped; a name that is not
/// declared must have a step for each version that is known of it.
#[derive(Debug, Default)]
pub struct EvolutionBuilder {
    newest: Vec<(Kind, Shape)>,
    nameless: Option<&'static str>,
    upcasts: Vec<Upcast>,
}

impl EvolutionBuilder {
    /// Declares the shapes of a domain type as the newest of their names.
    #[must_use]
    pub fn events<E: DomainEvent>(mut self) -> Self {
        if E::shapes().is_empty() {
            self.nameless.get_or_insert(std::any::type_name::<E>());
        }
        self.newest.extend(E::shapes().iter().map(|shape| (Kind::Event, *shape)));
        self
    }

    /// Declares the newest version of one event type, for a domain type that does not say it itself.
    #[must_use]
    pub fn event(self, name: &'static str, newest: SchemaVersion) -> Self {
        self.declare(Kind::Event, name, newest)
    }

    /// Declares the version of an aggregate type's state: `Order::TYPE, Order::STATE_VERSION`.
    #[must_use]
    pub fn state(self, aggregate_type: &'static str, newest: SchemaVersion) -> Self {
        self.declare(Kind::State, aggregate_type, newest)
    }

    /// Declares the version of a type of read models: `Board::MODEL_TYPE, Board::SCHEMA_VERSION`.
    #[must_use]
    pub fn model(self, model_type: &'static str, newest: SchemaVersion) -> Self {
        self.declare(Kind::Model, model_type, newest)
    }

    /// Adds a step.
    #[must_use]
    pub fn upcast(mut self, upcast: Upcast) -> Self {
        self.upcasts.push(upcast);
        self
    }

    /// Adds the steps of a module.
    #[must_use]
    pub fn upcasts(mut self, upcasts: impl IntoIterator<Item = Upcast>) -> Self {
        self.upcasts.extend(upcasts);
        self
    }

    /// Checks that everything leads where it should.
    ///
    /// # Errors
    /// [`EvolutionError`] for the first mistake found.
    pub fn build(self) -> Result<Evolution, EvolutionError> {
        if let Some(type_name) = self.nameless {
            return Err(EvolutionError::NoShapes { type_name });
        }
        let mut lines: HashMap<Kind, HashMap<&'static str, Line>> = HashMap::new();
        let mut highest = BTreeMap::new();
        for (kind, shape) in &self.newest {
            check_shape(*kind, *shape)?;
            let line = lines.entry(*kind).or_default().entry(shape.name).or_default();
            let first = *line.newest.get_or_insert(shape.version);
            if first != shape.version {
                let (kind, name, second) = (*kind, shape.name, shape.version);
                return Err(EvolutionError::Declared { kind, name, first, second });
            }
            highest.insert((*kind, shape.name), shape.version);
        }
        for upcast in self.upcasts {
            let kind = upcast.kind;
            for shape in upcast.to.iter().chain([&upcast.from]) {
                check_shape(kind, *shape)?;
                let known = highest.entry((kind, shape.name)).or_default();
                *known = shape.version.max(*known);
            }
            let Shape { name, version } = upcast.from;
            let line = lines.entry(kind).or_default().entry(name).or_default();
            if line.steps.insert(version, upcast).is_some() {
                return Err(EvolutionError::Repeated { kind, name, version });
            }
        }
        check_circles(&lines)?;
        for ((kind, name), highest) in highest {
            check_line(kind, name, highest, lines.get(&kind).and_then(|lines| lines.get(name)))?;
        }
        Ok(Evolution { lines })
    }

    fn declare(mut self, kind: Kind, name: &'static str, version: SchemaVersion) -> Self {
        self.newest.push((kind, Shape { name, version }));
        self
    }
}

fn check_shape(kind: Kind, Shape { name, version }: Shape) -> Result<(), EvolutionError> {
    match kind {
        Kind::Event if name.starts_with("cim-") => return Err(EvolutionError::Reserved { name }),
        Kind::Event => drop(EventType::new(name)?),
        Kind::State => drop(AggregateType::new(name)?),
        Kind::Model => drop(ModelType::new(name)?),
    }
    if version == 0 { Err(EvolutionError::VersionZero { kind, name }) } else { Ok(()) }
}

/// Whether every version of a name goes on, up to the one that is declared.
fn check_line(
    kind: Kind,
    name: &'static str,
    highest: SchemaVersion,
    line: Option<&Line>,
) -> Result<(), EvolutionError> {
    let newest = line.and_then(|line| line.newest);
    if let Some(newest) = newest.filter(|newest| highest > *newest) {
        return Err(EvolutionError::Beyond { kind, name, version: highest, newest });
    }
    let goes_on = |version| line.is_some_and(|line| line.steps.contains_key(&version));
    if let Some(version) = newest.filter(|newest| goes_on(*newest)) {
        return Err(EvolutionError::FromNewest { kind, name, version });
    }
    // Steps are few however high a version is, so the first one that is missing is found soon.
    match (1..=highest).find(|version| !goes_on(*version) && newest != Some(*version)) {
        Some(from) => Err(EvolutionError::NoPath { kind, name, from, newest }),
        None => Ok(()),
    }
}

fn check_circles(lines: &HashMap<Kind, HashMap<&'static str, Line>>) -> Result<(), EvolutionError> {
    for (kind, lines) in lines {
        let mut begins: Vec<Shape> =
            lines.values().flat_map(|line| line.steps.values().map(|upcast| upcast.from)).collect();
        begins.sort_unstable();
        let mut walk = Walk { lines, way: Vec::new(), clean: HashSet::new() };
        for begin in begins {
            if let Some(circle) = walk.circle_from(begin) {
                return Err(EvolutionError::Loop { kind: *kind, circle });
            }
        }
    }
    Ok(())
}

/// A walk along the steps, which knows its own way.
struct Walk<'l> {
    lines: &'l HashMap<&'static str, Line>,
    way: Vec<Shape>,
    /// From where no circle is reached.
    clean: HashSet<Shape>,
}

impl Walk<'_> {
    fn circle_from(&mut self, shape: Shape) -> Option<Vec<Shape>> {
        if self.clean.contains(&shape) {
            return None;
        }
        if let Some(at) = self.way.iter().position(|before| *before == shape) {
            return Some(self.way[at..].to_vec());
        }
        let upcast = self.lines.get(shape.name)?.steps.get(&shape.version)?;
        self.way.push(shape);
        let circle = upcast.to.iter().find_map(|next| self.circle_from(*next));
        self.way.pop();
        self.clean.insert(shape);
        circle
    }
}

struct Circle<'c>(&'c Kind, &'c [Shape]);

impl fmt::Display for Circle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(kind, shapes) = self;
        for Shape { name, version } in *shapes {
            write!(f, "{kind} {name} version {version} to ")?;
        }
        f.write_str("the first")
    }
}
