//! What a replica that is behind, or a bucket that fails, must not make a repository say.

use std::sync::Arc;

use cim_persistence::event_log::MemoryLog;
use cim_persistence::prelude::Handle;
use cim_persistence::repository::{
    Freshness, LoadOptions, Repository, RepositoryError, SaveOptions, TransactError,
    TransactOptions,
};
use cim_persistence::state::MemoryKeyValue;
use cim_persistence::store::{Context, ExpectedVersion, Ports};
use cim_persistence::testing::faults::{CallKind, Fault, Faults};

use crate::domain::{Account, Refused, Withdraw, account, bare_bank, deposit, deposited};

/// Accounts in memory that meet these faults, loaded from the log alone.
fn accounts(faults: &Faults) -> Repository<Account> {
    let bucket = |name| Arc::new(MemoryKeyValue::new(name).with_faults(faults));
    let ports = Ports::new(
        Arc::new(MemoryLog::new().with_faults(faults)),
        bucket("state"),
        bucket("snapshots"),
        bucket("readmodels"),
    );
    Repository::of(&Context::on(ports, &bare_bank()).unwrap()).unwrap()
}

/// The next read of the log that any replica may answer does not see the last so many writes.
fn behind(faults: &Faults, writes: usize) {
    let nearest = |call: &cim_persistence::testing::faults::Call<'_>| {
        call.stream == "memory" && call.kind == CallKind::NearestRead
    };
    faults.plan_when(nearest, Fault::StaleRead(writes));
}

#[tokio::test]
async fn a_replica_that_is_behind_makes_nobody_say_no() {
    let faults = Faults::new();
    let accounts = accounts(&faults);
    deposit(&accounts, "a", 1).await;
    deposit(&accounts, "a", 9).await;
    behind(&faults, 1);
    let done = accounts.execute_command(&"a".into(), &Withdraw(5)).await.unwrap();
    assert_eq!((done.version, done.events, done.attempts), (3, 1, 1));
    behind(&faults, 3);
    let refused = accounts.execute_command(&"a".into(), &Withdraw(6)).await.unwrap_err();
    let wanted = Refused::Overdrawn { wanted: 6, there: 5 };
    assert!(matches!(refused, TransactError::Rejected(refused) if refused == wanted));
    assert_eq!(faults.planned(), 0);
}

#[tokio::test]
async fn a_replica_that_is_behind_makes_nobody_say_that_nothing_is_to_do() {
    let faults = Faults::new();
    let accounts = accounts(&faults);
    deposit(&accounts, "a", 1).await;
    deposit(&accounts, "a", 9).await;
    behind(&faults, 1);
    let empty_it = |account: &Account| match account.cents {
        0..=1 => Ok(vec![]),
        cents => account.handle(&Withdraw(cents)),
    };
    let done = accounts.transact(&"a".into(), empty_it).await.unwrap();
    assert_eq!((done.version, done.events), (3, 1));
    assert_eq!(faults.planned(), 0);
}

#[tokio::test]
async fn a_decision_that_stands_is_made_once() {
    let accounts = accounts(&Faults::new());
    deposit(&accounts, "a", 1).await;
    let mut decided = 0;
    let refuse = |account: &Account| {
        decided += 1;
        account.handle(&Withdraw(2))
    };
    accounts.transact(&"a".into(), refuse).await.unwrap_err();
    assert_eq!(decided, 1);
}

#[tokio::test]
async fn what_a_replica_does_not_have_yet_is_deleted_all_the_same() {
    let faults = Faults::new();
    let accounts = accounts(&faults);
    deposit(&accounts, "a", 1).await;
    behind(&faults, 1);
    let deleted = accounts.delete(&"a".into(), SaveOptions::default()).await.unwrap();
    assert_eq!(deleted.version, 2);
}

#[tokio::test]
async fn what_a_replica_does_not_have_yet_is_there_all_the_same() {
    let faults = Faults::new();
    let accounts = accounts(&faults);
    let id = "a".to_owned();
    deposit(&accounts, "a", 1).await;
    behind(&faults, 1);
    assert_eq!(accounts.load(&id, LoadOptions::default()).await.unwrap().1.version, 1);
    deposit(&accounts, "a", 9).await;
    behind(&faults, 1);
    assert_eq!(accounts.get_at_version(&id, 2).await.unwrap().0.cents, 10);
    behind(&faults, 1);
    let all = LoadOptions {
        include_events: true,
        freshness: Freshness::Latest,
        ..LoadOptions::default()
    };
    assert_eq!(accounts.load(&id, all).await.unwrap().1.events.len(), 2);
    assert_eq!(faults.planned(), 0);
    let third = accounts.get_at_version(&id, 3).await.unwrap_err();
    let wanted = (3, 2);
    assert!(
        matches!(third, RepositoryError::NoSuchVersion { requested, actual, .. } if (requested, actual) == wanted)
    );
    let nobody = accounts.get_at_version(&"b".into(), 1).await.unwrap_err();
    assert!(matches!(nobody, RepositoryError::NotFound { deleted: None, .. }));
}

#[tokio::test]
async fn what_is_stored_is_not_said_to_have_failed_with_its_snapshot() {
    let faults = Faults::new();
    let accounts = accounts(&faults);
    let no_snapshot = || faults.plan_when(|call| call.stream == "KV_snapshots", Fault::Outage);
    let save = |expected_version| SaveOptions {
        create_snapshot: true,
        expected_version,
        ..SaveOptions::default()
    };
    no_snapshot();
    let saved = accounts
        .save(&account("a"), vec![deposited(7)], save(ExpectedVersion::NoStream))
        .await
        .unwrap();
    assert_eq!(saved.version, 1);
    no_snapshot();
    let options =
        TransactOptions { save: save(ExpectedVersion::Any), ..TransactOptions::default() };
    let withdraw = |account: &Account| account.handle(&Withdraw(5));
    let done = accounts.transact_with(&"a".into(), options, withdraw).await.unwrap();
    assert_eq!((done.version, faults.planned()), (2, 0));
}
