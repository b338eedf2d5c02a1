//! Choosing a way: which ones lead there, what each will cost by what is counted, and what a hint allows.

use futures::future::{try_join, try_join3};

use super::conditions::Conditions;
use super::estimate::{Estimate, number};
use super::indexes::IndexUse;
use super::plan::Access;
use super::{IndexStrategy, Query, QueryError, QueryHint, Source, TimeRange, indexes, models};
use crate::backend::Count;
use crate::clock::Timestamp;
use crate::event::NonEmpty;
use crate::read_model::{IndexSpec, ModelPattern, Models};
use crate::specification::Specification;
use crate::store::Context;
use crate::subject::{EventPattern, Pattern};

/// A way, and what it will cost.
pub(super) type Candidate = (Access, Estimate);

/// The ways that lead to the events of a pattern. One round trip, in which three things are asked at once.
pub(super) async fn event_candidates(
    context: &Context,
    pattern: &EventPattern,
    hint: &QueryHint,
) -> Result<Vec<Candidate>, QueryError> {
    let (meant, all, created) = match hint.expected_size {
        Some(expected) => (expected, expected, None),
        None => {
            let log = context.log();
            let part = NonEmpty::one(pattern.server_filter().clone());
            let all = NonEmpty::one(Pattern::parse(&context.scheme().all_events())?);
            let (status, part, all) =
                try_join3(log.status(), log.count(&part), log.count(&all)).await?;
            // As if every aggregate had the same number of events.
            let meant = share(status.messages, number(part), number(all));
            (meant, status.messages, Some(status.created))
        }
    };
    let mut found = vec![(Access::Pattern, Estimate::events(meant))];
    if let Some(range) = hint.time_range {
        let stored = created.map_or(meant, |created| since(context, meant, created, range));
        found.push((Access::Since, Estimate::followed(stored)));
    }
    found.push((Access::Everything, Estimate::events(all)));
    Ok(found)
}

/// The ways that lead to the models of a pattern. At most a few round trips for each index that could help, and for the pattern;
/// none for a key. Where an index names a few models only, the other ways are not looked at.
pub(super) async fn model_candidates(
    found: &Models<serde_json::Value>,
    pattern: &ModelPattern,
    specification: &Specification,
    hint: &QueryHint,
) -> Result<Vec<Candidate>, QueryError> {
    let mut candidates = Vec::new();
    if let Some(id) = models::literal(pattern) {
        candidates.push((Access::Key(id), Estimate::keys(Count::Exactly(1), 0)));
        if hint.strategy.is_none() {
            return Ok(candidates);
        }
    }
    for used in usable_indexes(found, specification).await? {
        let entries = indexes::count(found, &used).await?;
        let estimate = Estimate::keys(entries, 1);
        candidates.push((Access::Index(used), estimate));
    }
    // Counting many models costs the server more than reading a few.
    if hint.strategy.is_none() && candidates.iter().any(|(_, estimate)| estimate.is_little()) {
        return Ok(candidates);
    }
    let all = ModelPattern::all(found.model_type());
    let (meant, all) = match hint.expected_size {
        Some(expected) => (Count::Exactly(expected), Count::Exactly(expected)),
        None if all == *pattern => {
            let count = found.estimate(pattern).await?;
            (count, count)
        }
        None => try_join(found.estimate(pattern), found.estimate(&all)).await?,
    };
    candidates.push((Access::Pattern, Estimate::models(meant)));
    candidates.push((Access::Everything, Estimate::models(all)));
    Ok(candidates)
}

/// The indexes that are complete and could help. One round trip, none where no index could.
async fn usable_indexes(
    found: &Models<serde_json::Value>,
    specification: &Specification,
) -> Result<Vec<IndexUse>, QueryError> {
    let mut used = indexes::index_candidates(found.indexes(), &Conditions::of(specification));
    if !used.is_empty() {
        let ready = found.ready_indexes().await?;
        used.retain(|used| ready.contains(&used.spec));
    }
    Ok(used)
}

/// Whether there is an index that could help.
pub(super) fn could_help(declared: &[IndexSpec], specification: &Specification) -> bool {
    !indexes::index_candidates(declared, &Conditions::of(specification)).is_empty()
}

/// The cheapest way, or the one that the hint asks for; and the others. `declared` are the indexes that are known.
pub(super) fn choose(
    mut candidates: Vec<Candidate>,
    query: &Query,
    hint: &QueryHint,
    declared: &[IndexSpec],
) -> Result<(Candidate, Vec<(IndexStrategy, Estimate)>), QueryError> {
    // Of ways that cost the same, the first is kept: it is the one that leaves most to the server.
    candidates.sort_by_key(|(_, estimate)| estimate.time);
    let place = match hint.strategy {
        None => 0,
        Some(strategy) => {
            let place = candidates.iter().position(|(access, _)| access.strategy() == strategy);
            place.ok_or_else(|| {
                let reason = why_not(strategy, query, declared);
                QueryError::StrategyNotPossible { strategy, reason }
            })?
        }
    };
    let chosen = candidates.remove(place);
    let others = candidates.into_iter().map(|(access, cost)| (access.strategy(), cost)).collect();
    Ok((chosen, others))
}

/// Refuses what no way leads to.
pub(super) fn check(query: &Query, hint: &QueryHint) -> Result<(), QueryError> {
    match (&query.source, hint.time_range) {
        (Source::Models(_), Some(_)) => Err(QueryError::StrategyNotPossible {
            strategy: IndexStrategy::TimeSeries,
            reason: "models have no history, so a time range has no meaning for them; leave it out",
        }),
        _ => Ok(()),
    }
}

fn why_not(strategy: IndexStrategy, query: &Query, declared: &[IndexSpec]) -> &'static str {
    let events = matches!(query.source, Source::Events(_));
    match strategy {
        IndexStrategy::KeyValue if events => "events are not stored under keys of their own",
        IndexStrategy::KeyValue => "the pattern has wildcards; name one model",
        IndexStrategy::TimeSeries if events => "it needs a time range",
        IndexStrategy::TimeSeries => "models have no history; ask for events",
        IndexStrategy::Composite if events => "events have no indexes",
        IndexStrategy::Composite if declared.is_empty() => {
            "no indexes of the models are known; declare them in the type, and let the optimizer know it"
        }
        IndexStrategy::Composite if !could_help(declared, &query.specification) => {
            "no index of the models has a first field that the query compares with a value"
        }
        IndexStrategy::Composite => "the index that could help is not complete; build it first",
        IndexStrategy::SubjectPattern | IndexStrategy::FullScan => "there is nothing to read",
    }
}

fn share(messages: u64, part: u64, all: u64) -> u64 {
    let share = u128::from(messages) * u128::from(part.min(all)) / u128::from(all.max(1));
    u64::try_from(share).unwrap_or(messages)
}

/// How many of `events` are stored in a range, as if they had come evenly since the log was made.
fn since(context: &Context, events: u64, created: Timestamp, range: TimeRange) -> u64 {
    let now = context.clock().now();
    let age = now.since(created).as_micros().max(1);
    let end = range.until.map_or(now, |until| until.min(now));
    let length = end.since(range.from.max(created)).as_micros().min(age);
    let count = u128::from(events).saturating_mul(length) / age;
    u64::try_from(count).unwrap_or(events)
}
