//! What the subject language promises without a server. What a server delivers is in `tests/subject_language.rs`.

mod addresses;
mod aggregate_patterns;
mod event_patterns;
mod ids;
mod literals;
mod patterns;
mod timeouts;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};

use super::{ContextName, SubjectScheme};

fn sales() -> SubjectScheme {
    SubjectScheme::new(ContextName::new("sales").unwrap(), "cim.events", "cim.aggregates").unwrap()
}

/// Any text at all, with the characters that mean something in a subject more often than chance has them.
fn text() -> impl Strategy<Value = String> {
    let special = || prop_oneof![Just('.'), Just('*'), Just('>'), Just('='), Just(' '), Just('\n')];
    let plain = || prop_oneof![Just('a'), Just('B'), Just('0'), Just('-'), Just('_')];
    vec(prop_oneof![any::<char>(), special(), plain(), plain()], 0..40)
        .prop_map(|chars| chars.into_iter().collect())
}

/// The tokens of an id that is allowed, `many` at most.
fn id_tokens(many: usize) -> impl Strategy<Value = Vec<String>> {
    let token = text().prop_filter_map("not a token", |text| {
        let token: String = text.chars().filter(|c| !c.is_control()).take(12).collect();
        (!token.is_empty()).then_some(token)
    });
    vec(token, 1..=many)
        .prop_filter("too long", |tokens| tokens.iter().map(String::len).sum::<usize>() <= 128)
}
