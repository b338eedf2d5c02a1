//! What runs around a commit, and in which order.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cim_persistence::unit_of_work::{HookError, HookFailure, UnitError, UnitOfWork};

use crate::domain::{Bank, Booked, message};

type Seen = Arc<Mutex<Vec<String>>>;

/// A unit with two hooks of each kind, each of which says that it ran.
async fn unit_of(bank: &Bank, seen: &Seen) -> UnitOfWork {
    let mut unit = bank.begin();
    let note = |text: &'static str| {
        let seen = Arc::clone(seen);
        move |about: String| {
            seen.lock().unwrap().push(format!("{text} {about}"));
            async { Ok::<_, HookError>(()) }
        }
    };
    for text in ["first", "second"] {
        let say = note(text);
        unit.before_commit(text, move |summary| {
            say(format!("before commit of {}", summary.aggregates[0].2))
        });
        let say = note(text);
        unit.after_commit(text, move |done| say(format!("after commit at {}", done.position)));
        let say = note(text);
        unit.before_rollback(text, move |summary| {
            say(format!("before rollback of {} and {}", summary.aggregates.len(), summary.messages))
        });
        let say = note(text);
        unit.after_rollback(text, move |_| say("after rollback".to_owned()));
    }
    let events = vec![Booked { transfer: 1, amount: 1 }; 2];
    unit.record(&bank.accounts, &"a".to_owned(), events).await.unwrap();
    unit.send(message(1));
    unit
}

const ROLLED_BACK: [&str; 4] = [
    "first before rollback of 1 and 1",
    "second before rollback of 1 and 1",
    "first after rollback",
    "second after rollback",
];

fn take(seen: &Seen) -> Vec<String> {
    std::mem::take(&mut seen.lock().unwrap())
}

#[tokio::test]
async fn hooks_run_in_their_order() {
    let (bank, seen) = (Bank::in_memory(), Seen::default());
    unit_of(&bank, &seen).await.commit().await.unwrap();
    let committed = [
        "first before commit of 2",
        "second before commit of 2",
        "first after commit at 2",
        "second after commit at 2",
    ];
    assert_eq!(take(&seen), committed);
    assert!(unit_of(&bank, &seen).await.rollback().await.is_empty());
    assert_eq!(take(&seen), ROLLED_BACK);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_panics_or_hangs_stops_the_commit() {
    let (bank, seen) = (Bank::in_memory(), Seen::default());
    for (kind, text) in [
        ("fails", "hook late failed: no; nothing was stored"),
        ("panics", "hook late panicked: no; nothing was stored"),
        ("hangs", "hook late did not end within 3s; nothing was stored"),
    ] {
        let mut unit = unit_of(&bank, &seen).await;
        unit.limit_hooks(Duration::from_secs(3));
        unit.before_commit("late", move |_| async move {
            match kind {
                "fails" => Err("no".into()),
                "panics" => panic!("no"),
                _ => std::future::pending().await,
            }
        });
        let error = unit.commit().await.unwrap_err();
        assert!(matches!(error, UnitError::Hook(_)) && error.to_string() == text, "{error}");
        assert_eq!(take(&seen)[2..], ROLLED_BACK);
    }
    assert_eq!(bank.context.status().await.unwrap().messages, 0);
}

#[tokio::test(start_paused = true)]
async fn a_hook_after_the_commit_cannot_undo_it() {
    let (bank, seen) = (Bank::in_memory(), Seen::default());
    let mut unit = bank.begin();
    unit.after_commit("panics", |_| async { panic!("no") });
    unit.after_commit("hangs", |_| std::future::pending());
    let say = Arc::clone(&seen);
    unit.after_commit("works", move |_| async move {
        say.lock().unwrap().push("ran".to_owned());
        Ok(())
    });
    unit.send(message(1));
    let committed = unit.commit().await.unwrap();
    let failed: Vec<String> = committed.failed_hooks.iter().map(HookFailure::to_string).collect();
    assert_eq!(failed, ["hook panics panicked: no", "hook hangs did not end within 10s"]);
    assert_eq!(take(&seen), ["ran"]);
}

#[tokio::test]
async fn a_unit_that_is_dropped_or_refused_is_rolled_back() {
    let (bank, seen) = (Bank::in_memory(), Seen::default());
    drop(unit_of(&bank, &seen).await);
    while seen.lock().unwrap().len() < 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!(take(&seen), ROLLED_BACK);
    let unit = unit_of(&bank, &seen).await;
    bank.transfer(1, "b", "a").await.unwrap();
    assert!(unit.commit().await.unwrap_err().is_conflict());
    assert_eq!(take(&seen)[2..], ROLLED_BACK);
}

#[tokio::test]
async fn a_commit_whose_future_is_dropped_runs_its_hooks() {
    let (bank, seen) = (Bank::in_memory(), Seen::default());
    let unit = unit_of(&bank, &seen).await;
    let mut commit = Box::pin(unit.commit());
    assert!(futures::poll!(commit.as_mut()).is_pending());
    drop(commit);
    while seen.lock().unwrap().len() < 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!(take(&seen)[2..], ["first after commit at 2", "second after commit at 2"]);
    assert_eq!(bank.balance("a").await, 2);
}
