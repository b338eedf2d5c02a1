//! Receivers on bad days: they refuse, fail, panic, hang, or are not there for an hour.

use std::collections::HashMap;
use std::time::Duration;

use cim_persistence::outbox::{HeldState, Outbox, Relay, RelayOptions, RetryPolicy};
use cim_persistence::testing::faults::{CallKind, Fault, Faults};

use crate::domain::{
    Receiver, Say, Store, THREE, assert_sound, options, send_apart, send_many, until, until_all,
    until_done,
};

/// A mood that treats one number apart.
fn to(number: u64, says: Say) -> impl FnMut(&cim_persistence::outbox::PendingMessage) -> Say {
    move |message| if message.data() == &number.to_string() { says } else { Say::Yes }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_parked_at_once_and_frees_its_key() {
    let store = Store::new();
    let context = store.healthy();
    let outbox = Outbox::of(&context).with_retry(THREE);
    let receiver = Receiver::new(to(7, Say::Refused));
    let mut relay = Relay::start(&outbox, receiver.clone(), options());
    let last = send_many(&context, 0, 70).await;
    let status = until_done(&mut relay, last).await;
    assert_eq!((status.parked, status.published), (1, 69));
    assert_sound(&receiver.arrived(), (0..70).filter(|n| *n != 7), "without what was refused");
    let parked = outbox.list_parked().await.unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!((parked[0].state, parked[0].attempts), (HeldState::Parked, 1));
    assert_eq!(parked[0].error.as_deref(), Some("refused for good: no such customer"));
    assert_eq!((parked[0].topic.as_str(), parked[0].key.as_deref()), ("orders", Some("k0")));
    // Requeued while the relay runs.
    receiver.change(|_| Say::Yes);
    assert!(outbox.requeue(parked[0].position).await.unwrap());
    assert!(!outbox.requeue(parked[0].position).await.unwrap());
    let status = relay.wait_until(|status| status.published >= 70).await.unwrap();
    assert_eq!((status.parked, status.waiting), (0, 0));
    assert!(receiver.arrived().last().unwrap().number == 7);
    assert_eq!(outbox.list_parked().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn what_fails_too_often_is_parked_with_its_last_error() {
    let errors = [
        (Say::Failed, "not published: try again"),
        (Say::YesUnheard, "not published: no answer"),
        (Say::Panic, "not published: it panicked: a receiver that panics"),
        (Say::Hang, "not published: no answer within 10s"),
    ];
    for (says, error) in errors {
        let store = Store::new();
        let context = store.healthy();
        let outbox = Outbox::of(&context).with_retry(THREE);
        let receiver = Receiver::new(to(7, says));
        let mut relay = Relay::start(&outbox, receiver.clone(), options());
        let last = send_many(&context, 0, 70).await;
        let status = until_done(&mut relay, last).await;
        assert_eq!((status.parked, status.published), (1, 69), "{says:?}");
        let parked = outbox.list_parked().await.unwrap();
        assert_eq!((parked[0].attempts, parked[0].error.as_deref()), (3, Some(error)));
        let sent = (0..70).filter(|n| *n != 7 || says == Say::YesUnheard);
        assert_sound(&receiver.arrived(), sent, error);
    }
}

#[tokio::test(start_paused = true)]
async fn what_fails_holds_back_its_own_key_only() {
    let store = Store::new();
    let context = store.healthy();
    let policy = RetryPolicy { tries: 1000, ..THREE };
    let outbox = Outbox::of(&context).with_retry(policy);
    let receiver = Receiver::new(to(7, Say::Failed));
    let mut relay = Relay::start(&outbox, receiver.clone(), options());
    let last = send_many(&context, 0, 70).await;
    let status = until(&mut relay, last).await;
    assert_eq!((status.waiting, status.parked), (9, 0));
    assert_sound(&receiver.arrived(), (0..70).filter(|n| *n % 7 != 0 || *n == 0), "other keys");
    drop(relay);
    // The next instance knows what waits, and how often it was tried.
    receiver.change(|_| Say::Yes);
    let mut relay = Relay::start(&outbox, receiver.clone(), options());
    until_done(&mut relay, last).await;
    assert_sound(&receiver.arrived(), 0..70, "everything");
}

/// An hour without a receiver: nothing is counted as failed, nothing is lost, and memory holds what it may.
#[tokio::test(start_paused = true)]
async fn an_hour_without_a_receiver_changes_nothing() {
    let store = Store::new();
    let context = store.healthy();
    let outbox = Outbox::of(&context).with_retry(THREE);
    let receiver = Receiver::new(|_| Say::Gone);
    let options = RelayOptions { lease: Duration::from_secs(30), ..options() };
    let mut relay = Relay::start(&outbox, receiver.clone(), options);
    let last = send_many(&context, 0, 3000).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let status = relay.status();
    assert_eq!((status.waiting, status.parked, status.unpublished), (0, 0, 1000));
    receiver.change(|_| Say::Yes);
    let status = until_done(&mut relay, last).await;
    assert_eq!(status.published, 3000);
    assert_eq!(receiver.arrived().len(), 3000);
    assert_sound(&receiver.arrived(), 0..3000, "after the hour");
}

/// A receiver that fails each message by itself: those that wait are bounded, and so is what is read.
#[tokio::test(start_paused = true)]
async fn minutes_of_failures_are_bounded_too() {
    let store = Store::new();
    let context = store.healthy();
    let policy = RetryPolicy { tries: u32::MAX, ..RetryPolicy::default() };
    let outbox = Outbox::of(&context).with_retry(policy);
    let receiver = Receiver::new(|_| Say::Failed);
    let mut relay = Relay::start(&outbox, receiver.clone(), options());
    let last = send_apart(&context, 1200).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    let status = relay.status();
    assert_eq!((status.waiting, status.unpublished, status.parked), (1000, 1000, 0));
    receiver.change(|_| Say::Yes);
    until_done(&mut relay, last).await;
    assert_sound(&receiver.arrived(), 0..1200, "after the failures");
}

/// One message at which the receiver says that it is not there must not hold up the others for ever.
#[tokio::test(start_paused = true)]
async fn a_message_that_alone_finds_nobody_is_parked() {
    let store = Store::new();
    let context = store.healthy();
    let outbox = Outbox::of(&context).with_retry(THREE);
    let receiver = Receiver::new(to(7, Say::Gone)).taking(Duration::from_millis(1));
    let mut relay = Relay::start(&outbox, receiver.clone(), options());
    let (mut last, mut sent) = (Default::default(), 0);
    while relay.status().parked == 0 {
        assert!(sent < 10_000, "{:?}", relay.status());
        last = send_many(&context, sent, 70).await;
        sent += 70;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = until_done(&mut relay, last).await;
    assert_eq!((status.parked, status.published), (1, sent - 1));
    assert_sound(&receiver.arrived(), (0..sent).filter(|n| *n != 7), "the others");
}

/// More parked messages than one write or one answer holds.
#[tokio::test(start_paused = true)]
async fn thousands_of_parked_messages_are_requeued() {
    let store = Store::new();
    let context = store.healthy();
    let outbox = Outbox::of(&context).with_retry(THREE);
    let receiver = Receiver::new(|_| Say::Refused);
    let mut relay = Relay::start(&outbox, receiver.clone(), options());
    let last = send_apart(&context, 2600).await;
    let status = until(&mut relay, last).await;
    assert_eq!(status.parked, 2600);
    assert_eq!(outbox.list_parked().await.unwrap().len(), 2600);
    relay.stop().await.unwrap();
    receiver.change(|_| Say::Yes);
    let first = outbox.requeue_all().await.unwrap();
    assert_eq!((first.requeued, first.left), (1000, 1600));
    assert_eq!(outbox.backlog().await.unwrap().messages, 1000);
    let mut relay = Relay::start(&outbox, receiver.clone(), options());
    while outbox.requeue_all().await.unwrap().left > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until_all(&receiver, 2600).await;
    let status = relay.wait_until(|status| status.parked == 0 && status.waiting == 0).await;
    assert_eq!(status.unwrap().position, last);
    assert_sound(&receiver.arrived(), 0..2600, "requeued");
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_while_the_store_is_not_there() {
    let store = Store::new();
    let (context, faults) = (store.healthy(), Faults::new());
    let process = store.process(&faults);
    let last = send_many(&context, 0, 70).await;
    let receiver = Receiver::kind().taking(Duration::from_millis(5));
    let relay = Relay::start(&Outbox::of(&process), receiver.clone(), options());
    while receiver.arrived().len() < 20 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    faults.begin_outage();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let begun = tokio::time::Instant::now();
    relay.stop().await.unwrap();
    assert!(begun.elapsed() <= options().timeout * 2, "{:?}", begun.elapsed());
    let mut relay = Relay::start(&Outbox::of(&context), receiver.clone(), options());
    until_done(&mut relay, last).await;
    assert_sound(&receiver.arrived(), 0..70, "after the outage");
}

/// While nothing can be written down, no more is published than may be repeated.
#[tokio::test(start_paused = true)]
async fn what_may_be_repeated_is_bounded() {
    let store = Store::new();
    let (context, faults) = (store.healthy(), Faults::new());
    let process = store.with_models_of(&faults);
    let receiver = Receiver::kind();
    let mut relay = Relay::start(&Outbox::of(&process), receiver.clone(), options());
    let last = send_many(&context, 0, 70).await;
    until_done(&mut relay, last).await;
    faults.begin_outage();
    let last = send_many(&context, 70, 8000).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let early = receiver.arrived().len();
    assert!((5000..6500).contains(&early), "{early}");
    faults.end_outage();
    until_done(&mut relay, last).await;
    assert_eq!(receiver.arrived().len(), 8070);
    assert_sound(&receiver.arrived(), 0..8070, "after the outage");
}

/// What is published and cannot be written down at first is not published again while the relay lives.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_the_cursor_repeats_nothing() {
    let store = Store::new();
    let (context, faults) = (store.healthy(), Faults::new());
    let last = send_many(&context, 0, 70).await;
    let writes_cursor = |call: &cim_persistence::testing::faults::Call<'_>| {
        call.kind == CallKind::Write && call.subjects.iter().any(|s| s.ends_with("=outbox.main"))
    };
    faults.plan_when(writes_cursor, Fault::LostAck);
    faults.plan_when(writes_cursor, Fault::LostWrite);
    let receiver = Receiver::kind();
    let process = store.process(&faults);
    let mut relay = Relay::start(&Outbox::of(&process), receiver.clone(), options());
    until_done(&mut relay, last).await;
    let last = send_many(&context, 70, 70).await;
    until_done(&mut relay, last).await;
    assert_eq!((receiver.arrived().len(), faults.planned()), (140, 0));
}

/// A store that says no to the relay's records ends it, with what was refused.
#[tokio::test(start_paused = true)]
async fn a_missing_permission_ends_the_relay() {
    let store = Store::new();
    let (context, faults) = (store.healthy(), Faults::new());
    send_many(&context, 0, 7).await;
    faults.plan_when(
        |call| call.kind == CallKind::Write && call.subjects.iter().any(|s| s.ends_with(".main")),
        Fault::Denied,
    );
    let process = store.process(&faults);
    let mut relay = Relay::start(&Outbox::of(&process), Receiver::kind(), options());
    let ended = relay.wait_until(|_| false).await.unwrap_err();
    assert!(ended.to_string().starts_with("permission denied on "), "{ended}");
    assert!(!relay.is_running());
    relay.stop().await.unwrap();
}

/// Each lane at its own pace: a slow one keeps nobody else waiting.
#[tokio::test(start_paused = true)]
async fn one_slow_message_delays_no_other_key() {
    let store = Store::new();
    let context = store.healthy();
    let receiver = Receiver::new(to(0, Say::Hang));
    let options = RelayOptions { timeout: Duration::from_secs(3600), ..options() };
    let relay = Relay::start(&Outbox::of(&context), receiver.clone(), options);
    send_many(&context, 0, 700).await;
    while receiver.arrived().len() < 600 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(relay.status().position.get() < 1);
    let mut counts: HashMap<String, u32> = HashMap::new();
    for arrived in receiver.arrived() {
        *counts.entry(arrived.key).or_default() += 1;
    }
    assert_eq!(counts.len(), 6);
}
