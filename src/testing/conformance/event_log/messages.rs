//! What a message may hold: sizes, ids, payloads, headers, times.

use futures::StreamExt;

use super::super::{Broken, promise, promise_eq, promise_refused};
use super::{LogUnderTest, Outcome, message, with_payload};
use crate::backend::{BackendError, Guard, NewMessage, Position, ReadFrom, StoredMessage};
use crate::event::{Headers, names};
use crate::event_log::LogQuery;

pub(super) async fn largest_is_stored_and_larger_refused(under: LogUnderTest) -> Outcome {
    let write = |bytes| vec![large(&under, Guard::Free, bytes)];
    sizes(&under, write).await
}

pub(super) async fn largest_of_a_batch_is_stored_and_larger_refused(
    under: LogUnderTest,
) -> Outcome {
    let write = |bytes| {
        let small = message(under.subject(1), Guard::Free);
        vec![small.clone(), large(&under, Guard::Last(Position::START), bytes), small]
    };
    sizes(&under, write).await
}

/// It has a header of its own, which counts whether or not the store adds others.
fn large(under: &LogUnderTest, guard: Guard, bytes: usize) -> NewMessage {
    let headers = [("X-Own", "some text")].into_iter().collect();
    NewMessage { headers, ..with_payload(under.subject(0), guard, vec![7; bytes]) }
}

/// Writes a payload that is too large because of its headers, one that just does not fit, and one that just does.
async fn sizes(under: &LogUnderTest, write: impl Fn(usize) -> Vec<NewMessage>) -> Outcome {
    let allowed = under.log.limits().max_message_bytes;
    let whole = refused_size(under, send(under, write(allowed)).await)?;
    promise!(whole > allowed, "{whole} bytes are refused as more than {allowed}");
    let fits = allowed - (whole - allowed);
    let over = refused_size(under, send(under, write(fits + 1)).await)?;
    promise_eq!(over, allowed + 1, "the size of the smallest that is refused");
    promise_eq!(under.count().await?, 0, "messages");
    let fitting = write(fits);
    let count = fitting.len() as u64;
    send(under, fitting).await?;
    promise_eq!(under.count().await?, count, "messages");
    let last = under.log.last(&under.subject(0), ReadFrom::Leader).await?;
    promise_eq!(last.map(|m| m.payload.len()), Some(fits), "the payload that fits");
    Ok(())
}

async fn send(
    under: &LogUnderTest,
    mut messages: Vec<NewMessage>,
) -> Result<Position, BackendError> {
    match messages.pop() {
        Some(message) if messages.is_empty() => under.log.publish(message).await,
        last => {
            messages.extend(last);
            under.batch(messages).await
        }
    }
}

fn refused_size(
    under: &LogUnderTest,
    outcome: Result<Position, BackendError>,
) -> Result<usize, Broken> {
    let allowed = under.log.limits().max_message_bytes;
    match outcome {
        Err(BackendError::TooLarge { subject, actual, limit }) => {
            promise_eq!(subject, under.subject(0), "the subject of the error");
            promise_eq!(limit, allowed, "the limit of the error");
            Ok(actual)
        }
        other => Err(Broken(format!("{other:?}, not TooLarge"))),
    }
}

pub(super) async fn known_id_is_a_duplicate(under: LogUnderTest) -> Outcome {
    under.log.publish(identified(&under, 0, "a")).await?;
    for number in [0, 1] {
        let again = under.log.publish(identified(&under, number, "a")).await;
        promise_refused!(again, BackendError::Duplicate { .. }, "a known id");
    }
    under.log.publish(identified(&under, 0, "b")).await?;
    let ids: Vec<_> = under.all().await?.iter().filter_map(id_of).collect();
    promise_eq!(ids, ["a", "b"], "the ids stored");
    Ok(())
}

pub(super) async fn known_id_refuses_the_batch(under: LogUnderTest) -> Outcome {
    let batch = |ids: [&str; 2]| vec![identified(&under, 0, ids[0]), identified(&under, 1, ids[1])];
    under.batch(batch(["a", "b"])).await?;
    for ids in [["c", "b"], ["a", "c"], ["d", "d"]] {
        let refused = under.batch(batch(ids)).await;
        promise_refused!(refused, BackendError::Duplicate { .. }, "the ids {ids:?}");
    }
    let alone = under.log.publish(identified(&under, 2, "b")).await;
    promise_refused!(alone, BackendError::Duplicate { .. }, "an id known from a batch");
    under.batch(batch(["c", "d"])).await?;
    promise_eq!(under.count().await?, 4, "messages");
    Ok(())
}

pub(super) async fn id_of_a_refused_message_is_not_known(under: LogUnderTest) -> Outcome {
    let wrong = Guard::Last(Position::new(5));
    let refused = NewMessage { guard: wrong.clone(), ..identified(&under, 0, "a") };
    let outcome = under.log.publish(refused.clone()).await;
    promise_refused!(outcome, BackendError::Conflict { .. }, "a wrong guard");
    let outcome = under.batch(vec![identified(&under, 1, "b"), refused]).await;
    promise_refused!(outcome, BackendError::Conflict { .. }, "a wrong guard in a batch");
    under.log.publish(identified(&under, 0, "a")).await?;
    under.log.publish(identified(&under, 1, "b")).await?;
    Ok(())
}

pub(super) async fn empty_payload_is_stored(under: LogUnderTest) -> Outcome {
    let empty = |number| with_payload(under.subject(number), Guard::Free, "");
    let alone = under.log.publish(empty(0)).await?;
    let messages = vec![empty(1), message(under.subject(1), Guard::Free), empty(1), empty(2)];
    under.batch(messages).await?;
    under.publish(0, Guard::Last(alone)).await?;
    let lengths: Vec<_> = under.all().await?.iter().map(|m| m.payload.len()).collect();
    promise_eq!(lengths, [0, 0, 7, 0, 0, 7], "payload lengths read");
    for from in [ReadFrom::Leader, ReadFrom::Nearest] {
        let last = under.log.last(&under.subject(2), from).await?;
        promise_eq!(last.map(|m| m.payload.len()), Some(0), "the empty payload from {from:?}");
    }
    let first = under.log.first_after(&under.subject(0), Position::START).await?;
    promise_eq!(first.map(|m| m.position), Some(alone), "the first message");
    let lasts = under.log.lasts(&[under.subject(1), under.subject(2)]).await?;
    promise_eq!(lasts.len(), 2, "last messages");
    Ok(())
}

pub(super) async fn odd_headers_come_back(under: LogUnderTest) -> Outcome {
    let odd = [
        ("X-Script", "größe 漢字 🚀"),
        ("x-lower", "a: b:c"),
        ("X-Quotes", "\"'`=;,<>{}\\"),
        ("X_$!#%&*+|~^", "a name of signs"),
        ("X-Spaces", "a  b\tc"),
        ("X-Long", &"long ".repeat(400)[..1999]),
        (names::MSG_ID, "an id with spaces"),
    ];
    let headers: Headers = odd.iter().map(|(name, value)| (*name, *value)).collect();
    let subject = under.subject(0);
    under.log.publish(NewMessage { headers, ..message(subject.clone(), Guard::Free) }).await?;
    let query = LogQuery { filter: None, after: Position::START };
    let seen = [
        under.log.last(&subject, ReadFrom::Leader).await?,
        under.log.last(&subject, ReadFrom::Nearest).await?,
        under.log.first_after(&subject, Position::START).await?,
        under.log.lasts(std::slice::from_ref(&subject)).await?.pop(),
        under.log.read(query).next().await.transpose()?,
    ];
    for (way, message) in seen.iter().enumerate() {
        let Some(message) = message else {
            return Err(Broken(format!("no message by way {way}")));
        };
        for (name, value) in odd {
            promise_eq!(message.headers.get(name), Some(value), "{name} by way {way}");
        }
        promise_eq!(message.headers.iter().count(), odd.len(), "headers by way {way}");
    }
    Ok(())
}

pub(super) async fn line_break_in_a_header_is_refused(under: LogUnderTest) -> Outcome {
    for (name, value) in [("X-Value", "a\nb"), ("X-Value", "a\r\nX-Other: b"), ("X Name", "a")] {
        let mut headers = Headers::new();
        headers.push(name, value);
        let odd = NewMessage { headers, ..message(under.subject(0), Guard::Free) };
        let refused = under.log.publish(odd.clone()).await;
        promise_refused!(refused, BackendError::Invalid { .. }, "{name:?}: {value:?}");
        let refused = under.batch(vec![message(under.subject(1), Guard::Free), odd]).await;
        promise_refused!(refused, BackendError::Invalid { .. }, "{name:?}: {value:?} in a batch");
    }
    promise_eq!(under.count().await?, 0, "messages");
    Ok(())
}

pub(super) async fn times_do_not_go_back(under: LogUnderTest) -> Outcome {
    for number in 0..10 {
        under.publish(number, Guard::Free).await?;
    }
    let stored = under.all().await?;
    promise!(stored.is_sorted_by_key(|message| message.time), "the times grow with the positions");
    let created = under.log.status().await?.created;
    promise!(stored[0].time >= created, "the first message is younger than the log");
    for message in &stored {
        let last = under.log.last(&message.subject, ReadFrom::Leader).await?;
        promise_eq!(last.as_ref(), Some(message), "the same message by another way");
    }
    Ok(())
}

fn identified(under: &LogUnderTest, number: usize, id: &str) -> NewMessage {
    let mut headers = Headers::new();
    headers.push(names::MSG_ID, id);
    NewMessage { headers, ..message(under.subject(number), Guard::Free) }
}

fn id_of(message: &StoredMessage) -> Option<String> {
    message.headers.get(names::MSG_ID).map(str::to_owned)
}
