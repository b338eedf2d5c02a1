//! How long batches wait for commits, in a time that passes when nobody is ready to run.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::super::cost::Ticket;
use super::*;
use crate::backend::{Guard, NewMessage, Position};
use crate::event::{Headers, NonEmpty};
use crate::event_log::MemoryLog;

/// What a batch took last.
const TAKES: Duration = Duration::from_millis(40);

fn job(number: usize) -> Job {
    let message = NewMessage {
        subject: Subject::trusted(format!("order.{number}")),
        headers: Headers::new(),
        payload: "payload".into(),
        guard: Guard::Last(Position::START),
    };
    let (reply, _) = oneshot::channel();
    Job { commit: Commit::new(NonEmpty::one(message)).unwrap(), reply }
}

/// A gatherer that expects ten commits, where they are handed in, and what makes it expect them.
fn expecting_ten() -> (Gatherer, mpsc::Sender<Job>, Vec<Ticket>) {
    let load = Arc::new(Load::default());
    let now = std::time::Instant::now();
    load.stored_together(10, TAKES, TAKES, now);
    let under_way = (0..10).map(|_| load.arrive(2, now)).collect();
    let (queue, jobs) = mpsc::channel(10);
    let log = Arc::new(MemoryLog::new());
    (Gatherer::new(log, load, CommitPolicy::default(), jobs), queue, under_way)
}

/// How many commits a batch has that expects ten, which come so long after one another, the first at once.
async fn gathered(pause: Duration) -> usize {
    let (mut gatherer, queue, _under_way) = expecting_ten();
    let callers = async {
        for number in 0..10 {
            // It fails when the batch was closed before.
            let _ = queue.try_send(job(number));
            sleep(pause).await;
        }
    };
    let (send, _messages) = mpsc::unbounded_channel();
    let filled = tokio::select! {
        filled = gatherer.fill(send) => filled,
        () = callers => panic!("all of them came, and the batch is not closed"),
    };
    filled.len()
}

#[tokio::test(start_paused = true)]
async fn batch_waits_as_long_as_commits_that_are_expected_keep_coming() {
    // After half of what a batch takes there would be seven.
    assert_eq!(gathered(Duration::from_millis(3)).await, 10);
}

#[tokio::test(start_paused = true)]
async fn batch_waits_for_the_next_commit_a_quarter_of_what_a_batch_takes() {
    assert_eq!(gathered(Duration::from_millis(11)).await, 1);
}

#[tokio::test(start_paused = true)]
async fn batch_waits_for_all_commits_no_longer_than_a_batch_takes() {
    // Those at 0, 9, 18, 27 and 36 milliseconds.
    assert_eq!(gathered(Duration::from_millis(9)).await, 5);
}

/// On the scheduler of a service, which runs next what was woken last.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_callers_hand_in_while_they_have_their_turn_leaves_together() {
    let (mut gatherer, queue, _under_way) = expecting_ten();
    let (send, mut messages) = mpsc::unbounded_channel();
    let left_first = tokio::spawn(async move {
        tokio::spawn(async move { gatherer.fill(send).await.len() });
        let connection = tokio::spawn(async move {
            messages.recv().await.expect("a message leaves");
            1 + messages.len()
        });
        // Both wait before the callers run.
        yield_now().await;
        for number in 0..10 {
            let queue = queue.clone();
            tokio::spawn(async move { assert!(queue.try_send(job(number)).is_ok()) });
        }
        connection.await.unwrap()
    });
    assert_eq!(left_first.await.unwrap(), 10);
}

#[tokio::test]
async fn a_batch_leaves_callers_waiting_for_whom_neither_it_nor_the_next_has_room() {
    let log = Arc::new(MemoryLog::new());
    let limit = log.limits().max_batch_messages;
    let (queue, jobs) = mpsc::channel(4 * limit);
    for number in 0..4 * limit {
        assert!(queue.try_send(job(number)).is_ok());
    }
    let mut gatherer = Gatherer::new(log, Arc::default(), CommitPolicy::default(), jobs);
    let (send, _messages) = mpsc::unbounded_channel();
    assert_eq!(gatherer.fill(send).await.len(), limit);
    assert_eq!((gatherer.waiting.len(), gatherer.jobs.len()), (limit, 2 * limit));
}
