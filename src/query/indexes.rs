//! Which declared index answers a specification, and how it is asked.

use std::ops::Bound;

use serde_json::Value;

use super::QueryError;
use super::conditions::Conditions;
use crate::backend::Count;
use crate::read_model::{IndexSpec, Models};
use crate::subject::AggregateId;

/// The most times that one index is asked for one query.
const MOST_LOOKUPS: usize = 16;

/// An index and what it is asked, once or several times.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct IndexUse {
    pub(super) spec: IndexSpec,
    pub(super) lookups: Vec<Lookup>,
}

/// One question to an index: its first fields have these values, the next one lies between these bounds.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Lookup {
    pub(super) equals: Vec<Value>,
    pub(super) range: Option<(Bound<Value>, Bound<Value>)>,
}

/// The indexes that find every document that fulfils the conditions, and perhaps more.
pub(super) fn index_candidates(indexes: &[IndexSpec], conditions: &Conditions) -> Vec<IndexUse> {
    let usable = indexes.iter().filter_map(|spec| {
        let lookups = fit(&paths(spec), conditions)?;
        Some(IndexUse { spec: spec.clone(), lookups })
    });
    usable.collect()
}

/// The index as a plan names it: its fields.
pub(super) fn name(spec: &IndexSpec) -> String {
    paths(spec).join(", ")
}

/// How many entries the index has for what it is asked.
pub(super) async fn count(models: &Models<Value>, _used: &IndexUse) -> Result<Count, QueryError> {
    Err(not_kept(models))
}

/// The ids that the index has for what it is asked.
pub(super) async fn look_up(
    models: &Models<Value>,
    _used: &IndexUse,
) -> Result<Vec<AggregateId>, QueryError> {
    Err(not_kept(models))
}

/// Builds an index for the models that are there.
pub(super) async fn build(models: &Models<Value>, _spec: &IndexSpec) -> Result<(), QueryError> {
    Err(not_kept(models))
}

/// The fields of an index, the first of them counting most. None of one that is not kept.
fn paths(_spec: &IndexSpec) -> Vec<&str> {
    Vec::new()
}

fn not_kept(models: &Models<Value>) -> QueryError {
    QueryError::IndexNotPossible {
        model_type: models.model_type().to_owned(),
        reason: "its entries are not kept".to_owned(),
    }
}

/// What an index over these fields is asked, if the conditions say enough of its first ones.
fn fit(paths: &[&str], conditions: &Conditions) -> Option<Vec<Lookup>> {
    let mut lookups = vec![Lookup::default()];
    for path in paths {
        let Some(demand) = conditions.on(path) else { break };
        match &demand.one_of {
            Some(values) if values.len() * lookups.len() <= MOST_LOOKUPS => {
                lookups = each_with(&lookups, values);
            }
            _ => {
                let range = (demand.low.clone(), demand.high.clone());
                if range != (Bound::Unbounded, Bound::Unbounded) {
                    lookups.iter_mut().for_each(|lookup| lookup.range = Some(range.clone()));
                }
                break;
            }
        }
    }
    // A condition that no document fulfils leaves nothing to ask.
    let says_something =
        lookups.first().is_none_or(|first| !first.equals.is_empty() || first.range.is_some());
    says_something.then_some(lookups)
}

fn each_with(lookups: &[Lookup], values: &[Value]) -> Vec<Lookup> {
    let with = |lookup: &Lookup, value: &Value| {
        let mut equals = lookup.equals.clone();
        equals.push(value.clone());
        Lookup { equals, range: None }
    };
    lookups.iter().flat_map(|one| values.iter().map(move |value| with(one, value))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::specification::{Specification, field};

    fn lookups(paths: &[&str], specification: &Specification) -> Option<Vec<Lookup>> {
        fit(paths, &Conditions::of(specification))
    }

    #[test]
    fn equality_of_the_first_fields_and_a_range_of_the_next_are_asked() {
        let specification = field("carrier").eq("B6").and(field("delay").gt(30));
        let asked = lookups(&["carrier", "delay"], &specification).unwrap();
        let range = Some((Bound::Excluded(json!(30)), Bound::Unbounded));
        assert_eq!(asked, [Lookup { equals: vec![json!("B6")], range }]);
        assert!(lookups(&["delay", "carrier"], &specification).unwrap()[0].equals.is_empty());
        assert_eq!(lookups(&["origin", "carrier"], &specification), None);
        assert_eq!(lookups(&[], &specification), None);
    }

    #[test]
    fn lists_are_asked_value_by_value_up_to_a_limit() {
        let specification = field("a").is_in([1, 2]).and(field("b").is_in(["x", "y", "z"]));
        assert_eq!(lookups(&["a", "b"], &specification).unwrap().len(), 6);
        let many = field("a").is_in(0..17);
        assert_eq!(lookups(&["a"], &many), None);
        assert_eq!(lookups(&["a"], &field("a").is_in::<i32>([])), Some(vec![]));
    }
}
