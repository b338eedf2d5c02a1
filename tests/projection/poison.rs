//! Events that cannot be used.

use std::time::Duration;

use cim_persistence::projection::{
    PoisonPolicy, ProjectionError, ProjectionOptions, ProjectionStatus, Projections,
    RunningProjection,
};

use crate::domain::{
    Balances, PANICS, PATIENCE, REFUSED, Store, WORDY, expected, many_moves, many_words, moves,
    options, stored,
};

#[tokio::test(start_paused = true)]
async fn the_default_is_to_stop_before_it_and_to_say_why() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 30).await;
    let good = expected(&context, 1).await;
    let poison = moves(&context, "a1", REFUSED, 1).await;
    many_moves(&context, 30).await;
    let mut running = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    match running.caught_up(PATIENCE).await {
        Err(ProjectionError::Poison { projection, position, reason }) => {
            assert_eq!((projection.as_str(), position), ("balances", poison.get()));
            assert_eq!(reason, "no such account");
        }
        other => panic!("{other:?}"),
    }
    // Why is told once; that it has ended is told whenever it is asked for.
    let again = running.caught_up(PATIENCE).await;
    assert!(matches!(again, Err(ProjectionError::Definition { .. })), "{again:?}");
    assert!(!running.is_running());
    assert_eq!(stored(&store.models, 1).await, good);
    let report = Projections::of(&context).report("balances").await.unwrap();
    assert!(matches!(report.status, ProjectionStatus::Failed { .. }), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn parked_events_are_listed_and_the_others_take_effect() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 30).await;
    let refused = moves(&context, "a1", REFUSED, 1).await;
    many_moves(&context, 30).await;
    let panics = moves(&context, "a2", PANICS, 1).await;
    many_moves(&context, 30).await;
    let options = ProjectionOptions { poison: PoisonPolicy::PARK, ..options() };
    let mut running = RunningProjection::start(&context, Balances::<1>, options).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    assert_eq!(stored(&store.models, 1).await, expected(&context, 1).await);
    let projections = Projections::of(&context);
    let parked = projections.parked("balances").await.unwrap();
    let seen: Vec<_> = parked.iter().map(|event| (event.position, event.reason.as_str())).collect();
    assert_eq!(
        seen,
        [(refused, "no such account"), (panics, "it panicked: an account that panics")]
    );
    projections.forget_parked("balances", refused).await.unwrap();
    assert_eq!(projections.parked("balances").await.unwrap().len(), 1);
    assert_eq!(projections.report("balances").await.unwrap().parked, 2);
}

#[tokio::test(start_paused = true)]
async fn retries_wait_longer_each_time() {
    let store = Store::new();
    let context = store.healthy();
    moves(&context, "a1", REFUSED, 1).await;
    let poison = PoisonPolicy::STOP.after_retries(3, Duration::from_secs(1));
    let options = ProjectionOptions { poison, ..options() };
    let begun = tokio::time::Instant::now();
    let mut running = RunningProjection::start(&context, Balances::<1>, options).unwrap();
    let ended = running.caught_up(PATIENCE).await;
    assert!(matches!(ended, Err(ProjectionError::Poison { .. })), "{ended:?}");
    assert!(begun.elapsed() >= Duration::from_secs(1 + 2 + 4), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_reason_longer_than_a_message_is_kept_in_part() {
    let store = Store::new();
    let context = store.healthy();
    let wordy = moves(&context, "a1", WORDY, 1).await;
    let parks = ProjectionOptions { poison: PoisonPolicy::PARK, ..options() };
    let mut running = RunningProjection::start(&context, Balances::<1>, parks).unwrap();
    running.caught_up(PATIENCE).await.unwrap();
    running.stop().await.unwrap();
    let projections = Projections::of(&context);
    let parked = projections.parked("balances").await.unwrap();
    assert_eq!(parked.iter().map(|event| event.position).collect::<Vec<_>>(), [wordy]);
    assert!(many_words().starts_with(parked[0].reason.trim_end_matches(" …")));
    // So is the reason why one stops.
    let context = Store::new().healthy();
    moves(&context, "a1", WORDY, 1).await;
    let mut running = RunningProjection::start(&context, Balances::<1>, options()).unwrap();
    running.caught_up(PATIENCE).await.unwrap_err();
    let report = Projections::of(&context).report("balances").await.unwrap();
    assert!(matches!(report.status, ProjectionStatus::Failed { .. }), "{report:?}");
}
