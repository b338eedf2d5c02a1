//! Rounds, medians, the table and the last line.

use std::fmt::Write;

use serde::Serialize;

/// One line of the table.
#[derive(Serialize)]
pub struct Row {
    pub work: String,
    pub server: &'static str,
    pub ours: f64,
    pub raw: f64,
    pub ratio: f64,
    pub bar: f64,
    pub met: bool,
    #[serde(skip)]
    pub unit: &'static str,
    #[serde(skip)]
    pub higher_is_better: bool,
}

/// What a row compares and what it must reach.
pub struct Goal {
    pub work: String,
    pub server: &'static str,
    pub unit: &'static str,
    pub bar: Bar,
}

/// The bar on ours / raw.
#[derive(Clone, Copy)]
pub enum Bar {
    /// A rate: the ratio must be at least this.
    AtLeast(f64),
    /// A time: the ratio must be at most this.
    AtMost(f64),
}

impl Row {
    /// The medians of rounds in which ours and raw alternated, and the median of the ratios round by round.
    pub fn of(goal: Goal, rounds: &[(f64, f64)]) -> Self {
        let ours = median(rounds.iter().map(|round| round.0));
        let raw = median(rounds.iter().map(|round| round.1));
        let ratio = median(rounds.iter().map(|round| round.0 / round.1));
        let (bar, met, higher_is_better) = match goal.bar {
            Bar::AtLeast(bar) => (bar, ratio >= bar, true),
            Bar::AtMost(bar) => (bar, ratio <= bar, false),
        };
        let row = Self {
            work: goal.work,
            server: goal.server,
            ours,
            raw,
            ratio,
            bar,
            met,
            unit: goal.unit,
            higher_is_better,
        };
        println!("{}", row.line());
        row
    }

    fn line(&self) -> String {
        let mut line = String::new();
        // Rates are large, times are fractions of a millisecond.
        let (sign, digits) = if self.higher_is_better { ("≥", 1) } else { ("≤", 3) };
        let met = if self.met { "met" } else { "MISSED" };
        let _ = write!(
            line,
            "| {:<58} | {:<7} | {:>10.digits$} | {:>10.digits$} | {:<9} | {:>6.2} | {sign} {:>5.2} | {met} |",
            self.work, self.server, self.ours, self.raw, self.unit, self.ratio, self.bar
        );
        line
    }
}

pub fn head(title: &str) {
    println!("\n{title}\n");
    println!("| work | server | ours | raw | unit | ratio | bar | |");
    println!("|---|---|---:|---:|---|---:|---:|---|");
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}
