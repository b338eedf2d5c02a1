//! Finding the routes of subjects.

use std::hint::black_box;

use cim_persistence::routing::{Permissions, Route, RoutingStrategy, SubjectRouter};
use cim_persistence::subject::Pattern;

use crate::report::{Bar, Row};
use crate::{Size, rate, row, timed};

/// Patterns for as many kinds of aggregates, 200 for each: ten contexts times twenty event types.
const MANY: usize = 50;
const FEW: usize = 1;
const SUBJECTS: usize = 4_096;

pub fn rows(size: Size) -> Vec<Row> {
    let (many, few) = (Field::new(MANY), Field::new(FEW));
    let rounds = size.rounds(|| (many.seconds(size.steps), few.seconds(size.steps)));
    let rates: Vec<f64> = rounds.iter().map(|(many, _)| size.steps as f64 / many).collect();
    let nanos = |seconds: f64| seconds * 1e9 / size.steps as f64;
    let times: Vec<_> = rounds.iter().map(|(many, few)| (nanos(*many), nanos(*few))).collect();
    vec![
        rate("routing among 10,000 patterns", "subjects/s", 1_000_000.0, &rates),
        row("one subject, 10,000 patterns against 200", "ns", Bar::AtMost(4.0), &times),
    ]
}

/// A router, and subjects that its routes match.
struct Field {
    router: SubjectRouter<()>,
    subjects: Vec<String>,
}

impl Field {
    fn new(kinds: usize) -> Self {
        let router = SubjectRouter::new(RoutingStrategy::AllMatches, Permissions::open());
        let nothing = |_| async { Ok::<_, std::fmt::Error>(()) };
        router.register_handler("none", nothing).expect("the first handler");
        for number in 0..200 * kinds {
            let pattern = Pattern::parse(&pattern(number, kinds)).expect("a pattern");
            router.add_route(Route::new(pattern, "none")).expect("everything is permitted");
        }
        let subjects: Vec<String> = (0..SUBJECTS).map(|number| subject(number, kinds)).collect();
        for subject in &subjects {
            assert!(!router.find_routes(subject).is_empty(), "{subject} has a route");
        }
        Self { router, subjects }
    }

    fn seconds(&self, steps: usize) -> f64 {
        let took = timed(|| {
            for subject in self.subjects.iter().cycle().take(steps) {
                black_box(self.router.find_routes(black_box(subject)));
            }
        });
        took.as_secs_f64()
    }
}

/// One of twenty patterns of a kind in a context means all its events, nine those of one type, the others the
/// events of one aggregate, all or those of one type.
fn pattern(number: usize, kinds: usize) -> String {
    let (context, kind, event) = (number % 10, number / 10 % kinds, number / 10 / kinds);
    match event {
        0 => format!("cim.events.c{context}.kind{kind}.>"),
        1..10 => format!("cim.events.c{context}.kind{kind}.*.event{event}.*"),
        10..15 => format!("cim.events.c{context}.kind{kind}.{event}.>"),
        _ => format!("cim.events.*.kind{kind}.{event}.event{event}.1"),
    }
}

/// The long form of an event.
fn subject(number: usize, kinds: usize) -> String {
    let (context, kind, event) = (number % 10, number / 10 % kinds, number * 7 % 20);
    let id = number * 7_919 % 40;
    format!("cim.events.c{context}.kind{kind}.{id}.event{event}.1")
}
