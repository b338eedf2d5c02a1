//! Query texts: that they read as meant, print as they read, and are refused at the right column.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{a_field, specification};
use crate::specification::{
    Direction, Field, InvalidText, MAX_TEXT_BYTES, OrderBy, ParsedQuery, SearchOptions,
    Specification, TextProblem, field,
};
use crate::subject::{InvalidPattern, Pattern};

fn read(text: &str) -> Specification {
    let query = ParsedQuery::parse(text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((query.subject, query.options), (None, SearchOptions::default()));
    query.specification
}

fn refused(text: &str) -> (usize, TextProblem) {
    let InvalidText { column, problem, .. } = ParsedQuery::parse(text).unwrap_err();
    (column, problem)
}

fn expected(what: &'static str, found: &str) -> TextProblem {
    TextProblem::Expected { what, found: found.to_owned() }
}

#[test]
fn every_operator_reads_as_the_condition_it_names() {
    let all = [
        ("a = 1", field("a").eq(1)),
        ("a != 'x'", field("a").ne("x")),
        ("a>1.5", field("a").gt(1.5)),
        ("a >= -1", field("a").ge(-1)),
        ("a < 1e3", field("a").lt(1000.0)),
        ("a <= 18446744073709551615", field("a").le(u64::MAX)),
        ("a in (1, 'x', true)", field("a").is_in([json!(1), json!("x"), json!(true)])),
        ("a NOT IN ()", field("a").not_in(Vec::<Value>::new())),
        ("a between 1 and 2", field("a").between(1, 2)),
        ("a NOT BETWEEN 1 AND 2", field("a").between(1, 2).not()),
        ("a LIKE '50\\%_'", field("a").like("50\\%_")),
        ("a CONTAINS \"it's\"", field("a").contains("it's")),
        ("a STARTS WITH 'it''s'", field("a").starts_with("it's")),
        ("a NOT ENDS WITH ''", field("a").ends_with("").not()),
        ("a MATCHES '^\\d+$'", field("a").regex("^\\d+$")),
        ("a IS NULL", field("a").is_null()),
        ("a is not null", field("a").is_not_null()),
        ("a:B6", field("a").eq("B6")),
        ("a:'B 6'", field("a").eq("B 6")),
        ("a:6", field("a").eq(6)),
        ("a:true", field("a").eq(true)),
        ("a = [1, null, {'b': []}]", field("a").eq(json!([1, null, {"b": []}]))),
        ("last.carrier = 'B6'", field("last.carrier").eq("B6")),
        ("`a.b`.`c``d` = 1", Field::path(["a.b", "c`d"]).eq(1)),
        ("`order` = 1", field("order").eq(1)),
        ("not.order = 1", field("not.order").eq(1)),
        ("subject = 'x'", field("subject").eq("x")),
        ("`subject`:x", field("subject").eq("x")),
        ("TRUE", Specification::everything()),
        ("false", Specification::any([])),
    ];
    for (text, specification) in all {
        assert_eq!(read(text), specification, "{text}");
    }
}

#[test]
fn and_binds_more_than_or_and_not_most() {
    let [a, b, c] = ["a", "b", "c"].map(|name| field(name).eq(1));
    let flat = read("NOT a:1 AND b:1 OR c:1");
    assert_eq!(flat, a.clone().not().and(b.clone()).or(c.clone()));
    assert_eq!(read("NOT (a:1 AND (b:1 OR c:1))"), a.and(b.or(c)).not());
    assert_eq!(flat.to_string(), "a != 1 AND b = 1 OR c = 1");
}

#[test]
fn the_subject_stands_anywhere_in_the_outermost_and() {
    let board = Pattern::parse("board.JFK.*.*").unwrap();
    for text in [
        "subject:board.JFK.*.* AND a:1 AND b:2",
        "a:1 AND subject:board.JFK.*.* AND b:2",
        "a:1 AND b:2 AND\n\tsubject:board.JFK.*.*",
    ] {
        let query = ParsedQuery::parse(text).unwrap();
        assert_eq!(query.subject.as_ref(), Some(&board));
        assert_eq!(query.specification, field("a").eq(1).and(field("b").eq(2)));
        assert_eq!(query.to_string(), "subject:board.JFK.*.* AND a = 1 AND b = 2");
    }
    let query =
        ParsedQuery::parse("subject:board.JFK.*.* ORDER BY -a, b.c LIMIT 5 OFFSET 10").unwrap();
    assert_eq!(query.specification, Specification::everything());
    let order = [OrderBy::descending("a"), OrderBy::ascending("b.c")];
    let options = SearchOptions {
        order_by: order.to_vec(),
        limit: Some(5),
        offset: 10,
        ..SearchOptions::default()
    };
    assert_eq!(query.options, options);
}

#[test]
fn a_text_is_refused_at_the_column_where_it_goes_wrong() {
    let condition = "a condition";
    let ending = "AND, OR, ORDER BY, LIMIT, OFFSET or the end";
    let all = [
        ("", 1, expected(condition, "the end")),
        ("  ", 3, expected(condition, "the end")),
        ("ORDER BY a", 1, expected(condition, "ORDER")),
        ("'x' = a", 1, expected(condition, "a text")),
        ("a", 2, expected("an operator", "the end")),
        ("a = ", 5, expected("a value", "the end")),
        ("a = b", 5, expected("a value", "b")),
        ("a:b.c", 3, expected("a value", "b.c")),
        ("a = 1 b = 2", 7, expected(ending, "b")),
        ("a = 1)", 6, expected(ending, ")")),
        ("(a = 1", 7, expected(")", "the end")),
        ("a BETWEEN 1 OR 2", 13, expected("AND", "OR")),
        ("a IN 1", 6, expected("(", "1")),
        ("a IN (1 2)", 9, expected(")", "2")),
        ("a LIKE 1", 8, expected("a text in quotes", "1")),
        ("a STARTS 'x'", 10, expected("WITH", "a text")),
        ("a IS 1", 6, expected("NULL", "1")),
        ("a NOT NULL", 7, expected("an operator", "NULL")),
        ("a. = 1", 3, expected("a name", " ")),
        ("a.", 3, expected("a name", "the end")),
        ("`` = 1", 1, expected("a name", "`")),
        ("a.1 = 1", 3, expected("a name", "1")),
        ("a = 1 ORDER -a", 13, expected("BY", "-")),
        ("a = 1 ORDER BY 1", 16, expected("a field", "1")),
        ("a = 1 LIMIT -1", 13, expected("a whole number that is not negative", "-1")),
        ("a = 1 LIMIT 1.5", 13, expected("a whole number that is not negative", "1.5")),
        ("a = 1 OFFSET 1 LIMIT 1", 16, expected(ending, "LIMIT")),
        ("a = 1.", 7, expected("a digit", "the end")),
        ("a = 1e+x", 8, expected("a digit", "x")),
        // A date without quotes is a number with others behind it.
        ("é = 2013-01-01", 9, expected(ending, "-1")),
        ("a = 12b", 7, TextProblem::Character { found: 'b' }),
        ("é = é; b", 5, expected("a value", "é")),
        ("é = 'é'; b", 8, TextProblem::Character { found: ';' }),
        ("a = 'é", 5, TextProblem::Unclosed { quote: '\'' }),
        ("`a = 1", 1, TextProblem::Unclosed { quote: '`' }),
        ("a = NULL", 5, TextProblem::Null),
        ("a IN (1, null)", 10, TextProblem::Null),
        ("subject:a AND subject:b", 15, TextProblem::SecondSubject),
        ("a:1 OR subject:b", 8, TextProblem::SubjectWithin),
        ("a:1 AND subject:b OR c:1", 9, TextProblem::SubjectWithin),
        ("a:1 AND (subject:b )", 10, TextProblem::SubjectWithin),
        ("NOT subject:b", 5, TextProblem::SubjectWithin),
        ("subject: a", 9, TextProblem::Pattern(InvalidPattern::Empty)),
        (
            "a = 18446744073709551616",
            5,
            TextProblem::NumberTooLarge { number: "18446744073709551616".to_owned() },
        ),
        ("a = -1e400", 5, TextProblem::NumberTooLarge { number: "-1e400".to_owned() }),
    ];
    for (text, column, problem) in all {
        assert_eq!(refused(text), (column, problem), "{text}");
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = |depth: usize| format!("{}a:1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(ParsedQuery::parse(&nested(64)).is_ok());
    assert_eq!(refused(&nested(65)), (66, TextProblem::TooDeep { max: 64 }));
    assert_eq!(refused(&"NOT ".repeat(10_000)).1, TextProblem::TooDeep { max: 64 });
    assert_eq!(refused(&format!("a = {}", "[".repeat(10_000))).1, TextProblem::TooDeep { max: 64 });
    let long = format!("a = '{}'", "x".repeat(MAX_TEXT_BYTES - 6));
    assert!(ParsedQuery::parse(&long).is_ok());
    let problem = TextProblem::TooLong { actual: MAX_TEXT_BYTES + 1, max: MAX_TEXT_BYTES };
    assert_eq!(refused(&format!("{long} ")), (1, problem));
}

#[test]
fn an_error_shows_the_text_around_the_column() {
    let shown = |text: &str| ParsedQuery::parse(text).unwrap_err().to_string();
    assert_eq!(
        shown("a:1 AND\nb > )"),
        "column 13: expected a value, found )\n  a:1 AND b > )\n              ^"
    );
    let (x, y) = ("x".repeat(100), "y".repeat(100));
    let lines = shown(&format!("a = '{x}' ; '{y}'"));
    let before = "x".repeat(58);
    let after = "y".repeat(57);
    let mark = " ".repeat(61);
    assert_eq!(
        lines,
        format!(
            "column 108: ';' means nothing here; put texts in quotes, and unusual names of fields in backticks\n  \
             …{before}' ; '{after}…\n  {mark}^"
        )
    );
}

fn query() -> impl Strategy<Value = ParsedQuery> {
    let subject = proptest::option::of("[a)'(]{1,3}(\\.\\*){0,2}(\\.>)?");
    let direction = prop_oneof![Just(Direction::Ascending), Just(Direction::Descending)];
    let order = (a_field(), direction).prop_map(|(field, direction)| OrderBy { field, direction });
    let options = (vec(order, 0..3), proptest::option::of(0..100_usize), 0..3_usize);
    (subject, specification(), options).prop_map(|(subject, specification, options)| {
        let (order_by, limit, offset) = options;
        let options = SearchOptions { order_by, limit, offset, ..SearchOptions::default() };
        let subject = subject.map(|text| Pattern::parse(&text).unwrap());
        ParsedQuery { subject, specification, options }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn what_is_printed_reads_as_the_same_query(query in query()) {
        let text = query.to_string();
        match ParsedQuery::parse(&text) {
            Ok(again) => prop_assert_eq!(again, query, "{}", text),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn any_text_is_read_or_refused_at_a_column_of_it(text in any::<String>()) {
        if let Err(error) = ParsedQuery::parse(&text) {
            prop_assert!((1..=text.chars().count() + 1).contains(&error.column), "{}", error);
        }
    }

    #[test]
    fn any_words_of_the_language_are_read_or_refused(words in vec(proptest::sample::select(WORDS.to_vec()), 0..12)) {
        let text = words.concat();
        match ParsedQuery::parse(&text) {
            Ok(query) => prop_assert_eq!(ParsedQuery::parse(&query.to_string()), Ok(query)),
            Err(error) => prop_assert!(error.column <= text.chars().count() + 1, "{}", error),
        }
    }

    #[test]
    fn a_float_prints_as_itself(float in any::<f64>().prop_filter("finite", |float| float.is_finite())) {
        let query = field("a").eq(float);
        prop_assert_eq!(read(&query.to_string()), query);
    }
}

const WORDS: [&str; 26] = [
    "a ", "b.c", ":", "= ", "1 ", "-", "2.5", "'x'", "\"", "`", "(", ")", "[", "]", "{", "}", ", ",
    " AND ", " OR ", " NOT ", " IN ", " IS ", "NULL ", "TRUE ", "subject:", " LIMIT ",
];
