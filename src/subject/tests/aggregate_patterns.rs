//! Aggregate patterns: that each form means the aggregates whose subject, address or key it matches.

use proptest::prelude::*;

use super::{id_tokens, sales, text};
use crate::subject::{
    AggregateId, AggregatePattern, AggregateType, InvalidPattern, InvalidToken, Pattern,
    SubjectScheme,
};

fn order() -> AggregateType {
    AggregateType::new("order").unwrap()
}

fn parse(text: &str) -> Result<AggregatePattern, InvalidPattern> {
    AggregatePattern::parse(&sales(), &order(), text)
}

/// All texts of 1 to `longest` of these tokens.
fn texts(tokens: &[&str], longest: usize) -> Vec<String> {
    let mut last = vec![String::new()];
    let mut all = Vec::new();
    for _ in 0..longest {
        last = last
            .iter()
            .flat_map(|text| tokens.iter().map(move |token| format!("{text}.{token}")))
            .collect();
        all.extend(last.iter().map(|text| text[1..].to_owned()));
    }
    all
}

/// The subject, the address and the key of one order.
fn forms(id: &AggregateId) -> [String; 3] {
    let scheme = sales();
    [
        scheme.events_of(&order(), id).to_string(),
        scheme.state_of(&order(), id).to_string(),
        SubjectScheme::key_of(&order(), id),
    ]
}

#[test]
fn each_form_means_what_it_matches_and_is_refused_when_that_is_nothing() {
    let ids: Vec<AggregateId> = texts(&["a", "b", "state"], 4)
        .iter()
        .map(|id| AggregateId::from_escaped(id).unwrap())
        .collect();
    let mut kinds = [0, 0];
    for (form, prefix) in ["cim.events.sales.", "cim.aggregates.sales.", ""].iter().enumerate() {
        for tail in texts(&["order", "a", "state", "*", ">"], 4) {
            let text = format!("{prefix}{tail}");
            let Ok(whole) = Pattern::parse(&text) else { continue };
            let wanted: Vec<_> = ids.iter().filter(|id| whole.matches(&forms(id)[form])).collect();
            let Ok(pattern) = parse(&text) else {
                assert!(wanted.is_empty(), "{text} is refused but means {wanted:?}");
                kinds[0] += 1;
                continue;
            };
            kinds[1] += 1;
            let found: Vec<_> = ids.iter().filter(|id| pattern.matches(id)).collect();
            assert_eq!(found, wanted, "{text}");
            for id in &ids {
                let [subject, _, key] = forms(id);
                let times = |patterns: &[Pattern], text: &str| {
                    patterns.iter().filter(|pattern| pattern.matches(text)).count()
                };
                let once = usize::from(pattern.matches(id));
                assert_eq!(times(pattern.subjects(), &subject), once, "{text} {subject}");
                assert_eq!(times(pattern.keys(), &key), once, "{text} {key}");
            }
        }
    }
    assert!(kinds[0] > 100 && kinds[1] > 100, "{kinds:?}");
}

#[test]
fn what_means_no_order_is_refused_and_says_why() {
    let others = |pattern: &str| InvalidPattern::OtherAggregates {
        pattern: pattern.to_owned(),
        prefixes: ["cim.events.sales.order.", "cim.aggregates.sales.order.", "order."]
            .map(str::to_owned)
            .into(),
    };
    for text in [
        "cim.events.shop.order.*",
        "cim.events.*.order.*",
        "cim.events.sales.invoice.*",
        "cim.aggregates.shop.order.*.state",
        "cim.aggregates.sales.invoice.>",
        "invoice.>",
        "cim.>",
    ] {
        assert_eq!(parse(text).unwrap_err(), others(text));
    }
    assert_eq!(
        parse("invoice.*").unwrap_err().to_string(),
        "pattern \"invoice.*\" means none of these aggregates; begin it with one of \
         cim.events.sales.order., cim.aggregates.sales.order., order."
    );
    for text in ["order", "*", "cim.events.sales.order", "cim.aggregates.sales.*"] {
        assert_eq!(parse(text).unwrap_err(), InvalidPattern::NoId { pattern: text.to_owned() });
    }
    for tail in ["42", "*", "state", "42.status"] {
        let pattern = format!("cim.aggregates.sales.order.{tail}");
        assert_eq!(parse(&pattern).unwrap_err(), InvalidPattern::NoState { pattern });
    }
    assert_eq!(
        parse("order.a=2").unwrap_err(),
        InvalidPattern::Token {
            pattern: "order.a=2".into(),
            source: InvalidToken::Escape { text: "a=2".into(), reason: "it ends within an escape" },
        }
    );
    let wide = format!("order.{}", "*.".repeat(505) + ">");
    let error = parse(&wide).unwrap_err();
    assert_eq!(error, InvalidPattern::TooLong { actual: wide.len() + 17, max: 1024 });
    assert_eq!(
        parse("cim.aggregates.sales.order.a.>").unwrap().to_string(),
        "order.a or order.a.>"
    );
}

#[test]
fn one_prefix_for_events_and_states_is_told_apart_by_the_end() {
    let sales = crate::subject::ContextName::new("sales").unwrap();
    let scheme = SubjectScheme::new(sales, "cim", "cim").unwrap();
    let parse = |text| AggregatePattern::parse(&scheme, &order(), text).unwrap();
    assert_eq!(parse("cim.sales.order.*.state"), parse("order.*"));
    assert_eq!(parse("cim.sales.order.*.*"), parse("order.*.*"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in text()) {
        for text in [text.clone(), format!("order.{text}"), format!("cim.aggregates.sales.{text}")] {
            if let Ok(pattern) = parse(&text) {
                prop_assert!(!pattern.keys().is_empty());
                prop_assert_eq!(pattern.keys().len(), pattern.subjects().len());
            }
        }
    }

    #[test]
    fn every_id_is_meant_by_its_own_forms_and_by_all(tokens in id_tokens(4), other in id_tokens(4)) {
        let id = AggregateId::from_tokens(tokens).unwrap();
        let other = AggregateId::from_tokens(other).unwrap();
        prop_assert!(AggregatePattern::all(&sales(), &order()).matches(&id));
        for form in forms(&id) {
            let pattern = parse(&form).unwrap();
            prop_assert!(pattern.matches(&id));
            prop_assert_eq!(pattern.matches(&other), id == other);
        }
    }
}
