//! Event patterns: which events a person means, split into what a server can filter and what headers tell.
//!
//! The patterns a server knows are in `pattern.rs`; the literal forms of single subjects are in `address.rs`.

use std::fmt;

use super::id::AggregateId;
use super::pattern::{InvalidPattern, Pattern};
use super::scheme::SubjectScheme;
use super::token::{AggregateType, EventType, InvalidToken};

/// Which of the events on the filtered subjects are meant, told from their headers before a payload is decoded.
///
/// `None` means any. The default lets every event pass.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HeaderFilter {
    /// What `Cim-Event-Type` has to be.
    pub event_type: Option<EventType>,
    /// What `Cim-Schema-Version` has to be.
    pub schema_version: Option<u32>,
}

impl HeaderFilter {
    /// Whether every event passes, so that no header needs to be read.
    pub fn is_any(&self) -> bool {
        self.event_type.is_none() && self.schema_version.is_none()
    }

    /// Whether an event with these headers passes.
    pub fn matches(&self, event_type: &str, schema_version: u32) -> bool {
        let type_fits = |wanted: &EventType| wanted.as_str() == event_type;
        self.event_type.as_ref().is_none_or(type_fits)
            && self.schema_version.is_none_or(|v| v == schema_version)
    }
}

impl fmt::Display for HeaderFilter {
    /// What follows the id in an event pattern: nothing, `.type` or `.type.version`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.event_type, self.schema_version) {
            (None, None) => Ok(()),
            (Some(event), None) => write!(f, ".{event}"),
            (None, Some(version)) => write!(f, ".*.{version}"),
            (Some(event), Some(version)) => write!(f, ".{event}.{version}"),
        }
    }
}

/// Which events of a context are meant: by aggregate type, id, event type and schema version.
///
/// An event lies on its aggregate's subject, and its type and schema version are in its headers. A pattern is
/// written as if they were part of the subject:
///
/// ```text
/// pattern   = prefix "." context "." ( ">" | aggregate "." ids )
/// ids       = ">" | id "." ids                  ; ">" in place of any of the id's tokens
///           | id [ "." event ]                  ; after as many ids as an id has tokens, 1 unless told
/// event     = ">" | type [ "." version ]
/// version   = ">" | "*" | [ "v" ] digits
/// aggregate = "*" | name      type = "*" | name      id = "*" | escaped id token
/// ```
///
/// | written | means |
/// |---|---|
/// | `cim.events.sales.>` | every event of the context |
/// | `cim.events.sales.order.>` | every event of every order, however many tokens the ids have |
/// | `cim.events.sales.order.*` | every event of every order whose id has one token |
/// | `cim.events.sales.order.42` or `….42.>` | every event of order 42 |
/// | `cim.events.sales.order.*.order_placed` | every order's `order_placed`, in any schema version |
/// | `cim.events.sales.order.*.order_placed.2` or `.v2` | the same in schema version 2 |
/// | `cim.events.sales.*.*.*.1` | everything in schema version 1 |
///
/// In other words: give each event the long form `prefix.context.aggregate.id.type.version`, and complete a pattern
/// that ends after the id with `.>` and one that ends after the type with `.*`; then the pattern matches the events whose
/// long form it matches as a [`Pattern`].
///
/// - Prefix and context stand literally: one stream holds one context.
/// - The version is the schema version of the event, not its place in the aggregate's history.
/// - Ids are written as they stand in subjects: `a=2Eb` for the id `a.b` ([`AggregateId::as_str`]).
/// - Ids of several tokens need [`parse_with_id_tokens`](Self::parse_with_id_tokens): nothing in
///   `order.eu.42` tells an id of two tokens from an id and an event type.
///
/// Two patterns are equal when they mean the same; [`Display`](fmt::Display) writes the shortest that does.
///
/// ```
/// use cim_persistence::subject::{ContextName, EventPattern, SubjectScheme};
///
/// let scheme = SubjectScheme::new(ContextName::new("sales")?, "cim.events", "cim.aggregates")?;
/// let placed = EventPattern::parse(&scheme, "cim.events.sales.order.*.order_placed.v2")?;
/// assert_eq!(placed.server_filter().as_str(), "cim.events.sales.order.*");
/// assert_eq!(placed.header_filter().schema_version, Some(2));
/// assert!(placed.matches("cim.events.sales.order.42", "order_placed", 2));
/// assert!(!placed.matches("cim.events.sales.order.42", "order_placed", 1));
///
/// let seats = EventPattern::parse_with_id_tokens(&scheme, "cim.events.sales.seat.main.*.reserved", 2)?;
/// assert_eq!(seats.server_filter().as_str(), "cim.events.sales.seat.main.*");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventPattern {
    server_filter: Pattern,
    header_filter: HeaderFilter,
}

impl EventPattern {
    /// Reads a pattern whose ids have one token.
    ///
    /// # Errors
    /// [`InvalidPattern`], which names the pattern and what to change.
    pub fn parse(scheme: &SubjectScheme, text: &str) -> Result<Self, InvalidPattern> {
        Self::parse_with_id_tokens(scheme, text, 1)
    }

    /// Reads a pattern whose ids have `id_tokens` tokens. No id has less than one, so 0 counts as 1.
    ///
    /// # Errors
    /// [`InvalidPattern`], which names the pattern and what to change.
    pub fn parse_with_id_tokens(
        scheme: &SubjectScheme,
        text: &str,
        id_tokens: usize,
    ) -> Result<Self, InvalidPattern> {
        let whole = Pattern::parse(text)?;
        let prefix = scheme.event_prefix();
        let Some(own) = text.strip_prefix(prefix) else {
            return Err(InvalidPattern::OtherContext {
                pattern: text.to_owned(),
                prefix: prefix.to_owned(),
            });
        };
        let tokens: Vec<&str> = own.split('.').collect();
        let id_tokens = id_tokens.max(1);
        let subject_tokens = id_tokens.saturating_add(1);
        let (subject, event) = tokens.split_at(tokens.len().min(subject_tokens));
        check_subject(subject).map_err(token_of(text))?;
        if subject.last() == Some(&">") {
            return Ok(Self { server_filter: whole, header_filter: HeaderFilter::default() });
        }
        if subject.len() < subject_tokens {
            return Err(InvalidPattern::TooShort { pattern: text.to_owned(), id_tokens });
        }
        Ok(Self {
            server_filter: Pattern::trusted(&format!("{prefix}{}", subject.join("."))),
            header_filter: parse_event(text, event, id_tokens)?,
        })
    }

    /// The part that a server filters: a pattern of the subjects that events are stored on.
    pub fn server_filter(&self) -> &Pattern {
        &self.server_filter
    }

    /// The part that is left for the headers.
    pub fn header_filter(&self) -> &HeaderFilter {
        &self.header_filter
    }

    /// Whether an event on `subject` with these headers is meant.
    pub fn matches(&self, subject: &str, event_type: &str, schema_version: u32) -> bool {
        self.server_filter.matches(subject)
            && self.header_filter.matches(event_type, schema_version)
    }
}

impl fmt::Display for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.server_filter, self.header_filter)
    }
}

/// A schema version as a person writes it: digits without leading zeros, a `v` before them or not.
pub(super) fn parse_version(token: &str) -> Option<u32> {
    let digits = token.strip_prefix('v').unwrap_or(token);
    let version = digits.parse::<u32>().ok()?;
    (version.to_string() == digits).then_some(version)
}

/// Checks aggregate and id; the wildcards among them stand for what they stand for on a server.
pub(super) fn check_subject(tokens: &[&str]) -> Result<(), InvalidToken> {
    let wildcard = |token: &str| matches!(token, "*" | ">");
    let Some((aggregate, id)) = tokens.split_first() else {
        return Ok(());
    };
    if !wildcard(aggregate) {
        AggregateType::new(aggregate)?;
    }
    let literal: Vec<&str> = id.iter().copied().filter(|token| !wildcard(token)).collect();
    if !literal.is_empty() {
        AggregateId::from_escaped(&literal.join("."))?;
    }
    Ok(())
}

fn parse_event(
    pattern: &str,
    tokens: &[&str],
    id_tokens: usize,
) -> Result<HeaderFilter, InvalidPattern> {
    let (event_type, version) = match tokens {
        [] | [">"] => (None, None),
        [event] | [event, "*" | ">"] => (Some(*event), None),
        [event, version] => (Some(*event), Some(*version)),
        [_, _, extra, ..] => {
            return Err(InvalidPattern::TooManyTokens {
                pattern: pattern.to_owned(),
                token: (*extra).to_owned(),
                id_tokens,
            });
        }
    };
    let schema_version = version.map(|token| {
        parse_version(token).ok_or_else(|| InvalidPattern::Version {
            pattern: pattern.to_owned(),
            token: token.to_owned(),
        })
    });
    let event_type = event_type.filter(|event| *event != "*").map(EventType::new);
    Ok(HeaderFilter {
        event_type: event_type.transpose().map_err(token_of(pattern))?,
        schema_version: schema_version.transpose()?,
    })
}

pub(super) fn token_of(pattern: &str) -> impl Fn(InvalidToken) -> InvalidPattern {
    move |source| InvalidPattern::Token { pattern: pattern.to_owned(), source }
}
