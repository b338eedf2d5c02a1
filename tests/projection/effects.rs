//! Effects outside: at least once, in order, never again for what was passed.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cim_persistence::backend::Position;
use cim_persistence::projection::{
    Effects, FirstStart, MOST_REPEATED, PoisonPolicy, ProjectionError, ProjectionOptions,
    Projections, Rejection, RunningEffects,
};
use cim_persistence::store::StoredEvent;
use cim_persistence::testing::faults::{Faults, Rates};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt};
use tracing_subscriber::{Layer, Registry};

use crate::domain::{
    Moved, PANICS, PATIENCE, REFUSED, Store, WORDY, last, many_moves, many_words, moves, options,
};

/// Writes down what it was asked to do.
#[derive(Clone, Default)]
struct Mails(Arc<Mutex<Vec<Position>>>);

impl Mails {
    fn sent(&self) -> Vec<Position> {
        self.0.lock().unwrap().clone()
    }
}

impl Effects for Mails {
    const NAME: &'static str = "mails";
    type Event = Moved;

    async fn handle(&self, event: Moved, stored: &StoredEvent) -> Result<(), Rejection> {
        if event.to == REFUSED {
            return Err("no address".into());
        }
        assert!(event.to != PANICS, "an address that panics");
        if event.to == WORDY {
            return Err(many_words().into());
        }
        self.0.lock().unwrap().push(stored.position());
        Ok(())
    }
}

fn positions(range: std::ops::RangeInclusive<u64>) -> Vec<Position> {
    range.map(Position::new).collect()
}

#[tokio::test(start_paused = true)]
async fn each_event_is_handled_once_while_nobody_crashes() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 100).await;
    let mails = Mails::default();
    let start = |first| RunningEffects::start(&context, mails.clone(), first, options()).unwrap();
    let mut running = start(FirstStart::Beginning);
    running.handled(last(&context).await).await.unwrap();
    running.stop().await.unwrap();
    many_moves(&context, 20).await;
    // Where it begins is decided once.
    let mut running = start(FirstStart::Now);
    running.handled(last(&context).await).await.unwrap();
    assert_eq!(mails.sent(), positions(1..=120));
}

#[tokio::test(start_paused = true)]
async fn one_that_begins_now_leaves_out_what_was() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 10).await;
    let mails = Mails::default();
    let mut running =
        RunningEffects::start(&context, mails.clone(), FirstStart::Now, options()).unwrap();
    running.handled(Position::new(10)).await.unwrap();
    many_moves(&context, 5).await;
    running.handled(last(&context).await).await.unwrap();
    assert_eq!(mails.sent(), positions(11..=15));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_stops_it_or_is_parked() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 3).await;
    let refused = moves(&context, "a1", REFUSED, 1).await;
    many_moves(&context, 3).await;
    let mails = Mails::default();
    let beginning = FirstStart::Beginning;
    let mut running = RunningEffects::start(&context, mails.clone(), beginning, options()).unwrap();
    match running.handled(last(&context).await).await {
        Err(ProjectionError::Poison { projection, position, reason }) => {
            assert_eq!((projection.as_str(), position), ("mails", refused.get()));
            assert_eq!(reason, "no address");
        }
        other => panic!("{other:?}"),
    }
    let options = ProjectionOptions { poison: PoisonPolicy::PARK, ..options() };
    let mut running = RunningEffects::start(&context, mails.clone(), beginning, options).unwrap();
    running.handled(last(&context).await).await.unwrap();
    let parked = Projections::of(&context).parked("mails").await.unwrap();
    assert_eq!(parked.iter().map(|p| p.position).collect::<Vec<_>>(), [refused]);
    let sent = mails.sent();
    assert_eq!(sent[sent.len() - 3..], positions(5..=7));
}

#[tokio::test(start_paused = true)]
async fn one_that_stops_at_an_event_repeats_none_before_it() {
    let store = Store::new();
    let context = store.healthy();
    many_moves(&context, 3).await;
    moves(&context, "a1", REFUSED, 1).await;
    let mails = Mails::default();
    for _ in 0..3 {
        let beginning = FirstStart::Beginning;
        let mut running =
            RunningEffects::start(&context, mails.clone(), beginning, options()).unwrap();
        let ended = running.handled(last(&context).await).await;
        assert!(matches!(ended, Err(ProjectionError::Poison { .. })), "{ended:?}");
        // Its end is told once, and nothing goes wrong when it is asked for again.
        running.handled(last(&context).await).await.unwrap_err();
        running.stop().await.unwrap();
    }
    assert_eq!(mails.sent(), positions(1..=3));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_cannot_use_the_event() {
    let store = Store::new();
    let context = store.healthy();
    let panics = moves(&context, "a1", PANICS, 1).await;
    many_moves(&context, 3).await;
    let mails = Mails::default();
    let options = ProjectionOptions { poison: PoisonPolicy::PARK, ..options() };
    let mut running =
        RunningEffects::start(&context, mails.clone(), FirstStart::Beginning, options).unwrap();
    running.handled(last(&context).await).await.unwrap();
    let parked = Projections::of(&context).parked("mails").await.unwrap();
    assert_eq!(parked.iter().map(|event| event.position).collect::<Vec<_>>(), [panics]);
    assert_eq!(parked[0].reason, "it panicked: an address that panics");
    assert_eq!(mails.sent(), positions(2..=4));
}

/// Crashes and faults repeat effects, at most as many as are said, and leave none out.
#[tokio::test(start_paused = true)]
async fn crashes_repeat_a_few_and_lose_none() {
    let rates =
        Rates { lost_ack: 60, lost_write: 60, late_write: 60, conflict: 20, ..Rates::default() };
    for seed in 0..50 {
        let store = Store::new();
        let healthy = store.healthy();
        let process = store.process(&Faults::random(seed, rates));
        let mails = Mails::default();
        let options = || ProjectionOptions { lease: Duration::from_millis(5), ..options() };
        let start = |context| {
            RunningEffects::start(context, mails.clone(), FirstStart::Beginning, options()).unwrap()
        };
        const CRASHES: usize = 5;
        for _ in 0..CRASHES {
            let running = start(&process);
            many_moves(&healthy, 20).await;
            tokio::time::sleep(Duration::from_millis(seed % 20)).await;
            drop(running);
        }
        let mut running = start(&healthy);
        running.handled(last(&healthy).await).await.unwrap();
        let sent = mails.sent();
        let mut once = sent.clone();
        once.sort();
        once.dedup();
        assert_eq!(once, positions(1..=100), "seed {seed}");
        assert!(sent.len() <= 100 + (CRASHES + 1) * MOST_REPEATED, "{} in all", sent.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_reason_longer_than_a_message_is_kept_in_part() {
    let store = Store::new();
    let context = store.healthy();
    let wordy = moves(&context, "a1", WORDY, 1).await;
    many_moves(&context, 3).await;
    let mails = Mails::default();
    let options = ProjectionOptions { poison: PoisonPolicy::PARK, ..options() };
    let mut running =
        RunningEffects::start(&context, mails.clone(), FirstStart::Beginning, options).unwrap();
    let end = last(&context).await;
    tokio::time::timeout(PATIENCE, running.handled(end)).await.unwrap().unwrap();
    let parked = Projections::of(&context).parked("mails").await.unwrap();
    assert_eq!(parked.iter().map(|event| event.position).collect::<Vec<_>>(), [wordy]);
    assert_eq!(mails.sent(), positions(2..=4));
}

/// Keeps what is logged as an error.
#[derive(Clone, Default)]
struct Errors(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Errors {
    fn on_event(&self, event: &tracing::Event<'_>, _: LayerContext<'_, S>) {
        if *event.metadata().level() == tracing::Level::ERROR {
            event.record(&mut Messages(&self.0));
        }
    }
}

struct Messages<'a>(&'a Mutex<Vec<String>>);

impl Visit for Messages<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0.lock().unwrap().push(format!("{value:?}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_stops_by_itself_says_so_in_the_log() {
    let errors = Errors::default();
    let _logging = tracing::subscriber::set_default(Registry::default().with(errors.clone()));
    let context = Store::new().healthy();
    moves(&context, "a1", REFUSED, 1).await;
    let beginning = FirstStart::Beginning;
    let mut running =
        RunningEffects::start(&context, Mails::default(), beginning, options()).unwrap();
    running.handled(last(&context).await).await.unwrap_err();
    let said = errors.0.lock().unwrap().clone();
    assert_eq!(said, ["effects stopped"]);
}
