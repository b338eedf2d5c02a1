//! Which events a subscription is about, and where it begins.

use crate::backend::{Position, Start, StoredMessage};
use crate::event::{NonEmpty, names};
use crate::store::EventFilter;
use crate::subject::{EventPattern, HeaderFilter, Pattern, SubjectScheme};

/// Some of the events of a context: by aggregate, type and position, or by pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventSelection {
    /// Those that pass a filter.
    Filter(EventFilter),
    /// Those that a pattern means.
    Pattern(EventPattern),
}

impl From<EventFilter> for EventSelection {
    fn from(filter: EventFilter) -> Self {
        Self::Filter(filter)
    }
}

impl From<EventPattern> for EventSelection {
    fn from(pattern: EventPattern) -> Self {
        Self::Pattern(pattern)
    }
}

/// Which events to subscribe to, and where to begin.
///
/// An event is delivered once if any of the selections means it. Subjects are filtered by the server; event type and schema
/// version by the headers, before anything is decoded or verified.
///
/// ```
/// use cim_persistence::backend::{Position, Start};
/// use cim_persistence::store::EventFilter;
/// use cim_persistence::subject::{AggregateType, ContextName, EventPattern, EventType, SubjectScheme};
/// use cim_persistence::subscription::SubscriptionQuery;
///
/// let scheme = SubjectScheme::new(ContextName::new("sales")?, "cim.events", "cim.aggregates")?;
/// let query = SubscriptionQuery::of(EventFilter::for_type(AggregateType::new("invoice")?))
///     .or(EventFilter::for_event(EventType::new("shipped")?))
///     .or(EventPattern::parse(&scheme, "cim.events.sales.order.*.placed.v2")?)
///     .from(Start::After(Position::new(42)))
///     .named("mailer");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionQuery {
    selections: NonEmpty<EventSelection>,
    start: Start,
    name: String,
}

impl SubscriptionQuery {
    /// Every event of the context, from the first one on.
    pub fn all() -> Self {
        Self::of(EventFilter::all())
    }

    /// The events that are selected, from the first one on. A filter's own position holds for that filter.
    pub fn of(selection: impl Into<EventSelection>) -> Self {
        Self {
            selections: NonEmpty::one(selection.into()),
            start: Start::After(Position::START),
            name: "unnamed".to_owned(),
        }
    }

    /// These events too.
    pub fn or(mut self, selection: impl Into<EventSelection>) -> Self {
        self.selections.push(selection.into());
        self
    }

    /// Begins there. [`Start::Latest`] begins with the last event of each aggregate, if that one is selected.
    pub fn from(self, start: Start) -> Self {
        Self { start, ..self }
    }

    /// Gives the subscription a name, which metrics carry.
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// Where it begins.
    pub fn start(&self) -> Start {
        self.start
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl From<EventFilter> for SubscriptionQuery {
    fn from(filter: EventFilter) -> Self {
        Self::of(filter)
    }
}

impl From<EventPattern> for SubscriptionQuery {
    fn from(pattern: EventPattern) -> Self {
        Self::of(pattern)
    }
}

/// A query as the subjects and headers of one context.
#[derive(Debug)]
pub(super) struct Selected(NonEmpty<Part>);

#[derive(Debug)]
struct Part {
    subjects: Pattern,
    headers: HeaderFilter,
    after: Position,
}

impl Selected {
    pub(super) fn of(query: &SubscriptionQuery, scheme: &SubjectScheme) -> Self {
        let parts = query.selections.iter().map(|selection| Part::of(selection, scheme)).collect();
        Self(NonEmpty::from_vec(parts).expect("made from a NonEmpty"))
    }

    pub(super) fn patterns(&self) -> NonEmpty<Pattern> {
        let patterns = self.0.iter().map(|part| part.subjects.clone()).collect();
        NonEmpty::from_vec(patterns).expect("made from a NonEmpty")
    }

    /// Where to begin: what no selection wants is not asked for.
    pub(super) fn start(&self, start: Start) -> Start {
        let first = self.0.iter().map(|part| part.after).min().unwrap_or_default();
        match start {
            Start::After(position) => Start::After(position.max(first)),
            other => other,
        }
    }

    /// Whether any selection means the event, told without decoding it.
    pub(super) fn matches(&self, message: &StoredMessage) -> bool {
        self.0.iter().any(|part| part.matches(message))
    }
}

impl Part {
    fn of(selection: &EventSelection, scheme: &SubjectScheme) -> Self {
        match selection {
            EventSelection::Filter(filter) => Self {
                subjects: Pattern::parse(&filter.subjects(scheme))
                    .expect("what a scheme makes is a pattern, and shorter than one may be"),
                headers: HeaderFilter {
                    event_type: filter.event_type().cloned(),
                    schema_version: None,
                },
                after: *filter.position(),
            },
            EventSelection::Pattern(pattern) => Self {
                subjects: pattern.server_filter().clone(),
                headers: pattern.header_filter().clone(),
                after: Position::START,
            },
        }
    }

    fn matches(&self, message: &StoredMessage) -> bool {
        message.position > self.after
            && self.subjects.matches(message.subject.as_str())
            && (self.headers.is_any() || self.headers_match(message))
    }

    fn headers_match(&self, message: &StoredMessage) -> bool {
        let header = |name| message.headers.get(name);
        let version = header(names::SCHEMA_VERSION).and_then(|text| text.parse().ok());
        match (header(names::EVENT_TYPE), version) {
            (Some(event_type), Some(version)) => self.headers.matches(event_type, version),
            _ => false,
        }
    }
}
