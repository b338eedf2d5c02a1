//! Deleting by tombstone, history, verification.

use cim_persistence::repository::{LoadOptions, RepositoryError, SaveOptions};
use cim_persistence::store::ExpectedVersion;

use crate::domain::{Lab, account, deposit, deposit_times, deposited, opened};

#[tokio::test]
async fn deleted_aggregate_is_not_found_and_keeps_its_history() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    deposit_times(&accounts, "a", 2).await;
    let deleted = accounts.delete(&"a".into(), SaveOptions::default()).await.unwrap();
    assert_eq!(deleted.version, 3);
    for accounts in [&accounts, &lab.accounts().await] {
        let error = accounts.load(&"a".into(), LoadOptions::default()).await.unwrap_err();
        assert!(matches!(&error, RepositoryError::NotFound { deleted: Some(3), .. }));
        assert_eq!(error.to_string(), "account a does not exist, it was deleted at version 3");
        assert!(!accounts.exists(&"a".into()).await.unwrap());
        let history = accounts.get_history(&"a".into(), None, None).await.unwrap();
        assert_eq!(history.len(), 3);
        assert!(history[2].is_tombstone());
        assert_eq!(accounts.get_at_version(&"a".into(), 2).await.unwrap().0.cents, 2);
        let again = accounts.delete(&"a".into(), SaveOptions::default()).await.unwrap_err();
        assert!(matches!(again, RepositoryError::NotFound { deleted: Some(3), .. }), "{again}");
        let snapshot = accounts.create_snapshot(&"a".into()).await.unwrap_err();
        assert!(matches!(snapshot, RepositoryError::NotFound { .. }), "{snapshot}");
    }
    assert_eq!(lab.stored().await, 3);
}

#[tokio::test]
async fn deleting_can_expect_a_version() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    deposit_times(&accounts, "a", 2).await;
    let error = accounts.delete(&"a".into(), ExpectedVersion::Exact(1)).await.unwrap_err();
    assert!(matches!(error, RepositoryError::VersionConflict { expected: 1, actual: 2 }));
    accounts.delete(&"a".into(), ExpectedVersion::Exact(2)).await.unwrap();
    let error = accounts.delete(&"nobody".into(), SaveOptions::default()).await.unwrap_err();
    assert_eq!(error.to_string(), "account nobody does not exist");
}

#[tokio::test]
async fn events_after_the_tombstone_begin_the_aggregate_anew() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    deposit_times(&accounts, "a", 2).await;
    accounts.delete(&"a".into(), SaveOptions::default()).await.unwrap();
    let error = accounts
        .save(&account("a"), vec![opened("Eve")], SaveOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(error, RepositoryError::VersionConflict { expected: 0, actual: 3 }));
    let events = vec![opened("Eve"), deposited(7)];
    let saved = accounts.save(&account("a"), events, ExpectedVersion::Exact(3)).await.unwrap();
    assert_eq!(saved.version, 5);
    for accounts in [&accounts, &lab.accounts().await] {
        let (revived, known) = accounts.load(&"a".into(), LoadOptions::default()).await.unwrap();
        assert_eq!((revived.owner.as_str(), revived.cents, known.version), ("Eve", 7, 5));
        let replayed = LoadOptions { use_snapshot: false, ..LoadOptions::default() };
        assert_eq!(accounts.load(&"a".into(), replayed).await.unwrap().0, revived);
    }
}

#[tokio::test]
async fn history_has_inclusive_bounds() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    deposit_times(&accounts, "a", 5).await;
    let versions = async |from, to| -> Vec<u64> {
        let events = accounts.get_history(&"a".into(), from, to).await.unwrap();
        events.iter().map(|event| event.version()).collect()
    };
    assert_eq!(versions(None, None).await, [1, 2, 3, 4, 5]);
    assert_eq!(versions(Some(2), Some(4)).await, [2, 3, 4]);
    assert_eq!(versions(Some(3), Some(3)).await, [3]);
    assert_eq!(versions(Some(4), None).await, [4, 5]);
    assert_eq!(versions(None, Some(1)).await, [1]);
    assert_eq!(versions(Some(0), Some(99)).await, [1, 2, 3, 4, 5]);
    assert_eq!(versions(Some(6), None).await, [0; 0]);
    assert_eq!(versions(Some(4), Some(2)).await, [0; 0]);
    let error = accounts.get_history(&"nobody".into(), None, None).await.unwrap_err();
    assert!(matches!(error, RepositoryError::NotFound { deleted: None, .. }), "{error}");
}

#[tokio::test]
async fn verify_follows_the_chain_to_the_head() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    deposit_times(&accounts, "a", 4).await;
    let saved = deposit(&accounts, "a", 1).await;
    let head = lab.accounts().await.verify(&"a".into()).await.unwrap();
    assert_eq!((head.version, head.position), (5, saved.position));
    assert_eq!(head.cid, saved.head_cid);
    let error = accounts.verify(&"nobody".into()).await.unwrap_err();
    assert!(matches!(error, RepositoryError::NotFound { .. }), "{error}");
}
