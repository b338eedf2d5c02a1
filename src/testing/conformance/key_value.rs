//! What every [`KeyValue`] promises.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use cim_persistence::state::{KeyValue, MemoryKeyValue};
//! use cim_persistence::testing::conformance::key_value;
//!
//! key_value::run(async || Arc::new(MemoryKeyValue::new("sales-state")) as Arc<dyn KeyValue>).await;
//! # Ok(())
//! # }
//! ```

mod watches;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;

use super::{Broken, Case, cases, promise, promise_eq, promise_refused, run_all};
use crate::backend::{BackendError, ReadFrom};
use crate::event::NonEmpty;
use crate::state::{Change, Entry, Expected, Key, KeyValue, KeyWrite, Slot};
use crate::subject::Pattern;

type Bucket = Arc<dyn KeyValue>;
type Outcome = Result<(), Broken>;

/// Every promise of a bucket.
pub fn cases() -> Vec<Case<Bucket>> {
    cases![
        unset_key_has_revision_zero,
        change_is_seen,
        delete_keeps_the_revision_growing,
        creation_is_accepted_once,
        one_of_many_writers_wins,
        exact_revision_is_accepted,
        revision_behind_or_ahead_is_refused,
        one_refusal_refuses_all,
        revisions_are_returned_in_order,
        thousand_keys_are_written_at_once,
        many_are_read_in_the_order_asked,
        thousand_keys_are_read_at_once,
        keys_are_found_by_pattern,
        any_bytes_are_a_value,
        last_revision_is_that_of_the_last_change,
        watches::revision_of_another_key_is_asserted,
        watches::headers_come_back,
        watches::entries_are_found_by_pattern,
        watches::no_more_than_one_answer_holds,
        newest_of_a_pattern_is_the_last_change,
        watches::keys_come_first_and_then_their_changes,
        watches::watcher_sees_deleted_keys,
        watches::empty_bucket_is_caught_up_at_once,
        watches::watcher_begins_after_a_revision_and_now,
        watches::last_change_of_a_key_comes,
        watches::many_keys_are_watched_whole,
        watches::key_that_is_set_while_a_watch_begins_is_seen,
        watches::keys_that_are_changed_before_their_turn_are_not_passed_over,
    ]
}

/// Checks every promise, each on a bucket of its own that `make` returns new and empty.
///
/// # Panics
/// When a promise is broken, with the names of all that are.
pub async fn run(make: impl AsyncFn() -> Arc<dyn KeyValue>) {
    run_all(&cases(), make).await;
}

async fn unset_key_has_revision_zero(bucket: Bucket) -> Outcome {
    for from in [ReadFrom::Leader, ReadFrom::Nearest] {
        let slot = bucket.get(&key("unset"), from).await?;
        promise_eq!(slot, Slot { revision: 0, value: None }, "an unset key from {from:?}");
    }
    let slots = bucket.get_many(&[key("unset"), key("too")]).await?;
    promise_eq!(slots, [Slot::default(), Slot::default()], "two unset keys");
    promise_eq!(bucket.keys(">").await?, [], "the keys of an empty bucket");
    Ok(())
}

async fn change_is_seen(bucket: Bucket) -> Outcome {
    let name = key("order.42");
    for value in ["first", "second"] {
        let revision = change(&bucket, put("order.42", value, Expected::Anything)).await?;
        for from in [ReadFrom::Leader, ReadFrom::Nearest] {
            let slot = bucket.get(&name, from).await?;
            let wanted = Slot { revision, value: Some(value.into()) };
            promise_eq!(slot, wanted, "what was written, from {from:?}");
        }
    }
    promise_eq!(bucket.get(&key("order.4"), ReadFrom::Leader).await?, Slot::default(), "another");
    Ok(())
}

async fn delete_keeps_the_revision_growing(bucket: Bucket) -> Outcome {
    let first = change(&bucket, put("a", "value", Expected::Revision(0))).await?;
    let deleted = change(&bucket, delete("a", Expected::Revision(first))).await?;
    promise!(deleted > first, "revision {deleted} of the delete follows {first}");
    for from in [ReadFrom::Leader, ReadFrom::Nearest] {
        let slot = bucket.get(&key("a"), from).await?;
        promise_eq!(slot, Slot { revision: deleted, value: None }, "a deleted key");
    }
    for wrong in [0, first] {
        let refused = change(&bucket, put("a", "again", Expected::Revision(wrong))).await;
        promise_refused!(refused, BackendError::Conflict { .. }, "revision {wrong}");
    }
    let again = change(&bucket, put("a", "again", Expected::Revision(deleted))).await?;
    promise!(again > deleted, "revision {again} follows {deleted}");
    change(&bucket, delete("never", Expected::Anything)).await?;
    let slot = bucket.get(&key("never"), ReadFrom::Leader).await?;
    promise!(slot.revision > again && slot.value.is_none(), "a delete of an unset key: {slot:?}");
    Ok(())
}

async fn last_revision_is_that_of_the_last_change(bucket: Bucket) -> Outcome {
    promise_eq!(bucket.last_revision().await?, 0, "the last revision of an empty bucket");
    let first = change(&bucket, put("a", "value", Expected::Anything)).await?;
    promise_eq!(bucket.last_revision().await?, first, "after a change");
    let other = change(&bucket, put("b", "value", Expected::Anything)).await?;
    promise_eq!(bucket.last_revision().await?, other, "after a change of another key");
    let refused = change(&bucket, put("b", "again", Expected::Revision(first))).await;
    promise_refused!(refused, BackendError::Conflict { .. }, "a change of an older revision");
    promise_eq!(bucket.last_revision().await?, other, "after a refusal");
    let deleted = change(&bucket, delete("a", Expected::Anything)).await?;
    promise!(deleted > other, "revision {deleted} of the delete follows {other}");
    promise_eq!(bucket.last_revision().await?, deleted, "after a delete");
    Ok(())
}

async fn creation_is_accepted_once(bucket: Bucket) -> Outcome {
    change(&bucket, put("a", "mine", Expected::Revision(0))).await?;
    let second = change(&bucket, put("a", "yours", Expected::Revision(0))).await;
    promise_refused!(second, BackendError::Conflict { .. }, "a second creation");
    let slot = bucket.get(&key("a"), ReadFrom::Leader).await?;
    promise_eq!(slot.value, Some("mine".into()), "the value");
    Ok(())
}

async fn one_of_many_writers_wins(bucket: Bucket) -> Outcome {
    let mut revision = 0;
    for round in 0..10 {
        let writes = (0..32).map(|writer| {
            let write = put("a", format!("{round} {writer}"), Expected::Revision(revision));
            let bucket = &bucket;
            async move { (writer, change(bucket, write).await) }
        });
        let mut winners = Vec::new();
        for (writer, outcome) in join_all(writes).await {
            match outcome {
                Ok(revision) => winners.push((writer, revision)),
                lost => promise_refused!(lost, BackendError::Conflict { .. }, "{writer} lost"),
            }
        }
        promise_eq!(winners.len(), 1, "winners of round {round}");
        revision = winners[0].1;
        let value = format!("{round} {}", winners[0].0);
        let slot = bucket.get(&key("a"), ReadFrom::Leader).await?;
        promise_eq!(slot, Slot { revision, value: Some(value.into()) }, "what the winner wrote");
    }
    Ok(())
}

async fn exact_revision_is_accepted(bucket: Bucket) -> Outcome {
    let mut revision = 0;
    for round in 0..5 {
        change(&bucket, put("other", "value", Expected::Anything)).await?;
        let write = put("a", round.to_string(), Expected::Revision(revision));
        let next = change(&bucket, write).await?;
        promise!(next > revision, "revision {next} follows {revision}");
        revision = next;
    }
    Ok(())
}

async fn revision_behind_or_ahead_is_refused(bucket: Bucket) -> Outcome {
    let first = change(&bucket, put("a", "1", Expected::Anything)).await?;
    let last = change(&bucket, put("a", "2", Expected::Anything)).await?;
    let other = change(&bucket, put("b", "3", Expected::Anything)).await?;
    for wrong in [0, first, other, other + 7] {
        for write in
            [put("a", "4", Expected::Revision(wrong)), delete("a", Expected::Revision(wrong))]
        {
            let refused = change(&bucket, write).await;
            promise_refused!(refused, BackendError::Conflict { .. }, "{wrong} instead of {last}");
        }
    }
    let slot = bucket.get(&key("a"), ReadFrom::Leader).await?;
    promise_eq!(slot, Slot { revision: last, value: Some("2".into()) }, "the key");
    Ok(())
}

async fn one_refusal_refuses_all(bucket: Bucket) -> Outcome {
    const COUNT: usize = 50;
    for wrong in [0, 25, COUNT - 1] {
        let expected = |n| Expected::Revision(if n == wrong { 9 } else { 0 });
        let writes = (0..COUNT).map(|n| put(&format!("k.{n}"), "value", expected(n)));
        let refused = bucket.write(all(writes)).await;
        promise_refused!(refused, BackendError::Conflict { .. }, "a wrong revision at {wrong}");
        let keys: Vec<Key> = (0..COUNT).map(|n| key(&format!("k.{n}"))).collect();
        let slots = bucket.get_many(&keys).await?;
        promise!(slots.iter().all(|slot| *slot == Slot::default()), "nothing was written");
    }
    let writes = (0..COUNT).map(|n| put(&format!("k.{n}"), "value", Expected::Revision(0)));
    bucket.write(all(writes)).await?;
    Ok(())
}

async fn revisions_are_returned_in_order(bucket: Bucket) -> Outcome {
    let writes = [
        put("b", "1", Expected::Revision(0)),
        put("a", "2", Expected::Anything),
        delete("c", Expected::Anything),
    ];
    let revisions = bucket.write(NonEmpty::from(writes)).await?;
    promise!(revisions.is_sorted_by(|a, b| a < b), "the revisions grow: {revisions:?}");
    let slots = bucket.get_many(&["b", "a", "c"].map(key)).await?;
    let seen: Vec<u64> = slots.iter().map(|slot| slot.revision).collect();
    promise_eq!(seen, revisions, "the revisions read");
    let values: Vec<_> = slots.into_iter().map(|slot| slot.value).collect();
    promise_eq!(values, [Some("1".into()), Some("2".into()), None], "the values read");
    Ok(())
}

async fn thousand_keys_are_written_at_once(bucket: Bucket) -> Outcome {
    let writes = |count| (0..count).map(|n| put(&format!("k{n}"), "v", Expected::Revision(0)));
    let refused = bucket.write(all(writes(1001))).await;
    promise_refused!(refused, BackendError::TooMany { actual: 1001, limit: 1000 }, "1001 keys");
    promise_eq!(bucket.keys(">").await?, [], "the keys after a refusal");
    let revisions = bucket.write(all(writes(1000))).await?;
    promise_eq!(revisions.len(), 1000, "revisions");
    promise_eq!(bucket.keys(">").await?.len(), 1000, "keys");
    Ok(())
}

async fn many_are_read_in_the_order_asked(bucket: Bucket) -> Outcome {
    for name in ["c", "a", "gone", "b"] {
        change(&bucket, put(name, name.to_owned(), Expected::Anything)).await?;
    }
    let deleted = change(&bucket, delete("gone", Expected::Anything)).await?;
    let slots = bucket.get_many(&["a", "unset", "b", "gone", "c"].map(key)).await?;
    let values: Vec<_> = slots.iter().map(|slot| slot.value.clone()).collect();
    let wanted = [Some("a".into()), None, Some("b".into()), None, Some("c".into())];
    promise_eq!(values, wanted, "the values");
    promise_eq!((slots[1].revision, slots[3].revision), (0, deleted), "unset and deleted");
    let twice = bucket.get_many(&["a", "b", "a"].map(key)).await?;
    promise_eq!(twice, [slots[0].clone(), slots[2].clone(), slots[0].clone()], "a key asked twice");
    promise_eq!(bucket.get_many(&[]).await?, [], "no keys");
    Ok(())
}

async fn thousand_keys_are_read_at_once(bucket: Bucket) -> Outcome {
    let names: Vec<Key> = (0..1000).map(|n| key(&format!("type.{n}"))).collect();
    let writes =
        names.iter().skip(1).map(|name| put(name.as_str(), name.to_string(), Expected::Anything));
    bucket.write(all(writes)).await?;
    let slots = bucket.get_many(&names).await?;
    promise_eq!(slots.len(), names.len(), "slots");
    promise_eq!(slots[0], Slot::default(), "the key that is not set");
    for (name, slot) in names.iter().zip(&slots).skip(1) {
        promise_eq!(slot.value.as_deref(), Some(name.as_str().as_bytes()), "the value of {name}");
    }
    Ok(())
}

async fn keys_are_found_by_pattern(bucket: Bucket) -> Outcome {
    for name in ["order.1", "order.2", "order.2.state", "invoice.1", "a=2Eb", "single"] {
        change(&bucket, put(name, "value", Expected::Anything)).await?;
    }
    let patterns: [(&str, &[&str]); 9] = [
        (">", &["order.1", "order.2", "order.2.state", "invoice.1", "a=2Eb", "single"]),
        ("order.>", &["order.1", "order.2", "order.2.state"]),
        ("order.*", &["order.1", "order.2"]),
        ("*.1", &["order.1", "invoice.1"]),
        ("*", &["a=2Eb", "single"]),
        ("*.*.state", &["order.2.state"]),
        ("order.2", &["order.2"]),
        ("order", &[]),
        ("none.>", &[]),
    ];
    for (pattern, wanted) in patterns {
        let found = bucket.keys(pattern).await?;
        let names: BTreeSet<&str> = found.iter().map(Key::as_str).collect();
        promise_eq!(names, wanted.iter().copied().collect(), "the keys of {pattern}");
        promise_eq!(found.len(), wanted.len(), "how many keys of {pattern}");
    }
    Ok(())
}

async fn newest_of_a_pattern_is_the_last_change(bucket: Bucket) -> Outcome {
    let newest = async |pattern: &str| {
        let pattern = Pattern::parse(pattern).expect("the checks use plain patterns");
        let found: Option<Entry> = bucket.newest(&pattern).await?;
        Ok::<_, BackendError>(found.map(|e| (e.key.as_str().to_owned(), e.revision, e.value)))
    };
    promise_eq!(newest("order.1.*").await?, None, "nothing is set");
    let mut revision = 0;
    for name in ["order.1.9", "order.1.10", "order.1.2"] {
        revision = change(&bucket, put(name, name, Expected::Anything)).await?;
    }
    for name in ["order.2.1", "order.1", "order.1.2.3"] {
        change(&bucket, put(name, name, Expected::Anything)).await?;
    }
    let last = ("order.1.2".to_owned(), revision, Some(Bytes::from_static(b"order.1.2")));
    promise_eq!(newest("order.1.*").await?, Some(last), "the key set last, not the highest");
    let revision = change(&bucket, delete("order.1.9", Expected::Anything)).await?;
    let last = ("order.1.9".to_owned(), revision, None);
    promise_eq!(newest("order.1.*").await?, Some(last), "a key that was deleted last");
    promise_eq!(newest("none.>").await?, None, "no key matches");
    Ok(())
}

async fn any_bytes_are_a_value(bucket: Bucket) -> Outcome {
    let values =
        [Bytes::new(), Bytes::from_static(b"\0\r\n\xff"), Bytes::from(vec![7; 256 * 1024])];
    let names = ["empty", "binary", "large"];
    let writes = names.iter().zip(&values);
    bucket
        .write(all(writes.map(|(name, value)| put(name, value.clone(), Expected::Anything))))
        .await?;
    change(&bucket, put("alone", "", Expected::Anything)).await?;
    let slot = bucket.get(&key("alone"), ReadFrom::Leader).await?;
    promise_eq!(slot.value, Some(Bytes::new()), "an empty value is a value");
    let slots = bucket.get_many(&names.map(key)).await?;
    for ((name, value), slot) in names.iter().zip(values).zip(slots) {
        promise!(slot.value == Some(value), "the value of {name} comes back");
    }
    Ok(())
}

fn key(name: &str) -> Key {
    Key::new(name).expect("the checks use plain keys")
}

fn put(name: &str, value: impl Into<Bytes>, expected: Expected) -> KeyWrite {
    KeyWrite::new(key(name), Change::Put(value.into()), expected)
}

fn delete(name: &str, expected: Expected) -> KeyWrite {
    KeyWrite::new(key(name), Change::Delete, expected)
}

fn all(writes: impl Iterator<Item = KeyWrite>) -> NonEmpty<KeyWrite> {
    NonEmpty::from_vec(writes.collect()).expect("the checks write at least one key")
}

async fn change(bucket: &Bucket, write: KeyWrite) -> Result<u64, BackendError> {
    let revisions = bucket.write(NonEmpty::one(write)).await?;
    revisions
        .first()
        .copied()
        .ok_or_else(|| BackendError::Corrupt { detail: "one change returned no revision".into() })
}
