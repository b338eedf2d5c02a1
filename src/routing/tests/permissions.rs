//! What is permitted: denial wins, and what nobody speaks of is denied unless told otherwise.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{noting, pattern};
use crate::routing::{Operation, Permissions, Route, RoutingError, RoutingStrategy, SubjectRouter};

const OPERATIONS: [Operation; 2] = [Operation::Publish, Operation::Subscribe];

#[test]
fn what_nobody_speaks_of_is_denied_by_default() {
    for operation in OPERATIONS {
        let may = |permissions: Permissions| permissions.permits(operation, &pattern("a.b"));
        assert!(!may(Permissions::default()) && !may(Permissions::closed()));
        assert!(may(Permissions::open()));
    }
}

#[test]
fn rules_are_for_one_operation() {
    for (one, other) in [(0, 1), (1, 0)] {
        let (one, other) = (OPERATIONS[one], OPERATIONS[other]);
        let allowed = Permissions::closed().allow(one, pattern("a.*"));
        assert!(allowed.permits(one, &pattern("a.b")) && !allowed.permits(other, &pattern("a.b")));
        let denied = Permissions::open().deny(one, pattern("a.*"));
        assert!(!denied.permits(one, &pattern("a.b")) && denied.permits(other, &pattern("a.b")));
    }
}

#[test]
fn a_pattern_is_permitted_as_a_whole() {
    let permissions = Permissions::closed()
        .allow(Operation::Subscribe, pattern("a.*"))
        .allow(Operation::Subscribe, pattern("b.>"))
        .deny(Operation::Subscribe, pattern("b.secret.>"));
    for (text, permitted) in [
        ("a.x", true),
        ("a.*", true),
        ("a.>", false),
        ("*.x", false),
        ("b.x.>", true),
        ("b.x", true),
        ("b.>", false),
        ("b.*.x", false),
        ("b.secret", true),
        ("b.secret.x", false),
    ] {
        assert_eq!(permissions.permits(Operation::Subscribe, &pattern(text)), permitted, "{text}");
    }
}

proptest! {
    #[test]
    fn a_subject_is_permitted_as_a_pattern_without_wildcards_is(
        allow in vec("([ab]|\\*)(\\.([ab]|\\*)){0,2}(\\.>)?", 0..4),
        deny in vec("([ab]|\\*)(\\.([ab]|\\*)){0,2}(\\.>)?", 0..4),
        open in any::<bool>(), subject in "[ab](\\.[ab]){0,3}",
    ) {
        let operation = Operation::Publish;
        let mut permissions = if open { Permissions::open() } else { Permissions::closed() };
        for text in &allow {
            permissions = permissions.allow(operation, pattern(text));
        }
        for text in &deny {
            permissions = permissions.deny(operation, pattern(text));
        }
        let any = |rules: &[String]| rules.iter().any(|rule| pattern(rule).matches(&subject));
        let wanted = !any(&deny) && (open || any(&allow));
        prop_assert_eq!(permissions.permits_subject(operation, &subject), wanted);
        prop_assert_eq!(permissions.permits(operation, &pattern(&subject)), wanted);
    }
}

#[tokio::test]
async fn what_is_denied_reaches_no_handler_and_is_counted() {
    let permissions = Permissions::open()
        .deny(Operation::Publish, pattern("a.secret"))
        .deny(Operation::Subscribe, pattern("b.>"));
    let (noting, _) = noting(RoutingStrategy::AllMatches);
    let router = SubjectRouter::<u32>::new(RoutingStrategy::AllMatches, permissions);
    router
        .register_handler("note", move |routed| {
            let router = noting.clone();
            async move {
                assert_eq!(routed.subject.as_str(), "a.b");
                router.route("noted", *routed.message).await.map(drop)
            }
        })
        .unwrap();
    router.add_route(Route::new(pattern("a.*"), "note")).unwrap();
    for text in ["b.c", ">", "*.c"] {
        let error = router.add_route(Route::new(pattern(text), "note")).unwrap_err();
        let RoutingError::Denied { operation, pattern } = &error else { panic!("{error}") };
        assert_eq!((*operation, &pattern[..]), (Operation::Subscribe, text));
    }
    assert_eq!(router.route("a.b", 1).await.unwrap().failures().count(), 0);
    let error = router.route("a.secret", 2).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Publish on a.secret is not permitted; allow it, and see whether a rule denies it"
    );
    let stats = router.get_stats();
    assert_eq!((stats.messages, stats.denied, stats.routes[0].taken), (1, 1, 1));
}
