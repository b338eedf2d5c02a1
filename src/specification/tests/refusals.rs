//! What cannot be compiled, and how it is told.

use serde_json::Value;

use crate::specification::{
    Field, MAX_CONDITIONS, MAX_DEPTH, MAX_PATTERN_BYTES, MAX_PATTERNS, MAX_REGEX_SIZE, OrderBy,
    SearchOptions, Specification, SpecificationError, field,
};

fn refused(specification: Specification) -> SpecificationError {
    specification.compile().unwrap_err()
}

fn named(name: &str) -> String {
    name.to_owned()
}

#[test]
fn an_empty_name_is_refused_wherever_it_stands() {
    for (path, text) in [("", ""), ("a..b", "a..b"), (".a", ".a"), ("a.", "a.")] {
        let error = SpecificationError::EmptyName { field: named(text) };
        assert_eq!(refused(field(path).eq(1)), error);
        assert_eq!(OrderBy::parse(path).unwrap_err(), error);
        assert_eq!(SearchOptions::default().order_by(&format!("-{path}")).unwrap_err(), error);
        let options = SearchOptions::default().fields([path]);
        let all = Specification::everything().compile().unwrap();
        let selection = crate::specification::Selection::<()>::new(all, &options, "");
        assert_eq!(selection.unwrap_err(), error);
    }
    let nowhere = Field::path(Vec::<String>::new());
    assert_eq!(refused(nowhere.is_null()), SpecificationError::EmptyName { field: named("") });
}

#[test]
fn null_is_not_compared_with() {
    let error = SpecificationError::ComparedWithNull { field: named("a.b") };
    let a = || field("a.b");
    for specification in [
        a().eq(Value::Null),
        a().ne(None::<u8>),
        a().gt(f64::NAN),
        a().is_in([Some(1), None]),
        a().between(1, None::<u8>),
        a().contains(Value::Null),
    ] {
        assert_eq!(refused(field("x").eq(1).or(specification)), error);
    }
    assert_eq!(
        error.to_string(),
        "field \"a.b\" is compared with null; ask with is_null, in a text with IS NULL"
    );
}

#[test]
fn depth_and_numbers_are_bounded() {
    let deep = |depth: usize| {
        (0..depth).fold(field("a").eq(1), |inner, _| Specification::Not(Box::new(inner)))
    };
    assert!(deep(MAX_DEPTH).compile().is_ok());
    assert_eq!(refused(deep(MAX_DEPTH + 1)), SpecificationError::TooDeep { max: MAX_DEPTH });

    let wide = |many: usize| Specification::any((0..many).map(|i| field("a").eq(i)));
    assert!(wide(MAX_CONDITIONS - 1).compile().is_ok());
    let error = SpecificationError::TooManyConditions { max: MAX_CONDITIONS };
    assert_eq!(refused(wide(MAX_CONDITIONS)), error);
    assert!(field("a").is_in(0..100_000).compile().is_ok());

    let patterns = |many: usize| Specification::all((0..many).map(|_| field("a").like("x%")));
    assert!(patterns(MAX_PATTERNS).compile().is_ok());
    let error = SpecificationError::TooManyPatterns { max: MAX_PATTERNS };
    assert_eq!(refused(patterns(MAX_PATTERNS + 1)), error);
}

#[test]
fn a_pattern_that_is_wrong_or_needs_too_much_is_refused() {
    let long = "x".repeat(MAX_PATTERN_BYTES + 1);
    let (actual, max) = (long.len(), MAX_PATTERN_BYTES);
    let error = SpecificationError::PatternTooLong { field: named("a"), actual, max };
    assert_eq!(refused(field("a").regex(&long)), error);
    assert_eq!(refused(field("a").like(&long)), error);
    for fits in ["_", "%", "é", "\\%"] {
        let pattern = fits.repeat(MAX_PATTERN_BYTES / fits.len());
        assert!(field("a").like(pattern).compile().is_ok(), "{fits}");
    }

    let pattern = named("50\\");
    let error = SpecificationError::LoneEscape { field: named("a"), pattern: pattern.clone() };
    assert_eq!(refused(field("a").like(pattern)), error);

    let error = refused(field("a.b").regex("a(b"));
    let SpecificationError::InvalidRegex { field: at, reason } = &error else {
        panic!("{error}");
    };
    assert!(at == "a.b" && reason.contains("unclosed group"), "{error}");
    for nested in ["(".repeat(500) + &")".repeat(500), r"\p{Nothing}".to_owned()] {
        let error = refused(field("a").regex(nested));
        assert!(matches!(error, SpecificationError::InvalidRegex { .. }), "{error}");
    }
    let (pattern, max) = (named(r"(\w{100}){100}"), MAX_REGEX_SIZE);
    let error =
        SpecificationError::PatternTooLarge { field: named("a"), pattern: pattern.clone(), max };
    assert_eq!(refused(field("a").regex(pattern)), error);
}

#[test]
fn a_pattern_that_takes_others_forever_takes_no_longer() {
    let document = serde_json::json!({"a": "a".repeat(1 << 20)});
    let nested = field("a").regex("(a*)*(a|aa)+$b").compile().unwrap();
    let many = field("a").like("%a".repeat(500) + "b").compile().unwrap();
    assert!(!nested.matches(&document) && !many.matches(&document));
}

#[test]
fn a_field_that_is_not_known_is_named_with_those_that_are() {
    let known = ["carrier", "delay"];
    let error = SpecificationError::UnknownField {
        field: named("dealy"),
        known: known.map(named).to_vec(),
    };
    let typo = field("carrier").eq("B6").and(field("dealy.minutes").gt(30).not());
    assert_eq!(typo.compile().unwrap().check_fields(&known), Err(error.clone()));
    let options = SearchOptions::default().order_by("-dealy").unwrap();
    assert_eq!(options.check_fields(&known), Err(error.clone()));
    assert_eq!(SearchOptions::default().fields(["dealy"]).check_fields(&known), Err(error.clone()));
    assert_eq!(error.to_string(), "there is no field \"dealy\"; known are carrier, delay");
    let fine = field("delay.minutes").gt(30).compile().unwrap();
    assert_eq!(fine.check_fields(&known), Ok(()));
}
