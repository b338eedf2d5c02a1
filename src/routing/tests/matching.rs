//! Finding routes agrees with asking every pattern.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{add, noting, pattern};
use crate::routing::trie::Trie;
use crate::routing::{Route, RouteId, RoutingStrategy};
use crate::subject::{ContextName, EventPattern, Pattern, SubjectScheme};

fn patterns() -> impl Strategy<Value = Vec<String>> {
    vec("([abc]|ab|\\*)(\\.([abc]|ab|\\*)){0,4}(\\.>)?|>", 0..40)
}

/// Subjects, some of which have an empty token or what means something in patterns.
fn subjects() -> impl Strategy<Value = Vec<String>> {
    vec("([abcd]|ab|\\*|>)(\\.([abcd]|ab|\\*|>)){0,5}|[ab.]{0,6}", 1..40)
}

fn naive(all: &[(RouteId, Pattern)], subject: &str) -> Vec<RouteId> {
    all.iter().filter(|(_, pattern)| pattern.matches(subject)).map(|(id, _)| *id).collect()
}

proptest! {
    #[test]
    fn finding_routes_is_asking_every_pattern(
        texts in patterns(), subjects in subjects(), removed in vec(any::<prop::sample::Index>(), 0..20)
    ) {
        let (router, _) = noting(RoutingStrategy::AllMatches);
        let mut all: Vec<_> = texts.iter().map(|text| (add(&router, text), pattern(text))).collect();
        for subject in &subjects {
            prop_assert_eq!(router.find_routes(subject), naive(&all, subject), "{}", subject);
        }
        for index in removed {
            if all.is_empty() {
                break;
            }
            let (id, pattern) = all.remove(index.index(all.len()));
            prop_assert_eq!(router.remove_route(id), Some(Route::new(pattern, "note")));
            prop_assert_eq!(router.remove_route(id), None);
        }
        for subject in &subjects {
            prop_assert_eq!(router.find_routes(subject), naive(&all, subject), "{}", subject);
        }
    }

    #[test]
    fn a_trie_without_values_holds_nothing(texts in patterns()) {
        let mut trie = Trie::default();
        let all: Vec<_> = texts.iter().map(|text| pattern(text)).zip(0..).collect();
        for (pattern, number) in &all {
            trie.insert(pattern, *number);
        }
        prop_assert_eq!(trie.is_empty(), all.is_empty());
        for (pattern, number) in &all {
            trie.remove(pattern, |value| value == number);
        }
        prop_assert!(trie.is_empty(), "{:?}", trie);
    }

    #[test]
    fn routes_of_events_match_what_the_event_pattern_means(
        text in "([ab]|\\*)\\.(([ab]|\\*)(\\.([ab]|\\*)(\\.([12]|\\*))?|\\.>)?|>)",
        id in "[ab](\\.[ab])?", names in "[ab][ab]", version in 1..3_u32,
    ) {
        let scheme = SubjectScheme::new(ContextName::new("c").unwrap(), "e", "s").unwrap();
        let events = EventPattern::parse(&scheme, &format!("e.c.{text}")).unwrap();
        let route = Route::of_events(&events, "note").unwrap();
        let (aggregate, event_type) = names.split_at(1);
        let subject = format!("e.c.{aggregate}.{id}");
        let means = events.matches(&subject, event_type, version);
        let matches = route.pattern.matches(&format!("{subject}.{event_type}.{version}"));
        prop_assert_eq!(means, matches, "{} {} {}", events, subject, route.pattern);
    }
}

#[test]
fn what_a_subject_does_not_reach_is_not_looked_at() {
    let mut trie = Trie::default();
    let many = 10_000;
    for number in 0..many {
        trie.insert(&pattern(&format!("a.{number}.*.x")), number);
        trie.insert(&pattern(&format!("a.{number}.>")), many + number);
    }
    let mut found = Vec::new();
    trie.find("a.77.b.x", |number| found.push(*number));
    found.sort_unstable();
    assert_eq!(found, [77, many + 77]);
}
