//! Literal subjects: all that the crate writes is taken, and nothing else than what a pattern without wildcards is.

use proptest::prelude::*;
use uuid::Uuid;

use super::{id_tokens, sales, text};
use crate::subject::{
    Address, AggregateId, AggregateType, ConstraintName, EventType, InvalidSubject,
    MAX_PATTERN_BYTES, ModelType, Pattern, Subject, TimeoutAddress, TimeoutSubjects,
};

/// Every subject that the scheme and the timeouts make of one name and one id.
fn made_of(name: &str, id: &AggregateId) -> Vec<Subject> {
    let (scheme, aggregate) = (sales(), AggregateType::new(name).unwrap());
    let timeouts = TimeoutSubjects::of(scheme.context());
    let timeout = TimeoutAddress::new(name, id, name).unwrap();
    let form = Address::EventForm {
        aggregate: aggregate.clone(),
        id: id.clone(),
        event_type: EventType::new(name).unwrap(),
        schema_version: Some(7),
    };
    vec![
        scheme.events_of(&aggregate, id),
        scheme.state_of(&aggregate, id),
        scheme.read_model(&ModelType::new(name).unwrap(), id),
        scheme.claims_on(&ConstraintName::new(name).unwrap(), id),
        scheme.asserted(),
        scheme.anchor(Uuid::from_u128(7)),
        timeouts.scheduled(&timeout),
        timeouts.due(&timeout),
        form.subject(&scheme),
    ]
}

proptest! {
    #[test]
    fn every_subject_that_is_made_parses_to_itself(
        name in "[A-Za-z0-9_-]{1,64}",
        tokens in id_tokens(4),
    ) {
        for subject in made_of(&name, &AggregateId::from_tokens(&tokens).unwrap()) {
            prop_assert_eq!(Subject::parse(subject.as_str()), Ok(subject.clone()));
            prop_assert_eq!(subject.to_string().parse(), Ok(subject));
        }
    }

    #[test]
    fn any_text_is_a_subject_when_it_is_a_pattern_without_wildcards(text in text()) {
        let is_literal = Pattern::parse(&text).is_ok_and(|pattern| pattern.is_literal());
        match Subject::parse(&text) {
            Ok(subject) => prop_assert!(is_literal && subject.as_str() == text),
            Err(error) => prop_assert!(!is_literal, "{error}"),
        }
    }
}

#[test]
fn subjects_that_other_modules_write_are_taken() {
    for text in [
        "cim.outbox.sales.orders.placed",
        "cim.outbox.sales.=timeouts.shipping",
        "cim.unique.sales.email.kim=40example=2Eorg",
        "cim.unique.sales.=process.shipping.42",
        "cim.reshape.CIM-EVENTS-sales.cim.events.sales.order.42",
        "$KV.cim-state-sales.order.42",
        "$JS.API.INFO",
        "order",
    ] {
        assert_eq!(Subject::parse(text).unwrap().as_str(), text);
    }
    assert!(Subject::parse(&"a".repeat(MAX_PATTERN_BYTES + 1)).is_ok());
}

#[test]
fn each_refusal_says_what_and_where() {
    let refused = |text: &str| Subject::parse(text).unwrap_err();
    assert_eq!(refused(""), InvalidSubject::Empty);
    for (text, found) in [("a b", ' '), ("a.\tb", '\t'), ("a\u{0}", '\u{0}'), ("a\u{A0}", '\u{A0}')]
    {
        assert_eq!(refused(text), InvalidSubject::Character { subject: text.to_owned(), found });
    }
    for (text, position) in [(".", 1), (".a", 1), ("a.", 2), ("a..b", 2)] {
        let error = InvalidSubject::EmptyToken { subject: text.to_owned(), position };
        assert_eq!(refused(text), error);
    }
    for (text, position, found) in [("*", 1, '*'), ("a.>", 2, '>'), ("a.b*c", 2, '*')] {
        let error = InvalidSubject::Wildcard { subject: text.to_owned(), position, found };
        assert_eq!(refused(text), error);
    }
    assert_eq!(
        refused("a.>").to_string(),
        "token 2 of subject \"a.>\" holds '>'; take it for a pattern, or write =2A and =3E for the characters * and >"
    );
    let long = refused(&format!("{} ", "ä".repeat(300))).to_string();
    assert!(long.contains(&format!("\"{}…\"", "ä".repeat(256))), "{long}");
}
