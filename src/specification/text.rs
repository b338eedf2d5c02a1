//! The text of a query: how a person writes a specification, and the subject it is asked below.
//!
//! Texts are read in `text/parser.rs`, which takes words from `text/lexer.rs`, and written in `text/write.rs`.

mod error;
mod lexer;
mod parser;
mod write;

use std::str::FromStr;

use super::options::SearchOptions;
use super::spec::Specification;
use crate::subject::Pattern;

pub use error::{InvalidText, TextProblem};
use parser::Parser;
pub(super) use write::write_field;

/// The longest query text, in bytes.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;

/// A query as a person writes it: where to look, what has to hold, in which order, how many.
///
/// ```text
/// query      = any , [ "ORDER" , "BY" , order , { "," , order } ] , [ "LIMIT" , integer ] , [ "OFFSET" , integer ] ;
/// any        = all , { "OR" , all } ;
/// all        = one , { "AND" , one } ;
/// one        = "NOT" , one | "(" , any , ")" | "TRUE" | "FALSE" | subject | condition ;
/// subject    = "subject:" , pattern ;
/// condition  = field , ( ":" , ( value | word )
///                      | ( "=" | "!=" | ">" | ">=" | "<" | "<=" ) , value
///                      | "IS" , [ "NOT" ] , "NULL"
///                      | [ "NOT" ] , test ) ;
/// test       = "IN" , "(" , [ value , { "," , value } ] , ")"
///            | "BETWEEN" , value , "AND" , value
///            | "LIKE" , string | "MATCHES" , string | "CONTAINS" , value
///            | "STARTS" , "WITH" , string | "ENDS" , "WITH" , string ;
/// order      = [ "-" ] , field ;
/// field      = name , { "." , name } ;
/// name       = word | "`" , characters , "`" ;
/// value      = string | number | "TRUE" | "FALSE"
///            | "[" , [ element , { "," , element } ] , "]"
///            | "{" , [ string , ":" , element , { "," , string , ":" , element } ] , "}" ;
/// element    = value | "NULL" ;
/// string     = "'" , characters , "'" | '"' , characters , '"' ;
/// number     = [ "-" ] , digits , [ "." , digits ] , [ ( "e" | "E" ) , [ "+" | "-" ] , digits ] ;
/// integer    = digits ;
/// ```
///
/// - the words in capitals may be written in any case; for a field of that name, write it in backticks;
/// - a `word` is letters, digits and `_`, and begins with no digit; `field:word` is the short form of `field = 'word'`;
/// - a quote or a backtick within its own kind is written twice, every other character as it is;
/// - a `pattern` goes up to the next white space, the colon follows `subject` directly, and there is one such term at most,
///   joined to the rest by `AND` and in no parentheses;
/// - at most [`MAX_TEXT_BYTES`], and [`MAX_DEPTH`](super::MAX_DEPTH) levels of parentheses, `NOT` and brackets.
///
/// What conditions mean is said at [`Specification`]; whether they can be asked is found by
/// [`compile`](Specification::compile). `Display` prints the one text that all texts of the same query share, and what it
/// prints of a specification that the builders made reads as the same one. Of the options, a text holds order, limit and
/// offset.
///
/// ```
/// use cim_persistence::specification::{InvalidText, ParsedQuery, field};
///
/// let text = "subject:board.JFK.*.* and carrier:B6 and (delay > 30 or status = \"cancelled\") order by -delay limit 10";
/// let query = ParsedQuery::parse(text)?;
/// let late = field("delay").gt(30).or(field("status").eq("cancelled"));
/// assert_eq!(query.subject.as_ref().unwrap().as_str(), "board.JFK.*.*");
/// assert_eq!(query.specification, field("carrier").eq("B6").and(late));
/// assert_eq!(query.options.limit, Some(10));
///
/// let refused = ParsedQuery::parse("delay > ORDER BY delay").unwrap_err();
/// assert_eq!(
///     refused.to_string(),
///     "column 9: expected a value, found ORDER\n  delay > ORDER BY delay\n          ^"
/// );
/// # Ok::<(), InvalidText>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedQuery {
    /// Which subjects or keys are looked at; all there are, when `None`.
    pub subject: Option<Pattern>,
    /// What has to hold.
    pub specification: Specification,
    /// Order, limit and offset. A text holds no cursor, fields or `distinct`; they can be added here.
    pub options: SearchOptions,
}

impl ParsedQuery {
    /// Reads a query text.
    ///
    /// # Errors
    /// [`InvalidText`], with the column and what is wrong there.
    pub fn parse(text: &str) -> Result<Self, InvalidText> {
        if text.len() > MAX_TEXT_BYTES {
            let problem = TextProblem::TooLong { actual: text.len(), max: MAX_TEXT_BYTES };
            return Err(InvalidText::new(text, 1, problem));
        }
        Parser::new(text).query()
    }
}

impl FromStr for ParsedQuery {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, InvalidText> {
        Self::parse(text)
    }
}
