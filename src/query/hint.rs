//! What a caller knows or wants of a plan beforehand.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::specification::Field;

/// A way from a query to its documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IndexStrategy {
    /// The server filters by the subject pattern: models by the tokens of their ids, events by aggregate and id.
    SubjectPattern,
    /// Point gets: the pattern has no wildcard and names one model.
    KeyValue,
    /// Events from a moment on, by the server's time; needs a time range.
    TimeSeries,
    /// An index declared with the read model, whose fields the specification compares with values.
    Composite,
    /// All models of the type, or all events of the context; everything else is left to the client.
    FullScan,
}

impl fmt::Display for IndexStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SubjectPattern => "SubjectPattern",
            Self::KeyValue => "KeyValue",
            Self::TimeSeries => "TimeSeries",
            Self::Composite => "Composite",
            Self::FullScan => "FullScan",
        })
    }
}

/// Moments by the server's clock, from one up to another that is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimeRange {
    /// The first moment.
    pub from: Timestamp,
    /// The first moment after it; `None` for no end.
    pub until: Option<Timestamp>,
}

impl TimeRange {
    /// Whether a moment is in the range.
    pub fn contains(&self, moment: Timestamp) -> bool {
        moment >= self.from && self.until.is_none_or(|until| moment < until)
    }
}

impl fmt::Display for TimeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {}", self.from)?;
        self.until.map_or(Ok(()), |until| write!(f, " until {until}"))
    }
}

/// What the caller knows or wants of a plan. The default leaves everything to the planner.
///
/// ```
/// use cim_persistence::query::{IndexStrategy, QueryHint};
///
/// let hint = QueryHint { strategy: Some(IndexStrategy::FullScan), ..QueryHint::default() };
/// assert!(!hint.use_cache);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueryHint {
    /// The way to take. A way that does not lead there is refused when the query is planned, not replaced.
    pub strategy: Option<IndexStrategy>,
    /// How many documents the pattern means, where the caller knows. Planning takes no round trip then.
    pub expected_size: Option<u64>,
    /// Only events that the server stored in this range. Models have no history and are refused with it.
    pub time_range: Option<TimeRange>,
    /// The fields to give of each document, beside those that the query names. All, when there are none.
    pub projection: Vec<Field>,
    /// Whether a result that was kept may be given, if nothing was written since: one round trip instead of the query.
    pub use_cache: bool,
}
