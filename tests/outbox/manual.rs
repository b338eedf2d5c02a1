//! Publishing by hand: what is asked for, marked, held, parked and requeued.

use std::time::Duration;

use cim_persistence::backend::{BackendError, Position};
use cim_persistence::event::NonEmpty;
use cim_persistence::outbox::{HeldState, Outbox, OutboxError, PendingMessage, RetryPolicy};
use cim_persistence::store::CommitInfo;
use uuid::Uuid;

use crate::domain::{Store, THREE, order, send, send_many, try_to_send};

fn numbers(pending: &[PendingMessage]) -> Vec<u64> {
    pending.iter().map(|message| message.event().unwrap().json().unwrap()).collect()
}

fn at(position: u64) -> Position {
    Position::new(position)
}

#[tokio::test]
async fn what_is_marked_does_not_come_again() {
    let store = Store::new();
    let context = store.healthy();
    let outbox = Outbox::of(&context);
    assert!(outbox.get_pending(10).await.unwrap().is_empty());
    send_many(&context, 0, 10).await;
    let pending = outbox.get_pending(3).await.unwrap();
    assert_eq!(numbers(&pending), [0, 1, 2]);
    // Nothing is taken by asking.
    assert_eq!(numbers(&outbox.get_pending(3).await.unwrap()), [0, 1, 2]);
    outbox.mark_published(&[at(1), at(2)]).await.unwrap();
    outbox.mark_published(&[at(1)]).await.unwrap();
    assert_eq!(numbers(&outbox.get_pending(3).await.unwrap()), [2, 3, 4]);
    // Out of order: those before come again, and before others of their key.
    outbox.mark_published(&[at(6)]).await.unwrap();
    assert_eq!(numbers(&outbox.get_pending(100).await.unwrap()), [2, 3, 4, 6, 7, 8]);
    let backlog = outbox.backlog().await.unwrap();
    assert_eq!((backlog.messages, backlog.parked), (7, 0));
    outbox.mark_published(&[3, 4, 5, 7, 8, 9, 10].map(at)).await.unwrap();
    assert_eq!(outbox.backlog().await.unwrap(), Default::default());
}

#[tokio::test]
async fn what_fails_is_tried_again_then_parked_then_requeued() {
    let store = Store::new();
    let context = store.healthy();
    let outbox = Outbox::of(&context).with_retry(RetryPolicy { pause: Duration::ZERO, ..THREE });
    for number in 0..4 {
        send(&context, order(if number < 3 { "a" } else { "b" }, number)).await;
    }
    outbox.mark_failed(at(1), "first").await.unwrap();
    // The others of its key wait behind it.
    assert_eq!(numbers(&outbox.get_pending(10).await.unwrap()), [0, 3]);
    assert_eq!(outbox.get_pending(10).await.unwrap()[0].failed_tries(), 1);
    outbox.mark_failed(at(1), "second").await.unwrap();
    assert_eq!(outbox.list_parked().await.unwrap(), []);
    outbox.mark_failed(at(1), "third").await.unwrap();
    let parked = outbox.list_parked().await.unwrap();
    assert_eq!((parked[0].position, parked[0].attempts), (at(1), 3));
    assert_eq!((parked[0].state, parked[0].error.as_deref()), (HeldState::Parked, Some("third")));
    assert_eq!(outbox.backlog().await.unwrap().parked, 1);
    // A parked message frees its key.
    assert_eq!(numbers(&outbox.get_pending(10).await.unwrap()), [1, 2, 3]);
    assert!(!outbox.requeue(at(2)).await.unwrap());
    assert!(outbox.requeue(at(1)).await.unwrap());
    assert_eq!(numbers(&outbox.get_pending(10).await.unwrap()), [0, 3]);
    outbox.mark_published(&[at(1), at(2), at(3), at(4)]).await.unwrap();
    assert_eq!(outbox.backlog().await.unwrap(), Default::default());
}

#[tokio::test]
async fn what_is_not_due_does_not_come() {
    let store = Store::new();
    let context = store.healthy();
    let long = Duration::from_secs(3600);
    let retry = RetryPolicy { tries: 3, pause: long, longest_pause: long };
    let outbox = Outbox::of(&context).with_retry(retry);
    send(&context, order("a", 0)).await;
    outbox.mark_failed(at(1), "later").await.unwrap();
    assert!(outbox.get_pending(10).await.unwrap().is_empty());
    assert_eq!(outbox.backlog().await.unwrap().messages, 1);
}

#[tokio::test]
async fn a_mark_that_means_nothing_is_refused() {
    let store = Store::new();
    let context = store.healthy();
    let outbox = Outbox::of(&context);
    send_many(&context, 0, 5).await;
    for marks in [vec![at(6)], vec![at(1), at(99)]] {
        match outbox.mark_published(&marks).await {
            Err(OutboxError::NotPending { position }) => {
                assert_eq!(position, marks.last().unwrap().get());
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(outbox.backlog().await.unwrap().messages, 5);
    outbox.mark_published(&[at(1)]).await.unwrap();
    match outbox.mark_failed(at(1), "too late").await {
        Err(error @ OutboxError::NotPending { .. }) => assert_eq!(
            error.to_string(),
            "position 1 holds no message of this outbox that is to be published"
        ),
        other => panic!("{other:?}"),
    }
    let last = send_many(&context, 5, 1100).await;
    match outbox.mark_published(&[last]).await {
        Err(OutboxError::TooManyHeld { limit: 1000 }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn two_that_mark_at_a_time_both_count() {
    let store = Store::new();
    let context = store.healthy();
    let outbox = Outbox::of(&context);
    send_many(&context, 0, 40).await;
    let marks = (1..=40).rev().map(|position| {
        let outbox = outbox.clone();
        async move { outbox.mark_published(&[at(position)]).await.unwrap() }
    });
    futures::future::join_all(marks).await;
    assert_eq!(outbox.backlog().await.unwrap(), Default::default());
}

#[tokio::test]
async fn a_message_with_a_known_id_is_refused() {
    let store = Store::new();
    let context = store.healthy();
    let message = order("a", 1).with_id(Uuid::now_v7());
    send(&context, message.clone()).await;
    match try_to_send(&context, message.clone()).await {
        Err(OutboxError::Backend(BackendError::Duplicate { .. })) => {}
        other => panic!("{other:?}"),
    }
    let both = NonEmpty::from([order("a", 2), message]);
    let outbox = Outbox::of(&context);
    outbox.save_messages(&both, &CommitInfo::default()).await.unwrap_err();
    assert_eq!(numbers(&outbox.get_pending(10).await.unwrap()), [1]);
}

#[tokio::test]
async fn a_log_that_was_made_anew_is_noticed() {
    let store = Store::new();
    send_many(&store.healthy(), 0, 5).await;
    Outbox::of(&store.healthy()).mark_published(&[at(5), at(4)]).await.unwrap();
    let anew = Store { log: Default::default(), ..store };
    match Outbox::of(&anew.healthy()).get_pending(1).await {
        Err(OutboxError::LogTruncated { position: 5, last: 0 }) => {}
        other => panic!("{other:?}"),
    }
}
