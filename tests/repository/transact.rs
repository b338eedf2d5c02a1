//! Deciding: on the newest state, again when others were first, never twice in the history.

use std::time::Duration;

use cim_persistence::repository::{
    Freshness, LoadOptions, Repository, RepositoryError, SaveOptions, TransactError,
    TransactOptions,
};
use futures::future::join_all;

use crate::domain::{
    Account, AccountEvent, Lab, Refused, Withdraw, account, deposit, deposited, meanwhile,
};

type Never = std::convert::Infallible;

#[tokio::test]
async fn decision_is_stored_and_its_reply_comes_with_the_position() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    let id = "a".to_owned();
    let first = accounts
        .transact(&id, |a: &Account| Ok::<_, Never>((vec![deposited(5), deposited(6)], a.cents)))
        .await
        .unwrap();
    assert_eq!((first.reply, first.version, first.events, first.attempts), (0, 2, 2, 1));
    assert_eq!(first.position.get(), 2);
    let second = accounts.transact(&id, |_| Ok::<_, Never>([deposited(1)])).await.unwrap();
    assert_eq!((second.version, second.position.get()), (3, 3));
    assert_eq!(accounts.load(&id, LoadOptions::default()).await.unwrap().0.cents, 12);
}

#[tokio::test]
async fn no_events_store_nothing_and_reply_all_the_same() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    let nothing = async |id: &str| {
        accounts
            .transact(&id.to_owned(), |a: &Account| Ok::<_, Never>((vec![], a.cents)))
            .await
            .unwrap()
    };
    let of_nobody = nothing("nobody").await;
    assert_eq!((of_nobody.reply, of_nobody.version, of_nobody.events), (0, 0, 0));
    let saved = deposit(&accounts, "a", 5).await;
    let of_a = nothing("a").await;
    assert_eq!((of_a.reply, of_a.version, of_a.position, of_a.events), (5, 1, saved.position, 0));
    assert_eq!(lab.stored().await, 1);
}

#[tokio::test]
async fn rejection_is_the_domains_own_and_stores_nothing() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    deposit(&accounts, "a", 5).await;
    let error = accounts.execute_with_retry(&"a".into(), &Withdraw(9)).await.unwrap_err();
    let TransactError::Rejected(refused) = &error else { panic!("{error}") };
    assert_eq!(*refused, Refused::Overdrawn { wanted: 9, there: 5 });
    assert_eq!(error.to_string(), "rejected: 9 cents are more than the 5 that are there");
    assert_eq!(lab.stored().await, 1);
    let done = accounts.execute_with_retry(&"a".into(), &Withdraw(5)).await.unwrap();
    assert_eq!((done.version, done.events), (2, 1));
    let idle = accounts.execute_command(&"a".into(), &Withdraw(0)).await.unwrap();
    assert_eq!((idle.version, idle.events), (2, 0));
    assert_eq!(lab.stored().await, 2);
}

#[tokio::test]
async fn deleted_aggregate_is_not_decided_on() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    deposit(&accounts, "a", 5).await;
    accounts.delete(&"a".into(), SaveOptions::default()).await.unwrap();
    let error = accounts.execute_with_retry(&"a".into(), &Withdraw(1)).await.unwrap_err();
    assert!(
        matches!(
            error,
            TransactError::Repository(RepositoryError::NotFound { deleted: Some(2), .. })
        ),
        "{error}"
    );
}

/// A decision during which another process commits, the first so many times.
fn disturbed<'a>(
    others: &'a Repository<Account>,
    mut times: u32,
) -> impl FnMut(&Account) -> Result<(Vec<AccountEvent>, i64), Never> + 'a {
    move |seen| {
        if times > 0 {
            times -= 1;
            meanwhile(deposit(others, "a", 1));
        }
        Ok((vec![deposited(100)], seen.cents))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflict_is_decided_again_on_what_the_other_stored() {
    let lab = Lab::start().await;
    let (ours, theirs) = (lab.accounts().await, lab.accounts().await);
    deposit(&ours, "a", 1).await;
    let done = ours.transact(&"a".into(), disturbed(&theirs, 3)).await.unwrap();
    assert_eq!((done.reply, done.attempts, done.version), (4, 4, 5));
    assert_eq!(ours.load(&"a".into(), LoadOptions::default()).await.unwrap().0.cents, 104);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_are_bounded() {
    let lab = Lab::start().await;
    let (ours, theirs) = (lab.accounts().await, lab.accounts().await);
    deposit(&ours, "a", 1).await;
    let options = TransactOptions { attempts: 3, ..TransactOptions::default() };
    let error = ours.transact_with(&"a".into(), options, disturbed(&theirs, 99)).await.unwrap_err();
    let TransactError::Repository(RepositoryError::VersionConflict { expected, actual }) = error
    else {
        panic!("{error}")
    };
    assert_eq!((expected, actual), (3, 4));
    let error = ours.transact(&"a".into(), disturbed(&theirs, 99)).await.unwrap_err();
    assert!(
        matches!(
            error,
            TransactError::Repository(RepositoryError::VersionConflict {
                expected: 13,
                actual: 14
            })
        ),
        "ten attempts by default: {error}"
    );
    assert_eq!(lab.stored().await, 14);
}

#[tokio::test]
async fn execute_command_returns_a_conflict() {
    let lab = Lab::start().await;
    let (ours, theirs) = (lab.accounts().await, lab.accounts().await);
    deposit(&ours, "a", 10).await;
    let options = TransactOptions {
        attempts: 1,
        freshness: Freshness::Cached(Duration::from_secs(3600)),
        ..TransactOptions::default()
    };
    deposit(&theirs, "a", 1).await;
    // The decision is made on the cached state, the expectation notices.
    let error = ours
        .transact_with(&"a".into(), options, |_| Ok::<_, Never>([deposited(1)]))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            TransactError::Repository(RepositoryError::VersionConflict { expected: 1, actual: 2 })
        ),
        "{error}"
    );
    assert_eq!(ours.execute_command(&"a".into(), &Withdraw(11)).await.unwrap().version, 3);
}

#[tokio::test]
async fn no_is_never_said_on_a_state_that_was_not_compared() {
    let lab = Lab::start().await;
    let (ours, theirs) = (lab.accounts().await, lab.accounts().await);
    let stale = || TransactOptions {
        freshness: Freshness::Cached(Duration::from_secs(3600)),
        ..TransactOptions::default()
    };
    let withdraw = |account: &Account| {
        use cim_persistence::prelude::Handle;
        account.handle(&Withdraw(5))
    };
    deposit(&ours, "a", 1).await;
    deposit(&theirs, "a", 9).await;
    let done = ours.transact_with(&"a".into(), stale(), withdraw).await.unwrap();
    assert_eq!((done.version, done.attempts), (3, 1));
    // The same for the no that stands in a tombstone.
    ours.delete(&"a".into(), SaveOptions::default()).await.unwrap();
    theirs
        .save(&account("a"), vec![deposited(7)], cim_persistence::store::ExpectedVersion::Exact(4))
        .await
        .unwrap();
    let done = ours.transact_with(&"a".into(), stale(), withdraw).await.unwrap();
    assert_eq!(done.version, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_lose_no_update() {
    const WRITERS: usize = 64;
    let lab = Lab::start().await;
    let processes = [lab.accounts().await, lab.accounts().await];
    let options = TransactOptions { attempts: 1000, ..TransactOptions::default() };
    let writing = (0..WRITERS).map(|writer| {
        let (accounts, options) = (processes[writer % 2].clone(), options.clone());
        tokio::spawn(async move {
            let decide = |a: &Account| Ok::<_, Never>((vec![deposited(1)], a.cents));
            accounts.transact_with(&"a".into(), options, decide).await.unwrap()
        })
    });
    let mut seen: Vec<i64> =
        join_all(writing).await.into_iter().map(|done| done.unwrap().reply).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..WRITERS as i64).collect::<Vec<_>>(), "each decided on a state of its own");
    let (account, known) =
        lab.accounts().await.load(&"a".into(), LoadOptions::default()).await.unwrap();
    assert_eq!((account.cents, known.version), (WRITERS as i64, WRITERS as u64));
}
