//! Patterns: subjects with wildcards, and what they match.
//!
//! What a pattern means to this crate's events is in `event_pattern.rs`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::token::InvalidToken;

/// The longest pattern, in bytes. Every subject that a [`SubjectScheme`](super::SubjectScheme) makes is shorter.
pub const MAX_PATTERN_BYTES: usize = 1024;

/// Why a text cannot be a pattern. Positions count tokens from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPattern {
    /// The text is empty. Write `>` to mean every subject.
    #[error("the pattern is empty; write > to mean every subject")]
    Empty,
    /// The text is too long. Shorten it, by a wildcard for instance.
    #[error("the pattern has {actual} bytes, more than the {max} that are allowed; shorten it")]
    TooLong {
        /// How many bytes it has.
        actual: usize,
        /// How many it may have.
        max: usize,
    },
    /// The text holds white space or a control character. Remove it; in an id, write its escape.
    #[error(
        "pattern {pattern:?} holds {found:?}; remove it, or write the id it stands in in its escaped form"
    )]
    Character {
        /// The pattern.
        pattern: String,
        /// The first character that is not allowed.
        found: char,
    },
    /// Nothing stands before, between or after two dots. Write `*` there to mean any token.
    #[error(
        "token {position} of pattern {pattern:?} is empty; write * there to mean any one token"
    )]
    EmptyToken {
        /// The pattern.
        pattern: String,
        /// Which token is empty.
        position: usize,
    },
    /// `>` stands before the end. Write `*` there, or end the pattern with it.
    #[error(
        "> is token {position} of pattern {pattern:?} and not the last; write * there, or end the pattern with it"
    )]
    TailNotLast {
        /// The pattern.
        pattern: String,
        /// Which token the `>` is.
        position: usize,
    },
    /// A wildcard stands beside other characters in one token. A server would take such a token literally and
    /// match nothing that was meant. Write `*` for the whole token, or the escape (`=2A`, `=3E`) for the character.
    #[error(
        "token {token:?} of pattern {pattern:?} mixes a wildcard with other characters, which a server takes \
         literally; write * for the whole token, or =2A and =3E for the characters * and >"
    )]
    MixedWildcard {
        /// The pattern.
        pattern: String,
        /// The token.
        token: String,
    },
    /// An event pattern is not below this context's event subjects. Begin it with `prefix`.
    #[error(
        "event pattern {pattern:?} does not begin with {prefix:?}, where this context's events lie"
    )]
    OtherContext {
        /// The pattern.
        pattern: String,
        /// What it has to begin with.
        prefix: String,
    },
    /// A pattern means other aggregates than those in question. Begin it with one of `prefixes`.
    #[error(
        "pattern {pattern:?} means none of these aggregates; begin it with one of {}",
        prefixes.join(", ")
    )]
    OtherAggregates {
        /// The pattern.
        pattern: String,
        /// What it can begin with.
        prefixes: Vec<String>,
    },
    /// A pattern of aggregates ends before the id does. Add the id's tokens, `*` for any, or end it with `>`.
    #[error(
        "pattern {pattern:?} ends before the id does; add the id's tokens, * for any, or end it with >"
    )]
    NoId {
        /// The pattern.
        pattern: String,
    },
    /// A pattern of states' addresses does not end as they do. End it with `.state`, after the id, or with `>`.
    #[error(
        "pattern {pattern:?} matches no address of a state; end it with .state after the id, or with >"
    )]
    NoState {
        /// The pattern.
        pattern: String,
    },
    /// An event pattern ends before the id does. Add the missing tokens, `*` for any, or end it with `>`.
    #[error(
        "event pattern {pattern:?} ends before the id's {id_tokens} token(s) do; add them, * for any, or end it with >"
    )]
    TooShort {
        /// The pattern.
        pattern: String,
        /// How many tokens an id has.
        id_tokens: usize,
    },
    /// Tokens follow the version. Remove them, or say how many tokens an id has.
    #[error(
        "event pattern {pattern:?} goes on after the version with {token:?}; remove that, \
         or parse it with more than {id_tokens} token(s) per id"
    )]
    TooManyTokens {
        /// The pattern.
        pattern: String,
        /// The first token too many.
        token: String,
        /// How many tokens an id has.
        id_tokens: usize,
    },
    /// A token of an event pattern is neither `*` nor what belongs in its place. Correct it.
    #[error("event pattern {pattern:?}: {source}")]
    Token {
        /// The pattern.
        pattern: String,
        /// What is wrong with the token.
        source: InvalidToken,
    },
    /// A version is not a number. Write digits, as `2` or `v2`, or `*`.
    #[error(
        "event pattern {pattern:?} has {token:?} for a version; write a number up to {max} without leading zeros, as 2 or v2, or *",
        max = u32::MAX
    )]
    Version {
        /// The pattern.
        pattern: String,
        /// The token.
        token: String,
    },
}

/// A subject pattern: tokens joined by dots, where `*` means any one token and a final `>` one or more.
///
/// - at least one token, none empty, at most [`MAX_PATTERN_BYTES`];
/// - a wildcard is a whole token, and `>` is the last;
/// - no white space and no control character.
///
/// A text without wildcards is a pattern too and matches itself. `$` is a character like any other: `>` matches
/// `$JS.API.INFO`, as it does on a server. Cloning is cheap.
///
/// ```
/// use cim_persistence::subject::{InvalidPattern, Pattern};
///
/// let orders = Pattern::parse("cim.events.sales.order.*")?;
/// assert!(orders.matches("cim.events.sales.order.42"));
/// assert!(!orders.matches("cim.events.sales.order"));
/// assert!(!orders.matches("cim.events.sales.order.eu.42"));
/// assert!(Pattern::parse("cim.events.>")?.covers(&orders));
/// assert!(orders.overlaps(&Pattern::parse("cim.*.*.order.42")?));
///
/// assert!(Pattern::parse("cim.events..order").is_err());
/// assert!(Pattern::parse("cim.>.order").is_err());
/// assert!(Pattern::parse("cim.events.sales.ord*").is_err());
/// # Ok::<(), InvalidPattern>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Checks `text` and makes it a pattern.
    ///
    /// Refuses every text that a server refuses to filter by, and some that it takes in another sense than a
    /// person means: a wildcard inside a token, white space and control characters.
    ///
    /// # Errors
    /// [`InvalidPattern`], up to and including [`InvalidPattern::MixedWildcard`] in the order of the enum.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        check(text)?;
        Ok(Self(text.into()))
    }

    /// The pattern that every subject matches.
    pub fn everything() -> Self {
        Self::trusted(">")
    }

    /// The pattern as a server takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern has no wildcard, so that it matches one subject only.
    pub fn is_literal(&self) -> bool {
        !self.tokens().any(is_wildcard)
    }

    /// Whether a server delivers a message on `subject` to a subscription or a consumer with this pattern.
    ///
    /// A `subject` with an empty token matches nothing: a server delivers no message on it. Nothing else is checked
    /// of it. A wildcard in it is taken literally, as subscriptions do; a stream that was made to keep such a
    /// subject is inconsistent about it (nats-server 2.15.1 counts it and does not deliver it), and this crate writes
    /// none. Allocates nothing.
    pub fn matches(&self, subject: &str) -> bool {
        let mut wanted = self.tokens();
        for token in subject.split('.') {
            if token.is_empty() {
                return false;
            }
            match wanted.next() {
                Some(">") => return !subject.ends_with('.') && !subject.contains(".."),
                Some("*") => {}
                Some(literal) if literal == token => {}
                _ => return false,
            }
        }
        wanted.next().is_none()
    }

    /// Whether every subject that `other` matches is matched by this pattern too.
    pub fn covers(&self, other: &Pattern) -> bool {
        let mut theirs = other.tokens();
        for ours in self.tokens() {
            match (ours, theirs.next()) {
                (">", Some(_)) => return true,
                (_, None) | (_, Some(">")) => return false,
                ("*", Some(_)) => {}
                (ours, Some(theirs)) if ours == theirs => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }

    /// Whether there is a subject that both patterns match.
    pub fn overlaps(&self, other: &Pattern) -> bool {
        let mut theirs = other.tokens();
        for ours in self.tokens() {
            match (ours, theirs.next()) {
                (_, None) => return false,
                (">", Some(_)) | (_, Some(">")) => return true,
                ("*", Some(_)) | (_, Some("*")) => {}
                (ours, Some(theirs)) if ours == theirs => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }

    /// A pattern whose text is known to be one: built from checked tokens within the limit.
    pub(super) fn trusted(text: &str) -> Self {
        debug_assert_eq!(check(text), Ok(()));
        Self(text.into())
    }

    fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Pattern {
    type Err = InvalidPattern;
    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        Self::parse(text)
    }
}

impl TryFrom<&str> for Pattern {
    type Error = InvalidPattern;
    fn try_from(text: &str) -> Result<Self, InvalidPattern> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidPattern;
    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        Self::parse(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.as_str().to_owned()
    }
}

fn check(text: &str) -> Result<(), InvalidPattern> {
    if text.is_empty() {
        return Err(InvalidPattern::Empty);
    }
    if text.len() > MAX_PATTERN_BYTES {
        return Err(InvalidPattern::TooLong { actual: text.len(), max: MAX_PATTERN_BYTES });
    }
    let pattern = || text.to_owned();
    let invisible = |c: &char| c.is_whitespace() || c.is_control();
    if let Some(found) = text.chars().find(invisible) {
        return Err(InvalidPattern::Character { pattern: pattern(), found });
    }
    let tokens = || text.split('.').zip(1..);
    if let Some((_, position)) = tokens().find(|(token, _)| token.is_empty()) {
        return Err(InvalidPattern::EmptyToken { pattern: pattern(), position });
    }
    let last = text.split('.').count();
    if let Some((_, position)) = tokens().find(|(token, at)| *token == ">" && *at < last) {
        return Err(InvalidPattern::TailNotLast { pattern: pattern(), position });
    }
    let mixed = |token: &&str| !is_wildcard(token) && token.contains(['*', '>']);
    match text.split('.').find(mixed) {
        Some(token) => {
            Err(InvalidPattern::MixedWildcard { pattern: pattern(), token: token.to_owned() })
        }
        None => Ok(()),
    }
}

fn is_wildcard(token: &str) -> bool {
    matches!(token, "*" | ">")
}
