//! Patterns: what is refused, and that comparing patterns agrees with matching subjects.

use proptest::prelude::*;

use super::text;
use crate::subject::{InvalidPattern, MAX_PATTERN_BYTES, Pattern};

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).unwrap()
}

/// Every text of 1 to `longest` of these tokens.
fn texts(tokens: &[&str], longest: usize) -> Vec<String> {
    let mut all: Vec<String> = tokens.iter().map(|token| (*token).to_owned()).collect();
    let mut last = all.clone();
    for _ in 1..longest {
        last = last
            .iter()
            .flat_map(|text| tokens.iter().map(move |token| format!("{text}.{token}")))
            .collect();
        all.extend_from_slice(&last);
    }
    all
}

#[test]
fn covering_and_overlapping_agree_with_matching_every_small_subject() {
    let patterns: Vec<Pattern> = texts(&["a", "b", "*", ">"], 3)
        .iter()
        .filter_map(|text| Pattern::parse(text).ok())
        .collect();
    // One token and one length more than the patterns have, so that no wildcard is taken for what it happens to match.
    let subjects = texts(&["a", "b", "c"], 4);
    assert_eq!((patterns.len(), subjects.len()), (4 + 3 * 4 + 9 * 4, 3 + 9 + 27 + 81));
    for one in &patterns {
        let matched: Vec<&String> =
            subjects.iter().filter(|subject| one.matches(subject)).collect();
        assert_eq!(one.is_literal(), matched.len() == 1 && *matched[0] == one.as_str(), "{one}");
        for two in &patterns {
            let all = subjects
                .iter()
                .filter(|subject| two.matches(subject))
                .all(|subject| one.matches(subject));
            assert_eq!(one.covers(two), all, "{one} covers {two}");
            let any = matched.iter().any(|subject| two.matches(subject));
            assert_eq!(one.overlaps(two), any, "{one} overlaps {two}");
        }
    }
}

#[test]
fn a_subject_with_an_empty_token_matches_nothing() {
    for subject in ["", ".", "a.", ".a", "a..b", "a.b.", "a.b..c"] {
        for text in [">", "*", "*.*", "a.>", "a.*", "a", "a.*.>"] {
            assert!(!pattern(text).matches(subject), "{text} {subject:?}");
        }
    }
}

proptest! {
    #[test]
    fn parsing_any_text_gives_a_pattern_or_an_error(text in text()) {
        if let Ok(pattern) = Pattern::parse(&text) {
            prop_assert_eq!(pattern.as_str(), &text);
            prop_assert_eq!(pattern.is_literal(), !text.contains(['*', '>']));
            prop_assert!(pattern.matches(&text), "a pattern taken for a subject matches itself");
            let json = serde_json::to_string(&pattern).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Pattern>(&json).unwrap(), &pattern);
            prop_assert_eq!(pattern.to_string().parse(), Ok(pattern));
        }
        let _ = Pattern::parse(">").unwrap().matches(&text);
    }

    #[test]
    fn a_pattern_covers_and_overlaps_itself(text in "([ab]|\\*)(\\.([ab]|\\*)){0,4}(\\.>)?") {
        let pattern = pattern(&text);
        prop_assert!(pattern.covers(&pattern) && pattern.overlaps(&pattern));
    }
}

#[test]
fn each_refusal_says_what_and_where() {
    let refused = |text: &str| Pattern::parse(text).unwrap_err();
    assert_eq!(refused(""), InvalidPattern::Empty);
    assert!(Pattern::parse(&"a".repeat(MAX_PATTERN_BYTES)).is_ok());
    assert_eq!(refused(&"a".repeat(1025)), InvalidPattern::TooLong { actual: 1025, max: 1024 });
    for (text, found) in [
        ("a b", ' '),
        ("a.\tb", '\t'),
        ("a\u{0}", '\u{0}'),
        ("a\u{A0}", '\u{A0}'),
        ("\u{7F}", '\u{7F}'),
    ] {
        assert_eq!(refused(text), InvalidPattern::Character { pattern: text.to_owned(), found });
    }
    for (text, position) in [(".", 1), (".a", 1), ("a.", 2), ("a..b", 2), ("a.*..>", 3)] {
        assert_eq!(
            refused(text),
            InvalidPattern::EmptyToken { pattern: text.to_owned(), position }
        );
    }
    for (text, position) in [(">.a", 1), ("a.>.b", 2), (">.>", 1), ("a.*.>.*", 3)] {
        assert_eq!(
            refused(text),
            InvalidPattern::TailNotLast { pattern: text.to_owned(), position }
        );
    }
    for (text, token) in
        [("a.b*", "b*"), ("**", "**"), ("*a.b", "*a"), ("a.>>", ">>"), ("a>.b", "a>"), ("*>", "*>")]
    {
        let error =
            InvalidPattern::MixedWildcard { pattern: text.to_owned(), token: token.to_owned() };
        assert_eq!(refused(text), error);
    }
    assert_eq!(
        refused("a.b*").to_string(),
        "token \"b*\" of pattern \"a.b*\" mixes a wildcard with other characters, which a server takes literally; \
         write * for the whole token, or =2A and =3E for the characters * and >"
    );
}
