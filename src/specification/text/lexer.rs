//! The words of a query text, and in which column each begins.

use std::fmt;

use serde_json::Number;

use super::error::TextProblem;
use crate::subject::Pattern;

const WORDS: [&str; 19] = [
    "AND", "OR", "NOT", "IN", "BETWEEN", "LIKE", "CONTAINS", "STARTS", "ENDS", "WITH", "IS",
    "NULL", "MATCHES", "ORDER", "BY", "LIMIT", "OFFSET", "TRUE", "FALSE",
];

/// The longer ones first.
const SYMBOLS: [&str; 15] =
    ["!=", ">=", "<=", "=", ">", "<", "(", ")", "[", "]", "{", "}", ",", ":", "-"];

#[derive(Debug)]
pub(super) struct Token {
    /// In characters, from 1.
    pub(super) column: usize,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// One of the words of the language, in capitals.
    Word(&'static str),
    Symbol(&'static str),
    /// The path of a field; plain when nothing of it is in backticks.
    Field {
        names: Vec<String>,
        plain: bool,
    },
    String(String),
    Number(Number),
    Subject(Pattern),
    End,
    /// Nothing is read behind it.
    Wrong(TextProblem),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::Symbol(symbol) => f.write_str(symbol),
            Self::Field { names, .. } => super::write_field(f, names),
            Self::String(_) => f.write_str("a text"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Subject(_) => f.write_str("subject:"),
            Self::End => f.write_str("the end"),
            Self::Wrong(problem) => write!(f, "{problem}"),
        }
    }
}

/// All words of a text. The last one is the end, or the first thing that is wrong.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { text, rest: text, column: 1 };
    let mut all = Vec::new();
    loop {
        lexer.take_while(char::is_whitespace);
        let column = lexer.column;
        let token = match lexer.next() {
            Ok(kind) => Token { column, kind },
            Err((column, problem)) => Token { column, kind: Kind::Wrong(problem) },
        };
        let last = matches!(token.kind, Kind::End | Kind::Wrong(_));
        all.push(token);
        if last {
            return all;
        }
    }
}

/// Whether a name needs no backticks, as long as it is not one of the language's words.
pub(super) fn is_plain(name: &str) -> bool {
    name.starts_with(begins_name) && name.chars().all(continues_name)
}

/// The word of the language that `name` is, in whatever case it is written.
pub(super) fn reserved(name: &str) -> Option<&'static str> {
    WORDS.into_iter().find(|word| word.eq_ignore_ascii_case(name))
}

fn begins_name(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn continues_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A problem and the column it is in.
type Wrong = (usize, TextProblem);

struct Lexer<'a> {
    text: &'a str,
    rest: &'a str,
    column: usize,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Result<Kind, Wrong> {
        let Some(first) = self.peek() else {
            return Ok(Kind::End);
        };
        let second = self.rest.chars().nth(1);
        match first {
            '\'' | '"' => self.quoted().map(Kind::String),
            c if begins_name(c) || c == '`' => self.word(),
            c if c.is_ascii_digit() => self.number(),
            '-' if second.is_some_and(|c| c.is_ascii_digit()) => self.number(),
            found => match SYMBOLS.into_iter().find(|symbol| self.rest.starts_with(symbol)) {
                Some(symbol) => {
                    self.take(symbol.len());
                    Ok(Kind::Symbol(symbol))
                }
                None => Err((self.column, TextProblem::Character { found })),
            },
        }
    }

    /// A word of the language, the path of a field, or a subject term.
    fn word(&mut self) -> Result<Kind, Wrong> {
        let (mut names, mut plain) = (Vec::new(), true);
        loop {
            let column = self.column;
            let name = match self.peek() {
                Some('`') => {
                    plain = false;
                    self.quoted()?
                }
                Some(c) if begins_name(c) => self.take_while(continues_name).to_owned(),
                _ => String::new(),
            };
            if name.is_empty() {
                let found = self.found(column);
                return Err((column, TextProblem::Expected { what: "a name", found }));
            }
            names.push(name);
            if self.peek() != Some('.') {
                break;
            }
            self.take(1);
        }
        if plain && names.len() == 1 {
            if names[0] == "subject" && self.peek() == Some(':') {
                self.take(1);
                return self.subject();
            }
            if let Some(word) = reserved(&names[0]) {
                return Ok(Kind::Word(word));
            }
        }
        Ok(Kind::Field { names, plain })
    }

    fn subject(&mut self) -> Result<Kind, Wrong> {
        let column = self.column;
        let pattern = Pattern::parse(self.take_while(|c| !c.is_whitespace()));
        match pattern {
            Ok(pattern) => Ok(Kind::Subject(pattern)),
            Err(error) => Err((column, TextProblem::Pattern(error))),
        }
    }

    /// What stands between two of the character that comes next.
    fn quoted(&mut self) -> Result<String, Wrong> {
        let (column, mut content) = (self.column, String::new());
        let Some(quote) = self.peek() else {
            return Ok(content);
        };
        self.take(1);
        loop {
            content.push_str(self.take_while(|c| c != quote));
            if self.peek().is_none() {
                return Err((column, TextProblem::Unclosed { quote }));
            }
            self.take(1);
            if self.peek() != Some(quote) {
                return Ok(content);
            }
            content.push(quote);
            self.take(1);
        }
    }

    fn number(&mut self) -> Result<Kind, Wrong> {
        let (column, start) = (self.column, self.rest);
        if self.peek() == Some('-') {
            self.take(1);
        }
        self.digits()?;
        let mut whole = true;
        if self.peek() == Some('.') {
            whole = false;
            self.take(1);
            self.digits()?;
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            whole = false;
            self.take(1);
            if matches!(self.peek(), Some('+' | '-')) {
                self.take(1);
            }
            self.digits()?;
        }
        if let Some(found) = self.peek().filter(|c| continues_name(*c) || *c == '.') {
            return Err((self.column, TextProblem::Character { found }));
        }
        let number = &start[..start.len() - self.rest.len()];
        match parse_number(number, whole) {
            Some(number) => Ok(Kind::Number(number)),
            None => Err((column, TextProblem::NumberTooLarge { number: number.to_owned() })),
        }
    }

    fn digits(&mut self) -> Result<(), Wrong> {
        let column = self.column;
        if self.take_while(|c| c.is_ascii_digit()).is_empty() {
            let found = self.found(column);
            return Err((column, TextProblem::Expected { what: "a digit", found }));
        }
        Ok(())
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// The character in a column, as errors name it.
    fn found(&self, column: usize) -> String {
        let found = self.text.chars().nth(column - 1);
        found.map_or_else(|| Kind::End.to_string(), |found| found.to_string())
    }

    /// Takes this many bytes, which are ASCII or known to be whole characters.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        self.column += taken.chars().count();
        taken
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        self.take(self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len()))
    }
}

fn parse_number(number: &str, whole: bool) -> Option<Number> {
    if !whole {
        return Number::from_f64(number.parse().ok()?);
    }
    let signed = number.parse::<i64>().ok().map(Number::from);
    signed.or_else(|| number.parse::<u64>().ok().map(Number::from))
}
