//! What a unit stores, and what it refuses.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use cim_persistence::backend::Position;
use cim_persistence::event_log::{LogQuery, MemoryLog};
use cim_persistence::outbox::{OutboxMessage, Topic};
use cim_persistence::repository::{Freshness, RepositoryError};
use cim_persistence::store::{CommitInfo, StoreError};
use cim_persistence::testing::faults::{Call, CallKind, Fault, Faults};
use cim_persistence::unit_of_work::{DecisionError, UnitError, UnitOfWork, UnitOptions};
use futures::TryStreamExt;
use uuid::Uuid;

use crate::domain::{Bank, Booked, LimitSet, audit, message};

fn booked(amount: i64) -> Vec<Booked> {
    vec![Booked { transfer: 0, amount }]
}

fn id(text: &str) -> String {
    text.to_owned()
}

#[tokio::test]
async fn a_transfer_lies_together_in_the_log() {
    let bank = Bank::in_memory();
    let committed = bank.transfer(1, "a", "b").await.unwrap();
    assert_eq!((committed.position.get(), committed.messages), (2, 3));
    assert_eq!((bank.balance("a").await, bank.balance("b").await), (-1, 1));
    assert_eq!(audit(&bank).await, [1]);
}

#[tokio::test]
async fn what_was_recorded_is_seen_in_the_unit_and_nowhere_else() {
    let bank = Bank::in_memory();
    let mut unit = bank.begin();
    assert_eq!(unit.load(&bank.accounts, &id("a")).await.unwrap().balance, 0);
    assert_eq!(unit.record(&bank.accounts, &id("a"), booked(5)).await.unwrap().balance, 5);
    assert_eq!(unit.load(&bank.accounts, &id("a")).await.unwrap().balance, 5);
    assert_eq!(unit.version(&bank.accounts, &id("a")).await.unwrap(), 0);
    drop(unit);
    let missing = bank.accounts.load(&id("a"), Default::default()).await;
    assert!(matches!(missing, Err(RepositoryError::NotFound { .. })));
    assert_eq!(bank.context.status().await.unwrap().last, Position::START);
}

#[tokio::test]
async fn a_rejection_leaves_the_unit_as_it_was() {
    let bank = Bank::in_memory();
    let mut unit = bank.begin();
    unit.record(&bank.accounts, &id("a"), booked(5)).await.unwrap();
    let a = id("a");
    let rejected = unit.decide(&bank.accounts, &a, |account| {
        if account.balance < 10 { Err("too little") } else { Ok(booked(-10)) }
    });
    assert!(matches!(rejected.await, Err(DecisionError::Rejected("too little"))));
    unit.commit().await.unwrap();
    assert_eq!(bank.balance("a").await, 5);
}

#[tokio::test]
async fn one_aggregate_that_others_changed_stops_the_whole() {
    let bank = Bank::in_memory();
    let mut unit = bank.begin();
    unit.record(&bank.accounts, &id("a"), booked(-1)).await.unwrap();
    unit.record(&bank.accounts, &id("b"), booked(1)).await.unwrap();
    bank.transfer(1, "b", "c").await.unwrap();
    let error = unit.commit().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "account b was at version 0 when the unit read it and is at 1; nothing was stored, begin the unit again"
    );
    assert!(error.is_conflict());
    assert_eq!(audit(&bank).await, [1]);
}

#[tokio::test]
async fn what_was_only_read_must_stay_as_it_was() {
    let bank = Bank::in_memory();
    for with_message in [false, true] {
        let mut unit = bank.begin();
        let most = unit.load(&bank.limits, &id("day")).await.unwrap().most;
        unit.record(&bank.accounts, &id("a"), booked(most)).await.unwrap();
        if with_message {
            unit.send(message(7));
        }
        let mut other = bank.begin();
        other.record(&bank.limits, &id("day"), vec![LimitSet(5)]).await.unwrap();
        other.commit().await.unwrap();
        let error = unit.commit().await.unwrap_err();
        assert!(
            matches!(&error, UnitError::Conflict { aggregate_type, .. } if aggregate_type == "limit"),
            "{error}"
        );
    }
    assert!(bank.accounts.load(&id("a"), Default::default()).await.is_err());
}

#[tokio::test]
async fn guards_ride_on_messages_before_they_need_their_own() {
    let bank = Bank::in_memory();
    for (messages, stored) in [(0, 3), (1, 3), (2, 3), (3, 4)] {
        let mut unit = bank.begin();
        let new = format!("account-{messages}");
        unit.record(&bank.accounts, &new, booked(1)).await.unwrap();
        for name in ["day", "week"] {
            unit.load(&bank.limits, &id(name)).await.unwrap();
        }
        for number in 0..messages {
            unit.send(message(number));
        }
        assert_eq!(unit.commit().await.unwrap().messages, stored, "{messages} messages");
    }
}

#[tokio::test]
async fn a_unit_without_changes_stores_nothing() {
    let bank = Bank::in_memory();
    let mut unit = bank.begin();
    unit.load(&bank.limits, &id("day")).await.unwrap();
    unit.record(&bank.accounts, &id("a"), vec![]).await.unwrap();
    let committed = unit.commit().await.unwrap();
    assert_eq!((committed.position, committed.messages), (Position::START, 0));
    assert_eq!(bank.context.status().await.unwrap().messages, 0);
}

#[tokio::test]
async fn messages_alone_are_a_commit_too() {
    let bank = Bank::in_memory();
    let mut unit = bank.begin();
    unit.send(message(1));
    unit.send(message(2));
    assert_eq!(unit.commit().await.unwrap().messages, 3);
    let topic = bank
        .context
        .log()
        .read(LogQuery { filter: Some("cim.outbox.bank.>".into()), after: Position::START });
    assert_eq!(topic.try_collect::<Vec<_>>().await.unwrap().len(), 2);
}

#[tokio::test]
async fn everything_of_a_unit_belongs_together() {
    let bank = Bank::in_memory();
    let causation_id = Some(Uuid::from_u128(7));
    let options = UnitOptions {
        info: CommitInfo { causation_id, ..CommitInfo::default() },
        ..UnitOptions::default()
    };
    UnitOfWork::run_with(&bank.context, options, async |mut unit| {
        unit.record(&bank.accounts, &id("a"), booked(1)).await?;
        unit.record(&bank.limits, &id("day"), vec![LimitSet(1)]).await?;
        unit.send(message(1));
        Ok::<_, UnitError>((unit, ()))
    })
    .await
    .unwrap();
    let events: Vec<_> = bank.context.stream_after(Position::START).try_collect().await.unwrap();
    let correlation = events[0].event_id();
    for event in &events {
        assert_eq!((event.correlation_id(), event.causation_id()), (correlation, causation_id));
    }
    let filter = Some("cim.outbox.bank.transfers".to_owned());
    let query = LogQuery { filter, after: Position::START };
    let [sent] = &bank.context.log().read(query).try_collect::<Vec<_>>().await.unwrap()[..] else {
        panic!("one message was sent");
    };
    assert_eq!(sent.headers.get("ce-correlationid"), Some(correlation.to_string().as_str()));
    assert_eq!(sent.headers.get("ce-causationid"), Some(Uuid::from_u128(7).to_string().as_str()));
}

#[tokio::test]
async fn an_aggregate_can_be_deleted_with_the_others() {
    let bank = Bank::in_memory();
    bank.transfer(1, "a", "b").await.unwrap();
    let mut unit = bank.begin();
    unit.record(&bank.accounts, &id("a"), booked(9)).await.unwrap();
    unit.delete(&bank.accounts, &id("a")).await.unwrap();
    let again = unit.record(&bank.accounts, &id("a"), booked(9)).await;
    assert!(matches!(again, Err(UnitError::Repository(RepositoryError::NotFound { .. }))));
    unit.record(&bank.accounts, &id("b"), booked(9)).await.unwrap();
    unit.commit().await.unwrap();
    let deleted = bank.accounts.load(&id("a"), Default::default()).await.unwrap_err();
    assert!(matches!(deleted, RepositoryError::NotFound { deleted: Some(3), .. }), "{deleted}");
    assert_eq!(bank.accounts.verify(&id("a")).await.unwrap().version, 3);
    assert_eq!(bank.balance("b").await, 10);
    let mut unit = bank.begin();
    let gone = unit.load(&bank.accounts, &id("a")).await.unwrap_err();
    assert_eq!(gone.to_string(), "account a does not exist, it was deleted at version 3");
    let nothing = unit.delete(&bank.accounts, &id("c")).await.unwrap_err();
    assert_eq!(nothing.to_string(), "account c does not exist");
}

#[tokio::test]
async fn the_work_begins_again_with_what_others_stored() {
    let bank = Bank::in_memory();
    let begun = AtomicU64::new(0);
    let (balance, _) = UnitOfWork::run(&bank.context, async |mut unit| {
        let begun = begun.fetch_add(1, SeqCst) + 1;
        let balance = unit.record(&bank.accounts, &id("a"), booked(1)).await?.balance;
        if begun < 4 {
            bank.transfer(begun, "b", "a").await?;
        }
        Ok::<_, UnitError>((unit, balance))
    })
    .await
    .unwrap();
    assert_eq!((begun.into_inner(), balance, bank.balance("a").await), (4, 4, 4));
    let options = UnitOptions { attempts: 2, ..UnitOptions::default() };
    let begun = AtomicU64::new(10);
    let error = UnitOfWork::run_with(&bank.context, options, async |mut unit| {
        let begun = begun.fetch_add(1, SeqCst) + 1;
        unit.record(&bank.accounts, &id("a"), booked(1)).await?;
        bank.transfer(begun, "b", "a").await?;
        Ok::<_, UnitError>((unit, ()))
    })
    .await
    .unwrap_err();
    assert!(error.is_conflict(), "{error}");
    assert_eq!(begun.into_inner(), 12);
}

#[tokio::test]
async fn a_cached_state_decides_nothing_alone() {
    let log = MemoryLog::new();
    let (bank, other) = (Bank::on(&log, &Faults::new()), Bank::on(&log, &Faults::new()));
    bank.transfer(1, "a", "b").await.unwrap();
    other.transfer(2, "c", "a").await.unwrap();
    let options = || UnitOptions {
        freshness: Freshness::Cached(Duration::from_secs(3600)),
        ..UnitOptions::default()
    };
    let seen = Mutex::new(Vec::new());
    // A no by what is cached is asked again by what is stored.
    let (balance, _) = UnitOfWork::run_with(&bank.context, options(), async |mut unit| {
        let balance = unit.load(&bank.accounts, &id("a")).await?.balance;
        seen.lock().unwrap().push(balance);
        if balance < 0 {
            return Err(UnitError::Overtaken { subject: "too little".into() });
        }
        Ok((unit, balance))
    })
    .await
    .unwrap();
    assert_eq!((balance, seen.into_inner().unwrap()), (0, vec![-1, 0]));
    // A yes by what is cached is stored only if it is what is stored.
    other.transfer(3, "c", "a").await.unwrap();
    let seen = Mutex::new(Vec::new());
    UnitOfWork::run_with(&bank.context, options(), async |mut unit| {
        let balance = unit.record(&bank.accounts, &id("a"), booked(0)).await?.balance;
        seen.lock().unwrap().push(balance);
        Ok::<_, UnitError>((unit, ()))
    })
    .await
    .unwrap();
    assert_eq!(seen.into_inner().unwrap(), [0, 1]);
}

#[tokio::test]
async fn a_unit_says_no_only_to_what_the_leader_says() {
    let (log, faults) = (MemoryLog::new(), Faults::new());
    let (bank, other) = (Bank::on(&log, &faults), Bank::on(&log, &Faults::new()));
    other.transfer(1, "c", "a").await.unwrap();
    let behind = |call: &Call<'_>| call.kind == CallKind::NearestRead && call.stream == "memory";
    for (enough, seen_at_last) in [(1, vec![0, 1]), (2, vec![1, 1])] {
        faults.plan_when(behind, Fault::StaleRead(usize::MAX));
        let seen = Mutex::new(Vec::new());
        let done = UnitOfWork::run(&bank.context, async |mut unit| {
            let balance = unit.load(&bank.accounts, &id("a")).await?.balance;
            seen.lock().unwrap().push(balance);
            match balance < enough {
                true => Err(UnitError::Overtaken { subject: "too little".into() }),
                false => Ok((unit, ())),
            }
        })
        .await;
        assert_eq!((done.is_ok(), seen.into_inner().unwrap()), (enough == 1, seen_at_last));
        assert_eq!(faults.planned(), 0);
    }
}

#[tokio::test]
async fn what_one_batch_cannot_hold_is_refused_before_anything_is_sent() {
    let bank = Bank::in_memory();
    let mut unit = bank.begin();
    for number in 0..999 {
        unit.record(&bank.accounts, &format!("account-{number}"), booked(1)).await.unwrap();
    }
    unit.send(message(1));
    unit.send(message(2));
    assert_eq!(
        unit.commit().await.unwrap_err().to_string(),
        "1001 events are more than the 1000 that one commit may hold; nothing was sent; split the command"
    );
    let mut unit = bank.begin();
    unit.record(&bank.accounts, &id("a"), booked(1)).await.unwrap();
    let large = "x".repeat(2 * 1024 * 1024);
    let topic = Topic::new("large").unwrap();
    unit.send(OutboxMessage::bytes(topic, "large", "text/plain", large));
    let error = unit.commit().await.unwrap_err();
    assert!(matches!(error, UnitError::Store(StoreError::TooLarge { .. })), "{error}");
    assert_eq!(bank.context.status().await.unwrap().messages, 0);
}

#[tokio::test]
async fn a_unit_holds_one_context() {
    let (bank, other) = (Bank::in_memory(), Bank::on(&MemoryLog::new(), &Faults::new()));
    let mut unit = bank.begin();
    let error = unit.record(&other.accounts, &id("a"), booked(1)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "a unit of context bank cannot hold aggregates of another handle, that of context bank; open a context once \
         and share it"
    );
    assert_eq!(unit.commit().await.unwrap().messages, 0);
}

#[tokio::test]
async fn a_unit_can_be_run_in_a_task_of_its_own() {
    let bank = Bank::in_memory();
    let clone = bank.clone();
    tokio::spawn(async move { clone.transfer(1, "a", "b").await }).await.unwrap().unwrap();
    assert_eq!(audit(&bank).await, [1]);
}
