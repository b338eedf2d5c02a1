//! What is written when, on a bucket in memory.

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
    let encode = Box::new(move || Some(Bytes::copy_from_slice(&version.to_be_bytes())));
    writer.offer(key(number), version.into(), replaces, encode);
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
    let (first, second) = (Gate::new(), Gate::new());
    let faults = [Fault::PauseBefore(first.clone()), Fault::PauseBefore(second.clone())];
    let (_bucket, writer) = faulty(faults);
    offer(&writer, 1, 1);
    first.reached().await;
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
    assert!(waited <= 2 * LINGER + Duration::from_millis(2), "{waited:?}");
}
