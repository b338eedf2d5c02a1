//! Tests of which settings of a stream are accepted and which are named as wrong.

use serde_json::json;

use super::*;
use crate::subject::{ContextName, Names};

fn scheme() -> SubjectScheme {
    SubjectScheme::new(ContextName::new("sales").unwrap(), "cim.events", "cim.aggregates").unwrap()
}

fn events() -> StreamSpec {
    StreamSpec::events("CIM-EVENTS-sales", &scheme(), Replicas::Three).unwrap()
}

fn bucket() -> StreamSpec {
    StreamSpec::bucket("cim-state-sales", Replicas::Three).unwrap()
}

fn timeouts() -> StreamSpec {
    StreamSpec::timeouts("CIM-TIMEOUTS-sales", &scheme(), Replicas::Three).unwrap()
}

type Spoil = fn(&mut StreamSettings);

/// What spoils any of our streams, and what is said about it.
const SPOILS_BOTH: &[(Spoil, &str)] = &[
    (|s| s.retention = Retention::Interest, "retention must be limits and is interest"),
    (|s| s.retention = Retention::WorkQueue, "retention must be limits and is workqueue"),
    (|s| s.discard = Discard::Old, "discard must be new and is old"),
    (|s| s.storage = Storage::Memory, "storage must be file and is memory"),
    (|s| s.no_ack = true, "no_ack must be false and is true"),
    (|s| s.sealed = true, "sealed must be false and is true"),
    (|s| s.deny_delete = false, "deny_delete must be true and is false"),
    (|s| s.allow_direct = false, "allow_direct must be true and is false"),
    (|s| s.allow_atomic = false, "allow_atomic must be true and is false"),
    (|s| s.allow_msg_counter = true, "allow_msg_counter must be false and is true"),
    (|s| s.max_msgs = Some(9), "max_msgs must be unset and is 9"),
    (|s| s.max_bytes = Some(9), "max_bytes must be unset and is 9"),
    (|s| s.max_age = Some(Duration::from_secs(9)), "max_age must be unset and is 9s"),
    (|s| s.mirror = Some(json!({"name": "X"})), r#"mirror must be unset and is {"name":"X"}"#),
    (|s| s.sources = Some(json!([1])), "sources must be unset and is [1]"),
    (|s| s.subject_transform = Some(json!({})), "subject_transform must be unset and is {}"),
    (|s| s.persist_mode = Some("async".into()), "persist_mode must be default and is async"),
    (|s| s.max_msg_size = Some(1024), "max_msg_size must be at least 1048576 and is 1024"),
    (|s| s.max_consumers = Some(99), "max_consumers must be at least 100 and is 99"),
    (|s| s.num_replicas = 1, "num_replicas must be at least 3 and is 1"),
];

const SPOILS_EVENTS: &[(Spoil, &str)] = &[
    (
        |s| s.duplicate_window = Some(Duration::from_secs(119)),
        "duplicate_window must be at least 120s and is 119s",
    ),
    (|s| s.duplicate_window = None, "duplicate_window must be at least 120s and is 0ns"),
    (|s| s.deny_purge = false, "deny_purge must be true and is false"),
    (|s| s.allow_rollup = true, "allow_rollup_hdrs must be false and is true"),
    (|s| s.allow_msg_ttl = true, "allow_msg_ttl must be false and is true"),
    (|s| s.max_msgs_per_subject = Some(9), "max_msgs_per_subject must be unset and is 9"),
    (|s| s.allow_msg_schedules = true, "allow_msg_schedules must be false and is true"),
    (
        |s| s.subjects = vec!["cim.events.sales.*".into(), "cim.*.shop.>".into()],
        "subjects must be covering cim.events.sales.> and is cim.events.sales.* cim.*.shop.>, \
         subjects must be covering cim.outbox.sales.> and is cim.events.sales.* cim.*.shop.>, \
         subjects must be covering cim.unique.sales.> and is cim.events.sales.* cim.*.shop.>",
    ),
];

const SPOILS_TIMEOUTS: &[(Spoil, &str)] = &[
    (|s| s.deny_purge = true, "deny_purge must be false and is true"),
    (|s| s.allow_rollup = false, "allow_rollup_hdrs must be true and is false"),
    (|s| s.allow_msg_ttl = true, "allow_msg_ttl must be false and is true"),
    (|s| s.max_msgs_per_subject = Some(9), "max_msgs_per_subject must be unset and is 9"),
    (|s| s.allow_msg_schedules = false, "allow_msg_schedules must be true and is false"),
    (|s| s.max_msgs = Some(9), "max_msgs must be unset and is 9"),
    (|s| s.max_age = Some(Duration::from_secs(9)), "max_age must be unset and is 9s"),
    (|s| s.max_consumers = Some(1), "max_consumers must be at least 100 and is 1"),
    (|s| s.num_replicas = 1, "num_replicas must be at least 3 and is 1"),
    (
        |s| s.subjects = vec!["cim.timeouts.sales.at.>".into()],
        "subjects must be covering cim.timeouts.sales.due.> and is cim.timeouts.sales.at.>",
    ),
];

const SPOILS_BUCKET: &[(Spoil, &str)] = &[
    (|s| s.allow_rollup = false, "allow_rollup_hdrs must be true and is false"),
    (
        |s| s.subjects = vec!["$KV.x.>".into()],
        "subjects must be covering $KV.cim-state-sales.> and is $KV.x.>",
    ),
];

fn said(spec: &StreamSpec, spoil: Spoil) -> String {
    let mut settings = spec.settings().clone();
    spoil(&mut settings);
    let wrong = spec.check(&settings).err().unwrap_or_default();
    wrong.iter().map(SettingMismatch::to_string).collect::<Vec<_>>().join(", ")
}

#[test]
fn every_setting_that_can_lose_data_is_refused_by_name() {
    for (spoil, wanted) in SPOILS_BOTH.iter().chain(SPOILS_EVENTS) {
        assert_eq!(said(&events(), *spoil), *wanted);
    }
    for (spoil, wanted) in SPOILS_BOTH.iter().chain(SPOILS_BUCKET) {
        assert_eq!(said(&bucket(), *spoil), *wanted);
    }
    for (spoil, wanted) in SPOILS_TIMEOUTS {
        assert_eq!(said(&timeouts(), *spoil), *wanted);
    }
}

#[test]
fn harmless_differences_are_accepted() {
    let harmless: &[Spoil] = &[
        |_| {},
        |s| s.num_replicas = 5,
        |s| s.max_consumers = None,
        |s| s.max_consumers = Some(100),
        |s| s.duplicate_window = Some(Duration::from_secs(240)),
        |s| s.max_msg_size = Some(MIN_MESSAGE_BYTES),
        |s| s.subjects = vec![">".into()],
    ];
    for spoil in harmless {
        assert_eq!(said(&events(), *spoil), "");
        assert_eq!(said(&bucket(), *spoil), "");
        assert_eq!(said(&timeouts(), *spoil), "");
    }
    assert_eq!(said(&events(), |s| s.subjects = vec!["cim.*.sales.>".into()]), "");
    assert_eq!(said(&bucket(), |s| s.max_msgs_per_subject = Some(8)), "");
    // Only the stream of the events takes messages that nothing but their ids guards.
    for spec in [bucket(), timeouts()] {
        assert_eq!(said(&spec, |s| s.duplicate_window = Some(Duration::from_secs(1))), "");
    }
}

#[test]
fn the_json_is_jetstreams() {
    let json = serde_json::to_value(events().settings()).unwrap();
    for (field, wanted) in [
        ("subjects", json!(["cim.events.sales.>", "cim.outbox.sales.>", "cim.unique.sales.>"])),
        ("retention", json!("limits")),
        ("max_msgs", json!(-1)),
        ("max_age", json!(0)),
        ("max_consumers", json!(100_000)),
        ("duplicate_window", json!(120_000_000_000_u64)),
        ("allow_rollup_hdrs", json!(false)),
        ("allow_atomic", json!(true)),
    ] {
        assert_eq!(json[field], wanted, "{field}");
    }
    assert_eq!(json.get("mirror"), None);
    let back: StreamSettings = serde_json::from_value(json).unwrap();
    assert_eq!(&back, events().settings());
}

#[test]
fn names_are_checked_before_anything_is_asked() {
    let long = "x".repeat(241);
    for name in ["", "a.b", "a b", "a*", "a/b", "ä", &long] {
        let error = StreamSpec::events(name, &scheme(), Replicas::One).unwrap_err().to_string();
        let wanted = "must have 1 to 240 characters of A-Z a-z 0-9 _ and -; choose another name";
        assert_eq!(error, format!("stream name {name:?} {wanted}"));
        let error = StreamSpec::bucket(name, Replicas::One).unwrap_err().to_string();
        assert_eq!(error, format!("bucket name {name:?} {wanted}"));
    }
    let mut names = Names::of(scheme().context());
    names.meta_bucket = names.state_bucket.clone();
    let error = crate::backend::Topology::new(&scheme(), &names, Replicas::One).unwrap_err();
    assert_eq!(
        error.to_string(),
        "two buckets are called \"cim-state-sales\"; give each a name of its own"
    );
    let error = Replicas::try_from(2).unwrap_err();
    assert_eq!(error.to_string(), "2 replicas are not possible; choose 1, 3 or 5");
}
