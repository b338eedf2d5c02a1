//! Long reads: a task of its own fetches and verifies events ahead of the reader, a run of them at a time.
//!
//! On two cores that is about twice as fast as the reader doing it itself: the work is done beside the reader's own, and one
//! wake-up passes on a run of events instead of one. Short reads do without; see [`Context`](super::Context).

use std::pin::pin;

use futures::stream::{self, BoxStream, Stream, StreamExt};
use tokio::sync::mpsc;

use super::{StoreError, StoredEvent};
use crate::backend::BackendError;

type Item = Result<StoredEvent, StoreError>;

/// The most events of a run, and how many runs may wait for the reader: what bounds the memory.
const EVENTS: usize = 64;
const RUNS: usize = 4;

/// Gives out what `events` does, in the same order. Nothing happens before the first is asked for; a reader that is
/// dropped ends the task.
pub(super) fn ahead(events: impl Stream<Item = Item> + Send + 'static) -> BoxStream<'static, Item> {
    let start = async move {
        let (sender, receiver) = mpsc::channel(RUNS);
        let task = tokio::spawn(pass_on(events, sender));
        stream::unfold(Some((receiver, task)), |state| async move {
            let (mut receiver, task) = state?;
            if let Some(run) = receiver.recv().await {
                return Some((run, Some((receiver, task))));
            }
            // A read that was cut off must not look like one that came to the end.
            let cut_off = |error| BackendError::unavailable(format!("a read was ended: {error}"));
            let ended = task.await.err().map(cut_off)?;
            Some((vec![Err(ended.into())], None))
        })
        .map(stream::iter)
        .flatten()
    };
    stream::once(start).flatten().boxed()
}

async fn pass_on(events: impl Stream<Item = Item>, sender: mpsc::Sender<Vec<Item>>) {
    let mut runs = pin!(events.ready_chunks(EVENTS));
    loop {
        let run = tokio::select! {
            biased;
            () = sender.closed() => return,
            run = runs.next() => run,
        };
        let Some(run) = run else { return };
        if sender.send(run).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;

    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_read_that_is_cut_off_ends_with_an_error() {
        let cut_off = stream::once(async { panic!("as a task ends that a runtime drops") });
        let mut read = ahead(cut_off);
        match read.next().await {
            Some(Err(StoreError::Backend(BackendError::Unavailable { detail, .. }))) => {
                assert!(detail.starts_with("a read was ended: "), "{detail}");
            }
            other => panic!("{other:?}"),
        }
        assert!(read.next().await.is_none());
    }

    #[tokio::test]
    async fn a_reader_that_is_dropped_ends_the_task() {
        let held = Arc::new(());
        let seen = Arc::downgrade(&held);
        let silent = stream::once(async move {
            let _held = held;
            pending().await
        });
        let mut read = ahead(silent);
        assert!(read.next().now_or_never().is_none());
        tokio::task::yield_now().await;
        assert!(seen.upgrade().is_some(), "the task waits for the first event");
        drop(read);
        while seen.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    }
}
