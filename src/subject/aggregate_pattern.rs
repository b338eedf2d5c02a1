//! Aggregate patterns: which aggregates of one type a person means, and the keys and subjects that are filtered by.
//!
//! Patterns that name events are in `event_pattern.rs`; the literal address of one state is in `address.rs`.

use std::fmt;

use super::event_pattern::{check_subject, token_of};
use super::id::AggregateId;
use super::pattern::{InvalidPattern, Pattern};
use super::scheme::SubjectScheme;
use super::token::AggregateType;

/// Which aggregates of one type are meant.
///
/// | text | means the aggregates |
/// |---|---|
/// | `cim.events.<context>.<aggregate>.<ids>` | whose events lie on a subject that matches |
/// | `cim.aggregates.<context>.<aggregate>.<ids>.state` | whose state has an address that matches |
/// | `<aggregate>.<ids>` | whose state has a key that matches |
///
/// - All tokens after the aggregate type are those of the id, in its escaped form ([`AggregateId::as_str`]).
/// - `*` and `>` in the place of the aggregate type mean the one type it is read for.
/// - Prefix and context stand literally; a text that begins with neither prefix is taken as one of keys.
///
/// ```
/// use cim_persistence::subject::{AggregateId, AggregatePattern, AggregateType, ContextName, SubjectScheme};
///
/// let scheme = SubjectScheme::new(ContextName::new("sales")?, "cim.events", "cim.aggregates")?;
/// let seat = AggregateType::new("seat")?;
/// let main_hall = AggregatePattern::parse(&scheme, &seat, "cim.events.sales.seat.main.*")?;
/// assert_eq!(main_hall, AggregatePattern::parse(&scheme, &seat, "seat.main.*")?);
/// assert_eq!(main_hall, AggregatePattern::parse(&scheme, &seat, "cim.aggregates.sales.seat.main.*.state")?);
/// assert!(main_hall.matches(&AggregateId::from_tokens(["main", "7"])?));
/// assert!(AggregatePattern::parse(&scheme, &seat, "order.42").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AggregatePattern {
    aggregate: AggregateType,
    /// One pattern, or two that match nothing in common.
    keys: Vec<Pattern>,
    /// The same as subjects of events.
    subjects: Vec<Pattern>,
}

impl AggregatePattern {
    /// Every aggregate of a type.
    pub fn all(scheme: &SubjectScheme, aggregate: &AggregateType) -> Self {
        Self {
            aggregate: aggregate.clone(),
            keys: vec![Pattern::trusted(&format!("{aggregate}.>"))],
            subjects: vec![Pattern::trusted(&scheme.events_of_type(aggregate))],
        }
    }

    /// Reads a pattern for aggregates of this type.
    ///
    /// # Errors
    /// [`InvalidPattern::OtherAggregates`] when it means only others, [`InvalidPattern::NoId`] and
    /// [`InvalidPattern::NoState`] when it can mean none at all, and what [`Pattern::parse`] refuses.
    pub fn parse(
        scheme: &SubjectScheme,
        aggregate: &AggregateType,
        text: &str,
    ) -> Result<Self, InvalidPattern> {
        Pattern::parse(text)?;
        let (form, own) = Form::of(scheme, text);
        let (kind, rest) = match own.split_once('.') {
            Some((kind, rest)) => (kind, Some(rest)),
            None => (own, None),
        };
        if kind != ">" && kind != "*" && kind != aggregate.as_str() {
            return Err(outside(scheme, aggregate, text));
        }
        let rest = match (kind, rest) {
            (">", _) => ">",
            (_, None) => return Err(InvalidPattern::NoId { pattern: text.to_owned() }),
            (_, Some(rest)) => rest,
        };
        let ids = match form {
            Form::Ids => vec![rest.to_owned()],
            Form::States => ids_of_states(rest)
                .ok_or_else(|| InvalidPattern::NoState { pattern: text.to_owned() })?,
        };
        for ids in &ids {
            let tokens: Vec<&str> = std::iter::once("*").chain(ids.split('.')).collect();
            check_subject(&tokens).map_err(token_of(text))?;
        }
        let prefixed = |prefix: &str| -> Result<Vec<Pattern>, InvalidPattern> {
            ids.iter().map(|ids| Pattern::parse(&format!("{prefix}{aggregate}.{ids}"))).collect()
        };
        let (keys, subjects) = (prefixed("")?, prefixed(scheme.event_prefix())?);
        Ok(Self { aggregate: aggregate.clone(), keys, subjects })
    }

    /// The aggregate type.
    pub fn aggregate(&self) -> &AggregateType {
        &self.aggregate
    }

    /// Whether it means the aggregate of its type with this id.
    pub fn matches(&self, id: &AggregateId) -> bool {
        let key = SubjectScheme::key_of(&self.aggregate, id);
        self.keys.iter().any(|pattern| pattern.matches(&key))
    }

    /// The patterns of the keys that these aggregates' states are kept under: one, or two that have no key in common.
    pub fn keys(&self) -> &[Pattern] {
        &self.keys
    }

    /// The patterns of the subjects that these aggregates' events lie on: as many as of keys.
    pub fn subjects(&self) -> &[Pattern] {
        &self.subjects
    }
}

impl fmt::Display for AggregatePattern {
    /// The patterns of keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = self.keys.iter().map(Pattern::as_str).collect();
        f.write_str(&keys.join(" or "))
    }
}

/// What follows the aggregate type.
enum Form {
    Ids,
    /// Ids, and `state` after them.
    States,
}

impl Form {
    /// The form of a text, and what of it is this context's own.
    fn of<'a>(scheme: &SubjectScheme, text: &'a str) -> (Self, &'a str) {
        let [events, states, _] = scheme.prefixes();
        // As addresses are: where events and states have one prefix, the end decides.
        match text.strip_prefix(states) {
            Some(own) if states != events || own.ends_with(".state") => (Self::States, own),
            _ => (Self::Ids, text.strip_prefix(events).unwrap_or(text)),
        }
    }
}

/// The patterns of ids that, with `state` after them, are what a pattern of addresses matches.
fn ids_of_states(pattern: &str) -> Option<Vec<String>> {
    if pattern == ">" {
        return Some(vec![">".to_owned()]);
    }
    let (ids, last) = pattern.rsplit_once('.')?;
    match last {
        "state" | "*" => Some(vec![ids.to_owned()]),
        // The tail is `state` alone, or ends with it.
        ">" => Some(vec![ids.to_owned(), format!("{ids}.>")]),
        _ => None,
    }
}

fn outside(scheme: &SubjectScheme, aggregate: &AggregateType, text: &str) -> InvalidPattern {
    let [events, states, _] = scheme.prefixes();
    InvalidPattern::OtherAggregates {
        pattern: text.to_owned(),
        prefixes: [events, states, ""].map(|prefix| format!("{prefix}{aggregate}.")).into(),
    }
}
