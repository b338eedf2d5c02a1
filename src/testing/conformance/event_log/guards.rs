//! Guards of single messages.

use super::super::{promise, promise_eq, promise_refused};
use super::{LogUnderTest, Outcome};
use crate::backend::{BackendError, Guard, Position, ReadFrom};

pub(super) async fn positions_grow(under: LogUnderTest) -> Outcome {
    let mut last = Position::START;
    for number in [0, 1, 0, 2] {
        let position = under.publish(number, Guard::Free).await?;
        promise!(position > last, "position {position} follows {last}");
        last = position;
    }
    Ok(())
}

pub(super) async fn start_is_accepted_once(under: LogUnderTest) -> Outcome {
    under.publish(0, Guard::Last(Position::START)).await?;
    let second = under.publish(0, Guard::Last(Position::START)).await;
    promise_refused!(second, BackendError::Conflict { .. }, "a second first message");
    under.publish(1, Guard::Last(Position::START)).await?;
    promise_eq!(under.count().await?, 2, "messages");
    Ok(())
}

pub(super) async fn exact_position_is_accepted(under: LogUnderTest) -> Outcome {
    let first = under.publish(0, Guard::Last(Position::START)).await?;
    under.publish(1, Guard::Free).await?;
    let second = under.publish(0, Guard::Last(first)).await?;
    under.publish(0, Guard::Last(second)).await?;
    promise_eq!(under.count().await?, 4, "messages");
    Ok(())
}

pub(super) async fn position_behind_or_ahead_is_refused(under: LogUnderTest) -> Outcome {
    let first = under.publish(0, Guard::Free).await?;
    let last = under.publish(0, Guard::Free).await?;
    let elsewhere = under.publish(1, Guard::Free).await?;
    let ahead = Position::new(elsewhere.get() + 7);
    for wrong in [Position::START, first, elsewhere, ahead] {
        let refused = under.publish(0, Guard::Last(wrong)).await;
        promise_refused!(refused, BackendError::Conflict { .. }, "{wrong} instead of {last}");
    }
    promise_eq!(under.count().await?, 3, "messages");
    Ok(())
}

pub(super) async fn other_subject_is_guarded(under: LogUnderTest) -> Outcome {
    let watched = under.subject(0);
    let of = |position| Guard::LastOf(watched.clone(), position);
    under.publish(1, of(Position::START)).await?;
    let first = under.publish(0, Guard::Free).await?;
    let refused = under.publish(1, of(Position::START)).await;
    promise_refused!(refused, BackendError::Conflict { .. }, "START of a subject that has one");
    let own = under.publish(1, of(first)).await?;
    under.publish(0, Guard::Last(first)).await?;
    for wrong in [Position::START, first, own, Position::new(own.get() + 9)] {
        let refused = under.publish(1, of(wrong)).await;
        promise_refused!(refused, BackendError::Conflict { .. }, "{wrong} of another subject");
    }
    promise_eq!(under.count().await?, 4, "messages");
    Ok(())
}

pub(super) async fn refusal_stores_nothing(under: LogUnderTest) -> Outcome {
    let first = under.publish(0, Guard::Free).await?;
    let refused = under.publish(0, Guard::Last(Position::START)).await;
    promise_refused!(refused, BackendError::Conflict { .. }, "a wrong guard");
    let last = under.log.last(&under.subject(0), ReadFrom::Leader).await?;
    promise_eq!(last.map(|message| message.position), Some(first), "the last message");
    promise_eq!(under.all().await?.len(), 1, "messages read");
    under.publish(0, Guard::Last(first)).await?;
    Ok(())
}
