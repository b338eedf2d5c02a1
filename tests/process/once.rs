//! Each event and each timeout takes effect once, in memory: whatever fails, whoever is killed, whoever else is at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cim_persistence::clock::{Clock, Timestamp};
use cim_persistence::process::{ProcessOptions, RunningProcess};
use cim_persistence::testing::faults::{Call, CallKind, Fault, Faults, Gate, Rates};
use cim_persistence::timeouts::{MemoryTimeouts, Timeout, TimeoutQueue};
use futures::StreamExt;

use crate::domain::*;

/// A clock that a test moves.
#[derive(Debug, Clone, Default)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn set(&self, micros: u64) {
        self.0.store(micros, Ordering::SeqCst);
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

fn on_hands() -> (Store, Hands) {
    let hands = Hands::default();
    (Store::new(MemoryTimeouts::with_clock(Arc::new(hands.clone()))), hands)
}

fn start(store: &Store, faults: &Faults) -> RunningProcess {
    start_with(store, faults, options())
}

fn start_with(store: &Store, faults: &Faults, options: ProcessOptions) -> RunningProcess {
    let context = store.process(faults);
    RunningProcess::start(&context, Follow::on(&context), options).unwrap()
}

fn writes_to(prefix: &'static str) -> impl Fn(&Call<'_>) -> bool + Send + Sync {
    move |call| call.kind == CallKind::Write && call.subjects.iter().any(|s| s.starts_with(prefix))
}

const MARK: &str = "cim.unique.bank.=process.follow.";

#[tokio::test]
async fn events_and_a_timeout_take_effect_and_belong_together() {
    let (store, hands) = on_hands();
    let context = store.healthy();
    let mut process = start(&store, &Faults::new());
    happens(&context, "kim@home", OrderEvent::Placed).await;
    let last = happens(&context, "kim@home", OrderEvent::Remind(100)).await;
    process.handled(last).await.unwrap();
    assert_eq!(noted(&context, "kim@home").await.len(), 2);

    wait_for_a_wish(&store).await;
    let waiting = store.timeouts.waiting().await.unwrap().remove(0);
    hands.set(100);
    let noted = noted_at_least(&context, "kim@home", 3).await;
    assert_eq!(noted[2], Noted::Reminder { scheduled_at: 100 });
    each_took_effect_once(&context).await;

    // What the timeout caused belongs to what the event that scheduled it belongs to.
    let events = context.get_events_after(Default::default(), usize::MAX).await.unwrap();
    let scheduling = events.iter().find(|event| event.position() == last).unwrap();
    let reminder = events.last().unwrap();
    assert_eq!(reminder.correlation_id(), scheduling.correlation_id());
    assert_eq!(reminder.causation_id(), Some(waiting.id));

    // What was reacted to is no longer due.
    process.stop().await.unwrap();
    let next = Timeout { id: uuid::Uuid::now_v7(), ..waiting };
    store.timeouts.schedule(next.clone()).await.unwrap();
    assert_eq!(store.timeouts.due("follow").next().await.unwrap().unwrap().timeout, next);
}

#[tokio::test]
async fn a_timeout_that_was_replaced_or_cancelled_does_not_take_effect() {
    let (store, hands) = on_hands();
    let context = store.healthy();
    let process = start(&store, &Faults::new());
    for (order, event) in [
        ("moved", OrderEvent::Remind(10)),
        ("moved", OrderEvent::Remind(30)),
        ("paid", OrderEvent::Remind(10)),
        ("paid", OrderEvent::Paid),
        ("other", OrderEvent::Remind(20)),
    ] {
        happens(&context, order, event).await;
    }
    noted_at_least(&context, "other", 1).await;
    // Wishes reach the queue in their order: only what counts waits there in the end.
    let settled = async {
        loop {
            let mut waiting = store.timeouts.waiting().await.unwrap();
            waiting.sort_by_key(|timeout| timeout.at);
            let instances = waiting.iter().map(|timeout| timeout.address.instance().to_string());
            if instances.collect::<Vec<_>>() == ["other", "moved"] {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), settled).await.expect("more or less waits");
    hands.set(20);
    noted_at_least(&context, "other", 2).await;
    assert_eq!((noted(&context, "moved").await.len(), noted(&context, "paid").await.len()), (2, 2));
    hands.set(30);
    noted_at_least(&context, "moved", 3).await;
    let reminders = each_took_effect_once(&context).await;
    assert_eq!(reminders[ALL], [20, 30]);
    process.stop().await.unwrap();
}

/// Another reaction is committed while the timeout is already due, and in hand: the queue cannot take it back, the mark
/// decides.
async fn meanwhile(event: OrderEvent) -> Option<Vec<u64>> {
    let (store, hands) = on_hands();
    let (context, faults) = (store.healthy(), Faults::new());
    let process = start(&store, &faults);
    happens(&context, "kim", OrderEvent::Remind(10)).await;
    wait_for_a_wish(&store).await;
    process.stop().await.unwrap();

    let gate = Gate::new();
    let held_up = Faults::new();
    held_up.plan_when(writes_to(MARK), Fault::PauseBefore(gate.clone()));
    hands.set(10);
    let slow = start(&store.apart(), &held_up);
    gate.reached().await;
    let mut quick = start_without_timeouts(&store);
    let position = happens(&context, "kim", event).await;
    quick.handled(position).await.unwrap();
    gate.open();

    happens(&context, "later", OrderEvent::Remind(10)).await;
    noted_at_least(&context, "later", 2).await;
    drop((slow, quick));
    let mut reminders = each_took_effect_once(&context).await;
    assert_eq!(reminders["later"], [10]);
    reminders.remove("kim")
}

#[tokio::test]
async fn a_timeout_that_is_cancelled_or_replaced_while_it_is_due_does_not_take_effect() {
    assert_eq!(meanwhile(OrderEvent::Paid).await, None);
    assert_eq!(meanwhile(OrderEvent::Remind(50)).await, None);
    // What changes nothing of it delays it only.
    assert_eq!(meanwhile(OrderEvent::Placed).await, Some(vec![10]));
}

#[tokio::test]
async fn what_was_stored_while_nobody_was_active_comes_before_what_came_due() {
    let (store, hands) = on_hands();
    let context = store.healthy();
    let process = start(&store, &Faults::new());
    happens(&context, "kim", OrderEvent::Remind(10)).await;
    wait_for_a_wish(&store).await;
    process.stop().await.unwrap();
    hands.set(10);
    for _ in 0..20 {
        happens(&context, "lee", OrderEvent::Placed).await;
    }
    let paid = happens(&context, "kim", OrderEvent::Paid).await;
    let mut process = start(&store, &Faults::new());
    process.handled(paid).await.unwrap();
    happens(&context, "later", OrderEvent::Remind(10)).await;
    noted_at_least(&context, "later", 2).await;
    process.stop().await.unwrap();
    assert_eq!(each_took_effect_once(&context).await.get("kim"), None);
}

#[tokio::test]
async fn a_replica_that_is_behind_voids_no_timeout() {
    let (store, hands) = on_hands();
    let (context, faults) = (store.healthy(), Faults::new());
    let process = start(&store, &faults);
    happens(&context, "kim", OrderEvent::Remind(10)).await;
    wait_for_a_wish(&store).await;
    let mark = |call: &Call<'_>| {
        call.kind == CallKind::NearestRead
            && call.subjects == ["cim.unique.bank.=process.follow.kim"]
    };
    faults.plan_when(mark, Fault::StaleRead(1));
    hands.set(10);
    noted_at_least(&context, "kim", 2).await;
    assert_eq!(faults.planned(), 0);
    process.stop().await.unwrap();
}

async fn wait_for_a_wish(store: &Store) {
    while store.timeouts.waiting().await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A process whose timeouts never come due.
fn start_without_timeouts(store: &Store) -> RunningProcess {
    let timeouts = MemoryTimeouts::with_clock(Arc::new(Hands::default()));
    start(&Store { timeouts, ..store.apart() }, &Faults::new())
}

#[tokio::test]
async fn two_that_both_believe_they_are_active_do_everything_once() {
    let (store, hands) = on_hands();
    let context = store.healthy();
    let both = [start(&store, &Faults::new()), start(&store.apart(), &Faults::new())];
    for n in 0..40 {
        let event = if n % 4 == 0 { OrderEvent::Remind(n) } else { OrderEvent::Placed };
        happens(&context, &format!("o{}", n % 5), event).await;
        hands.set(n);
    }
    hands.set(100);
    let reminded = |noted: &[Noted]| {
        noted.iter().filter(|noted| matches!(noted, Noted::Reminder { .. })).count()
    };
    for n in 0..5 {
        // The last reminder of each order is never replaced.
        let wanted = (0..40).filter(|m| m % 4 == 0 && m % 5 == n).max().unwrap();
        loop {
            let noted = noted_at_least(&context, &format!("o{n}"), 8).await;
            if noted.contains(&Noted::Reminder { scheduled_at: wanted }) {
                assert!(reminded(&noted) <= 2, "{noted:?}");
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    drop(both);
    let reminders = each_took_effect_once(&context).await;
    no_reminder_came_twice(&reminders);
}

fn eager() -> ProcessOptions {
    ProcessOptions { lease: Duration::ZERO, ..options() }
}

/// One run: faults by chance, and the process is killed again and again, wherever it is.
async fn killed_all_the_time(seed: u64, kills: u32) {
    let (store, hands) = on_hands();
    let context = store.healthy();
    let rates = Rates {
        lost_ack: 30,
        lost_write: 20,
        late_write: 20,
        conflict: 30,
        stale_read: 60,
        outage: 5,
    };
    let faults = Faults::random(seed, rates);
    let writing = tokio::spawn({
        let (context, hands) = (context.clone(), hands.clone());
        async move {
            for n in 0..60 {
                let event = match n % 6 {
                    0 => OrderEvent::Remind(1000 + n),
                    3 if n % 4 == 3 => OrderEvent::Paid,
                    _ => OrderEvent::Placed,
                };
                happens(&context, &format!("o{}", n % 7), event).await;
                hands.set(1000 + n / 2);
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
        }
    });
    let mut chance = seed;
    for _ in 0..kills {
        // Every other run goes on from the place that was written down, and takes the lease from the dead at once.
        let process = match seed % 2 {
            0 => start(&store.apart(), &faults),
            _ => start_with(&store, &faults, eager()),
        };
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        tokio::time::sleep(Duration::from_micros(500 + (chance >> 33) % 12_000)).await;
        drop(process);
    }
    writing.await.unwrap();
    hands.set(10_000);
    faults.calm();
    faults.deliver_late();
    let process = start(&store, &faults);
    noted_at_least(&context, ALL, 60).await;
    // The last one to be due says that all are done with.
    happens(&context, "sentinel", OrderEvent::Remind(9_999)).await;
    noted_at_least(&context, "sentinel", 2).await;
    process.stop().await.unwrap();
    let reminders = each_took_effect_once(&context).await;
    no_reminder_came_twice(&reminders);
    // Of each order the last wish counts: the reminder came, unless the order was paid after it.
    for order in 0..7 {
        let last =
            (0..60).filter(|n| n % 7 == order && (n % 6 == 0 || (n % 6 == 3 && n % 4 == 3))).max();
        if let Some(last) = last.filter(|n| n % 6 == 0) {
            let came =
                reminders.get(&format!("o{order}")).is_some_and(|all| all.contains(&(1000 + last)));
            assert!(
                came,
                "seed {seed}: the last reminder of o{order}, {}, did not come",
                1000 + last
            );
        }
    }
    assert!(faults.met() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_when_the_process_is_killed_all_the_time() {
    let runs: Vec<_> = (0..6).map(|seed| tokio::spawn(killed_all_the_time(seed, 30))).collect();
    for run in runs {
        run.await.unwrap();
    }
}
