//! How long batches wait for commits, in a time that passes when nobody is ready to run.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

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

/// How many commits a batch has that expects ten, which come so long after one another, the first at once.
async fn gathered(pause: Duration) -> usize {
    let load = Arc::new(Load::default());
    let now = std::time::Instant::now();
    load.stored_together(10, TAKES, TAKES, now);
    let _under_way: Vec<_> = (0..10).map(|_| load.arrive(2, now)).collect();
    let (queue, jobs) = mpsc::channel(10);
    let log = Arc::new(MemoryLog::new());
    let mut gatherer = Gatherer::new(log, load, CommitPolicy::default(), jobs);
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
