//! Atomic batches.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use futures::future::try_join;
use futures::stream::{self, BoxStream};

use super::super::{Broken, promise, promise_eq, promise_refused};
use super::{LogUnderTest, Outcome, message, with_payload};
use crate::backend::{BackendError, Guard, NewMessage, Position, ReadFrom};

pub(super) async fn messages_lie_together_in_order(under: LogUnderTest) -> Outcome {
    let before = under.publish(9, Guard::Free).await?.get();
    let numbers = [0, 1, 0, 2, 1];
    let messages = numbers.iter().enumerate();
    let messages = messages.map(|(place, number)| {
        with_payload(under.subject(*number), Guard::Free, place.to_string())
    });
    let last = under.batch(messages.collect()).await?;
    let stored = under.read(None, Position::new(before)).await?;
    promise_eq!(stored.last().map(|m| m.position), Some(last), "the position returned");
    for (place, message) in stored.iter().enumerate() {
        let first = last.get() + 1 - numbers.len() as u64;
        promise_eq!(message.position.get(), first + place as u64, "the position of {place}");
        promise_eq!(message.payload, place.to_string().as_bytes(), "the payload of {place}");
        promise_eq!(message.subject, under.subject(numbers[place]), "the subject of {place}");
    }
    promise_eq!(stored.len(), numbers.len(), "messages");
    Ok(())
}

pub(super) async fn one_message_is_a_batch(under: LogUnderTest) -> Outcome {
    let alone = |guard| vec![message(under.subject(0), guard)];
    let first = under.batch(alone(Guard::Last(Position::START))).await?;
    let second = under.batch(alone(Guard::Last(Position::START))).await;
    promise_refused!(second, BackendError::Conflict { .. }, "a second first message");
    under.batch(alone(Guard::Last(first))).await?;
    promise_eq!(under.count().await?, 2, "messages");
    Ok(())
}

pub(super) async fn messages_that_come_one_by_one_are_a_batch(under: LogUnderTest) -> Outcome {
    let before = under.publish(9, Guard::Free).await?.get();
    for (count, first) in [(3, Position::START), (1, Position::new(before + 3))] {
        let last = under.stream(one_by_one(&under, count, first)).await?;
        let stored = under.read(None, Position::new(last.get() - count)).await?;
        for (message, place) in stored.iter().zip(0..) {
            promise_eq!(message.position.get(), last.get() - count + 1 + place, "the position");
            promise_eq!(message.payload, place.to_string().as_bytes(), "the payload");
        }
        promise_eq!(stored.len() as u64, count, "messages");
    }
    for count in [1, 3] {
        let refused = under.stream(one_by_one(&under, count, Position::START)).await;
        promise_refused!(refused, BackendError::Conflict { .. }, "{count} on a stale guard");
    }
    let refused = under.stream(one_by_one(&under, 0, Position::START)).await;
    promise_refused!(refused, BackendError::Invalid { .. }, "none");
    promise_eq!(under.count().await?, 5, "messages");
    Ok(())
}

/// Messages on one subject, each of which has to be waited for.
fn one_by_one(under: &LogUnderTest, count: u64, first: Position) -> BoxStream<'_, NewMessage> {
    let message = move |place: u64| async move {
        tokio::task::yield_now().await;
        let guard = if place == 0 { Guard::Last(first) } else { Guard::Free };
        with_payload(under.subject(0), guard, place.to_string())
    };
    stream::iter(0..count).then(message).boxed()
}

pub(super) async fn any_guard_refuses_the_whole(under: LogUnderTest) -> Outcome {
    const SIZE: usize = 5;
    for wrong in 0..SIZE {
        let guard = |number| match number == wrong {
            true => Guard::Last(Position::new(77)),
            false => Guard::Last(Position::START),
        };
        let messages = (0..SIZE).map(|number| message(under.subject(number), guard(number)));
        let refused = under.batch(messages.collect()).await;
        promise_refused!(refused, BackendError::Conflict { .. }, "a wrong guard at {wrong}");
        promise_eq!(under.count().await?, 0, "messages after a wrong guard at {wrong}");
    }
    for number in 0..SIZE {
        let last = under.log.last(&under.subject(number), ReadFrom::Leader).await?;
        promise_eq!(last, None, "the last message of {number}");
    }
    let messages = (0..SIZE).map(|n| message(under.subject(n), Guard::Last(Position::START)));
    under.batch(messages.collect()).await?;
    promise_eq!(under.count().await?, SIZE as u64, "messages");
    Ok(())
}

pub(super) async fn other_subjects_are_guarded(under: LogUnderTest) -> Outcome {
    let watched = under.publish(0, Guard::Free).await?;
    let of = |number, watched, position| {
        message(under.subject(number), Guard::LastOf(under.subject(watched), position))
    };
    // Watched twice, beside a subject that has nothing, and written only after that.
    let messages = vec![
        of(1, 0, watched),
        of(2, 0, watched),
        of(3, 8, Position::START),
        message(under.subject(0), Guard::Last(watched)),
    ];
    under.batch(messages).await?;
    for stale in [watched, Position::START] {
        let messages = vec![message(under.subject(1), Guard::Free), of(2, 0, stale)];
        let refused = under.batch(messages).await;
        promise_refused!(refused, BackendError::Conflict { .. }, "{stale} of another subject");
    }
    promise_eq!(under.count().await?, 5, "messages");
    Ok(())
}

pub(super) async fn guard_on_what_the_batch_wrote_is_refused(under: LogUnderTest) -> Outcome {
    let before = under.publish(0, Guard::Free).await?;
    let own = Position::new(before.get() + 1);
    for expected in [before, own] {
        for (number, guard) in
            [(0, Guard::Last(expected)), (1, Guard::LastOf(under.subject(0), expected))]
        {
            let text = format!("{guard:?}");
            let later = message(under.subject(number), guard);
            let messages = vec![message(under.subject(0), Guard::Last(before)), later];
            let refused = under.batch(messages).await;
            promise_refused!(refused, BackendError::Conflict { .. }, "then {text}");
        }
    }
    promise_eq!(under.count().await?, 1, "messages");
    Ok(())
}

pub(super) async fn status_ends_with_a_whole_batch(under: LogUnderTest) -> Outcome {
    let done = AtomicBool::new(false);
    let writing = async {
        let mut ends = vec![Position::START];
        for _ in 0..50 {
            let messages = (0..100).map(|number| message(under.subject(number), Guard::Free));
            ends.push(under.batch(messages.collect()).await?);
        }
        done.store(true, Ordering::SeqCst);
        Ok::<_, Broken>(ends)
    };
    let asking = async {
        let mut told = Vec::new();
        while !done.load(Ordering::SeqCst) {
            told.push(under.log.status().await?.last);
            tokio::task::yield_now().await;
        }
        Ok(told)
    };
    let (ends, told) = try_join(writing, asking).await?;
    for last in told {
        promise!(ends.contains(&last), "no batch ends at position {last}");
    }
    Ok(())
}

pub(super) async fn limit_is_accepted(under: LogUnderTest) -> Outcome {
    let limit = under.log.limits().max_batch_messages;
    let last = under.batch(many(&under, limit)).await?;
    promise_eq!(under.count().await?, limit as u64, "messages");
    promise_eq!(under.log.status().await?.last, last, "the last position");
    Ok(())
}

pub(super) async fn more_than_the_limit_is_refused(under: LogUnderTest) -> Outcome {
    let allowed = under.log.limits().max_batch_messages;
    match under.batch(many(&under, allowed + 1)).await {
        Err(BackendError::TooMany { actual, limit }) => {
            promise_eq!((actual, limit), (allowed + 1, allowed), "the numbers of the error");
        }
        other => promise_refused!(other, BackendError::TooMany { .. }, "{} messages", allowed + 1),
    }
    promise_eq!(under.count().await?, 0, "messages");
    Ok(())
}

fn many(under: &LogUnderTest, count: usize) -> Vec<NewMessage> {
    (0..count).map(|number| message(under.subject(number), Guard::Last(Position::START))).collect()
}
