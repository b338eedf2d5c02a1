//! The words of a query text as the query they make: recursive descent, one method for a rule of the grammar.
//!
//! The grammar is at [`ParsedQuery`].

use serde_json::{Map, Value};

use super::ParsedQuery;
use super::error::{InvalidText, TextProblem};
use super::lexer::{Kind, Token, tokens};
use crate::specification::compiled::MAX_DEPTH;
use crate::specification::field::Field;
use crate::specification::options::SearchOptions;
use crate::specification::order::OrderBy;
use crate::specification::spec::Specification;
use crate::subject::Pattern;

pub(super) struct Parser<'a> {
    text: &'a str,
    /// The last one is the end, or what is wrong; neither is ever passed.
    tokens: Vec<Token>,
    at: usize,
    /// The subject term and its column.
    subject: Option<(Pattern, usize)>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, tokens: tokens(text), at: 0, subject: None }
    }

    pub(super) fn query(mut self) -> Result<ParsedQuery, InvalidText> {
        let specification = self.any(0)?;
        let options = self.options()?;
        if !matches!(self.peek(), Kind::End) {
            return self.expected("AND, OR, ORDER BY, LIMIT, OFFSET or the end");
        }
        let subject = self.subject.map(|(pattern, _)| pattern);
        Ok(ParsedQuery { subject, specification, options })
    }

    /// Depth 0 is where a subject term may stand.
    fn any(&mut self, depth: usize) -> Result<Specification, InvalidText> {
        let mut parts = vec![self.all(depth)?];
        while self.take_word("OR") {
            parts.push(self.all(depth)?);
        }
        match &self.subject {
            Some((_, column)) if parts.len() > 1 && depth == 0 => {
                Err(InvalidText::new(self.text, *column, TextProblem::SubjectWithin))
            }
            _ => Ok(Specification::any(parts)),
        }
    }

    fn all(&mut self, depth: usize) -> Result<Specification, InvalidText> {
        let mut parts = vec![self.one(depth)?];
        while self.take_word("AND") {
            parts.push(self.one(depth)?);
        }
        Ok(Specification::all(parts))
    }

    fn one(&mut self, depth: usize) -> Result<Specification, InvalidText> {
        self.check_depth(depth)?;
        if self.take_word("NOT") {
            return Ok(self.one(depth + 1)?.not());
        }
        if self.take_symbol("(") {
            let inner = self.any(depth + 1)?;
            self.symbol(")")?;
            return Ok(inner);
        }
        if self.take_word("TRUE") {
            return Ok(Specification::everything());
        }
        if self.take_word("FALSE") {
            return Ok(Specification::any([]));
        }
        match self.peek() {
            Kind::Subject(pattern) => {
                let pattern = pattern.clone();
                self.take_subject(pattern, depth)
            }
            Kind::Field { .. } => self.condition(depth),
            _ => self.expected("a condition"),
        }
    }

    fn take_subject(
        &mut self,
        pattern: Pattern,
        depth: usize,
    ) -> Result<Specification, InvalidText> {
        if depth > 0 {
            return self.refuse(TextProblem::SubjectWithin);
        }
        if self.subject.is_some() {
            return self.refuse(TextProblem::SecondSubject);
        }
        self.subject = Some((pattern, self.column()));
        self.at += 1;
        Ok(Specification::everything())
    }

    fn condition(&mut self, depth: usize) -> Result<Specification, InvalidText> {
        let field = self.field()?;
        if self.take_symbol(":") {
            return match self.peek().clone() {
                Kind::Field { names, plain: true } if names.len() == 1 => {
                    self.at += 1;
                    Ok(field.eq(names.concat()))
                }
                _ => Ok(field.eq(self.value(depth)?)),
            };
        }
        if self.take_word("IS") {
            let not = self.take_word("NOT");
            self.word("NULL")?;
            return Ok(negated(not, field.is_null()));
        }
        for (symbol, compare) in COMPARISONS {
            if self.take_symbol(symbol) {
                return Ok(compare(field, self.value(depth)?));
            }
        }
        let not = self.take_word("NOT");
        Ok(negated(not, self.test(field, depth)?))
    }

    fn test(&mut self, field: Field, depth: usize) -> Result<Specification, InvalidText> {
        if self.take_word("IN") {
            self.symbol("(")?;
            let values = self.listed(")", |parser| parser.value(depth))?;
            return Ok(field.is_in(values));
        }
        if self.take_word("BETWEEN") {
            let low = self.value(depth)?;
            self.word("AND")?;
            return Ok(field.between(low, self.value(depth)?));
        }
        if self.take_word("LIKE") {
            return Ok(field.like(self.string()?));
        }
        if self.take_word("MATCHES") {
            return Ok(field.regex(self.string()?));
        }
        if self.take_word("CONTAINS") {
            return Ok(field.contains(self.value(depth)?));
        }
        if self.take_word("STARTS") {
            self.word("WITH")?;
            return Ok(field.starts_with(self.string()?));
        }
        if self.take_word("ENDS") {
            self.word("WITH")?;
            return Ok(field.ends_with(self.string()?));
        }
        self.expected("an operator")
    }

    fn options(&mut self) -> Result<SearchOptions, InvalidText> {
        let mut options = SearchOptions::default();
        if self.take_word("ORDER") {
            self.word("BY")?;
            options.order_by.push(self.order()?);
            while self.take_symbol(",") {
                options.order_by.push(self.order()?);
            }
        }
        if self.take_word("LIMIT") {
            options.limit = Some(self.integer()?);
        }
        if self.take_word("OFFSET") {
            options.offset = self.integer()?;
        }
        Ok(options)
    }

    fn order(&mut self) -> Result<OrderBy, InvalidText> {
        match self.take_symbol("-") {
            true => self.field().map(OrderBy::descending),
            false => self.field().map(OrderBy::ascending),
        }
    }

    fn integer(&mut self) -> Result<usize, InvalidText> {
        let integer = match self.peek() {
            Kind::Number(number) => number.as_u64().and_then(|number| usize::try_from(number).ok()),
            _ => None,
        };
        let Some(integer) = integer else {
            return self.expected("a whole number that is not negative");
        };
        self.at += 1;
        Ok(integer)
    }

    fn field(&mut self) -> Result<Field, InvalidText> {
        let Kind::Field { names, .. } = self.peek().clone() else {
            return self.expected("a field");
        };
        self.at += 1;
        Ok(Field::path(names))
    }

    fn string(&mut self) -> Result<String, InvalidText> {
        let Kind::String(string) = self.peek().clone() else {
            return self.expected("a text in quotes");
        };
        self.at += 1;
        Ok(string)
    }

    fn value(&mut self, depth: usize) -> Result<Value, InvalidText> {
        match self.peek() {
            Kind::Word("NULL") => self.refuse(TextProblem::Null),
            _ => self.element(depth),
        }
    }

    fn element(&mut self, depth: usize) -> Result<Value, InvalidText> {
        self.check_depth(depth)?;
        let value = match self.peek().clone() {
            Kind::String(string) => Value::String(string),
            Kind::Number(number) => Value::Number(number),
            Kind::Word("TRUE") => Value::Bool(true),
            Kind::Word("FALSE") => Value::Bool(false),
            Kind::Word("NULL") => Value::Null,
            Kind::Symbol("[") => {
                self.at += 1;
                return self.listed("]", |parser| parser.element(depth + 1)).map(Value::Array);
            }
            Kind::Symbol("{") => {
                self.at += 1;
                let entries = self.listed("}", |parser| {
                    let name = parser.string()?;
                    parser.symbol(":")?;
                    Ok((name, parser.element(depth + 1)?))
                })?;
                return Ok(Value::Object(Map::from_iter(entries)));
            }
            _ => return self.expected("a value"),
        };
        self.at += 1;
        Ok(value)
    }

    /// None or some of the same, with commas between them, and what ends them.
    fn listed<T>(
        &mut self,
        end: &'static str,
        mut one: impl FnMut(&mut Self) -> Result<T, InvalidText>,
    ) -> Result<Vec<T>, InvalidText> {
        let mut all = Vec::new();
        if self.take_symbol(end) {
            return Ok(all);
        }
        loop {
            all.push(one(self)?);
            if !self.take_symbol(",") {
                self.symbol(end)?;
                return Ok(all);
            }
        }
    }

    fn peek(&self) -> &Kind {
        &self.tokens[self.at].kind
    }

    fn column(&self) -> usize {
        self.tokens[self.at].column
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Kind::Word(found) if *found == word);
        self.at += usize::from(found);
        found
    }

    fn take_symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Kind::Symbol(found) if *found == symbol);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &'static str) -> Result<(), InvalidText> {
        if self.take_word(word) { Ok(()) } else { self.expected(word) }
    }

    fn symbol(&mut self, symbol: &'static str) -> Result<(), InvalidText> {
        if self.take_symbol(symbol) { Ok(()) } else { self.expected(symbol) }
    }

    fn check_depth(&self, depth: usize) -> Result<(), InvalidText> {
        if depth > MAX_DEPTH {
            return self.refuse(TextProblem::TooDeep { max: MAX_DEPTH });
        }
        Ok(())
    }

    fn expected<T>(&self, what: &'static str) -> Result<T, InvalidText> {
        self.refuse(match self.peek() {
            Kind::Wrong(problem) => problem.clone(),
            found => TextProblem::Expected { what, found: found.to_string() },
        })
    }

    fn refuse<T>(&self, problem: TextProblem) -> Result<T, InvalidText> {
        Err(InvalidText::new(self.text, self.column(), problem))
    }
}

type Compare = fn(Field, Value) -> Specification;

const COMPARISONS: [(&str, Compare); 6] = [
    ("=", |field, value| field.eq(value)),
    ("!=", |field, value| field.ne(value)),
    (">", |field, value| field.gt(value)),
    (">=", |field, value| field.ge(value)),
    ("<", |field, value| field.lt(value)),
    ("<=", |field, value| field.le(value)),
];

fn negated(not: bool, specification: Specification) -> Specification {
    if not { specification.not() } else { specification }
}
