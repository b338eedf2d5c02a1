//! Everything that can happen to relays, drawn from seeds.

use std::time::Duration;

use cim_persistence::outbox::{Outbox, Relay, RelayOptions};
use cim_persistence::testing::faults::{Faults, Rates};

use crate::domain::{Receiver, Say, Store, THREE, assert_sound, options, send_many, until_all};

const SEEDS: u64 = 500;

/// A mood that changes with every message, the same for the same seed.
fn moody(seed: u64) -> impl FnMut(&cim_persistence::outbox::PendingMessage) -> Say + Send {
    let mut state = seed;
    move |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        match (state >> 33) % 100 {
            0..4 => Say::Failed,
            4..8 => Say::YesUnheard,
            8..11 => Say::Gone,
            11 => Say::Panic,
            12 => Say::Hang,
            13 => Say::Refused,
            _ => Say::Yes,
        }
    }
}

/// Relays on two processes that fail at every step, are killed, and believe to be active at the same time. In the end
/// nothing is missing, nothing is there twice but for repetitions, and no key is out of order but for what was parked.
#[tokio::test(start_paused = true)]
async fn whatever_is_drawn_nothing_is_lost_or_out_of_order() {
    let rates = Rates {
        lost_ack: 60,
        lost_write: 60,
        late_write: 60,
        conflict: 30,
        stale_read: 150,
        outage: 60,
    };
    let (mut met, mut repeated, mut parked) = (0, 0, 0);
    for seed in 0..SEEDS {
        let (store, faults) = (Store::new(), Faults::random(seed, rates));
        let healthy = store.healthy();
        let processes = [store.process(&faults), store.process(&faults)];
        let receiver = Receiver::new(moody(seed));
        let lease = Duration::from_millis(if seed % 2 == 0 { 60 } else { 10 });
        let options = RelayOptions { lease, timeout: Duration::from_millis(40), ..options() };
        let mut relays = [None, None];
        const ROUNDS: u64 = 6;
        for round in 0..ROUNDS {
            let turn = (seed + round) % 2;
            let outbox = Outbox::of(&processes[turn as usize]).with_retry(THREE);
            // A receiver each: what two of them do at a time is not asked here.
            let own = receiver.apart();
            // The one before it is killed wherever it is.
            relays[turn as usize] = Some(Relay::start(&outbox, own, options));
            send_many(&healthy, round * 20, 20).await;
            tokio::time::sleep(Duration::from_millis(5 + seed % 60)).await;
        }
        drop(relays);
        faults.calm();
        faults.deliver_late();
        let hint = format!("seed {seed}");
        let last = healthy.log().status().await.unwrap().last;
        // What was parked comes after the others of its key: those that were published before are in order.
        let outbox = Outbox::of(&healthy).with_retry(THREE);
        receiver.change(|_| Say::Yes);
        let own = receiver.apart();
        let mut relay = Relay::start(&outbox, own, options);
        crate::domain::until_done(&mut relay, last).await;
        let held = outbox.list_parked().await.unwrap();
        let numbers: Vec<u64> = held.iter().map(|held| held.position.get() - 1).collect();
        let arrived = receiver.arrived();
        let ordered: Vec<_> =
            arrived.iter().filter(|arrived| !numbers.contains(&arrived.number)).cloned().collect();
        let sent = (0..ROUNDS * 20).filter(|number| !numbers.contains(number));
        assert_sound(&ordered, sent, &hint);
        outbox.requeue_all().await.unwrap();
        let all = u64::try_from(held.len()).unwrap();
        until_all(&receiver, ROUNDS * 20).await;
        parked += all;
        repeated += arrived.len() - crate::domain::once(&arrived).len();
        met += faults.met();
    }
    assert!(met > 5000, "{met} faults met");
    assert!(repeated > 0 && parked > 0, "{repeated} repeated, {parked} parked");
}

/// Messages that are saved by themselves are stored once, or it is said that this is not known.
#[tokio::test(start_paused = true)]
async fn messages_saved_by_themselves_are_stored_once() {
    let rates = Rates { lost_ack: 150, lost_write: 150, late_write: 150, ..Rates::default() };
    let mut met = 0;
    for seed in 0..SEEDS {
        let (store, faults) = (Store::new(), Faults::random(seed, rates));
        let process = store.process(&faults);
        let mut stored = Vec::new();
        for number in 0..6 {
            let message = crate::domain::order("k", number);
            let position = crate::domain::try_to_send(&process, message).await.unwrap();
            stored.push(position);
        }
        send_many(&process, 6, 10).await;
        faults.calm();
        faults.deliver_late();
        let pending = Outbox::of(&store.healthy()).get_pending(100).await.unwrap();
        let numbers: Vec<u64> =
            pending.iter().map(|message| message.event().unwrap().json().unwrap()).collect();
        assert_eq!(numbers, (0..16).collect::<Vec<_>>(), "seed {seed}");
        let positions: Vec<_> = pending[..6].iter().map(|message| message.position()).collect();
        assert_eq!(positions, stored, "seed {seed}");
        met += faults.met();
    }
    assert!(met > 200, "{met} faults met");
}
