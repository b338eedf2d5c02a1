//! Where a query looks, and the query as a whole.

use std::fmt;

use super::{QueryError, TimeRange};
use crate::read_model::ModelPattern;
use crate::specification::{ParsedQuery, SearchOptions, Specification};
use crate::subject::{EventPattern, Pattern, SubjectScheme};

/// The documents that a query asks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// Read models of one type, as they are stored.
    Models(ModelPattern),
    /// Events of the context, as documents with the fields `aggregate`, `id`, `version`, `type`, `schema`, `event_id`,
    /// `occurred_at`, `correlation_id`, `causation_id`, `position`, `metadata` and `data`. Ids are in their escaped form,
    /// times are microseconds since 1970.
    Events(EventPattern),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Models(pattern) => pattern.fmt(f),
            Self::Events(pattern) => pattern.fmt(f),
        }
    }
}

/// A question: where to look, what has to hold, and which of the matching documents are wanted.
///
/// ```
/// use cim_persistence::query::{Query, QueryError, Source};
/// use cim_persistence::specification::field;
/// use cim_persistence::subject::{ContextName, SubjectScheme};
///
/// let scheme = SubjectScheme::new(ContextName::new("flights").unwrap(), "cim.events", "cim.aggregates").unwrap();
/// let late = Query::parse(&scheme, "subject:board.JFK.*.* AND delay > 30 ORDER BY -delay LIMIT 5")?;
/// assert_eq!(late.specification, field("delay").gt(30));
/// let departed = Query::parse(&scheme, "subject:cim.events.flights.aircraft.*.departed AND data.delay > 30")?;
/// assert!(matches!(departed.source, Source::Events(_)));
/// # Ok::<(), QueryError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Where to look.
    pub source: Source,
    /// What has to hold.
    pub specification: Specification,
    /// Order, page and fields. Events that are equal in the order are ordered by position, models by id.
    pub options: SearchOptions,
}

impl Query {
    /// Reads a query text; [`ParsedQuery`] has its grammar.
    ///
    /// What follows `subject:` are read models, `board.JFK.*.*` or `cim.readmodels.board.JFK.*.*`, or events, as an
    /// [`EventPattern`] of the context whose ids have one token.
    ///
    /// # Errors
    /// [`QueryError::Text`], [`QueryError::NoSubject`], [`QueryError::OutsideStore`].
    pub fn parse(scheme: &SubjectScheme, text: &str) -> Result<Self, QueryError> {
        Self::of(scheme, ParsedQuery::parse(text)?)
    }

    /// A query text that was read already, perhaps with more options than a text can hold.
    ///
    /// # Errors
    /// [`QueryError::NoSubject`], [`QueryError::OutsideStore`].
    pub fn of(scheme: &SubjectScheme, parsed: ParsedQuery) -> Result<Self, QueryError> {
        let subject = parsed.subject.ok_or(QueryError::NoSubject)?;
        let (specification, options) = (parsed.specification, parsed.options);
        Ok(Self { source: source_of(scheme, &subject)?, specification, options })
    }

    /// All read models that a pattern means.
    pub fn models(pattern: ModelPattern) -> Self {
        Self::all_of(Source::Models(pattern))
    }

    /// All events that a pattern means.
    pub fn events(pattern: EventPattern) -> Self {
        Self::all_of(Source::Events(pattern))
    }

    /// Only the documents for which this holds too.
    #[must_use]
    pub fn filter(mut self, specification: Specification) -> Self {
        self.specification = self.specification.and(specification);
        self
    }

    /// With these options.
    #[must_use]
    pub fn options(self, options: SearchOptions) -> Self {
        Self { options, ..self }
    }

    fn all_of(source: Source) -> Self {
        let (specification, options) = (Specification::everything(), SearchOptions::default());
        Self { source, specification, options }
    }

    /// What tells the documents apart that are asked: a cursor of one scope is of no use in another.
    pub(super) fn scope(&self, range: Option<TimeRange>) -> String {
        match range {
            None => self.source.to_string(),
            Some(range) => format!("{} {range}", self.source),
        }
    }
}

impl fmt::Display for Query {
    /// The query text. Options that no text holds are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parsed = ParsedQuery {
            subject: Pattern::parse(&self.source.to_string()).ok(),
            specification: self.specification.clone(),
            options: self.options.clone(),
        };
        parsed.fmt(f)
    }
}

fn source_of(scheme: &SubjectScheme, subject: &Pattern) -> Result<Source, QueryError> {
    let outside = |reason: String| QueryError::OutsideStore {
        pattern: subject.to_string(),
        reason,
        events: scheme.event_prefix().to_owned(),
    };
    // The prefix ends with the context; what comes before that belongs to events of any context.
    let own = scheme.event_prefix().trim_end_matches('.');
    let any_context = own.rsplit_once('.').map_or(own, |(prefix, _)| prefix);
    let below = subject.as_str().strip_prefix(any_context);
    if below.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
        let pattern = EventPattern::parse(scheme, subject.as_str());
        return pattern.map(Source::Events).map_err(|error| outside(error.to_string()));
    }
    let pattern = ModelPattern::of_any_type(subject.as_str());
    pattern.map(Source::Models).map_err(|error| outside(error.to_string()))
}
