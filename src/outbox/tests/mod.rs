//! Tests of what is pure: topics, attributes as headers, messages as they are stored and read back.

mod lanes;

use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::backend::{Guard, NewMessage, Position, StoredMessage};
use crate::clock::Timestamp;
use crate::event::{Headers, Metadata};
use crate::store::{CommitInfo, Context, NatsRepositoryConfig, Ports};

fn context() -> Context {
    Context::on(Ports::in_memory(), &NatsRepositoryConfig::for_context("bank")).unwrap()
}

fn topic(text: &str) -> Topic {
    Topic::new(text).unwrap()
}

fn message() -> OutboxMessage {
    OutboxMessage::json(topic("orders.placed"), "com.example.placed", &json!({"cents": 950}))
        .unwrap()
}

fn stored(message: NewMessage) -> StoredMessage {
    StoredMessage {
        subject: message.subject,
        position: Position::new(1),
        time: Timestamp::from_micros(1),
        headers: message.headers,
        payload: message.payload,
    }
}

#[test]
fn a_topic_is_made_of_names() {
    for text in ["a", "orders.placed", "A-Z_0.9"] {
        assert_eq!(topic(text).to_string(), text);
    }
    let long = "x".repeat(MAX_TOPIC_BYTES + 1);
    for text in ["", ".", "a.", ".a", "a..b", "a.*", "a.>", "=timeouts", "a b", "ä", &long] {
        let error = Topic::new(text).unwrap_err();
        assert_eq!(error.text, text.chars().take(MAX_TOPIC_BYTES).collect::<String>());
    }
    assert!(topic("orders.placed").is_within(&topic("orders")));
    assert!(topic("orders").is_within(&topic("orders")));
    assert!(!topic("ordersplaced").is_within(&topic("orders")));
    assert!(!topic("orders").is_within(&topic("orders.placed")));
}

#[tokio::test]
async fn a_message_is_stored_as_the_binding_says() {
    let context = context();
    let metadata =
        Metadata::new([("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]);
    let (correlation, causation) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let info = CommitInfo {
        metadata: metadata.unwrap(),
        correlation_id: Some(correlation),
        causation_id: Some(causation),
    };
    let id = Uuid::from_u128(3);
    let message = message()
        .with_id(id)
        .with_key("order 42")
        .with_subject("Euro € 😀")
        .with_extension("tenant", "100%");
    let encoded = message.encode(&context, &info).unwrap();
    assert_eq!(encoded.subject.as_str(), "cim.outbox.bank.orders.placed");
    assert_eq!(encoded.guard, Guard::Free);
    assert_eq!(encoded.payload, r#"{"cents":950}"#);
    let headers: Vec<_> = encoded.headers.iter().filter(|(name, _)| *name != "ce-time").collect();
    assert_eq!(
        headers,
        [
            ("Nats-Msg-Id", "00000000-0000-0000-0000-000000000003"),
            ("ce-specversion", "1.0"),
            ("ce-id", "00000000-0000-0000-0000-000000000003"),
            ("ce-source", "cim://bank"),
            ("ce-type", "com.example.placed"),
            ("ce-datacontenttype", "application/json"),
            ("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ("ce-partitionkey", "order%2042"),
            ("ce-correlationid", "00000000-0000-0000-0000-000000000001"),
            ("ce-causationid", "00000000-0000-0000-0000-000000000002"),
            ("ce-tenant", "100%25"),
            ("ce-traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ]
    );
}

#[tokio::test]
async fn a_message_is_read_back_as_it_was_sent() {
    let context = context();
    let before = context.clock().now();
    let message =
        message().with_key("k\"1").with_subject("ä%").with_source("/shop").with_extension("x", "1");
    let encoded = message.encode(&context, &CommitInfo::default()).unwrap();
    let event = CloudEvent::read(&stored(encoded.clone())).unwrap();
    assert_eq!(Uuid::parse_str(&event.id).unwrap().get_version_num(), 7);
    assert_eq!(encoded.headers.get("Nats-Msg-Id"), Some(event.id.as_str()));
    assert!(event.time.unwrap() >= before);
    assert_eq!(event.json::<serde_json::Value>().unwrap(), json!({"cents": 950}));
    assert_eq!(
        (event.source, event.event_type, event.subject, event.content_type, event.key),
        (
            "/shop".to_owned(),
            "com.example.placed".to_owned(),
            Some("ä%".to_owned()),
            Some("application/json".to_owned()),
            Some("k\"1".to_owned()),
        )
    );
    assert_eq!(event.extensions, [("x".to_owned(), "1".to_owned())].into());
    // Stored twice it is two messages.
    let again = message.encode(&context, &CommitInfo::default()).unwrap();
    assert_ne!(again.headers.get("ce-id"), encoded.headers.get("ce-id"));
}

#[tokio::test]
async fn what_no_event_may_hold_is_refused_by_name() {
    let context = context();
    let long = "x".repeat(MAX_ATTRIBUTE_BYTES + 1);
    let bytes = |media: &str| OutboxMessage::bytes(topic("t"), "t", media, "");
    let refused = [
        (message().with_subject(""), "subject"),
        (message().with_subject("a\nb"), "subject"),
        (message().with_subject("\u{FFFF}"), "subject"),
        (message().with_key(long), "partitionkey"),
        (message().with_source("a b"), "source"),
        (OutboxMessage::bytes(topic("t"), "", "text/plain", ""), "type"),
        (message().with_extension("Tenant", "1"), "Tenant"),
        (message().with_extension("", "1"), ""),
        (message().with_extension("a".repeat(21), "1"), "aaaaaaaaaaaaaaaaaaaaa"),
        (message().with_extension("id", "1"), "id"),
        (message().with_extension("data", "1"), "data"),
        (message().with_extension("partitionkey", "1"), "partitionkey"),
        (bytes("text"), "datacontenttype"),
        (bytes("text/plain\r\nx: y"), "datacontenttype"),
        (bytes("Application/CloudEvents+json"), "datacontenttype"),
    ];
    for (message, attribute) in refused {
        match message.encode(&context, &CommitInfo::default()) {
            Err(OutboxError::Attribute { name, .. }) => assert_eq!(name, attribute),
            other => panic!("{attribute}: {other:?}"),
        }
    }
    let bad =
        OutboxMessage::json(topic("t"), "t", &std::collections::BTreeMap::from([((1, 2), 3)]));
    assert_eq!(
        bad.unwrap_err().to_string(),
        r#"the data of outbox message "t" is not JSON: key must be a string"#
    );
}

fn headers(list: &[(&'static str, &str)]) -> Headers {
    list.iter().copied().collect()
}

#[test]
fn what_others_wrote_is_read_or_refused() {
    let full = [
        ("CE-SpecVersion", "1.0"),
        ("Ce-Id", "\"quoted \\\"id\\\"\""),
        ("ce-source", "/a"),
        ("ce-type", "t"),
        ("ce-time", "2018-04-05T03:56:24+02:00"),
        ("ce-subject", "%e2%82%AC%41"),
        ("Content-Type", "application/json"),
    ];
    let event = CloudEvent::from_parts(&headers(&full), "".into()).unwrap();
    assert_eq!(event.id, "quoted \"id\"");
    assert_eq!(event.time, Some(Timestamp::from_micros(1_522_893_384_000_000)));
    assert_eq!(event.subject.as_deref(), Some("€A"));
    assert_eq!(event.extensions, Default::default());

    let with = |name: &'static str, value: &'static str| {
        let others = full.into_iter().filter(|(other, _)| !other.eq_ignore_ascii_case(name));
        let list: Vec<_> = others.chain([(name, value)]).collect();
        CloudEvent::from_parts(&headers(&list), "".into()).unwrap_err()
    };
    let attribute = |name: &str, value: &str| InvalidCloudEvent::Attribute {
        name: name.into(),
        value: value.into(),
    };
    assert_eq!(with("ce-id", ""), InvalidCloudEvent::Missing { name: "id" });
    assert_eq!(with("ce-specversion", "0.3"), InvalidCloudEvent::Version { found: "0.3".into() });
    assert_eq!(with("ce-time", "yesterday"), attribute("time", "yesterday"));
    assert_eq!(with("ce-time", "1969-01-01T00:00:00Z"), attribute("time", "1969-01-01T00:00:00Z"));
    for value in ["%C0%A0", "%2", "%", "%zz", "%+1", "\"open", "\"a\"b"] {
        assert_eq!(with("ce-subject", value), attribute("subject", value));
    }
    assert_eq!(with("content-type", "APPLICATION/cloudevents+json"), InvalidCloudEvent::Structured);
    assert_eq!(
        CloudEvent::from_parts(&headers(&full[1..]), "".into()),
        Err(InvalidCloudEvent::Missing { name: "specversion" })
    );
}

proptest! {
    #[test]
    fn any_text_survives_being_a_header(text in any::<String>()) {
        let header = percent::encode(&text);
        prop_assert!(header.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'));
        prop_assert_eq!(percent::decode(&header), Some(text));
    }

    #[test]
    fn no_header_makes_a_reader_panic(header in any::<String>()) {
        let _ = percent::decode(&header);
    }
}
