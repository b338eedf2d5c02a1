//! Event patterns: that each means what its long form would match, and what is refused.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{sales, text};
use crate::subject::{
    AggregateId, AggregateType, EventPattern, EventType, HeaderFilter, InvalidPattern,
    InvalidToken, Pattern,
};

fn parse(text: &str) -> Result<EventPattern, InvalidPattern> {
    EventPattern::parse(&sales(), text)
}

fn of(event_type: Option<&str>, schema_version: Option<u32>) -> HeaderFilter {
    HeaderFilter {
        event_type: event_type.map(|name| EventType::new(name).unwrap()),
        schema_version,
    }
}

#[test]
fn what_is_written_is_split_into_subject_and_headers() {
    for (text, filter, headers, shortest) in [
        (">", ">", of(None, None), ">"),
        ("order.>", "order.>", of(None, None), "order.>"),
        ("*.>", "*.>", of(None, None), "*.>"),
        ("order.42", "order.42", of(None, None), "order.42"),
        ("order.*", "order.*", of(None, None), "order.*"),
        ("order.42.>", "order.42", of(None, None), "order.42"),
        ("order.42.*", "order.42", of(None, None), "order.42"),
        ("order.42.*.*", "order.42", of(None, None), "order.42"),
        ("order.*.placed", "order.*", of(Some("placed"), None), "order.*.placed"),
        ("order.*.placed.>", "order.*", of(Some("placed"), None), "order.*.placed"),
        ("order.*.placed.*", "order.*", of(Some("placed"), None), "order.*.placed"),
        ("order.*.placed.2", "order.*", of(Some("placed"), Some(2)), "order.*.placed.2"),
        ("order.*.placed.v2", "order.*", of(Some("placed"), Some(2)), "order.*.placed.2"),
        (
            "order.a=2Eb.placed.0",
            "order.a=2Eb",
            of(Some("placed"), Some(0)),
            "order.a=2Eb.placed.0",
        ),
        ("*.*.*.4294967295", "*.*", of(None, Some(u32::MAX)), "*.*.*.4294967295"),
    ] {
        let below = |tail: &str| format!("cim.events.sales.{tail}");
        let pattern = parse(&below(text)).unwrap();
        assert_eq!(pattern.server_filter().as_str(), below(filter), "{text}");
        assert_eq!(pattern.header_filter(), &headers, "{text}");
        assert_eq!(pattern.header_filter().is_any(), headers == HeaderFilter::default());
        assert_eq!(pattern.to_string(), below(shortest), "{text}");
    }
}

#[test]
fn ids_of_several_tokens_are_named_token_by_token() {
    let parse = |text: &str| EventPattern::parse_with_id_tokens(&sales(), text, 2).unwrap();
    let pattern = parse("cim.events.sales.seat.main.*.reserved.v3");
    assert_eq!(pattern.server_filter().as_str(), "cim.events.sales.seat.main.*");
    assert_eq!(pattern.header_filter(), &of(Some("reserved"), Some(3)));
    assert_eq!(
        parse("cim.events.sales.seat.main.>").server_filter().as_str(),
        "cim.events.sales.seat.main.>"
    );
    assert_eq!(
        parse("cim.events.sales.seat.a.b.>").server_filter().as_str(),
        "cim.events.sales.seat.a.b"
    );
    let none = EventPattern::parse_with_id_tokens(&sales(), "cim.events.sales.seat.a.reserved", 0);
    assert_eq!(none.unwrap().header_filter(), &of(Some("reserved"), None));
}

/// The definition: a pattern means the events whose long form the completed pattern matches.
fn matches_long_form(
    text: &str,
    ids: usize,
    subject: &str,
    event_type: &str,
    version: u32,
) -> bool {
    let complete = match text.split('.').count() - 3 {
        _ if text.ends_with('>') => text.to_owned(),
        n if n == 1 + ids => format!("{text}.>"),
        n if n == 2 + ids => format!("{text}.*"),
        _ => text.to_owned(),
    };
    Pattern::parse(&complete).unwrap().matches(&format!("{subject}.{event_type}.{version}"))
}

proptest! {
    #[test]
    fn a_pattern_means_the_events_whose_long_form_it_matches(
        ids in 1..4_usize,
        written in vec(prop_oneof![Just("a"), Just("b"), Just("1"), Just("2"), Just("*"), Just("*")], 1..7),
        tail in any::<bool>(),
        events in vec((vec("[ab12]", 4), "[ab12]", 1..3_u32), 40),
    ) {
        let mut text = format!("cim.events.sales.{}", written.join("."));
        if tail {
            text.push_str(".>");
        }
        let parsed = EventPattern::parse_with_id_tokens(&sales(), &text, ids);
        prop_assume!(parsed.is_ok());
        let pattern = parsed.unwrap();
        let again = EventPattern::parse_with_id_tokens(&sales(), &pattern.to_string(), ids);
        prop_assert_eq!(again.as_ref(), Ok(&pattern));
        for (tokens, event_type, version) in events {
            let id = AggregateId::from_tokens(&tokens[..ids]).unwrap();
            let subject = sales().events_of(&AggregateType::new(&tokens[3]).unwrap(), &id);
            let subject = subject.as_str();
            prop_assert_eq!(
                pattern.matches(subject, &event_type, version),
                matches_long_form(&text, ids, subject, &event_type, version),
                "{} {}.{}.{}", text, subject, event_type, version
            );
        }
    }

    #[test]
    fn parsing_any_text_gives_a_pattern_or_an_error(tail in text(), ids in any::<usize>()) {
        let _ = parse(&tail);
        let text = format!("cim.events.sales.{tail}");
        for ids in [ids, 1, 2] {
            if let Ok(pattern) = EventPattern::parse_with_id_tokens(&sales(), &text, ids) {
                let again = EventPattern::parse_with_id_tokens(&sales(), &pattern.to_string(), ids);
                prop_assert_eq!(again, Ok(pattern));
            }
        }
    }
}

#[test]
fn each_refusal_says_what_to_change() {
    let below = |tail: &str| format!("cim.events.sales.{tail}");
    let refused = |tail: &str| parse(&below(tail)).unwrap_err();
    for text in [
        ">",
        "cim.>",
        "cim.events.*.order.42",
        "cim.events.sales",
        "cim.events.salesman.>",
        "acme.sales.order.42",
    ] {
        let prefix = "cim.events.sales.".to_owned();
        assert_eq!(
            parse(text),
            Err(InvalidPattern::OtherContext { pattern: text.to_owned(), prefix })
        );
    }
    for tail in ["order", "*"] {
        assert_eq!(refused(tail), InvalidPattern::TooShort { pattern: below(tail), id_tokens: 1 });
    }
    for (tail, token) in
        [("order.1.placed.2.x", "x"), ("order.1.placed.2.>", ">"), ("order.1.*.*.*.*", "*")]
    {
        let (pattern, token) = (below(tail), token.to_owned());
        assert_eq!(refused(tail), InvalidPattern::TooManyTokens { pattern, token, id_tokens: 1 });
    }
    for token in ["two", "v", "V2", "02", "v02", "+2", "-1", "2.0", "4294967296", "vv2"] {
        let tail = format!("order.1.placed.{token}");
        match refused(&tail) {
            InvalidPattern::Version { pattern, token: found } => {
                assert_eq!((pattern, found.as_str()), (below(&tail), token))
            }
            InvalidPattern::TooManyTokens { .. } => assert_eq!(token, "2.0"),
            other => panic!("{other}"),
        }
    }
    let name =
        |what, text: &str, found| InvalidToken::Character { what, text: text.to_owned(), found };
    let lower = InvalidToken::Escape {
        text: "a=2e".to_owned(),
        reason: "the escape writes this id in another way",
    };
    for (tail, source) in [
        ("a=2E.1", name("aggregate type", "a=2E", '=')),
        ("order.1.pl=61ced", name("event type", "pl=61ced", '=')),
        ("order.a=2e", lower.clone()),
        ("order.a=2e.>", lower),
    ] {
        assert_eq!(refused(tail), InvalidPattern::Token { pattern: below(tail), source });
    }
    assert_eq!(
        refused("order..1"),
        InvalidPattern::EmptyToken { pattern: below("order..1"), position: 5 }
    );
}
