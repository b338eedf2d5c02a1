//! Work by hand beside others, and while the store is away: what is read belongs together, and what waits ends.

use std::time::Duration;

use cim_persistence::outbox::{Outbox, OutboxError, Relay, RelayOptions, RetryPolicy};
use cim_persistence::testing::faults::{Call, CallKind, Fault, Faults, Gate};

use crate::domain::{Receiver, Say, Store, THREE, options, order, send, send_many};

const CURSOR: &str = "$KV.readmodels.=outbox.main";

fn reads_cursor(call: &Call<'_>) -> bool {
    call.kind == CallKind::LeaderRead && call.subjects == [CURSOR]
}

fn reads_records(call: &Call<'_>) -> bool {
    call.kind == CallKind::NearestRead && call.subjects.contains(&CURSOR)
}

/// While one is about to read the records, another publishes what was stored meanwhile.
#[tokio::test]
async fn what_another_publishes_meanwhile_is_no_sign_of_another_log() {
    for meets in [reads_cursor, reads_records] {
        let (store, faults, gate) = (Store::new(), Faults::new(), Gate::new());
        let context = store.healthy();
        let first = send(&context, order("a", 0)).await;
        Outbox::of(&context).mark_published(&[first]).await.unwrap();

        faults.plan_when(meets, Fault::PauseBefore(gate.clone()));
        let outbox = Outbox::of(&store.process(&faults));
        let looking = tokio::spawn(async move { outbox.get_pending(10).await });
        gate.reached().await;
        let second = send(&context, order("a", 1)).await;
        Outbox::of(&context).mark_published(&[second]).await.unwrap();
        // The records come with their own cursor, so it need not be asked for again.
        faults.plan_when(reads_cursor, Fault::Denied);
        gate.open();
        assert!(looking.await.unwrap().unwrap().is_empty());
        assert_eq!(faults.planned(), 1);
    }
}

/// What is tried again is read through the leader: a replica that is behind costs no try.
#[tokio::test(start_paused = true)]
async fn a_replica_that_is_behind_costs_no_try() {
    let (store, faults) = (Store::new(), Faults::new());
    let context = store.healthy();
    let outbox = Outbox::of(&context).with_retry(RetryPolicy { pause: Duration::ZERO, ..THREE });
    let held = send(&context, order("a", 0)).await;
    outbox.mark_failed(held, "by hand").await.unwrap();
    let reads_topic = |call: &Call<'_>| call.subjects == ["cim.outbox.bank.orders"];
    faults.plan_when(reads_topic, Fault::StaleRead(9));
    let pending = Outbox::of(&store.process(&faults)).get_pending(10).await.unwrap();
    assert_eq!(pending.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_longest_times_are_times() {
    let context = Store::new().healthy();
    let retry = RetryPolicy { tries: 9, pause: Duration::MAX, longest_pause: Duration::MAX };
    let outbox = Outbox::of(&context).with_retry(retry);
    let options = RelayOptions { timeout: Duration::MAX, ..options() };
    let mut relay = Relay::start(&outbox, Receiver::new(|_| Say::Failed), options);
    send_many(&context, 0, 1).await;
    relay.wait_until(|status| status.waiting == 1).await.unwrap();
    relay.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_mark_does_not_wait_for_ever() {
    let (store, faults, gate) = (Store::new(), Faults::new(), Gate::new());
    let message = send(&store.healthy(), order("a", 0)).await;
    let outbox = Outbox::of(&store.with_models_of(&faults));
    faults.plan_when(reads_records, Fault::PauseBefore(gate.clone()));
    let marking = async { outbox.mark_published(&[message]).await };
    // The bucket is lost between what is read and what is written.
    let losing = async {
        gate.reached().await;
        faults.begin_outage();
        gate.open();
    };
    let both = async { tokio::join!(marking, losing).0 };
    let ended = tokio::time::timeout(Duration::from_secs(3600), both).await;
    match ended.expect("it waits for ever") {
        Ok(()) => panic!("it is not marked"),
        Err(OutboxError::Backend(error)) => assert!(error.is_transient(), "{error}"),
        Err(error) => panic!("{error}"),
    }
    faults.end_outage();
    outbox.mark_published(&[message]).await.unwrap();
}

/// What a replica does not show yet is there all the same, and what is no message of the outbox is none.
#[tokio::test(start_paused = true)]
async fn a_replica_that_is_behind_hides_no_message_from_a_mark() {
    let (store, faults) = (Store::new(), Faults::new());
    let message = send(&store.healthy(), order("a", 0)).await;
    let reads_log = |call: &Call<'_>| call.kind == CallKind::NearestRead && call.stream == "memory";
    for _ in 0..3 {
        faults.plan_when(reads_log, Fault::StaleRead(9));
    }
    let outbox = Outbox::of(&store.process(&faults));
    outbox.mark_published(&[message]).await.unwrap();
    assert_eq!(faults.planned(), 0);
    let beyond = cim_persistence::Position::new(message.get() + 1);
    let refused = outbox.mark_published(&[beyond]).await.unwrap_err();
    assert!(matches!(refused, OutboxError::NotPending { .. }), "{refused}");
}
