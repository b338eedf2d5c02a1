//! Which declared index answers a specification, and how it is asked.

use std::ops::Bound;

use serde_json::Value;

use super::QueryError;
use super::conditions::Conditions;
use crate::backend::Count;
use crate::read_model::{IndexLookup, IndexSpec, Models};
use crate::subject::AggregateId;

/// The most lookups in one index for one query.
const MOST_LOOKUPS: usize = 16;

/// An index and what it is asked: lookups of which any may find a document, in one request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct IndexUse {
    pub(super) spec: IndexSpec,
    pub(super) lookups: Vec<IndexLookup>,
}

impl IndexUse {
    /// All of them as one: a document whose value changes meanwhile is found by the one or by the other.
    fn lookup(&self) -> IndexLookup {
        IndexLookup::any_of(&self.lookups)
    }
}

/// The indexes that find every document that fulfils the conditions, and perhaps more.
pub(super) fn index_candidates(indexes: &[IndexSpec], conditions: &Conditions) -> Vec<IndexUse> {
    let usable = indexes.iter().filter_map(|spec| {
        let lookups = fit(spec, conditions)?;
        Some(IndexUse { spec: spec.clone(), lookups })
    });
    usable.collect()
}

/// The index as a plan names it: its fields.
pub(super) fn name(spec: &IndexSpec) -> String {
    spec.to_string()
}

/// How many entries the index has for what it is asked. Two round trips.
pub(super) async fn count(models: &Models<Value>, used: &IndexUse) -> Result<Count, QueryError> {
    Ok(models.count_where(&used.spec, &used.lookup()).await?)
}

/// The ids that the index has for what it is asked. One round trip for up to a thousand.
pub(super) async fn look_up(
    models: &Models<Value>,
    used: &IndexUse,
) -> Result<Vec<AggregateId>, QueryError> {
    Ok(models.ids_where(&used.spec, &used.lookup()).await?)
}

/// What an index is asked, if the conditions say enough of its first fields.
///
/// Texts are compared as texts by a specification and as moments by an index of times, so of those it is asked for equality
/// only.
fn fit(spec: &IndexSpec, conditions: &Conditions) -> Option<Vec<IndexLookup>> {
    let (mut equal, mut range) = (vec![Vec::new()], None);
    for path in spec.fields() {
        let Some(demand) = conditions.on(path).filter(|demand| demand.is_indexed()) else { break };
        match &demand.one_of {
            Some(values) if values.len() * equal.len() <= MOST_LOOKUPS => {
                equal = each_with(&equal, values);
            }
            _ => {
                let bounds = (demand.low.clone(), demand.high.clone());
                let bounded = bounds != (Bound::Unbounded, Bound::Unbounded);
                range = (bounded && !spec.is_time(path)).then_some(bounds);
                break;
            }
        }
    }
    // A condition that no document fulfils leaves nothing to ask.
    let says_something = equal.first().is_none_or(|first| !first.is_empty()) || range.is_some();
    let lookup = |values: Vec<Value>| match &range {
        Some(bounds) => IndexLookup::equal(values).within(bounds.clone()),
        None => IndexLookup::equal(values),
    };
    says_something.then(|| equal.into_iter().map(lookup).collect())
}

fn each_with(lists: &[Vec<Value>], values: &[Value]) -> Vec<Vec<Value>> {
    let with = |list: &Vec<Value>, value: &Value| {
        let mut longer = list.clone();
        longer.push(value.clone());
        longer
    };
    lists.iter().flat_map(|list| values.iter().map(move |value| with(list, value))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::specification::{Specification, field};

    fn lookups(spec: &IndexSpec, specification: &Specification) -> Option<Vec<IndexLookup>> {
        fit(spec, &Conditions::of(specification))
    }

    fn on<const N: usize>(fields: [&str; N]) -> IndexSpec {
        IndexSpec::on(fields)
    }

    #[test]
    fn equality_of_the_first_fields_and_a_range_of_the_next_are_asked() {
        let specification = field("carrier").eq("B6").and(field("delay").gt(30));
        let asked = lookups(&on(["carrier", "delay"]), &specification).unwrap();
        let late = (Bound::Excluded(json!(30)), Bound::Unbounded);
        assert_eq!(asked, [IndexLookup::equal(["B6"]).within(late.clone())]);
        let asked = lookups(&on(["delay", "carrier"]), &specification).unwrap();
        assert_eq!(asked, [IndexLookup::range(late)]);
        assert_eq!(lookups(&on(["origin", "carrier"]), &specification), None);
        assert_eq!(lookups(&on([]), &specification), None);
    }

    #[test]
    fn an_index_of_times_is_asked_for_equality_only() {
        let spec = IndexSpec::on(["carrier"]).time("at");
        let (day, text) = (field("at").gt("2013-01-01T00:00:00Z"), "2013-01-01T00:00:00Z");
        let asked = lookups(&spec, &field("carrier").eq("B6").and(day.clone())).unwrap();
        assert_eq!(asked, [IndexLookup::equal(["B6"])]);
        let at = IndexSpec::on([""; 0]).time("at");
        assert_eq!(lookups(&at, &day), None);
        assert_eq!(lookups(&at, &field("at").eq(text)).unwrap(), [IndexLookup::equal([text])]);
    }

    #[test]
    fn what_no_index_holds_is_not_asked() {
        let (list, object) = (json!(["a"]), json!({"b": 1}));
        for specification in [
            field("a").eq(list.clone()),
            field("a").eq(object),
            field("a").is_in([json!(1), list.clone()]),
            field("a").gt(list.clone()),
            field("a").le(list.clone()),
        ] {
            assert_eq!(lookups(&on(["a"]), &specification), None, "{specification}");
            let after = field("b").eq(1).and(specification);
            assert_eq!(lookups(&on(["b", "a"]), &after).unwrap(), [IndexLookup::equal([1])]);
        }
    }

    #[test]
    fn lists_are_asked_value_by_value_up_to_a_limit() {
        let specification = field("a").is_in([1, 2]).and(field("b").is_in(["x", "y", "z"]));
        assert_eq!(lookups(&on(["a", "b"]), &specification).unwrap().len(), 6);
        let many = field("a").is_in(0..17);
        assert_eq!(lookups(&on(["a"]), &many), None);
        assert_eq!(lookups(&on(["a"]), &field("a").is_in::<i32>([])), Some(vec![]));
    }
}
