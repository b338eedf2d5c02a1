//! Ids: the escape that makes any text a token, and the types that identify an aggregate.
//!
//! Names, which are not escaped, are in `token.rs`; where an id stands in a subject is in `scheme.rs`.

use std::fmt;

use serde::{Deserialize, Serialize};
use smol_str::{SmolStr, SmolStrBuilder};
use uuid::Uuid;

use super::token::{InvalidToken, is_plain};

/// The longest id, in bytes of UTF-8 before it is escaped, all its tokens together.
pub const MAX_ID_BYTES: usize = 128;

/// The longest escaped id: as many tokens as bytes, every byte escaped, a dot between two tokens.
const MAX_ESCAPED_BYTES: usize = 3 * MAX_ID_BYTES + MAX_ID_BYTES - 1;

/// The id of one aggregate, in the form it has in subjects, keys and blocks.
///
/// - one token, or several where a type of its own says so ([`AggregateId::from_tokens`]);
/// - each token is any non-empty text without control characters, [`MAX_ID_BYTES`] for all of them together;
/// - `A-Z a-z 0-9 _ -` stand as they are, every other byte is written `=XX` in upper-case hexadecimal;
/// - the escape is injective and reversible: two ids never share a subject, and [`tokens`](Self::tokens) gives the
///   text back unchanged.
///
/// Cloning is cheap.
///
/// ```
/// use cim_persistence::subject::AggregateId;
/// let id = AggregateId::new("a.b c")?;
/// assert_eq!(id.as_str(), "a=2Eb=20c");
/// assert_eq!(id.to_string(), "a.b c");
/// assert_ne!(id, AggregateId::from_tokens(["a", "b c"])?);
/// assert!(AggregateId::new("").is_err());
/// # Ok::<(), cim_persistence::subject::InvalidToken>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AggregateId(SmolStr);

const ID: &str = "id";

impl AggregateId {
    /// An id of one token.
    ///
    /// # Errors
    /// [`InvalidToken`] when the text is empty, over [`MAX_ID_BYTES`] or holds a control character.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidToken> {
        Self::from_tokens([text])
    }

    /// An id of several tokens, which patterns can then match one by one.
    ///
    /// # Errors
    /// [`InvalidToken`] when there is no token, one is empty or holds a control character, or all of them
    /// together are over [`MAX_ID_BYTES`].
    pub fn from_tokens<T: AsRef<str>>(
        tokens: impl IntoIterator<Item = T>,
    ) -> Result<Self, InvalidToken> {
        let mut escaped = SmolStrBuilder::new();
        let mut bytes = 0_usize;
        for token in tokens {
            let token = token.as_ref();
            check_id_token(token)?;
            let is_first = bytes == 0;
            bytes = bytes.saturating_add(token.len());
            // What is over the limit is counted for the error, but costs no memory.
            if bytes <= MAX_ID_BYTES {
                if !is_first {
                    escaped.push('.');
                }
                escape_into(&mut escaped, token);
            }
        }
        if bytes == 0 {
            return Err(InvalidToken::Empty { what: ID });
        }
        if bytes > MAX_ID_BYTES {
            return Err(InvalidToken::TooLong { what: ID, actual: bytes, max: MAX_ID_BYTES });
        }
        Ok(Self(escaped.finish()))
    }

    /// Reads the escaped form back, as it stands in a subject, a key or a block.
    ///
    /// # Errors
    /// - [`InvalidToken::Escape`] when it is not exactly what the escape writes;
    /// - [`InvalidToken::Empty`], [`InvalidToken::TooLong`] and [`InvalidToken::Control`] when it is the escape of
    ///   a text that no id may have.
    pub fn from_escaped(text: &str) -> Result<Self, InvalidToken> {
        if text.len() > MAX_ESCAPED_BYTES {
            return Err(InvalidToken::TooLong {
                what: "escaped id",
                actual: text.len(),
                max: MAX_ESCAPED_BYTES,
            });
        }
        // Most ids need no escape. The dots of several tokens count against them here only; the way below is exact.
        if text.len() <= MAX_ID_BYTES
            && text.split('.').all(|token| !token.is_empty() && token.chars().all(is_plain))
        {
            return Ok(Self(text.into()));
        }
        let tokens = text
            .split('.')
            .map(unescape)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|reason| InvalidToken::Escape { text: text.to_owned(), reason })?;
        let id = Self::from_tokens(tokens)?;
        if id.as_str() != text {
            return Err(InvalidToken::Escape {
                text: text.to_owned(),
                reason: "the escape writes this id in another way",
            });
        }
        Ok(id)
    }

    /// The escaped form: what stands in subjects, keys and blocks.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tokens as they were before they were escaped.
    pub fn tokens(&self) -> impl Iterator<Item = String> + '_ {
        self.0.split('.').map(|token| unescape(token).unwrap_or_else(|_| token.to_owned()))
    }
}

impl fmt::Display for AggregateId {
    /// The id as its owner wrote it; several tokens are joined with `.`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, token) in self.tokens().enumerate() {
            if i > 0 {
                f.write_str(".")?;
            }
            f.write_str(&token)?;
        }
        Ok(())
    }
}

impl TryFrom<String> for AggregateId {
    type Error = InvalidToken;
    fn try_from(escaped: String) -> Result<Self, InvalidToken> {
        Self::from_escaped(&escaped)
    }
}

impl From<AggregateId> for String {
    fn from(id: AggregateId) -> String {
        id.as_str().to_owned()
    }
}

fn check_id_token(token: &str) -> Result<(), InvalidToken> {
    if token.is_empty() {
        return Err(InvalidToken::Empty { what: ID });
    }
    match token.chars().find(|c| c.is_control()) {
        Some(found) => Err(InvalidToken::Control { what: ID, found }),
        None => Ok(()),
    }
}

fn escape_into(out: &mut SmolStrBuilder, token: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    if token.chars().all(is_plain) {
        out.push_str(token);
        return;
    }
    for byte in token.bytes() {
        if is_plain(char::from(byte)) {
            out.push(char::from(byte));
        } else {
            out.push('=');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

fn unescape(token: &str) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'=' => {
                let (Some(high), Some(low)) = (rest.next(), rest.next()) else {
                    return Err("it ends within an escape");
                };
                let (Some(high), Some(low)) =
                    (char::from(high).to_digit(16), char::from(low).to_digit(16))
                else {
                    return Err("an escape is not hexadecimal");
                };
                bytes.push((high * 16 + low) as u8);
            }
            _ if is_plain(char::from(byte)) => bytes.push(byte),
            _ => return Err("it holds a character that the escape would have replaced"),
        }
    }
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8")
}

/// A type that identifies an aggregate: how it becomes an [`AggregateId`], and how it is read back.
///
/// Implemented for [`String`], [`Uuid`], the unsigned and signed integers and [`AggregateId`] itself. A type of
/// your own, for an id of several tokens say, implements both directions so that
/// `from_aggregate_id(&id.to_aggregate_id()?)` gives an equal id:
///
/// ```
/// use cim_persistence::subject::{AggregateId, Identity, InvalidToken};
///
/// struct Seat { hall: String, number: u32 }
///
/// impl Identity for Seat {
///     fn to_aggregate_id(&self) -> Result<AggregateId, InvalidToken> {
///         AggregateId::from_tokens([self.hall.as_str(), &self.number.to_string()])
///     }
///     fn from_aggregate_id(id: &AggregateId) -> Result<Self, InvalidToken> {
///         let wrong = || InvalidToken::WrongType { text: id.to_string(), wanted: "seat" };
///         let tokens: Vec<String> = id.tokens().collect();
///         let [hall, number] = tokens.as_slice() else { return Err(wrong()) };
///         Ok(Seat { hall: hall.clone(), number: number.parse().map_err(|_| wrong())? })
///     }
/// }
/// ```
pub trait Identity: Sized {
    /// The id as a part of subjects and keys.
    ///
    /// # Errors
    /// [`InvalidToken`] when the value cannot be an id.
    fn to_aggregate_id(&self) -> Result<AggregateId, InvalidToken>;

    /// The value that [`to_aggregate_id`](Self::to_aggregate_id) was called on.
    ///
    /// # Errors
    /// [`InvalidToken`] when the id was not made by this type.
    fn from_aggregate_id(id: &AggregateId) -> Result<Self, InvalidToken>;
}

impl Identity for AggregateId {
    fn to_aggregate_id(&self) -> Result<AggregateId, InvalidToken> {
        Ok(self.clone())
    }
    fn from_aggregate_id(id: &AggregateId) -> Result<Self, InvalidToken> {
        Ok(id.clone())
    }
}

impl Identity for String {
    fn to_aggregate_id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::new(self)
    }
    fn from_aggregate_id(id: &AggregateId) -> Result<Self, InvalidToken> {
        match id.as_str().contains('.') {
            false => Ok(id.to_string()),
            true => {
                Err(InvalidToken::WrongType { text: id.to_string(), wanted: "text of one token" })
            }
        }
    }
}

macro_rules! identity_by_text {
    ($($name:ty => $wanted:literal),+ $(,)?) => {$(
        impl Identity for $name {
            fn to_aggregate_id(&self) -> Result<AggregateId, InvalidToken> {
                AggregateId::new(self.to_string())
            }
            fn from_aggregate_id(id: &AggregateId) -> Result<Self, InvalidToken> {
                // Parsers are generous ("+7", "007", upper-case UUIDs); two ids must not become one value.
                let same = |value: &Self| value.to_string() == id.as_str();
                id.as_str().parse().ok().filter(same).ok_or_else(|| InvalidToken::WrongType {
                    text: id.to_string(),
                    wanted: $wanted,
                })
            }
        }
    )+};
}

identity_by_text!(
    Uuid => "UUID",
    u32 => "32-bit unsigned integer",
    u64 => "64-bit unsigned integer",
    i32 => "32-bit integer",
    i64 => "64-bit integer",
);
