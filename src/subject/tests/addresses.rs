//! Addresses: that each is read and written alike, and leads to where the data lies.

use proptest::prelude::*;

use super::{id_tokens, sales, text};
use crate::subject::{
    Address, AggregateId, AggregateType, ContextName, EventType, HeaderFilter, InvalidAddress,
    InvalidToken, Location, ModelType, Names, Pattern, SubjectScheme,
};

fn parse(text: &str) -> Result<Address, InvalidAddress> {
    Address::parse(&sales(), text)
}

fn names() -> Names {
    Names::of(&ContextName::new("sales").unwrap())
}

#[test]
fn every_form_leads_to_where_the_data_lies() {
    let stream = |event_type: Option<&str>, schema_version| Location::Stream {
        stream: "CIM-EVENTS-sales".to_owned(),
        subject: sales()
            .events_of(&AggregateType::new("order").unwrap(), &AggregateId::new("4.2").unwrap()),
        filter: HeaderFilter {
            event_type: event_type.map(|name| EventType::new(name).unwrap()),
            schema_version,
        },
    };
    let key =
        |bucket: &str, key: &str| Location::Key { bucket: bucket.to_owned(), key: key.to_owned() };
    for (text, location) in [
        ("cim.events.sales.order.4=2E2", stream(None, None)),
        ("cim.events.sales.order.4=2E2.placed", stream(Some("placed"), None)),
        ("cim.events.sales.order.4=2E2.placed.2", stream(Some("placed"), Some(2))),
        ("cim.aggregates.sales.order.4=2E2.state", key("cim-state-sales", "order.4=2E2")),
        ("cim.aggregates.sales.seat.main.7.state", key("cim-state-sales", "seat.main.7")),
        ("cim.aggregates.sales.order.state.state", key("cim-state-sales", "order.state")),
        ("cim.readmodels.order_summary.4=2E2", key("cim-readmodels-sales", "order_summary.4=2E2")),
        ("cim.readmodels.order_summary.eu.42", key("cim-readmodels-sales", "order_summary.eu.42")),
    ] {
        let address = parse(text).unwrap();
        assert_eq!(address.location(&sales(), &names()), location, "{text}");
        assert_eq!(address.subject(&sales()).as_str(), text);
    }
    assert_eq!(
        parse("cim.events.sales.order.1.placed.v2"),
        parse("cim.events.sales.order.1.placed.2")
    );
}

fn address() -> impl Strategy<Value = (Address, usize)> {
    let name = "[A-Za-z0-9_-]{1,64}";
    (0..4, name, id_tokens(4), name, proptest::option::of(any::<u32>())).prop_map(
        |(kind, name, tokens, event, schema_version)| {
            let id = AggregateId::from_tokens(&tokens).unwrap();
            let aggregate = AggregateType::new(&name).unwrap();
            let event_type = EventType::new(event).unwrap();
            let address = match kind {
                0 => Address::Events { aggregate, id },
                1 => Address::EventForm { aggregate, id, event_type, schema_version },
                2 => Address::State { aggregate, id },
                _ => Address::ReadModel { model: ModelType::new(name).unwrap(), id },
            };
            (address, tokens.len())
        },
    )
}

proptest! {
    #[test]
    fn an_address_is_read_back_as_it_was_written((address, ids) in address()) {
        let subject = address.subject(&sales());
        prop_assert_eq!(Address::parse_with_id_tokens(&sales(), subject.as_str(), ids), Ok(address));
    }

    #[test]
    fn parsing_any_text_gives_an_address_or_an_error(tail in text(), ids in any::<usize>()) {
        for prefix in ["", "cim.events.sales.", "cim.aggregates.sales.", "cim.readmodels."] {
            let text = format!("{prefix}{tail}");
            for ids in [ids, 1, 2] {
                if let Ok(address) = Address::parse_with_id_tokens(&sales(), &text, ids) {
                    let again = address.subject(&sales());
                    prop_assert_eq!(Address::parse_with_id_tokens(&sales(), again.as_str(), ids), Ok(address));
                }
            }
        }
    }
}

#[test]
fn the_longest_subject_of_the_longest_prefix_fits_into_a_pattern() {
    let prefix = ["a".repeat(63), "a".repeat(63), "a".repeat(63), "a".repeat(64)].join(".");
    let name = "n".repeat(64);
    let scheme = SubjectScheme::new(ContextName::new(&name).unwrap(), &prefix, &prefix).unwrap();
    let address = Address::EventForm {
        aggregate: AggregateType::new(&name).unwrap(),
        id: AggregateId::from_tokens(["="; 128]).unwrap(),
        event_type: EventType::new(&name).unwrap(),
        schema_version: Some(u32::MAX),
    };
    let subject = address.subject(&scheme);
    assert_eq!(subject.as_str().len(), 256 + 1 + 64 + 1 + 64 + 1 + 511 + 1 + 64 + 1 + 10);
    assert!(Pattern::parse(subject.as_str()).is_ok());
}

#[test]
fn with_one_prefix_for_both_a_state_is_still_a_state() {
    let scheme = SubjectScheme::new(ContextName::new("sales").unwrap(), "acme", "acme").unwrap();
    for text in ["acme.sales.order.42.state", "acme.sales.order.42", "acme.sales.order.42.placed.1"]
    {
        let address = Address::parse(&scheme, text).unwrap();
        assert_eq!(matches!(address, Address::State { .. }), text.ends_with(".state"), "{text}");
        assert_eq!(address.subject(&scheme).as_str(), text);
    }
}

#[test]
fn each_refusal_says_what_to_change() {
    for text in ["", "order.42", "cim.events.stock.order.42", "cim.events.sales", "cim.readmodels"]
    {
        let prefixes = ["cim.events.sales.", "cim.aggregates.sales.", "cim.readmodels."]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(parse(text), Err(InvalidAddress::Elsewhere { text: text.to_owned(), prefixes }));
    }
    let events = "cim.events.sales.<aggregate>.<id>, and .<event> or .<event>.<version> after it";
    for (text, form) in [
        ("cim.events.sales.order", events),
        ("cim.events.sales.order.42.placed.2.x", events),
        ("cim.aggregates.sales.order.42", "cim.aggregates.sales.<aggregate>.<id>.state"),
        ("cim.aggregates.sales.order.state", "cim.aggregates.sales.<aggregate>.<id>.state"),
        ("cim.readmodels.order_summary", "cim.readmodels.<type>.<id>"),
    ] {
        let (text, form) = (text.to_owned(), form.to_owned());
        assert_eq!(parse(&text), Err(InvalidAddress::Shape { text, form }));
    }
    let wildcard = |what| InvalidToken::Character { what, text: "*".to_owned(), found: '*' };
    let id = InvalidToken::Escape {
        text: "*".to_owned(),
        reason: "it holds a character that the escape would have replaced",
    };
    for (text, source) in [
        ("cim.events.sales.*.42", wildcard("aggregate type")),
        ("cim.events.sales.order.*", id.clone()),
        ("cim.events.sales.order.42.*", wildcard("event type")),
        ("cim.events.sales.order.", InvalidToken::Empty { what: "id" }),
        ("cim.aggregates.sales.order.*.state", id.clone()),
        ("cim.readmodels.*.42", wildcard("read model type")),
        ("cim.readmodels.order_summary.*", id),
    ] {
        assert_eq!(parse(text), Err(InvalidAddress::Token { text: text.to_owned(), source }));
    }
    for token in ["*", "02", "latest", ""] {
        let text = format!("cim.events.sales.order.42.placed.{token}");
        assert_eq!(parse(&text), Err(InvalidAddress::Version { text, token: token.to_owned() }));
    }
}

#[test]
fn an_error_does_not_carry_a_text_of_any_length() {
    for prefix in [
        "",
        "cim.events.sales.order.",
        "cim.aggregates.sales.",
        "cim.readmodels.",
        "cim.events.sales.o.1.e.",
    ] {
        let error = parse(&format!("{prefix}{}", "ä ".repeat(1 << 20))).unwrap_err();
        assert!(error.to_string().len() < 2_000, "{}", error.to_string().len());
    }
}
