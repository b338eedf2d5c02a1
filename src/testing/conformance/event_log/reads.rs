//! Reading: one message, the last of many subjects, everything.

use futures::{StreamExt, TryStreamExt};

use super::super::{promise, promise_eq};
use super::{LogUnderTest, Outcome, message, positions, with_payload};
use crate::backend::{BackendError, Guard, Position, ReadFrom};
use crate::event_log::LogQuery;
use crate::subject::{Pattern, Subject};

pub(super) async fn empty_log_has_nothing(under: LogUnderTest) -> Outcome {
    let subject = under.subject(0);
    for from in [ReadFrom::Leader, ReadFrom::Nearest] {
        promise_eq!(under.log.last(&subject, from).await?, None, "the last message");
    }
    let first = under.log.first_after(&subject, Position::START).await?;
    promise_eq!(first, None, "the first message");
    let lasts = under.log.lasts(&[subject.clone(), under.subject(1)]).await?;
    promise_eq!(lasts, [], "the last messages");
    promise_eq!(under.log.lasts(&[]).await?, [], "the last messages of no subject");
    promise_eq!(under.all().await?, [], "everything");
    promise_eq!(under.read(Some(subject.as_str()), Position::START).await?, [], "one subject");
    promise_eq!(under.read(None, Position::new(1000)).await?, [], "after a position");
    Ok(())
}

pub(super) async fn last_is_the_newest_on_its_subject(under: LogUnderTest) -> Outcome {
    under.publish(0, Guard::Free).await?;
    let newest = with_payload(under.subject(0), Guard::Free, "newest");
    let position = under.log.publish(newest).await?;
    under.publish(1, Guard::Free).await?;
    for from in [ReadFrom::Leader, ReadFrom::Nearest] {
        let last = under.log.last(&under.subject(0), from).await?;
        let last = last.map(|m| (m.subject, m.position, m.payload));
        let wanted = Some((under.subject(0), position, "newest".into()));
        promise_eq!(last, wanted, "the last message from {from:?}");
        let none = under.log.last(&under.subject(2), from).await?;
        promise_eq!(none, None, "the last message of a subject without one");
    }
    Ok(())
}

pub(super) async fn first_after_is_the_next_on_its_subject(under: LogUnderTest) -> Outcome {
    let mut own = Vec::new();
    for number in [1, 0, 1, 0, 0, 1] {
        let position = under.publish(number, Guard::Free).await?;
        if number == 0 {
            own.push(position);
        }
    }
    let end = under.log.status().await?.last.get() + 5;
    let pattern = Pattern::parse(under.subject(0).as_str()).expect("a subject is a pattern");
    for after in (0..=end).map(Position::new) {
        let found = under.log.first_after(&under.subject(0), after).await?;
        let wanted = own.iter().copied().find(|position| *position > after);
        promise_eq!(found.map(|m| m.position), wanted, "the first message after {after}");
        let found = under.log.first_matching(&pattern, after).await?;
        promise_eq!(found.map(|m| m.position), wanted, "the first that matches after {after}");
    }
    Ok(())
}

pub(super) async fn lasts_are_in_order_of_position(under: LogUnderTest) -> Outcome {
    let mut lasts = [Position::START; 4];
    for number in [3, 0, 1, 3, 2, 0] {
        lasts[number] = under.publish(number, Guard::Free).await?;
    }
    let subjects: Vec<Subject> = [2, 77, 0, 3, 78].map(|n| under.subject(n)).into();
    let found = under.log.lasts(&subjects).await?;
    let wanted: Vec<_> = [3, 2, 0].map(|n| (under.subject(n), lasts[n])).into();
    let found: Vec<_> = found.into_iter().map(|m| (m.subject, m.position)).collect();
    promise_eq!(found, wanted, "the last messages");
    Ok(())
}

pub(super) async fn lasts_of_a_thousand_subjects(under: LogUnderTest) -> Outcome {
    let subjects: Vec<Subject> = (0..1000).map(|number| under.subject(number)).collect();
    for _ in 0..2 {
        let messages = subjects.iter().map(|s| message(s.clone(), Guard::Free));
        let step = under.log.limits().max_batch_messages.min(500);
        for chunk in messages.collect::<Vec<_>>().chunks(step) {
            under.batch(chunk.to_vec()).await?;
        }
    }
    let found = under.log.lasts(&subjects).await?;
    let names: Vec<Subject> = found.iter().map(|m| m.subject.clone()).collect();
    promise!(names == subjects, "the last messages of 1000 subjects, {} found", names.len());
    let end = under.log.status().await?.last.get();
    promise_eq!(positions(&found)[0].get(), end - 999, "the position of the first");
    Ok(())
}

pub(super) async fn lasts_of_many_bytes(under: LogUnderTest) -> Outcome {
    // More than a server sends in one answer, which is 64 MiB by default.
    const BYTES: usize = 80 * 1024 * 1024;
    let payload = bytes::Bytes::from(vec![7; under.log.limits().max_message_bytes / 10 * 9]);
    let count = (BYTES / payload.len()).min(1000);
    for number in 0..count {
        let large = with_payload(under.subject(number), Guard::Free, payload.clone());
        under.log.publish(large).await?;
    }
    let subjects: Vec<Subject> = (0..count).map(|number| under.subject(number)).collect();
    let found = under.log.lasts(&subjects).await?;
    promise_eq!(found.len(), count, "last messages");
    Ok(())
}

type Selects = fn(&str) -> bool;

pub(super) async fn query_selects_by_position_and_filter(under: LogUnderTest) -> Outcome {
    let (order, invoice) = (under.subject(1), under.subject_of("invoice", 1));
    let subjects = [&order, &invoice, &under.subject(2), &order, &under.subject_of("invoice", 2)];
    let mut stored = Vec::new();
    for subject in subjects {
        let position = under.log.publish(message(subject.clone(), Guard::Free)).await?;
        stored.push((position, subject.as_str()));
    }
    let base = order.as_str().strip_suffix("order.1").unwrap_or_default();
    let queries: [(Option<String>, Selects); 10] = [
        (None, |_| true),
        (Some(format!("{base}>")), |_| true),
        (Some(format!("{base}*.*")), |_| true),
        (Some(format!("{base}order.>")), |s| s.contains(".order.")),
        (Some(format!("{base}order.*")), |s| s.contains(".order.")),
        (Some(format!("{base}*.1")), |s| s.ends_with(".1")),
        (Some(order.as_str().to_owned()), |s| s.ends_with(".order.1")),
        (Some(format!("{base}*")), |_| false),
        (Some(format!("{order}.>")), |_| false),
        (Some(format!("{base}order.3")), |_| false),
    ];
    let end = Position::new(stored[4].0.get() + 3);
    for (filter, selects) in &queries {
        for after in stored.iter().map(|(p, _)| *p).chain([Position::START, end]) {
            let found = positions(&under.read(filter.as_deref(), after).await?);
            let wanted = stored.iter().filter(|(p, s)| *p > after && selects(s)).map(|(p, _)| *p);
            promise_eq!(found, wanted.collect::<Vec<_>>(), "{filter:?} after {after}");
        }
    }
    Ok(())
}

pub(super) async fn long_log_is_read_whole(under: LogUnderTest) -> Outcome {
    const ROUNDS: usize = 7;
    let size = under.log.limits().max_batch_messages.min(500);
    for round in 0..ROUNDS {
        // An empty payload here and there must not look like an end.
        let payload =
            |n: usize| if n.is_multiple_of(3) { String::new() } else { format!("{round} {n}") };
        let messages =
            (0..size).map(|n| with_payload(under.subject(n % 2), Guard::Free, payload(n)));
        under.batch(messages.collect()).await?;
    }
    let all = positions(&under.all().await?);
    promise_eq!(all.len(), size * ROUNDS, "messages");
    promise!(all.is_sorted_by(|a, b| a < b), "the positions grow");
    let half = under.read(Some(under.subject(1).as_str()), Position::START).await?;
    promise_eq!(half.len(), ROUNDS * (size / 2), "messages on one subject");
    let middle = all[all.len() / 2];
    let rest = positions(&under.read(None, middle).await?);
    promise!(rest == all[all.len() / 2 + 1..], "what is after {middle} is read");
    Ok(())
}

pub(super) async fn large_messages_are_read_whole(under: LogUnderTest) -> Outcome {
    const COUNT: usize = 30;
    let payload = bytes::Bytes::from(vec![7; under.log.limits().max_message_bytes / 10 * 9]);
    for _ in 0..COUNT {
        let large = with_payload(under.subject(0), Guard::Free, payload.clone());
        under.log.publish(large).await?;
    }
    let read = under.all().await?;
    promise_eq!(read.len(), COUNT, "messages");
    promise!(read.iter().all(|m| m.payload == payload), "every payload is whole");
    Ok(())
}

pub(super) async fn reading_while_writing_keeps_order(under: LogUnderTest) -> Outcome {
    const BEFORE: usize = 400;
    for chunk in 0..BEFORE / 100 {
        let messages = (0..100).map(|n| message(under.subject(chunk * 100 + n), Guard::Free));
        under.batch(messages.collect()).await?;
    }
    let query = LogQuery { filter: None, after: Position::START };
    let mut reading = under.log.read(query);
    let mut seen = Vec::new();
    while let Some(found) = reading.try_next().await? {
        if seen.len() < 300 && seen.len() % 3 == 0 {
            under.publish(seen.len(), Guard::Free).await?;
        }
        seen.push(found.position);
    }
    promise!(seen.is_sorted_by(|a, b| a < b), "no message is read twice or out of order");
    let all = positions(&under.all().await?);
    promise!(seen.len() >= BEFORE, "what was stored before is read, {} messages", seen.len());
    promise!(seen == all[..seen.len()], "no message is left out");
    Ok(())
}

pub(super) async fn dropped_read_disturbs_nothing(under: LogUnderTest) -> Outcome {
    let messages = (0..300).map(|number| message(under.subject(number), Guard::Free));
    under.batch(messages.collect()).await?;
    for taken in [0, 1, 150] {
        let query = LogQuery { filter: None, after: Position::START };
        let some: Vec<Result<_, BackendError>> = under.log.read(query).take(taken).collect().await;
        promise_eq!(some.into_iter().filter(Result::is_ok).count(), taken, "messages taken");
    }
    promise_eq!(under.all().await?.len(), 300, "messages");
    under.publish(0, Guard::Free).await?;
    Ok(())
}

pub(super) async fn status_counts(under: LogUnderTest) -> Outcome {
    let new = under.log.status().await?;
    promise_eq!((new.last, new.messages), (Position::START, 0), "a new log");
    let single = under.publish(0, Guard::Free).await?;
    let one = under.log.status().await?;
    promise_eq!((one.last, one.messages), (single, 1), "a log of one message");
    let pair = vec![message(under.subject(0), Guard::Free), message(under.subject(1), Guard::Free)];
    let last = under.batch(pair).await?;
    let three = under.log.status().await?;
    promise_eq!((three.last, three.messages), (last, 3), "a log of three messages");
    promise_eq!(three.created, new.created, "the time it was created");
    let limits = under.log.limits();
    promise!(limits.max_batch_messages >= 1, "a batch holds at least one message");
    promise!(limits.max_message_bytes >= 1024, "a message holds at least a kilobyte");
    Ok(())
}
