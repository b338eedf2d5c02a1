//! Saving: what is expected, what is stored, what is reported.

use cim_persistence::event::{Metadata, Tag};
use cim_persistence::ipld::{Codec, Hash, cid_of};
use cim_persistence::repository::{LoadOptions, RepositoryError, SaveOptions};
use cim_persistence::store::ExpectedVersion;
use cim_persistence::subject::Identity;
use uuid::Uuid;

use crate::domain::{Lab, account, bank, deposited, opened};

#[tokio::test]
async fn save_without_options_creates_once() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    let events = vec![opened("Ada"), deposited(5)];
    accounts.save(&account("a"), events, SaveOptions::default()).await.unwrap();
    let error =
        accounts.save(&account("a"), vec![deposited(1)], SaveOptions::default()).await.unwrap_err();
    assert!(matches!(error, RepositoryError::VersionConflict { expected: 0, actual: 2 }));
    assert_eq!(
        error.to_string(),
        "version conflict: expected version 0, but the aggregate has version 2; load it again"
    );
    assert_eq!(lab.stored().await, 2);
}

#[tokio::test]
async fn exact_version_is_stored_on_and_no_other() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    let first = accounts.save(&account("a"), vec![opened("Ada")], SaveOptions::default()).await;
    let first = first.unwrap();
    let second =
        accounts.save(&account("a"), vec![deposited(5)], SaveOptions::after(&first)).await.unwrap();
    assert_eq!((first.version, second.version), (1, 2));
    assert!(second.position > first.position);
    for (expected, wanted) in [(0, 0), (1, 1), (3, 3), (9, 9)] {
        let error = accounts
            .save(&account("a"), vec![deposited(1)], ExpectedVersion::Exact(expected))
            .await
            .unwrap_err();
        let RepositoryError::VersionConflict { expected, actual } = error else {
            panic!("{error}")
        };
        assert_eq!((expected, actual), (wanted, 2));
    }
    assert_eq!(lab.stored().await, 2);
}

#[tokio::test]
async fn any_version_is_stored_on_whatever_there_is() {
    let lab = Lab::start().await;
    let (ours, theirs) = (lab.accounts().await, lab.accounts().await);
    for round in 1..=3 {
        for (accounts, step) in [(&ours, 1), (&theirs, 2)] {
            let saved = accounts
                .save(&account("a"), vec![deposited(1)], ExpectedVersion::Any)
                .await
                .unwrap();
            assert_eq!(saved.version, 2 * (round - 1) + step);
        }
    }
    let (loaded, _) = ours.load(&"a".into(), LoadOptions::default()).await.unwrap();
    assert_eq!(loaded.cents, 6);
}

#[tokio::test]
async fn save_without_events_is_refused() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    let error = accounts.save(&account("a"), vec![], SaveOptions::default()).await.unwrap_err();
    assert!(matches!(error, RepositoryError::NoEvents));
    assert_eq!(error.to_string(), "nothing to save: give at least one event");
    assert_eq!(lab.stored().await, 0);
}

#[tokio::test]
async fn the_cid_of_the_state_covers_the_newest_state() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    for event in [opened("Ada"), deposited(5), deposited(6)] {
        let saved = accounts.save(&account("a"), vec![event], ExpectedVersion::Any).await.unwrap();
        let (state, known) = accounts.load(&"a".into(), LoadOptions::default()).await.unwrap();
        let bytes = serde_ipld_dagcbor::to_vec(&state).unwrap();
        let cid = cid_of(Codec::DagCbor, Hash::Sha2, &bytes);
        assert_eq!((saved.state_cid, known.state_cid), (Some(cid), Some(cid)));
    }
}

#[tokio::test]
async fn metadata_tags_and_ids_are_stored_with_every_event() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    let (correlation, causation) = (Uuid::now_v7(), Uuid::now_v7());
    let options = SaveOptions {
        metadata: Metadata::new([("user", "kim"), ("tenant", "acme")]).unwrap(),
        tags: vec![Tag::new("vip").unwrap(), Tag::new("eu:de").unwrap()],
        correlation_id: Some(correlation),
        causation_id: Some(causation),
        ..SaveOptions::default()
    };
    accounts.save(&account("a"), vec![opened("Ada"), deposited(5)], options).await.unwrap();
    let history = accounts.get_history(&"a".into(), None, None).await.unwrap();
    assert_eq!(history.len(), 2);
    for event in &history {
        assert_eq!(event.metadata().get("user"), Some("kim"));
        assert_eq!(event.tenant(), Some("acme"));
        assert_eq!(event.metadata().get("tags"), Some("vip,eu:de"));
        assert_eq!(event.correlation_id(), correlation);
        assert_eq!(event.causation_id(), Some(causation));
    }
    let untagged =
        accounts.save(&account("a"), vec![deposited(1)], ExpectedVersion::Any).await.unwrap();
    let tags: Vec<_> = untagged.tags.iter().map(Tag::as_str).collect();
    assert_eq!(tags, ["eu:de", "vip"], "an aggregate keeps the tags of all its events");
    assert_eq!(untagged.metadata.get("user"), None, "metadata is that of the last event");
}

#[tokio::test]
async fn correlation_id_is_that_of_the_commits_first_event_by_default() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    let events = vec![opened("Ada"), deposited(5)];
    accounts.save(&account("a"), events, SaveOptions::default()).await.unwrap();
    let history = accounts.get_history(&"a".into(), None, None).await.unwrap();
    for event in &history {
        assert_eq!(event.correlation_id(), history[0].event_id());
        assert_eq!(event.causation_id(), None);
    }
}

#[tokio::test]
async fn it_does_not_matter_whether_the_events_were_applied_already() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    let events = vec![opened("Ada"), deposited(5)];
    let mut applied = account("same");
    for event in &events {
        cim_persistence::prelude::Aggregate::apply(&mut applied, event);
    }
    let from_applied =
        accounts.save(&applied, events.clone(), SaveOptions::default()).await.unwrap();
    let other = Lab::start().await;
    let from_blank = other
        .accounts()
        .await
        .save(&account("same"), events, SaveOptions::default())
        .await
        .unwrap();
    assert_eq!(from_applied.state_cid, from_blank.state_cid);
    assert!(from_applied.state_cid.is_some());
    assert_ne!(from_applied.head_cid, from_blank.head_cid, "event ids and times differ");
    let (loaded, _) = accounts.load(&"same".into(), LoadOptions::default()).await.unwrap();
    assert_eq!(loaded, applied);
}

#[tokio::test]
async fn what_save_reports_is_what_load_reports() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    let saved = accounts
        .save(&account("a.b"), vec![opened("Ada"), deposited(5)], SaveOptions::default())
        .await
        .unwrap();
    assert_eq!(saved.aggregate_id, "a.b".to_owned().to_aggregate_id().unwrap());
    assert_eq!(saved.aggregate_type.as_str(), "account");
    assert_eq!(saved.version, 2);
    assert_eq!(saved.position.get(), 2);
    assert_eq!(saved.subject.as_str(), lab.text("cim.aggregates.bank.account.a=2Eb.state"));
    // Another process knows nothing but what is stored.
    for accounts in [&accounts, &lab.accounts().await, &lab.accounts_with(&bank()).await] {
        let (_, loaded) = accounts.load(&"a.b".into(), LoadOptions::default()).await.unwrap();
        assert_eq!(format!("{loaded:?}"), format!("{saved:?}"));
    }
    let history = accounts.get_history(&"a.b".into(), None, None).await.unwrap();
    assert_eq!(saved.last_modified, history[1].occurred_at());
    assert_eq!(saved.head_cid.as_ref(), history[1].cid());
    assert_eq!(history[1].previous(), history[0].cid());
}
