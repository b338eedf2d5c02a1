//! What is written when, on a bucket in memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;

use super::*;
use crate::backend::ReadFrom;
use crate::backend::memory::{CallKind, Fault, Faults, Gate};
use crate::state::MemoryKeyValue;

fn replaces(new: &[u8], stored: &[u8]) -> bool {
    new > stored
}

fn key(number: usize) -> Key {
    Key::new(format!("order.{number}")).unwrap()
}

fn offer(writer: &StateWriter, number: usize, version: u32) {
    offer_over(writer, number, version, None);
}

fn offer_over(writer: &StateWriter, number: usize, version: u32, over: Option<u64>) {
    let encode = Box::new(move || Some(Bytes::copy_from_slice(&version.to_be_bytes())));
    writer.offer(key(number), Offer { version: version.into(), over, replaces, encode });
}

async fn stored(bucket: &MemoryKeyValue, number: usize) -> Option<Bytes> {
    bucket.get(&key(number), ReadFrom::Leader).await.unwrap().value
}

/// A bucket, and a writer whose next writes each meet one of the faults.
fn faulty(next: [Fault; 2]) -> (MemoryKeyValue, StateWriter) {
    let (bucket, faults) = (MemoryKeyValue::new("state"), Faults::new());
    for fault in next {
        faults.plan_when(|call| call.kind == CallKind::Write, fault);
    }
    let writer = StateWriter::start(Arc::new(bucket.clone().with_faults(&faults)));
    (bucket, writer)
}

/// Offers versions one after the other, each written before the next, and returns what is stored then.
async fn stored_after(bucket: &MemoryKeyValue, versions: &[u32]) -> u32 {
    let writer = StateWriter::start(Arc::new(bucket.clone()));
    for &version in versions {
        offer(&writer, 1, version);
        writer.flush().await;
    }
    u32::from_be_bytes(stored(bucket, 1).await.unwrap().as_ref().try_into().unwrap())
}

#[tokio::test]
async fn later_version_stays_when_an_earlier_one_is_offered() {
    let bucket = MemoryKeyValue::new("state");
    assert_eq!(stored_after(&bucket, &[5, 4]).await, 5);
    assert_eq!(stored_after(&bucket, &[4, 3, 2]).await, 5, "by another writer");
    assert_eq!(stored_after(&bucket, &[3, 6, 5]).await, 6);
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_longest_are_written_first() {
    let (first, second) = (Gate::new(), Gate::new());
    let faults = [Fault::PauseAfter(first.clone()), Fault::PauseAfter(second.clone())];
    let (bucket, writer) = faulty(faults);
    (0..2 * BATCH_KEYS).for_each(|number| offer(&writer, number, 1));
    first.reached().await;
    let mut waiting = Vec::new();
    for number in 0..2 * BATCH_KEYS {
        match stored(&bucket, number).await {
            // It changes again, as busy aggregates do.
            Some(_) => offer(&writer, number, 2),
            None => waiting.push(number),
        }
    }
    first.open();
    second.reached().await;
    for number in waiting {
        assert!(stored(&bucket, number).await.is_some(), "order.{number} still waits");
    }
    second.open();
}

/// How long the writer waits after a batch that took a second, while something is offered in such intervals.
async fn waits_while_offered_every(interval: Duration) -> Duration {
    waits_after(interval, async |_| {}).await
}

/// The same, where something is done during that batch.
async fn waits_after(interval: Duration, during: impl AsyncFnOnce(&StateWriter)) -> Duration {
    let (first, second) = (Gate::new(), Gate::new());
    let faults = [Fault::PauseBefore(first.clone()), Fault::PauseBefore(second.clone())];
    let (_bucket, writer) = faulty(faults);
    offer(&writer, 1, 1);
    first.reached().await;
    during(&writer).await;
    tokio::time::advance(Duration::from_secs(1)).await;
    let ended = Instant::now();
    first.open();
    let mut offers = tokio::time::interval(interval);
    let offering = async {
        for version in 2.. {
            offers.tick().await;
            offer(&writer, 2, version);
        }
    };
    tokio::select! {
        () = offering => {}
        () = second.reached() => {}
    }
    second.open();
    ended.elapsed()
}

#[tokio::test(start_paused = true)]
async fn writing_takes_a_fortieth_of_the_time_while_something_changes() {
    let waited = waits_while_offered_every(Duration::from_millis(15)).await;
    assert_eq!(waited.as_secs(), 39);
}

#[tokio::test(start_paused = true)]
async fn what_no_longer_changes_is_written_soon() {
    let waited = waits_while_offered_every(Duration::from_secs(3600)).await;
    assert!(waited <= 2 * MOST_QUIET + Duration::from_millis(2), "{waited:?}");
}

/// Commits that travel in batches come together, and then none for as long as a batch takes.
#[tokio::test(start_paused = true)]
async fn a_pause_as_long_as_a_batch_is_no_end() {
    let waited = waits_while_offered_every(Duration::from_millis(900)).await;
    assert_eq!(waited.as_secs(), 39);
}

#[tokio::test(start_paused = true)]
async fn flush_leaves_the_writer_its_limit() {
    let flushed_in_vain = async |writer: &StateWriter| {
        assert!(writer.flush().now_or_never().is_none(), "the batch is under way");
        offer(writer, 2, 1);
    };
    let waited = waits_after(Duration::from_millis(15), flushed_in_vain).await;
    assert_eq!(waited.as_secs(), 39);
}

/// Long enough for everything that happens by itself, and no time at all where it is paused.
async fn ends<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(3600), work).await.expect("it ends")
}

#[tokio::test(start_paused = true)]
async fn flush_waits_for_what_was_offered_before_and_not_for_what_comes_after() {
    let (first, second) = (Gate::new(), Gate::new());
    let faults = [Fault::PauseBefore(first.clone()), Fault::PauseBefore(second.clone())];
    let (bucket, writer) = faulty(faults);
    (0..=BATCH_KEYS).for_each(|number| offer(&writer, number, 1));
    first.reached().await;
    let mut flush = pin!(writer.flush());
    assert!(flush.as_mut().now_or_never().is_none());
    // One of them changes again while it waits.
    offer(&writer, BATCH_KEYS, 2);
    first.open();
    second.reached().await;
    assert!(flush.as_mut().now_or_never().is_none(), "one of them still waits");
    second.open();
    ends(flush).await;
    assert_eq!(stored(&bucket, BATCH_KEYS).await.unwrap().as_ref(), 2_u32.to_be_bytes());
}

#[tokio::test(start_paused = true)]
async fn flush_ends_although_something_is_always_waiting() {
    let (first, second) = (Gate::new(), Gate::new());
    let faults = [Fault::PauseBefore(first.clone()), Fault::PauseBefore(second.clone())];
    let (bucket, writer) = faulty(faults);
    offer(&writer, 1, 1);
    first.reached().await;
    let mut flush = pin!(writer.flush());
    assert!(flush.as_mut().now_or_never().is_none());
    offer(&writer, 2, 1);
    first.open();
    ends(flush).await;
    assert!(stored(&bucket, 1).await.is_some());
    assert!(stored(&bucket, 2).await.is_none(), "it was offered after the flush began");
    second.open();
}

#[test]
fn flush_ends_when_the_runtime_of_the_writer_has() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    for polled in [false, true] {
        let ending = runtime();
        let writer = ending.block_on(async {
            let writer = StateWriter::start(Arc::new(MemoryKeyValue::new("state")));
            if polled {
                tokio::task::yield_now().await;
            }
            offer(&writer, 1, 1);
            writer
        });
        drop(ending);
        runtime().block_on(async {
            tokio::time::pause();
            ends(writer.flush()).await;
        });
    }
}

#[tokio::test(start_paused = true)]
async fn record_that_panics_when_it_is_encoded_leaves_the_others_alone() {
    let bucket = MemoryKeyValue::new("state");
    let writer = StateWriter::start(Arc::new(bucket.clone()));
    let encode: Encode = Box::new(|| panic!("a state that cannot be written"));
    writer.offer(key(1), Offer { version: 1, over: None, replaces, encode });
    offer(&writer, 2, 1);
    ends(writer.flush()).await;
    assert!(stored(&bucket, 1).await.is_none());
    assert!(stored(&bucket, 2).await.is_some(), "of the same batch");
    offer(&writer, 1, 2);
    ends(writer.flush()).await;
    assert!(stored(&bucket, 1).await.is_some(), "of a later one");
}

#[tokio::test(start_paused = true)]
async fn no_more_is_encoded_at_once_than_one_batch_holds() {
    const SIZE: usize = 512 * 1024;
    let (first, second) = (Gate::new(), Gate::new());
    let faults = [Fault::PauseBefore(first.clone()), Fault::PauseBefore(second.clone())];
    let (_bucket, writer) = faulty(faults);
    let encoded = Arc::new(AtomicUsize::new(0));
    for number in 0..20 {
        let encoded = Arc::clone(&encoded);
        let encode = Box::new(move || {
            encoded.fetch_add(1, Ordering::Relaxed);
            Some(Bytes::from(vec![0; SIZE]))
        });
        writer.offer(key(number), Offer { version: 1, over: None, replaces, encode });
    }
    for (gate, batches) in [(first, 1), (second, 2)] {
        gate.reached().await;
        assert_eq!(encoded.load(Ordering::Relaxed), batches * BATCH_BYTES / SIZE);
        gate.open();
    }
    ends(writer.flush()).await;
    assert_eq!(encoded.load(Ordering::Relaxed), 20);
}

async fn revision(bucket: &MemoryKeyValue, number: usize) -> u64 {
    bucket.get(&key(number), ReadFrom::Leader).await.unwrap().revision
}

/// Offers versions, the first of them over a revision, and returns what is stored then.
async fn stored_over(bucket: &MemoryKeyValue, over: u64, versions: &[u32]) -> u32 {
    let writer = StateWriter::start(Arc::new(bucket.clone()));
    stored_over_by(&writer, bucket, over, versions).await
}

async fn stored_over_by(
    writer: &StateWriter,
    bucket: &MemoryKeyValue,
    over: u64,
    versions: &[u32],
) -> u32 {
    offer_over(writer, 1, versions[0], Some(over));
    versions[1..].iter().for_each(|&version| offer(writer, 1, version));
    ends(writer.flush()).await;
    u32::from_be_bytes(stored(bucket, 1).await.unwrap().as_ref().try_into().unwrap())
}

#[tokio::test(start_paused = true)]
async fn wrong_record_is_replaced_whatever_its_version() {
    for versions in [&[3][..], &[8], &[3, 4], &[4, 3]] {
        let bucket = MemoryKeyValue::new("state");
        stored_after(&bucket, &[8]).await;
        let wrong = revision(&bucket, 1).await;
        let stored = stored_over(&bucket, wrong, versions).await;
        assert_eq!(stored, *versions.iter().max().unwrap());
        assert!(revision(&bucket, 1).await > wrong, "{versions:?}");
    }
    // Also by the one who wrote it, and who knows of it.
    let bucket = MemoryKeyValue::new("state");
    let writer = StateWriter::start(Arc::new(bucket.clone()));
    offer(&writer, 1, 8);
    ends(writer.flush()).await;
    let wrong = revision(&bucket, 1).await;
    assert_eq!(stored_over_by(&writer, &bucket, wrong, &[3]).await, 3);
    // And where another wrote the wrong one after what this one wrote.
    stored_after(&bucket, &[9]).await;
    let wrong = revision(&bucket, 1).await;
    assert_eq!(stored_over_by(&writer, &bucket, wrong, &[2]).await, 2);
}

#[tokio::test(start_paused = true)]
async fn later_record_that_took_the_place_of_a_wrong_one_stays() {
    let bucket = MemoryKeyValue::new("state");
    stored_after(&bucket, &[8]).await;
    let wrong = revision(&bucket, 1).await;
    assert_eq!(stored_after(&bucket, &[9]).await, 9);
    assert_eq!(stored_over(&bucket, wrong, &[3]).await, 9);
    assert_eq!(stored_over(&bucket, wrong, &[10]).await, 10);
    // Also by the one who wrote the later one.
    let writer = StateWriter::start(Arc::new(bucket.clone()));
    offer(&writer, 1, 11);
    ends(writer.flush()).await;
    assert_eq!(stored_over_by(&writer, &bucket, wrong, &[3]).await, 11);
}
