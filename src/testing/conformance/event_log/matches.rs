//! The last message of each subject that matches, and how many there are.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{promise, promise_eq};
use super::{LogUnderTest, Outcome, positions, with_payload};
use crate::backend::{BackendError, Bound, Count, Guard, Matching, Position, StoredMessage};
use crate::clock::Timestamp;
use crate::event::NonEmpty;
use crate::subject::Pattern;

pub(super) async fn last_of_each_subject_as_of_each_position(under: LogUnderTest) -> Outcome {
    let all = under.patterns(&[">"]);
    promise_eq!(found(&under, &all, Bound::Newest).await?, [], "in an empty log");
    promise_eq!(under.log.count(&all).await?, Count::Exactly(0), "subjects of an empty log");
    for number in [0, 1, 0, 2, 3, 1, 0, 4] {
        under.publish(number, Guard::Free).await?;
    }
    let stored = under.all().await?;
    let end = under.log.status().await?.last.get() + 3;
    for position in 0..=end {
        let bound = Bound::Position(Position::new(position));
        let wanted = lasts(stored.iter().filter(|m| m.position.get() <= position));
        promise_eq!(found(&under, &all, bound).await?, wanted, "as of {position}");
    }
    promise_eq!(found(&under, &all, Bound::Newest).await?, lasts(stored.iter()), "the newest");
    let one = under.patterns(&["order.3"]);
    promise_eq!(found(&under, &one, Bound::Newest).await?, [stored[4].clone()], "one subject");
    promise_eq!(under.log.count(&one).await?, Count::Exactly(1), "one subject");
    let none = under.patterns(&["order.9", "invoice.>"]);
    promise_eq!(found(&under, &none, Bound::Newest).await?, [], "no subject");
    promise_eq!(under.log.count(&none).await?, Count::Exactly(0), "no subject");
    promise_eq!(under.log.count(&all).await?, Count::Exactly(5), "all subjects");
    Ok(())
}

pub(super) async fn last_of_each_subject_as_of_a_time(under: LogUnderTest) -> Outcome {
    let all = under.patterns(&[">"]);
    let early = Bound::Time(Timestamp::now());
    promise_eq!(found(&under, &all, early).await?, [], "in an empty log");
    for number in [0, 1, 0, 2] {
        under.publish(number, Guard::Free).await?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let stored = under.all().await?;
    let second = Duration::from_secs(1).as_micros() as u64;
    let around = |m: &StoredMessage| [m.time.as_micros(), m.time.as_micros() + 1];
    let times = stored.iter().flat_map(around).collect::<Vec<_>>();
    let (first, last) = (times[0] - second, times[times.len() - 1] + 3600 * second);
    for time in times.into_iter().chain([first, last]).map(Timestamp::from_micros) {
        let wanted = lasts(stored.iter().filter(|m| m.time < time));
        let found = found(&under, &all, Bound::Time(time)).await?;
        promise_eq!(positions(&found), positions(&wanted), "as of {time}");
    }
    Ok(())
}

pub(super) async fn overlapping_patterns_find_a_subject_once(under: LogUnderTest) -> Outcome {
    for number in 0..4 {
        under.publish(number, Guard::Free).await?;
    }
    let rests: [&[&str]; 4] =
        [&[">", "order.1"], &["order.*", "*.1", "*.2"], &["*.3", "order.3"], &["order.>", ">"]];
    for (rests, wanted) in rests.into_iter().zip([4, 4, 1, 4]) {
        let patterns = under.patterns(rests);
        let found = positions(&found(&under, &patterns, Bound::Newest).await?);
        promise_eq!(found.len(), wanted, "messages of {rests:?}");
        promise!(found.is_sorted_by(|a, b| a < b), "the positions of {rests:?} grow: {found:?}");
        let count = under.log.count(&patterns).await?;
        promise_eq!(count, Count::Exactly(wanted as u64), "subjects of {rests:?}");
    }
    Ok(())
}

pub(super) async fn no_more_than_one_answer_holds(under: LogUnderTest) -> Outcome {
    const LIMIT: usize = crate::backend::MAX_MATCHING;
    let all = under.patterns(&[">"]);
    under.fill(LIMIT).await?;
    promise_eq!(found(&under, &all, Bound::Newest).await?.len(), LIMIT, "messages");
    promise_eq!(under.log.count(&all).await?, Count::Exactly(LIMIT as u64), "subjects");
    let end = under.publish(LIMIT, Guard::Free).await?;
    let more = under.log.matching(&all, Bound::Newest).await?;
    promise_eq!(more, Matching::TooMany, "one more than one answer holds");
    promise_eq!(under.log.count(&all).await?, Count::MoreThan(LIMIT as u64), "one subject more");
    let before = Bound::Position(Position::new(end.get() - 1));
    promise_eq!(found(&under, &all, before).await?.len(), LIMIT, "messages before");
    Ok(())
}

pub(super) async fn matches_of_many_bytes_are_whole(under: LogUnderTest) -> Outcome {
    // More than a server sends in one answer, which is 64 MiB by default.
    const BYTES: usize = 80 * 1024 * 1024;
    let payload = bytes::Bytes::from(vec![7; under.log.limits().max_message_bytes / 10 * 9]);
    let count = (BYTES / payload.len()).min(crate::backend::MAX_MATCHING);
    for number in 0..count {
        let large = with_payload(under.subject(number), Guard::Free, payload.clone());
        under.log.publish(large).await?;
    }
    let all = under.patterns(&[">"]);
    for bound in [Bound::Newest, Bound::Time(Timestamp::from_micros(4_000_000_000_000_000))] {
        let found = found(&under, &all, bound).await?;
        promise_eq!(found.len(), count, "messages");
        promise!(found.is_sorted_by_key(|m| m.position), "the positions grow");
    }
    Ok(())
}

async fn found(
    under: &LogUnderTest,
    patterns: &NonEmpty<Pattern>,
    bound: Bound,
) -> Result<Vec<StoredMessage>, BackendError> {
    match under.log.matching(patterns, bound).await? {
        Matching::All(found) => Ok(found),
        Matching::TooMany => Err(BackendError::Corrupt { detail: "too many match".to_owned() }),
    }
}

fn lasts<'a>(messages: impl Iterator<Item = &'a StoredMessage>) -> Vec<StoredMessage> {
    let by_subject: BTreeMap<_, _> = messages.map(|m| (m.subject.as_str(), m)).collect();
    let mut lasts: Vec<_> = by_subject.into_values().cloned().collect();
    lasts.sort_by_key(|message| message.position);
    lasts
}
