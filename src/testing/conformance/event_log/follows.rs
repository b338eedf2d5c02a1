//! Following: what is stored, then what is being stored.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::time::timeout;

use super::super::{promise, promise_eq};
use super::{Broken, LogUnderTest, Outcome, message, positions, with_payload};
use crate::backend::{BackendError, Followed, Guard, Position, Start, StoredMessage, TailQuery};
use crate::clock::Timestamp;
use crate::event::{Headers, names};
use crate::event_log::LogQuery;

/// How long anything may take before a promise counts as broken.
const SOON: Duration = Duration::from_secs(30);

const BEGINNING: Start = Start::After(Position::START);

pub(super) async fn past_comes_first_and_then_what_is_stored(under: LogUnderTest) -> Outcome {
    let mut stored = Vec::new();
    for number in [0, 1, 0] {
        stored.push(under.publish(number, Guard::Free).await?);
    }
    let mut follower = Follower::of(&under, &["order.>"], BEGINNING);
    promise_eq!(follower.past().await?, stored, "what is stored");
    for number in [2, 0, 2] {
        let position = under.publish(number, Guard::Free).await?;
        promise_eq!(follower.message().await?.position, position, "what was just stored");
    }
    under.publish(0, Guard::Free).await?;
    under.fill(3).await?;
    let end = under.log.status().await?.last.get();
    let rest = follower.messages(4).await?;
    promise_eq!(rest, (end - 3..=end).map(Position::new).collect::<Vec<_>>(), "the rest");
    Ok(())
}

pub(super) async fn empty_log_is_caught_up_at_once(under: LogUnderTest) -> Outcome {
    for start in [BEGINNING, Start::Now, Start::Latest, Start::Since(Timestamp::from_micros(0))] {
        let mut follower = Follower::of(&under, &[">"], start);
        promise_eq!(follower.past().await?, [], "what there is from {start:?}");
    }
    let mut follower = Follower::of(&under, &[">"], BEGINNING);
    promise_eq!(follower.past().await?, [], "what there is");
    let first = under.publish(0, Guard::Free).await?;
    promise_eq!(follower.message().await?.position, first, "the first message");
    Ok(())
}

pub(super) async fn nothing_that_matches_is_caught_up_at_once(under: LogUnderTest) -> Outcome {
    for number in 0..10 {
        under.publish(number, Guard::Free).await?;
    }
    for start in [BEGINNING, Start::Now, Start::Latest, Start::Since(Timestamp::from_micros(0))] {
        let mut follower = Follower::of(&under, &["invoice.*", "order.77"], start);
        promise_eq!(follower.past().await?, [], "what matches from {start:?}");
    }
    let mut follower = Follower::of(&under, &["invoice.*", "order.77"], BEGINNING);
    promise_eq!(follower.past().await?, [], "what matches");
    under.publish(1, Guard::Free).await?;
    let wanted = under.publish(77, Guard::Free).await?;
    promise_eq!(follower.message().await?.position, wanted, "the first that matches");
    Ok(())
}

pub(super) async fn begins_after_any_position(under: LogUnderTest) -> Outcome {
    let mut stored = Vec::new();
    for number in [0, 1, 1, 0, 1] {
        stored.push((number, under.publish(number, Guard::Free).await?));
    }
    let end = under.log.status().await?.last.get();
    for after in (0..=end).map(Position::new) {
        for (rest, selects) in [("order.1", [1].as_slice()), (">", &[0, 1])] {
            let mut follower = Follower::of(&under, &[rest], Start::After(after));
            let wanted = stored.iter().filter(|(n, p)| *p > after && selects.contains(n));
            let wanted: Vec<_> = wanted.map(|(_, position)| *position).collect();
            promise_eq!(follower.past().await?, wanted, "{rest} after {after}");
        }
    }
    Ok(())
}

pub(super) async fn begins_at_any_time(under: LogUnderTest) -> Outcome {
    for number in 0..5 {
        under.publish(number, Guard::Free).await?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let stored = under.all().await?;
    let around = |m: &StoredMessage| [m.time.as_micros(), m.time.as_micros() + 1];
    let times = stored.iter().flat_map(around).chain([0]).map(Timestamp::from_micros);
    for time in times.collect::<Vec<_>>() {
        let mut follower = Follower::of(&under, &["order.*"], Start::Since(time));
        let wanted: Vec<_> = stored.iter().filter(|m| m.time >= time).cloned().collect();
        promise_eq!(follower.past().await?, positions(&wanted), "what there is since {time}");
    }
    let soon = Timestamp::from_micros(Timestamp::now().as_micros() + 300_000);
    let mut follower = Follower::of(&under, &["order.*"], Start::Since(soon));
    promise_eq!(follower.past().await?, [], "what there is since a time to come");
    let mut last = stored[4].time;
    while last < soon {
        under.publish(0, Guard::Free).await?;
        last = under.all().await?.last().map_or(last, |message| message.time);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let wanted = under.all().await?.into_iter().find(|message| message.time >= soon);
    let found = follower.message().await?.position;
    promise_eq!(Some(found), wanted.map(|m| m.position), "the first since a time to come");
    Ok(())
}

pub(super) async fn begins_now(under: LogUnderTest) -> Outcome {
    for number in 0..5 {
        under.publish(number, Guard::Free).await?;
    }
    let mut follower = Follower::of(&under, &["order.1", "order.2"], Start::Now);
    promise_eq!(follower.past().await?, [], "what there is now");
    let mut wanted = Vec::new();
    for number in [0, 2, 1, 1] {
        let position = under.publish(number, Guard::Free).await?;
        wanted.extend((number > 0).then_some(position));
    }
    promise_eq!(follower.messages(3).await?, wanted, "what is stored from now on");
    Ok(())
}

pub(super) async fn begins_with_the_last_of_each_subject(under: LogUnderTest) -> Outcome {
    let mut lasts = [Position::START; 6];
    for number in [0, 1, 0, 2, 3, 1, 5] {
        lasts[number] = under.publish(number, Guard::Free).await?;
    }
    let mut follower =
        Follower::of(&under, &["order.0", "order.1", "order.2", "order.4"], Start::Latest);
    let wanted = [lasts[0], lasts[2], lasts[1]];
    promise_eq!(follower.past().await?, wanted, "the last messages");
    for number in [4, 1, 1, 4] {
        let position = under.publish(number, Guard::Free).await?;
        promise_eq!(follower.message().await?.position, position, "what was just stored");
    }
    let mut all = Follower::of(&under, &[">"], Start::Latest);
    let last = under.all().await?.last().map(|message| message.position);
    promise_eq!(all.past().await?.last().copied(), last, "the last of all");
    Ok(())
}

pub(super) async fn overlapping_patterns_deliver_once(under: LogUnderTest) -> Outcome {
    let mut stored = Vec::new();
    for (aggregate, number) in
        [("order", 1), ("invoice", 1), ("order", 2), ("invoice", 2), ("order", 3)]
    {
        let subject = under.subject_of(aggregate, number);
        stored.push(under.log.publish(message(subject, Guard::Free)).await?);
    }
    let queries: [(&[&str], &[usize]); 5] = [
        (&[">", "order.1"], &[0, 1, 2, 3, 4]),
        (&["order.*", "*.1"], &[0, 1, 2, 4]),
        (&["order.1", "order.1"], &[0]),
        (&["invoice.1", "*.1", "order.3"], &[0, 1, 4]),
        (&["order.>", "*.2", "invoice.2"], &[0, 2, 3, 4]),
    ];
    for (rests, wanted) in queries {
        let wanted: Vec<_> = wanted.iter().map(|index| stored[*index]).collect();
        for start in [BEGINNING, Start::Latest] {
            let mut follower = Follower::of(&under, rests, start);
            promise_eq!(follower.past().await?, wanted, "{rests:?} from {start:?}");
        }
    }
    Ok(())
}

pub(super) async fn following_while_writing_leaves_nothing_out(under: LogUnderTest) -> Outcome {
    const WRITES: usize = 1500;
    under.fill(700).await?;
    let writing = async {
        for number in 0..WRITES {
            under.publish(number % 7, Guard::Free).await?;
        }
        Ok::<_, Broken>(())
    };
    let following = async {
        let mut followers = Vec::new();
        for _ in 0..4 {
            let mut follower = Follower::of(&under, &["order.>"], BEGINNING);
            let mut seen = follower.past().await?;
            seen.extend(follower.messages(700 + WRITES - seen.len()).await?);
            followers.push(seen);
        }
        Ok::<_, Broken>(followers)
    };
    let ((), followers) = futures::try_join!(writing, following)?;
    let all = positions(&under.all().await?);
    for seen in followers {
        promise!(seen == all, "{} messages of {} come in order", seen.len(), all.len());
    }
    Ok(())
}

pub(super) async fn long_log_is_followed_whole(under: LogUnderTest) -> Outcome {
    const ROUNDS: usize = 10;
    for _ in 0..ROUNDS {
        under.fill(500).await?;
    }
    let all = positions(&under.all().await?);
    promise_eq!(all.len(), 500 * ROUNDS, "messages");
    let mut follower = Follower::of(&under, &[">"], BEGINNING);
    promise!(follower.past().await? == all, "everything comes, in order");
    let mut one = Follower::of(&under, &["order.499"], Start::After(all[3000]));
    promise_eq!(one.past().await?.len(), 4, "messages on one subject");
    let mut latest = Follower::of(&under, &[">"], Start::Latest);
    promise!(latest.past().await? == all[all.len() - 500..], "the last of each subject comes");
    Ok(())
}

pub(super) async fn large_messages_are_followed_whole(under: LogUnderTest) -> Outcome {
    const COUNT: usize = 30;
    let payload = bytes::Bytes::from(vec![7; under.log.limits().max_message_bytes / 10 * 9]);
    for _ in 0..COUNT {
        let large = with_payload(under.subject(0), Guard::Free, payload.clone());
        under.log.publish(large).await?;
    }
    let mut follower = Follower::of(&under, &[">"], BEGINNING);
    for _ in 0..COUNT {
        promise!(follower.message().await?.payload == payload, "every payload is whole");
    }
    promise_eq!(follower.next().await?, Followed::CaughtUp, "the end");
    Ok(())
}

pub(super) async fn message_is_as_it_is_read(under: LogUnderTest) -> Outcome {
    let mut headers = Headers::new();
    headers.push(names::MSG_ID, "an id");
    headers.push(names::EVENT_TYPE, "placed");
    headers.push("X-Own", "some text");
    let mut told = with_payload(under.subject(0), Guard::Free, "payload");
    told.headers = headers;
    under.log.publish(told).await?;
    under.log.publish(with_payload(under.subject(1), Guard::Free, "")).await?;
    let read = under.all().await?;
    for start in [BEGINNING, Start::Latest] {
        let mut follower = Follower::of(&under, &[">"], start);
        for wanted in &read {
            let found = follower.message().await?;
            let about = |m: &StoredMessage| (m.subject.clone(), m.position, m.time);
            promise_eq!(about(&found), about(wanted), "where and when");
            promise_eq!(sorted(&found.headers), sorted(&wanted.headers), "the headers");
            promise_eq!(found.payload, wanted.payload, "the payload");
        }
    }
    Ok(())
}

pub(super) async fn position_beyond_the_end_is_another_log(under: LogUnderTest) -> Outcome {
    under.publish(0, Guard::Free).await?;
    let mut follower = Follower::of(&under, &[">"], Start::After(Position::new(7)));
    match timeout(SOON, follower.stream.next()).await {
        Ok(Some(Err(BackendError::Truncated { last: 1, after: 7, .. }))) => {}
        other => promise!(false, "position 7 in a log of one message: {other:?}"),
    }
    let end = timeout(SOON, follower.stream.next()).await;
    promise!(matches!(end, Ok(None)), "the error is the last: {end:?}");
    Ok(())
}

pub(super) async fn followers_are_independent(under: LogUnderTest) -> Outcome {
    under.fill(20).await?;
    let mut followers: Vec<_> =
        (0..20).map(|_| Follower::of(&under, &["order.>"], BEGINNING)).collect();
    for (taken, follower) in followers.iter_mut().enumerate() {
        promise_eq!(follower.messages(taken).await?.len(), taken, "messages");
    }
    under.publish(0, Guard::Free).await?;
    let all = positions(&under.all().await?);
    for (taken, follower) in followers.iter_mut().enumerate() {
        let mut rest = Vec::new();
        while rest.len() < all.len() - taken {
            match follower.next().await? {
                Followed::Message(message) => rest.push(message.position),
                Followed::CaughtUp => {}
            }
        }
        promise!(rest == all[taken..], "follower {taken} goes on where it was");
    }
    Ok(())
}

pub(super) async fn dropped_follower_disturbs_nothing(under: LogUnderTest) -> Outcome {
    under.fill(300).await?;
    for taken in [0, 1, 150, 300] {
        let mut follower = Follower::of(&under, &[">"], BEGINNING);
        promise_eq!(follower.messages(taken).await?.len(), taken, "messages taken");
    }
    let read = under.log.read(LogQuery { filter: None, after: Position::START });
    promise_eq!(read.count().await, 300, "messages");
    under.publish(0, Guard::Free).await?;
    Ok(())
}

struct Follower {
    stream: BoxStream<'static, Result<Followed, BackendError>>,
}

impl Follower {
    fn of(under: &LogUnderTest, rests: &[&str], start: Start) -> Self {
        let query = TailQuery { patterns: under.patterns(rests), start };
        Self { stream: under.log.follow(query) }
    }

    async fn next(&mut self) -> Result<Followed, Broken> {
        match timeout(SOON, self.stream.next()).await {
            Ok(Some(followed)) => Ok(followed?),
            Ok(None) => Err(Broken("following ended".to_owned())),
            Err(_) => Err(Broken(format!("nothing came within {SOON:?}"))),
        }
    }

    /// What comes until everything was handed out that was there.
    async fn past(&mut self) -> Result<Vec<Position>, Broken> {
        let mut seen = Vec::new();
        loop {
            match self.next().await? {
                Followed::Message(message) => seen.push(message.position),
                Followed::CaughtUp => return Ok(seen),
            }
        }
    }

    async fn message(&mut self) -> Result<StoredMessage, Broken> {
        match self.next().await? {
            Followed::Message(message) => Ok(message),
            Followed::CaughtUp => Err(Broken("caught up, instead of a message".to_owned())),
        }
    }

    async fn messages(&mut self, count: usize) -> Result<Vec<Position>, Broken> {
        let mut seen = Vec::with_capacity(count);
        for _ in 0..count {
            seen.push(self.message().await?.position);
        }
        Ok(seen)
    }
}

fn sorted(headers: &Headers) -> Vec<(&str, &str)> {
    let mut all: Vec<_> = headers.iter().collect();
    all.sort_unstable();
    all
}
