//! Plans as data, and how they explain themselves.
//!
//! How one is chosen is in `planner.rs`.

use std::fmt::{self, Write};

use super::estimate::{Estimate, one_answer};
use super::indexes::IndexUse;
use super::{IndexStrategy, Query, QueryPerformance, Source, TimeRange};
use crate::backend::Count;
use crate::specification::{Compiled, Direction};
use crate::subject::{AggregateId, HeaderFilter};

/// One step of a plan.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// The server gives the models under these keys.
    PointGets {
        /// The keys.
        keys: Vec<String>,
    },
    /// The server gives the models that match a pattern.
    PatternScan {
        /// The pattern.
        pattern: String,
        /// Whether they are expected in one answer; else a consumer streams them.
        one_answer: bool,
    },
    /// An index gives the ids, and the server the models of these ids.
    IndexLookup {
        /// The fields of the index.
        index: String,
        /// How many lookups it is asked, all in one request.
        lookups: usize,
    },
    /// The server gives the events on the subjects that match a pattern.
    EventScan {
        /// The subjects.
        subjects: String,
    },
    /// The server gives the events on these subjects, from a moment on.
    EventsSince {
        /// The subjects.
        subjects: String,
        /// The moments.
        range: TimeRange,
    },
    /// The server gives everything there is of a kind.
    FullScan {
        /// What of.
        pattern: String,
    },
    /// Events are compared by their headers, before anything is decoded.
    Headers {
        /// What they have to say.
        headers: HeaderFilter,
    },
    /// What the pattern does not mean is left out.
    Within {
        /// The pattern.
        pattern: String,
    },
    /// What is stored at another time is left out.
    Times {
        /// The moments.
        range: TimeRange,
    },
    /// What does not fulfil the specification is left out.
    Filter {
        /// The specification, as a query text has it.
        specification: String,
    },
    /// What remains is put in order.
    Order {
        /// The fields.
        by: Vec<String>,
    },
    /// Equal documents are given once.
    Distinct,
    /// A part of it is taken.
    Limit {
        /// How many; all, when `None`.
        limit: Option<usize>,
        /// How many are left out before.
        offset: usize,
        /// Whether it begins where another page ended.
        after_cursor: bool,
    },
    /// These fields are given.
    Project {
        /// The fields.
        fields: Vec<String>,
    },
}

impl Operation {
    /// Whether the server does it; the client does the rest.
    pub fn is_servers(&self) -> bool {
        matches!(
            self,
            Self::PointGets { .. }
                | Self::PatternScan { .. }
                | Self::IndexLookup { .. }
                | Self::EventScan { .. }
                | Self::EventsSince { .. }
                | Self::FullScan { .. }
        )
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PointGets { keys } => write!(f, "get {}", keys.join(", ")),
            Self::PatternScan { pattern, one_answer: true } => {
                write!(f, "scan {pattern} in one answer")
            }
            Self::PatternScan { pattern, one_answer: false } => {
                write!(f, "scan {pattern} by a consumer")
            }
            Self::IndexLookup { index, lookups } => {
                write!(f, "look up index ({index}) {lookups} times, get what it names")
            }
            Self::EventScan { subjects } => write!(f, "read events {subjects}"),
            Self::EventsSince { subjects, range } => {
                write!(f, "read events {subjects} stored from {} on", range.from)
            }
            Self::FullScan { pattern } => write!(f, "read all of {pattern}"),
            Self::Headers { headers } => write!(f, "headers say {}", said(headers)),
            Self::Within { pattern } => write!(f, "within {pattern}"),
            Self::Times { range } => write!(f, "stored {range}"),
            Self::Filter { specification } => write!(f, "filter {specification}"),
            Self::Order { by } => write!(f, "order by {}", by.join(", ")),
            Self::Distinct => f.write_str("each once"),
            Self::Limit { limit, offset, after_cursor } => {
                match limit {
                    Some(limit) => write!(f, "at most {limit}")?,
                    None => f.write_str("all")?,
                }
                if *offset > 0 {
                    write!(f, " after {offset}")?;
                }
                if *after_cursor { f.write_str(" behind the cursor") } else { Ok(()) }
            }
            Self::Project { fields } => write!(f, "give {}", fields.join(", ")),
        }
    }
}

/// The way to the documents.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Access {
    Key(AggregateId),
    Pattern,
    Index(IndexUse),
    Since,
    Everything,
}

impl Access {
    pub(super) fn strategy(&self) -> IndexStrategy {
        match self {
            Self::Key(_) => IndexStrategy::KeyValue,
            Self::Pattern => IndexStrategy::SubjectPattern,
            Self::Index(_) => IndexStrategy::Composite,
            Self::Since => IndexStrategy::TimeSeries,
            Self::Everything => IndexStrategy::FullScan,
        }
    }
}

/// How a query will be answered. Made by [`QueryOptimizer::create_plan`](super::QueryOptimizer::create_plan).
#[derive(Debug, Clone)]
pub struct QueryPlan {
    pub(super) query: Query,
    pub(super) specification: Compiled,
    pub(super) range: Option<TimeRange>,
    pub(super) access: Access,
    pub(super) estimate: Estimate,
    /// The ways that were not taken.
    pub(super) others: Vec<(IndexStrategy, Estimate)>,
    pub(super) use_cache: bool,
    /// What a full scan of the source reads.
    pub(super) everything: String,
}

impl QueryPlan {
    /// The query, with the fields that the hint named.
    pub fn query(&self) -> &Query {
        &self.query
    }

    /// The way that will be taken.
    pub fn strategy(&self) -> IndexStrategy {
        self.access.strategy()
    }

    /// What it will cost.
    pub fn estimate(&self) -> Estimate {
        self.estimate
    }

    /// The steps, those of the server first.
    pub fn operations(&self) -> Vec<Operation> {
        let mut operations = vec![self.server_operation()];
        operations.extend(self.client_operations());
        operations
    }

    /// The plan for people: what the server does, what is left to the client, what was expected and which other ways there
    /// were; with what a run of it measured, that too.
    pub fn explain(&self, measured: Option<&QueryPerformance>) -> String {
        let mut text = format!("query     {}\nstrategy  {}\n", self.query, self.strategy());
        let (servers, clients): (Vec<_>, Vec<_>) =
            self.operations().into_iter().partition(Operation::is_servers);
        for (who, operations) in [("server", servers), ("client", clients)] {
            for (i, operation) in operations.iter().enumerate() {
                let who = if i == 0 { who } else { "" };
                line(&mut text, who, operation);
            }
        }
        line(&mut text, "expected", &Shown(self.estimate));
        for (strategy, estimate) in &self.others {
            line(&mut text, "also", &format_args!("{strategy}: {}", Shown(*estimate)));
        }
        if let Some(measured) = measured {
            line(&mut text, "measured", measured);
        }
        text
    }

    /// What tells results apart: the same text with the same revision of the store has the same result.
    pub(super) fn identity(&self) -> String {
        let options = serde_json::to_string(&self.query.options).unwrap_or_default();
        format!("{:?} {} {} {options}", self.access, self.query.scope(self.range), self.query)
    }

    fn server_operation(&self) -> Operation {
        let one_answer = one_answer(self.estimate.read);
        match (&self.access, &self.query.source) {
            (Access::Key(_), source) => Operation::PointGets { keys: vec![source.to_string()] },
            (Access::Index(used), _) => {
                let (index, lookups) = (super::indexes::name(&used.spec), used.lookups.len());
                Operation::IndexLookup { index, lookups }
            }
            (Access::Pattern | Access::Since, Source::Models(pattern)) => {
                Operation::PatternScan { pattern: pattern.to_string(), one_answer }
            }
            (Access::Pattern, Source::Events(pattern)) => {
                Operation::EventScan { subjects: pattern.server_filter().to_string() }
            }
            (Access::Since, Source::Events(pattern)) => {
                let subjects = pattern.server_filter().to_string();
                match self.range {
                    Some(range) => Operation::EventsSince { subjects, range },
                    None => Operation::EventScan { subjects },
                }
            }
            (Access::Everything, _) => Operation::FullScan { pattern: self.everything.clone() },
        }
    }

    fn client_operations(&self) -> Vec<Operation> {
        let mut operations = Vec::new();
        let source = &self.query.source;
        let filtered = !matches!(self.access, Access::Everything | Access::Index(_));
        if !filtered && source.to_string() != self.everything {
            let pattern = match source {
                Source::Models(pattern) => pattern.to_string(),
                Source::Events(pattern) => pattern.server_filter().to_string(),
            };
            if pattern != self.everything {
                operations.push(Operation::Within { pattern });
            }
        }
        if let Source::Events(pattern) = source
            && !pattern.header_filter().is_any()
        {
            operations.push(Operation::Headers { headers: pattern.header_filter().clone() });
        }
        operations.extend(self.range.map(|range| Operation::Times { range }));
        let specification = self.query.specification.to_string();
        if self.query.specification != crate::specification::Specification::everything() {
            operations.push(Operation::Filter { specification });
        }
        operations.extend(self.option_operations());
        operations
    }

    fn option_operations(&self) -> Vec<Operation> {
        let options = &self.query.options;
        let mut operations = Vec::new();
        if !options.order_by.is_empty() {
            let by = options.order_by.iter().map(|order| match order.direction {
                Direction::Ascending => order.field.to_string(),
                Direction::Descending => format!("-{}", order.field),
            });
            operations.push(Operation::Order { by: by.collect() });
        }
        if options.distinct {
            operations.push(Operation::Distinct);
        }
        let (limit, offset, after_cursor) =
            (options.limit, options.offset, options.cursor.is_some());
        if limit.is_some() || offset > 0 || after_cursor {
            operations.push(Operation::Limit { limit, offset, after_cursor });
        }
        if !options.fields.is_empty() {
            let fields = options.fields.iter().map(ToString::to_string).collect();
            operations.push(Operation::Project { fields });
        }
        operations
    }
}

struct Shown(Estimate);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.time.as_secs_f64() * 1000.0;
        match self.0.read {
            Count::Exactly(read) => write!(f, "{read} read, {millis:.1} ms"),
            Count::MoreThan(read) => write!(f, "more than {read} read, over {millis:.1} ms"),
        }
    }
}

fn line(text: &mut String, who: &str, what: &dyn fmt::Display) {
    // Writing to a text does not fail.
    let _written = writeln!(text, "{who:<10}{what}");
}

fn said(headers: &HeaderFilter) -> String {
    let event_type = headers.event_type.as_ref().map(|event| format!("type {event}"));
    let version = headers.schema_version.map(|version| format!("schema version {version}"));
    let said: Vec<String> = event_type.into_iter().chain(version).collect();
    said.join(", ")
}
