//! Loading: which state, how new, and from what.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cim_persistence::clock::{Clock, Timestamp};
use cim_persistence::repository::{
    Freshness, LoadOptions, Repository, RepositoryError, SaveOptions,
};
use cim_persistence::store::{Context, Ports};

use crate::domain::{Account, Lab, account, bank, bare_bank, deposit, deposit_times, opened};

#[derive(Debug, Default)]
struct Hands(AtomicU64);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

fn options() -> LoadOptions {
    LoadOptions::default()
}

#[tokio::test]
async fn latest_state_and_state_at_a_version() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    accounts.save(&account("a"), vec![opened("Ada")], SaveOptions::default()).await.unwrap();
    deposit_times(&accounts, "a", 4).await;
    for accounts in [&accounts, &lab.accounts().await] {
        let (latest, known) = accounts.load(&"a".into(), options()).await.unwrap();
        assert_eq!((latest.cents, known.version), (4, 5));
        for version in 1..=5 {
            let (then, known) = accounts.get_at_version(&"a".into(), version).await.unwrap();
            assert_eq!((then.cents as u64, known.version), (version - 1, version));
        }
    }
}

#[tokio::test]
async fn state_as_of_a_time_is_that_of_the_last_event_at_or_before_it() {
    let lab = Lab::start().await;
    let connection = lab.connection().await;
    lab.process(&bank()).await;
    let (hands, bank) = (Arc::new(Hands::default()), lab.config(&bank()));
    let ports = Ports { clock: Arc::clone(&hands) as _, ..Ports::nats(&connection, &bank) };
    let accounts = Repository::<Account>::of(&Context::on(ports, &bank).unwrap()).unwrap();
    for second in [10, 20, 30] {
        hands.0.store(second, Ordering::SeqCst);
        deposit(&accounts, "a", 1).await;
    }
    let at = |micros| LoadOptions { as_of: Some(Timestamp::from_micros(micros)), ..options() };
    for (time, cents) in [(10, 1), (19, 1), (20, 2), (29, 2), (30, 3), (99, 3)] {
        let (then, known) = accounts.load(&"a".into(), at(time)).await.unwrap();
        assert_eq!((then.cents, known.version), (cents, cents as u64), "at {time}");
    }
    let error = accounts.load(&"a".into(), at(9)).await.unwrap_err();
    assert!(matches!(error, RepositoryError::NotFound { deleted: None, .. }), "{error}");
    let both = LoadOptions { version: Some(1), ..at(25) };
    assert_eq!(accounts.load(&"a".into(), both).await.unwrap().1.version, 1);
    let both = LoadOptions { version: Some(3), ..at(25) };
    assert_eq!(accounts.load(&"a".into(), both).await.unwrap().1.version, 2);
}

#[tokio::test]
async fn events_come_along_when_they_are_asked_for() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    deposit_times(&accounts, "a", 3).await;
    let (_, without) = accounts.load(&"a".into(), options()).await.unwrap();
    assert!(without.events.is_empty());
    let wanted = LoadOptions { include_events: true, ..options() };
    let (latest, with) = accounts.load(&"a".into(), wanted.clone()).await.unwrap();
    let versions: Vec<u64> = with.events.iter().map(|event| event.version()).collect();
    assert_eq!((latest.cents, versions), (3, vec![1, 2, 3]));
    let second = LoadOptions { version: Some(2), ..wanted };
    assert_eq!(accounts.load(&"a".into(), second).await.unwrap().1.events.len(), 2);
}

#[tokio::test]
async fn missing_aggregates_and_versions_are_told_apart() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    let error = accounts.load(&"n.n".into(), options()).await.unwrap_err();
    assert!(matches!(&error, RepositoryError::NotFound { deleted: None, .. }));
    assert_eq!(error.to_string(), "account n.n does not exist");
    deposit_times(&accounts, "a", 2).await;
    let error = accounts.get_at_version(&"a".into(), 3).await.unwrap_err();
    assert!(
        matches!(&error, RepositoryError::NoSuchVersion { requested: 3, actual: 2, .. }),
        "{error}"
    );
    assert_eq!(error.to_string(), "account a has version 2, not yet 3");
    let error = accounts.get_at_version(&"a".into(), 0).await.unwrap_err();
    assert!(matches!(&error, RepositoryError::NotFound { .. }), "version 0 is nothing yet");
    assert!(accounts.exists(&"a".into()).await.unwrap());
    assert!(!accounts.exists(&"n.n".into()).await.unwrap());
}

#[tokio::test]
async fn more_events_than_allowed_are_an_error_and_never_half_a_state() {
    let lab = Lab::start().await;
    deposit_times(&lab.accounts_with(&bare_bank()).await, "a", 5).await;
    let accounts = lab.accounts_with(&bare_bank()).await;
    for (limit, fits) in [(4, false), (5, true), (6, true)] {
        let wanted = LoadOptions { max_events: Some(limit), ..options() };
        match (fits, accounts.load(&"a".into(), wanted).await) {
            (true, loaded) => assert_eq!(loaded.unwrap().0.cents, 5),
            (false, error) => assert_eq!(
                error.unwrap_err().to_string(),
                "loading account a replays more than 4 events; allow more or take snapshots"
            ),
        }
    }
}

#[tokio::test]
async fn the_one_event_after_what_is_known_counts_among_those_allowed() {
    let lab = Lab::start().await;
    let (ours, theirs) = (lab.accounts().await, lab.accounts_with(&bare_bank()).await);
    let allowing = |events| LoadOptions { max_events: Some(events), ..options() };
    for cents in 1..=3 {
        deposit(&theirs, "a", 1).await;
        // The first of all, and then one after the state in the cache.
        let error = ours.load(&"a".into(), allowing(0)).await.unwrap_err();
        assert!(matches!(error, RepositoryError::TooManyEvents { limit: 0, .. }), "{error}");
        assert_eq!(ours.load(&"a".into(), allowing(1)).await.unwrap().0.cents, cents);
        assert_eq!(ours.load(&"a".into(), allowing(0)).await.unwrap().0.cents, cents);
    }
}

#[tokio::test]
async fn cached_state_is_accepted_only_for_as_long_as_the_caller_says() {
    let lab = Lab::start().await;
    let (ours, theirs) = (lab.accounts().await, lab.accounts().await);
    deposit(&ours, "a", 1).await;
    deposit(&theirs, "a", 1).await;
    let cents = async |freshness| {
        ours.load(&"a".into(), LoadOptions { freshness, ..options() }).await.unwrap().0.cents
    };
    assert_eq!(cents(Freshness::Cached(Duration::from_secs(3600))).await, 1);
    assert_eq!(cents(Freshness::Cached(Duration::ZERO)).await, 2);
    deposit(&theirs, "a", 1).await;
    assert_eq!(cents(Freshness::Current).await, 3);
    deposit(&theirs, "a", 1).await;
    assert_eq!(cents(Freshness::Latest).await, 4);
}

#[tokio::test]
async fn load_without_snapshots_replays_every_event() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    deposit_times(&accounts, "a", 3).await;
    accounts.create_snapshot(&"a".into()).await.unwrap();
    accounts.context().flush().await;
    for accounts in [&accounts, &lab.accounts().await] {
        let none = LoadOptions { max_events: Some(0), ..options() };
        assert_eq!(accounts.load(&"a".into(), none).await.unwrap().0.cents, 3);
        let all = LoadOptions { use_snapshot: false, max_events: Some(2), ..options() };
        let error = accounts.load(&"a".into(), all).await.unwrap_err();
        assert!(matches!(error, RepositoryError::TooManyEvents { limit: 2, .. }), "{error}");
    }
}
