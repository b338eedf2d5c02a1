//! Relays on good days: order, concurrency, topics, who is active, how they end.

use std::time::Duration;

use cim_persistence::backend::{Guard, NewMessage, Position};
use cim_persistence::event::NonEmpty;
use cim_persistence::event_log::LogQuery;
use cim_persistence::outbox::{
    Outbox, OutboxError, OutboxMessage, Relay, RelayOptions, RelayPhase, Topics,
};
use cim_persistence::store::CommitInfo;
use cim_persistence::testing::faults::Faults;
use futures::StreamExt;

use crate::domain::{
    Receiver, Say, Store, assert_sound, options, order, send, send_many, topic, until, until_done,
};
use crate::new_leader::NewLeader;

#[tokio::test(start_paused = true)]
async fn each_message_is_published_once_and_in_order_while_nothing_fails() {
    let store = Store::new();
    let context = store.healthy();
    let outbox = Outbox::of(&context);
    send_many(&context, 0, 2500).await;
    let receiver = Receiver::kind();
    let mut relay = Relay::start(&outbox, receiver.clone(), options());
    let last = send_many(&context, 2500, 500).await;
    let status = until_done(&mut relay, last).await;
    assert_eq!((status.phase, status.published), (RelayPhase::Publishing, 3000));
    assert_eq!((status.waiting, status.parked, status.trouble), (0, 0, None));
    relay.stop().await.unwrap();
    assert_eq!(receiver.arrived().len(), 3000);
    assert_sound(&receiver.arrived(), 0..3000, "first run");
    // What is published is not read again.
    let mut relay = Relay::start(&outbox, receiver.clone(), options());
    let last = send_many(&context, 3000, 10).await;
    until_done(&mut relay, last).await;
    assert_eq!(receiver.arrived().len(), 3010);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_has_not_applied_everything_is_no_other_log() {
    let store = Store::new();
    let last = send_many(&store.healthy(), 0, 10).await;
    let receiver = Receiver::kind();
    let mut relay = Relay::start(&Outbox::of(&store.healthy()), receiver.clone(), options());
    until_done(&mut relay, last).await;
    relay.stop().await.unwrap();
    let last = send_many(&store.healthy(), 10, 1).await;
    let context = store.with_log(NewLeader::of(&store.log, 5, 3), &Faults::new());
    let mut relay = Relay::start(&Outbox::of(&context), receiver.clone(), options());
    until_done(&mut relay, last).await;
    relay.stop().await.unwrap();
    assert_eq!(receiver.arrived().len(), 11);
    // A log that stays short is believed.
    let context = store.with_log(NewLeader::of(&store.log, 5, u32::MAX), &Faults::new());
    match Outbox::of(&context).list_parked().await {
        Err(OutboxError::LogTruncated { position: 11, last: 6 }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn one_message_of_a_key_at_a_time_and_as_many_keys_as_allowed() {
    let store = Store::new();
    let context = store.healthy();
    let mut last = send_many(&context, 0, 70).await;
    for number in 70..140 {
        let message = OutboxMessage::json(topic("orders"), "placed", &number).unwrap();
        last = send(&context, message).await;
    }
    for (concurrency, most) in [(5, 5), (64, 64), (1000, 77)] {
        let receiver = Receiver::kind().taking(Duration::from_millis(1));
        let under_way = receiver.under_way.clone();
        let name = format!("relay-{concurrency}");
        let outbox = Outbox::named(&context, &name, Topics::All).unwrap();
        let options = RelayOptions { concurrency, ..options() };
        let mut relay = Relay::start(&outbox, receiver.clone(), options);
        until_done(&mut relay, last).await;
        assert_sound(&receiver.arrived(), 0..140, &name);
        assert_eq!(under_way.lock().unwrap().1, most, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_publishes_its_topics_only() {
    let store = Store::new();
    let context = store.healthy();
    let mut last = None;
    for (number, name) in ["orders", "orders.paid", "ordersx", "mails"].into_iter().enumerate() {
        let message = OutboxMessage::json(topic(name), "t", &number).unwrap();
        last = Some(send(&context, message).await);
    }
    let orders = Topics::Within(NonEmpty::one(topic("orders")));
    let outbox = Outbox::named(&context, "orders", orders).unwrap();
    let receiver = Receiver::kind();
    let mut relay = Relay::start(&outbox, receiver.clone(), options());
    relay.wait_until(|status| status.published == 2).await.unwrap();
    assert_eq!(receiver.numbers(), [0, 1]);
    assert_eq!(outbox.backlog().await.unwrap().messages, 0);
    let others = Topics::Within([topic("mails"), topic("ordersx")].into());
    let outbox = Outbox::named(&context, "others", others).unwrap();
    let receiver = Receiver::kind();
    let mut relay = Relay::start(&outbox, receiver.clone(), options());
    until_done(&mut relay, last.unwrap()).await;
    assert_eq!(receiver.numbers(), [2, 3]);
    match Outbox::named(&context, "a.b", Topics::All) {
        Err(OutboxError::Name(_)) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn another_instance_takes_over() {
    let store = Store::new();
    let (one, two) = (store.healthy(), store.healthy());
    let receiver = Receiver::kind();
    let mut first = Relay::start(&Outbox::of(&one), receiver.clone(), options());
    let last = send_many(&one, 0, 50).await;
    until_done(&mut first, last).await;
    let mut second = Relay::start(&Outbox::of(&two), receiver.clone(), options());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(second.status().phase, RelayPhase::StandingBy);
    let last = send_many(&one, 50, 50).await;
    until_done(&mut first, last).await;
    assert_eq!(second.status().phase, RelayPhase::StandingBy);
    drop(first);
    let last = send_many(&one, 100, 50).await;
    until_done(&mut second, last).await;
    assert_eq!(receiver.arrived().len(), 150);
    assert_sound(&receiver.arrived(), 0..150, "after the takeover");
}

/// An instance that hangs for a long time believes to be active still when it wakes up.
#[tokio::test(start_paused = true)]
async fn two_that_believe_to_be_active_keep_the_order() {
    let store = Store::new();
    let (one, two) = (store.healthy(), store.healthy());
    // So short that each believes the other one is gone.
    let options = RelayOptions { lease: Duration::from_nanos(5), ..options() };
    let receivers = Receiver::kind().taking(Duration::from_millis(3));
    let other = receivers.apart();
    let mut first = Relay::start(&Outbox::of(&one), receivers.clone(), options);
    let second = Relay::start(&Outbox::of(&two), other, options);
    let last = send_many(&one, 0, 300).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(second);
    until_done(&mut first, last).await;
    assert_sound(&receivers.arrived(), 0..300, "two at a time");
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_what_is_under_way_and_begins_nothing() {
    let store = Store::new();
    let context = store.healthy();
    send_many(&context, 0, 70).await;
    let receiver = Receiver::kind().taking(Duration::from_secs(1));
    let relay = Relay::start(&Outbox::of(&context), receiver.clone(), options());
    while receiver.under_way.lock().unwrap().1 < 7 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    relay.stop().await.unwrap();
    assert_sound(&receiver.arrived(), 0..7, "what was under way");
    assert_eq!(Outbox::of(&context).backlog().await.unwrap().messages, 63);
    let next = Receiver::kind();
    let mut relay = Relay::start(&Outbox::of(&context), next.clone(), options());
    let last = context.log().status().await.unwrap().last;
    until_done(&mut relay, last).await;
    assert_sound(&next.arrived(), 7..70, "what was not");
}

/// Messages that lie in the outbox and that this crate did not write are published as they are, or refused by who reads
/// them.
#[tokio::test(start_paused = true)]
async fn a_message_that_is_no_event_is_parked_when_its_receiver_cannot_read_it() {
    let store = Store::new();
    let context = store.healthy();
    let template = send(&context, order("k", 1)).await;
    let everything = LogQuery { filter: None, after: Position::START };
    let subject = context.log().read(everything).next().await.unwrap().unwrap().subject;
    let strange = NewMessage {
        subject,
        headers: [("ce-partitionkey", "%zz")].into_iter().collect(),
        payload: "?".into(),
        guard: Guard::Free,
    };
    let last = context.log().publish(strange).await.unwrap();
    let receiver = Receiver::kind();
    let mut relay = Relay::start(&Outbox::of(&context), receiver.clone(), options());
    let status = until(&mut relay, last).await;
    assert_eq!((status.parked, template.get()), (1, 1));
    let parked = Outbox::of(&context).list_parked().await.unwrap();
    assert_eq!((parked[0].key.as_deref(), parked[0].id.as_str()), (Some("%zz"), ""));
    let error = "refused for good: attribute partitionkey of the CloudEvent cannot be \"%zz\"";
    assert_eq!(parked[0].error.as_deref(), Some(error));
    assert_eq!(receiver.numbers(), [1]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_when_the_one_that_was_told_to_wait_is_stopped() {
    let store = Store::new();
    let context = store.healthy();
    send_many(&context, 0, 3).await;
    let outbox = Outbox::of(&context);
    let mut relay = Relay::start(&outbox, Receiver::new(|_| Say::Gone), options());
    let gone = |status: &cim_persistence::outbox::RelayStatus| {
        status.phase == RelayPhase::ReceiverUnavailable
    };
    let status = relay.wait_until(gone).await.unwrap();
    let trouble = "the receiver is not available: nobody there";
    assert_eq!(status.trouble.as_deref(), Some(trouble));
    assert_eq!(status.unpublished, 3);
    relay.stop().await.unwrap();
    let infos = CommitInfo::default();
    outbox.save_messages(&NonEmpty::one(order("k", 3)), &infos).await.unwrap();
    assert_eq!(outbox.get_pending(10).await.unwrap().len(), 4);
}
