//! Entries with all that is known of them: by pattern, and as they change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::time::timeout;

use super::super::{Broken, promise, promise_eq, promise_refused};
use super::{Bucket, Outcome, all, change, delete, key, put};
use crate::backend::{BackendError, Count, MAX_MATCHING, Matching, Position, ReadFrom, Start};
use crate::event::{Headers, NonEmpty};
use crate::state::{Entry, Expected, KeyWrite, Watched};
use crate::subject::Pattern;

/// How long anything may take before a promise counts as broken.
const SOON: Duration = Duration::from_secs(30);

pub(super) async fn revision_of_another_key_is_asserted(bucket: Bucket) -> Outcome {
    let lease = change(&bucket, put("=lease.a", "mine", Expected::Anything)).await?;
    let of = |name: &str, revision| Expected::RevisionOf(key(name), revision);
    for (name, wrong) in [("=lease.a", 0), ("=lease.a", lease + 1), ("=lease.b", lease)] {
        let write = put("model.1", "value", of(name, wrong));
        let refused = change(&bucket, write.clone()).await;
        promise_refused!(refused, BackendError::Conflict { .. }, "{name} at {wrong}");
        let other = put("model.2", "value", Expected::Revision(0));
        let refused = bucket.write(NonEmpty::from([other, write])).await;
        promise_refused!(refused, BackendError::Conflict { .. }, "{name} at {wrong} in a batch");
    }
    promise_eq!(bucket.keys("model.>").await?, [], "what the refused writes left");
    change(&bucket, put("model.1", "value", of("=lease.a", lease))).await?;
    let writes = [
        put("model.2", "value", of("=lease.b", 0)),
        put("model.3", "value", Expected::Revision(0)),
        put("model.4", "value", of("=lease.a", lease)),
    ];
    bucket.write(NonEmpty::from(writes)).await?;
    promise_eq!(bucket.keys("model.*").await?.len(), 4, "keys that were written");
    let slot = bucket.get(&key("=lease.a"), ReadFrom::Leader).await?;
    promise_eq!(slot.revision, lease, "the key that was asserted only");
    Ok(())
}

pub(super) async fn headers_come_back(bucket: Bucket) -> Outcome {
    let written = [("a.1", "some text"), ("a.2", "other text")];
    let writes = written.iter().map(|(name, text)| {
        let mut headers = Headers::new();
        headers.push("Cim-Schema-Version", "3");
        headers.push("X-Own", *text);
        KeyWrite { headers, ..put(name, "value", Expected::Anything) }
    });
    bucket.write(all(writes)).await?;
    change(&bucket, put("a.3", "value", Expected::Anything)).await?;
    let found = found(&bucket, &["a.*"]).await?;
    let mut watcher = Watcher::of(&bucket, &["a.*"], Start::Latest);
    let watched = watcher.past().await?;
    for entries in [found, watched] {
        promise_eq!(entries.len(), 3, "entries");
        for (entry, (name, text)) in entries.iter().zip(written) {
            promise_eq!(entry.key, key(name), "the key");
            promise_eq!(entry.headers.get("Cim-Schema-Version"), Some("3"), "a header of {name}");
            promise_eq!(entry.headers.get("X-Own"), Some(text), "another header of {name}");
        }
        promise_eq!(entries[2].headers.get("X-Own"), None, "a header of a key without");
    }
    Ok(())
}

pub(super) async fn entries_are_found_by_pattern(bucket: Bucket) -> Outcome {
    promise_eq!(found(&bucket, &[">"]).await?, [], "the entries of an empty bucket");
    let mut revisions = BTreeMap::new();
    for name in ["order.1", "order.2", "order.2.state", "invoice.1", "single", "order.1"] {
        revisions.insert(name, change(&bucket, put(name, name, Expected::Anything)).await?);
    }
    revisions.insert("order.2", change(&bucket, delete("order.2", Expected::Anything)).await?);
    let queries: [(&[&str], &[&str]); 7] = [
        (&[">"], &["order.2.state", "invoice.1", "single", "order.1", "order.2"]),
        (&["order.*"], &["order.1", "order.2"]),
        (&["*.1", "order.1"], &["invoice.1", "order.1"]),
        (&["order.>", "single"], &["order.2.state", "single", "order.1", "order.2"]),
        (&["single"], &["single"]),
        (&["none", "order"], &[]),
        (&["*.1", "order.*"], &["invoice.1", "order.1", "order.2"]),
    ];
    for (patterns, wanted) in queries {
        let entries = found(&bucket, patterns).await?;
        let names: Vec<_> = entries.iter().map(|entry| entry.key.as_str()).collect();
        promise_eq!(names, wanted, "the keys of {patterns:?}, by revision");
        for entry in &entries {
            let name = entry.key.as_str();
            promise_eq!(Some(&entry.revision), revisions.get(name), "the revision of {name}");
            let value = (name != "order.2").then(|| name.to_owned().into());
            promise_eq!(entry.value, value, "the value of {name}");
        }
        let count = bucket.count(&self::patterns(patterns)).await?;
        promise_eq!(count, Count::Exactly(wanted.len() as u64), "keys of {patterns:?}");
    }
    Ok(())
}

pub(super) async fn no_more_than_one_answer_holds(bucket: Bucket) -> Outcome {
    fill(&bucket, MAX_MATCHING).await?;
    promise_eq!(found(&bucket, &["k.*"]).await?.len(), MAX_MATCHING, "entries");
    change(&bucket, delete("k.more", Expected::Anything)).await?;
    let more = bucket.matching(&patterns(&["k.*"])).await?;
    promise_eq!(more, Matching::TooMany, "one more than one answer holds");
    let count = bucket.count(&patterns(&["k.*"])).await?;
    promise_eq!(count, Count::MoreThan(MAX_MATCHING as u64), "one key more");
    Ok(())
}

pub(super) async fn keys_come_first_and_then_their_changes(bucket: Bucket) -> Outcome {
    for name in ["order.1", "invoice.1", "order.2", "order.1"] {
        change(&bucket, put(name, "before", Expected::Anything)).await?;
    }
    let mut watcher = Watcher::of(&bucket, &["order.*"], Start::Latest);
    let past = watcher.past().await?;
    let names: Vec<_> = past.iter().map(|entry| entry.key.as_str()).collect();
    promise_eq!(names, ["order.2", "order.1"], "the keys there are, by revision");
    for (name, value) in [("order.3", "new"), ("order.1", "after"), ("order.1", "again")] {
        change(&bucket, put("invoice.1", "unseen", Expected::Anything)).await?;
        let revision = change(&bucket, put(name, value, Expected::Anything)).await?;
        let entry = watcher.entry().await?;
        let seen = (entry.key.as_str(), entry.revision, entry.value);
        promise_eq!(seen, (name, revision, Some(value.into())), "a change");
    }
    Ok(())
}

pub(super) async fn watcher_sees_deleted_keys(bucket: Bucket) -> Outcome {
    change(&bucket, put("a", "value", Expected::Anything)).await?;
    change(&bucket, put("b", "value", Expected::Anything)).await?;
    let gone = change(&bucket, delete("a", Expected::Anything)).await?;
    let mut watcher = Watcher::of(&bucket, &[">"], Start::Latest);
    let past = watcher.past().await?;
    let seen: Vec<_> = past.iter().map(|e| (e.key.as_str(), e.value.is_some())).collect();
    promise_eq!(seen, [("b", true), ("a", false)], "the keys there are");
    promise_eq!(past[1].revision, gone, "the revision of the deleted key");
    let gone = change(&bucket, delete("b", Expected::Anything)).await?;
    let entry = watcher.entry().await?;
    promise_eq!((entry.revision, entry.value), (gone, None), "a key that is deleted now");
    Ok(())
}

pub(super) async fn empty_bucket_is_caught_up_at_once(bucket: Bucket) -> Outcome {
    for start in [Start::Latest, Start::Now, Start::After(Position::START)] {
        let mut watcher = Watcher::of(&bucket, &["x.>", "*"], start);
        promise_eq!(watcher.past().await?, [], "what there is from {start:?}");
    }
    let mut watcher = Watcher::of(&bucket, &["*"], Start::Latest);
    promise_eq!(watcher.past().await?, [], "what there is");
    let revision = change(&bucket, put("a", "value", Expected::Anything)).await?;
    promise_eq!(watcher.entry().await?.revision, revision, "the first change");
    Ok(())
}

pub(super) async fn watcher_begins_after_a_revision_and_now(bucket: Bucket) -> Outcome {
    let mut revisions = Vec::new();
    for name in ["a", "b", "c", "d"] {
        revisions.push(change(&bucket, put(name, "value", Expected::Anything)).await?);
    }
    let start = Start::After(Position::new(revisions[1]));
    let mut after = Watcher::of(&bucket, &[">"], start);
    let seen: Vec<_> = after.past().await?.into_iter().map(|entry| entry.revision).collect();
    promise_eq!(seen, revisions[2..], "what was changed after a revision");
    let mut now = Watcher::of(&bucket, &[">"], Start::Now);
    promise_eq!(now.past().await?, [], "what there is now");
    let revision = change(&bucket, put("b", "again", Expected::Anything)).await?;
    for watcher in [&mut after, &mut now] {
        promise_eq!(watcher.entry().await?.revision, revision, "the next change");
    }
    Ok(())
}

pub(super) async fn last_change_of_a_key_comes(bucket: Bucket) -> Outcome {
    const KEYS: usize = 5;
    let mut watcher = Watcher::of(&bucket, &[">"], Start::Latest);
    watcher.past().await?;
    let mut lasts = BTreeMap::new();
    for round in 0..200 {
        let name = format!("k{}", round % KEYS);
        let revision = change(&bucket, put(&name, name.clone(), Expected::Anything)).await?;
        lasts.insert(name, revision);
    }
    let (mut seen, mut before) = (BTreeMap::new(), 0);
    while seen != lasts {
        let entry = watcher.entry().await?;
        promise!(entry.revision > before, "revision {} follows {before}", entry.revision);
        before = entry.revision;
        seen.insert(entry.key.as_str().to_owned(), entry.revision);
    }
    Ok(())
}

pub(super) async fn many_keys_are_watched_whole(bucket: Bucket) -> Outcome {
    const KEYS: usize = 5000;
    fill(&bucket, KEYS).await?;
    let mut watcher = Watcher::of(&bucket, &["k.*"], Start::Latest);
    let past = watcher.past().await?;
    promise_eq!(past.len(), KEYS, "entries");
    promise!(past.is_sorted_by(|a, b| a.revision < b.revision), "the revisions grow");
    Ok(())
}

pub(super) async fn key_that_is_set_while_a_watch_begins_is_seen(bucket: Bucket) -> Outcome {
    for round in 0..100 {
        let name = format!("k.{round}");
        let mut watcher = Watcher::of(&bucket, &[&name], Start::Latest);
        let watching = async {
            loop {
                if let Watched::Entry(entry) = watcher.next().await? {
                    return Ok::<_, Broken>(entry.revision);
                }
            }
        };
        let setting = async { Ok(change(&bucket, put(&name, "value", Expected::Anything)).await?) };
        let (seen, set) = futures::try_join!(watching, setting)?;
        promise_eq!(seen, set, "the key of round {round}");
    }
    Ok(())
}

pub(super) async fn keys_that_are_changed_before_their_turn_are_not_passed_over(
    bucket: Bucket,
) -> Outcome {
    const KEYS: usize = 4000;
    fill(&bucket, KEYS).await?;
    let mut watcher = Watcher::of(&bucket, &["k.*"], Start::Latest);
    let mut seen = BTreeSet::from([watcher.entry().await?.key]);
    let changed = (KEYS - 500..KEYS).map(|number| format!("k.{number}"));
    bucket.write(all(changed.map(|name| put(&name, "again", Expected::Anything)))).await?;
    seen.extend(watcher.past().await?.into_iter().map(|entry| entry.key));
    promise_eq!(seen.len(), KEYS, "keys");
    let revision = change(&bucket, put("k.0", "last", Expected::Anything)).await?;
    promise_eq!(watcher.entry().await?.revision, revision, "the change after all of them");
    Ok(())
}

struct Watcher {
    stream: BoxStream<'static, Result<Watched, BackendError>>,
}

impl Watcher {
    fn of(bucket: &Bucket, patterns: &[&str], start: Start) -> Self {
        Self { stream: bucket.watch(self::patterns(patterns), start) }
    }

    async fn next(&mut self) -> Result<Watched, Broken> {
        match timeout(SOON, self.stream.next()).await {
            Ok(Some(watched)) => Ok(watched?),
            Ok(None) => Err(Broken("watching ended".to_owned())),
            Err(_) => Err(Broken(format!("nothing came within {SOON:?}"))),
        }
    }

    /// What comes until everything was handed out that was there.
    async fn past(&mut self) -> Result<Vec<Entry>, Broken> {
        let mut seen = Vec::new();
        loop {
            match self.next().await? {
                Watched::Entry(entry) => seen.push(entry),
                Watched::CaughtUp => return Ok(seen),
            }
        }
    }

    async fn entry(&mut self) -> Result<Entry, Broken> {
        match self.next().await? {
            Watched::Entry(entry) => Ok(entry),
            Watched::CaughtUp => Err(Broken("caught up, instead of an entry".to_owned())),
        }
    }
}

async fn fill(bucket: &Bucket, keys: usize) -> Result<(), BackendError> {
    let names: Vec<String> = (0..keys).map(|number| format!("k.{number}")).collect();
    for chunk in names.chunks(500) {
        let writes = chunk.iter().map(|name| put(name, "value", Expected::Revision(0)));
        bucket.write(all(writes)).await?;
    }
    Ok(())
}

async fn found(bucket: &Bucket, patterns: &[&str]) -> Result<Vec<Entry>, Broken> {
    match bucket.matching(&self::patterns(patterns)).await? {
        Matching::All(entries) => Ok(entries),
        Matching::TooMany => Err(Broken("too many match".to_owned())),
    }
}

fn patterns(patterns: &[&str]) -> NonEmpty<Pattern> {
    let parse = |text: &&str| Pattern::parse(text).expect("the checks use plain patterns");
    NonEmpty::from_vec(patterns.iter().map(parse).collect())
        .expect("the checks name at least one pattern")
}
