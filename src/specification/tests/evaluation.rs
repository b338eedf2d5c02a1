//! What conditions mean, against an evaluation that takes its time.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{document, specification};
use crate::specification::{Comparison, Field, Specification, document_of, field};

fn holds(specification: Specification, document: &Value) -> bool {
    specification.compile().unwrap().matches(document)
}

/// What a specification of the values in these tests means, said a second time in another way.
fn slowly(specification: &Specification, document: &Value) -> bool {
    match specification {
        Specification::All(parts) => !parts.iter().any(|part| !slowly(part, document)),
        Specification::Any(parts) => parts.iter().filter(|part| slowly(part, document)).count() > 0,
        Specification::Not(inner) => !slowly(inner, document),
        Specification::IsNull { field } => read(field, document).is_null(),
        Specification::Compare { field, is, value } => {
            let found = read(field, document);
            match is {
                Comparison::Eq => plain(&found) == plain(value),
                Comparison::Gt => less(value, &found),
                Comparison::Lt => less(&found, value),
                Comparison::Ge => less(value, &found) || plain(&found) == plain(value),
                Comparison::Le => less(&found, value) || plain(&found) == plain(value),
            }
        }
        Specification::In { field, values } => {
            values.iter().any(|value| slowly(&field.clone().eq(value.clone()), document))
        }
        Specification::Between { field, low, high } => {
            let low = field.clone().ge(low.clone());
            slowly(&low, document) && slowly(&field.clone().le(high.clone()), document)
        }
        Specification::Contains { field, value } => match read(field, document) {
            Value::String(found) => {
                value.as_str().is_some_and(|part| found.split(part).count() > 1)
            }
            Value::Array(found) => found.iter().any(|element| plain(element) == plain(value)),
            _ => false,
        },
        Specification::StartsWith { field, text } => {
            read(field, document).as_str().is_some_and(|found| found.find(text.as_str()) == Some(0))
        }
        Specification::EndsWith { field, text } => {
            let backwards = |text: &str| text.chars().rev().collect::<String>();
            let found = read(field, document);
            found.as_str().is_some_and(|found| backwards(found).starts_with(&backwards(text)))
        }
        Specification::Like { field, pattern } => {
            let pattern: Vec<char> = pattern.chars().collect();
            let found = read(field, document);
            found.as_str().is_some_and(|found| like(&pattern, &found.chars().collect::<Vec<_>>()))
        }
        // The tests have escaped literals for regular expressions.
        Specification::Regex { field, pattern } => {
            read(field, document).as_str().is_some_and(|found| {
                found.contains(
                    &pattern.replace("\\\\", "\u{1}").replace('\\', "").replace('\u{1}', "\\"),
                )
            })
        }
    }
}

fn read(field: &Field, document: &Value) -> Value {
    let pointer =
        field.names().iter().map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1")));
    document.pointer(&pointer.collect::<String>()).cloned().unwrap_or(Value::Null)
}

/// The value with every number as so many halves.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!((number.as_f64().unwrap() * 2.0) as i64),
        Value::Array(elements) => elements.iter().map(plain).collect(),
        Value::Object(entries) => {
            entries.iter().map(|(name, value)| (name.clone(), plain(value))).collect()
        }
        other => other.clone(),
    }
}

fn less(one: &Value, other: &Value) -> bool {
    match (plain(one), plain(other)) {
        (Value::Bool(one), Value::Bool(other)) => !one && other,
        (Value::Number(one), Value::Number(other)) => one.as_i64() < other.as_i64(),
        (Value::String(one), Value::String(other)) => one.chars().lt(other.chars()),
        // How lists are ordered is tested beside the order itself.
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => {
            crate::specification::compare(one, other).is_lt()
        }
        _ => false,
    }
}

fn like(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], text) => text.is_empty(),
        (['%', rest @ ..], text) => (0..=text.len()).any(|skip| like(rest, &text[skip..])),
        (['_', rest @ ..], [_, text @ ..]) => like(rest, text),
        (['\\', escaped, rest @ ..], [c, text @ ..]) => escaped == c && like(rest, text),
        ([literal, rest @ ..], [c, text @ ..]) => {
            *literal != '_' && *literal != '\\' && literal == c && like(rest, text)
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn it_holds_when_a_slow_reading_says_so(
        specification in specification(),
        documents in proptest::collection::vec(document(), 8),
    ) {
        // A pattern may end with a lone escape, which is refused.
        if let Ok(compiled) = specification.clone().compile() {
            for document in documents {
                let stored = document_of(&document).unwrap();
                prop_assert_eq!(compiled.matches(&document), slowly(&specification, &document), "{} of {}", specification, document);
                prop_assert_eq!(compiled.matches(&stored), compiled.matches(&document));
            }
        }
    }

    #[test]
    fn the_stored_form_is_the_same_specification(specification in specification()) {
        let stored = serde_json::to_string(&specification).unwrap();
        prop_assert_eq!(serde_json::from_str::<Specification>(&stored).unwrap(), specification);
    }
}

#[test]
fn null_is_equal_to_nothing_and_unequal_to_everything() {
    for document in [json!({}), json!({"a": null}), json!([]), json!("a")] {
        let holding = [field("a").ne(1), field("a").not_in([1, 2]), field("a").is_null()];
        let failing = [
            field("a").eq(1),
            field("a").gt(1),
            field("a").le(1),
            field("a").is_in([1]),
            field("a").between(0, 9),
            field("a").like("%"),
            field("a").contains(""),
            field("a").regex(""),
            field("a").is_not_null(),
        ];
        assert!(holding.into_iter().all(|specification| holds(specification, &document)));
        assert!(!failing.into_iter().any(|specification| holds(specification, &document)));
    }
}

#[test]
fn groups_without_parts_hold_for_all_or_for_none() {
    assert!(holds(Specification::everything(), &json!(null)));
    assert!(!holds(Specification::any([]), &json!({"a": 1})));
    assert_eq!(Specification::everything().and(field("a").eq(1)), field("a").eq(1));
    assert_eq!(Specification::any([]).or(field("a").eq(1)), field("a").eq(1));
    assert_eq!(!!field("a").eq(1), field("a").eq(1));
}

#[test]
fn like_takes_the_whole_text_and_lines_too() {
    let text = json!({"a": "50% off\n(today)"});
    for pattern in ["50%", "%off%", "50\\% off_(today)", "%)", "%"] {
        assert!(holds(field("a").like(pattern), &text), "{pattern}");
    }
    for pattern in ["50", "off", "50\\%", "50% Off%", "", "%\\_%"] {
        assert!(!holds(field("a").like(pattern), &text), "{pattern}");
    }
}

#[test]
fn a_regular_expression_matches_a_part_and_knows_letters() {
    let text = json!({"a": "Tromsø 12"});
    for pattern in ["ms", "^Tr", "(?i)TROMSØ", r"\w+ \d{2}$", r"\p{Ll}{4}"] {
        assert!(holds(field("a").regex(pattern), &text), "{pattern}");
    }
    assert!(!holds(field("a").regex("^12"), &text));
}

#[test]
fn the_stored_form_of_every_variant_is_what_older_programs_wrote() {
    let all = [
        (field("a.b").eq(1), r#"{"compare":{"field":["a","b"],"is":"eq","value":1}}"#),
        (field("a").is_in(["x"]), r#"{"in":{"field":["a"],"values":["x"]}}"#),
        (field("a").between(1, 2.5), r#"{"between":{"field":["a"],"low":1,"high":2.5}}"#),
        (field("a").like("x%"), r#"{"like":{"field":["a"],"pattern":"x%"}}"#),
        (field("a").contains("x"), r#"{"contains":{"field":["a"],"value":"x"}}"#),
        (field("a").starts_with("x"), r#"{"starts_with":{"field":["a"],"text":"x"}}"#),
        (field("a").ends_with("x"), r#"{"ends_with":{"field":["a"],"text":"x"}}"#),
        (field("a").regex("x"), r#"{"regex":{"field":["a"],"pattern":"x"}}"#),
        (field("a").is_not_null(), r#"{"not":{"is_null":{"field":["a"]}}}"#),
        (Specification::everything(), r#"{"all":[]}"#),
        (Specification::any([]), r#"{"any":[]}"#),
    ];
    for (specification, stored) in all {
        assert_eq!(serde_json::to_string(&specification).unwrap(), stored);
    }
}
