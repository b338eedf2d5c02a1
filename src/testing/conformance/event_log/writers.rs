//! Many writers at once.

use futures::future::join_all;

use super::super::{Broken, promise, promise_eq, promise_refused};
use super::{LogUnderTest, Outcome, message, with_payload};
use crate::backend::{BackendError, Guard, Position};

const WRITERS: usize = 32;

pub(super) async fn one_of_many_writers_wins(under: LogUnderTest) -> Outcome {
    let mut expected = Position::START;
    for round in 1..=20 {
        let writes = (0..WRITERS).map(|_| under.publish(0, Guard::Last(expected)));
        expected = only_winner(join_all(writes).await)?;
        promise_eq!(under.count().await?, round, "messages after round {round}");
    }
    Ok(())
}

pub(super) async fn one_of_many_batches_wins(under: LogUnderTest) -> Outcome {
    let writes = (0..WRITERS).map(|writer| {
        let own = message(under.subject(writer + 1), Guard::Last(Position::START));
        under.batch(vec![own, message(under.subject(0), Guard::Last(Position::START))])
    });
    only_winner(join_all(writes).await)?;
    promise_eq!(under.count().await?, 2, "messages");
    Ok(())
}

pub(super) async fn disjoint_batches_all_succeed(under: LogUnderTest) -> Outcome {
    const SIZE: usize = 3;
    let writes = (0..WRITERS).map(|writer| {
        let guard = |place| match place {
            0 => Guard::Last(Position::START),
            _ => Guard::Free,
        };
        let messages = (0..SIZE).map(|place| {
            with_payload(under.subject(writer), guard(place), format!("{writer} {place}"))
        });
        under.batch(messages.collect())
    });
    for outcome in join_all(writes).await {
        outcome?;
    }
    let stored = under.all().await?;
    promise_eq!(stored.len(), WRITERS * SIZE, "messages");
    for batch in stored.chunks(SIZE) {
        let writer = String::from_utf8_lossy(&batch[0].payload).replace(" 0", "");
        for (place, message) in batch.iter().enumerate() {
            let wanted = format!("{writer} {place}");
            promise_eq!(message.payload, wanted.as_bytes(), "a payload between others");
        }
    }
    Ok(())
}

fn only_winner(outcomes: Vec<Result<Position, BackendError>>) -> Result<Position, Broken> {
    let mut winner = None;
    for outcome in outcomes {
        match outcome {
            Ok(position) => {
                promise!(winner.is_none(), "two writers won: at {position} and {winner:?}");
                winner = Some(position);
            }
            lost => promise_refused!(lost, BackendError::Conflict { .. }, "a writer that lost"),
        }
    }
    winner.ok_or_else(|| Broken("no writer won".into()))
}
