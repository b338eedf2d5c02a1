//! What queries really cost: of one run, and of all that looked in the same place.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{IndexStrategy, QueryPlan};

/// The most patterns of queries that are remembered.
const MOST_PATTERNS: usize = 1000;

/// What one run of a plan cost, measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueryPerformance {
    /// The way that was taken; another one than the plan's where its index was not complete any more.
    pub strategy: IndexStrategy,
    /// How many documents were read; 0 when the result had been kept.
    pub read: u64,
    /// How many of them matched, on all pages together.
    pub matched: u64,
    /// How many were returned.
    pub returned: u64,
    /// How many answers were waited for. Whatever is streamed counts as one.
    pub round_trips: u64,
    /// How long it took from the call to the result.
    pub time: Duration,
    /// Whether the result had been kept from another run.
    pub cached: bool,
}

impl fmt::Display for QueryPerformance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read, matched, returned, round_trips, time, .. } = self;
        let kept = if self.cached { ", kept from another run" } else { "" };
        let millis = time.as_secs_f64() * 1000.0;
        write!(
            f,
            "{read} read, {matched} matched, {returned} returned, {round_trips} round trips, {millis:.1} ms{kept}"
        )
    }
}

/// The queries that looked in the same place and asked about the same fields.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PatternUse {
    /// The pattern.
    pub pattern: String,
    /// The fields that were asked about, sorted. What is asked often and read much of wants an index.
    pub fields: Vec<String>,
    /// How many queries there were.
    pub queries: u64,
    /// How many of them were answered by a result that had been kept.
    pub cached: u64,
    /// How many documents they read together.
    pub read: u64,
    /// How many documents they returned together.
    pub returned: u64,
    /// How long they took together.
    pub total: Duration,
    /// How long the longest took.
    pub longest: Duration,
}

/// What is remembered of queries. Bounded: what was asked least is forgotten first.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<BTreeMap<(String, Vec<String>), PatternUse>>);

impl Uses {
    pub(super) fn add(&self, plan: &QueryPlan, performance: &QueryPerformance) {
        let query = plan.query();
        let mut fields: Vec<String> =
            query.specification.fields().into_iter().map(ToString::to_string).collect();
        fields.sort();
        fields.dedup();
        let key = (query.source.to_string(), fields);
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if uses.len() >= MOST_PATTERNS && !uses.contains_key(&key) {
            let least = uses.iter().min_by_key(|(_, used)| used.queries);
            if let Some(least) = least.map(|(key, _)| key.clone()) {
                uses.remove(&least);
            }
        }
        let used = uses.entry(key).or_insert_with_key(PatternUse::none);
        used.queries += 1;
        used.cached += u64::from(performance.cached);
        used.read += performance.read;
        used.returned += performance.returned;
        used.total += performance.time;
        used.longest = used.longest.max(performance.time);
    }

    /// What was seen, what took longest first.
    pub(super) fn all(&self) -> Vec<PatternUse> {
        let uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut uses: Vec<_> = uses.values().cloned().collect();
        uses.sort_by_key(|used| std::cmp::Reverse(used.total));
        uses
    }
}

impl PatternUse {
    fn none((pattern, fields): &(String, Vec<String>)) -> Self {
        Self {
            pattern: pattern.clone(),
            fields: fields.clone(),
            queries: 0,
            cached: 0,
            read: 0,
            returned: 0,
            total: Duration::ZERO,
            longest: Duration::ZERO,
        }
    }
}
