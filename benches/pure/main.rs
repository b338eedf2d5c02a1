//! What is computed without a server, on one core.
//!
//! `cargo bench --bench pure` prints a table and, as its last line, the rows as JSON. `-- --quick` runs fewer and smaller
//! rounds; other arguments choose the areas of that name. Rates without a raw side have 1.0 there.
#![allow(missing_docs, clippy::print_stdout, unreachable_pub)]

mod blocks;
#[path = "../write_path/report.rs"]
mod report;
mod routing;
mod upcasting;

use std::time::{Duration, Instant};

use report::{Bar, Goal, Row};

/// What a file measures.
type Area = fn(Size) -> Vec<Row>;

/// The areas by name, in the order of the table.
const AREAS: [(&str, Area); 3] =
    [("routing", routing::rows), ("blocks", blocks::rows), ("upcasting", upcasting::rows)];

/// How much is done.
#[derive(Clone, Copy)]
pub struct Size {
    rounds: usize,
    /// About how many steps a round has.
    steps: usize,
}

const FULL: Size = Size { rounds: 9, steps: 1_000_000 };
const QUICK: Size = Size { rounds: 3, steps: 100_000 };

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let size = if args.iter().any(|arg| arg == "--quick") { QUICK } else { FULL };
    let chosen: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    report::head("Without a server, on one core");
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|area| *area == name);
    let areas = AREAS.iter().filter(|(name, _)| wanted(name));
    let rows: Vec<Row> = areas.flat_map(|(_, rows)| rows(size)).collect();
    println!("\n{}", serde_json::json!({ "rows": rows }));
}

impl Size {
    /// Runs a round as often as wanted, after one that does not count.
    fn rounds<T>(self, mut round: impl FnMut() -> T) -> Vec<T> {
        round();
        (0..self.rounds).map(|_| round()).collect()
    }
}

/// A row that compares with something else, round by round.
pub fn row(work: &str, unit: &'static str, bar: Bar, rounds: &[(f64, f64)]) -> Row {
    Row::of(Goal { work: work.to_owned(), server: "none", unit, bar }, rounds)
}

/// A row of a rate that has to be reached.
pub fn rate(work: &str, unit: &'static str, at_least: f64, rates: &[f64]) -> Row {
    let rounds: Vec<_> = rates.iter().map(|rate| (*rate, 1.0)).collect();
    row(work, unit, Bar::AtLeast(at_least), &rounds)
}

pub fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}
