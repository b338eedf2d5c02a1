//! What a specification demands of single fields, whatever else it demands. Pure.
//!
//! Only what every matching document fulfils is taken out, so a document that does not fulfil it need not be read.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde_json::Value;

use crate::specification::{Comparison, Field, Specification, compare};

/// What holds for single fields of every document that matches.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Conditions(BTreeMap<Field, Demand>);

/// What holds for one field.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Demand {
    /// It is equal to one of these.
    pub(super) one_of: Option<Vec<Value>>,
    /// It is not less than this.
    pub(super) low: Bound<Value>,
    /// It is not greater than this.
    pub(super) high: Bound<Value>,
}

impl Default for Demand {
    fn default() -> Self {
        Self { one_of: None, low: Bound::Unbounded, high: Bound::Unbounded }
    }
}

impl Conditions {
    /// Those of a specification. What stands below `or` and `not` is left out.
    pub(super) fn of(specification: &Specification) -> Self {
        let mut found = Self::default();
        let mut left = vec![specification];
        while let Some(specification) = left.pop() {
            match specification {
                Specification::All(parts) => left.extend(parts.iter().rev()),
                Specification::Compare { field, is, value } => {
                    found.demand(field).compare(*is, value)
                }
                Specification::In { field, values } => found.demand(field).one_of(values.clone()),
                Specification::Between { field, low, high } => {
                    found.demand(field).compare(Comparison::Ge, low);
                    found.demand(field).compare(Comparison::Le, high);
                }
                _ => {}
            }
        }
        found
    }

    /// What holds for the field at a path of names with dots between them.
    pub(super) fn on(&self, path: &str) -> Option<&Demand> {
        self.0.get(&Field::new(path))
    }

    fn demand(&mut self, field: &Field) -> &mut Demand {
        self.0.entry(field.clone()).or_default()
    }
}

impl Demand {
    /// Whether all it names are values that an index holds: no lists and no objects.
    pub(super) fn is_indexed(&self) -> bool {
        let bounds = [&self.low, &self.high].into_iter().filter_map(value_of);
        let mut values = self.one_of.iter().flatten().chain(bounds);
        !values.any(|value| value.is_array() || value.is_object())
    }

    fn compare(&mut self, is: Comparison, value: &Value) {
        let value = value.clone();
        match is {
            Comparison::Eq => self.one_of(vec![value]),
            Comparison::Gt => self.at_least(Bound::Excluded(value)),
            Comparison::Ge => self.at_least(Bound::Included(value)),
            Comparison::Lt => self.at_most(Bound::Excluded(value)),
            Comparison::Le => self.at_most(Bound::Included(value)),
        }
    }

    /// Each of several lists holds, so the shortest is enough.
    fn one_of(&mut self, values: Vec<Value>) {
        if self.one_of.as_ref().is_none_or(|before| values.len() < before.len()) {
            self.one_of = Some(values);
        }
    }

    fn at_least(&mut self, bound: Bound<Value>) {
        if tighter(&self.low, &bound, std::cmp::Ordering::Greater) {
            self.low = bound;
        }
    }

    fn at_most(&mut self, bound: Bound<Value>) {
        if tighter(&self.high, &bound, std::cmp::Ordering::Less) {
            self.high = bound;
        }
    }
}

/// Whether the bound `new` leaves less than `old`; it does in the direction `inwards`.
fn tighter(old: &Bound<Value>, new: &Bound<Value>, inwards: std::cmp::Ordering) -> bool {
    let (Some(before), Some(after)) = (value_of(old), value_of(new)) else {
        return matches!(old, Bound::Unbounded);
    };
    let ordering = compare(after, before);
    ordering == inwards || (ordering.is_eq() && matches!(new, Bound::Excluded(_)))
}

fn value_of(bound: &Bound<Value>) -> Option<&Value> {
    match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
        Bound::Unbounded => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::specification::field;

    fn demand(specification: Specification, path: &str) -> Demand {
        Conditions::of(&specification).on(path).cloned().unwrap_or_default()
    }

    #[test]
    fn equality_and_lists_are_taken_out_and_the_shortest_list_is_kept() {
        let one = field("a").eq(1).and(field("b.c").is_in(["x", "y"]));
        assert_eq!(demand(one.clone(), "a").one_of, Some(vec![json!(1)]));
        assert_eq!(demand(one, "b.c").one_of, Some(vec![json!("x"), json!("y")]));
        let two = field("a").is_in([1, 2, 3]).and(field("a").eq(2));
        assert_eq!(demand(two, "a").one_of, Some(vec![json!(2)]));
    }

    #[test]
    fn the_tightest_bounds_are_kept() {
        let bounds = field("a").ge(1).and(field("a").gt(1)).and(field("a").between(0, 9));
        let found = demand(bounds.and(field("a").lt(9.5)), "a");
        assert_eq!(found.low, Bound::Excluded(json!(1)));
        assert_eq!(found.high, Bound::Included(json!(9)));
    }

    #[test]
    fn what_need_not_hold_is_left_out() {
        let or = field("a").eq(1).or(field("b").eq(1));
        let not = field("a").eq(1).not();
        let like = field("a").starts_with("x").and(field("a").is_null());
        for specification in [or, not, like, Specification::everything()] {
            assert_eq!(Conditions::of(&specification), Conditions::default(), "{specification}");
        }
    }

    #[test]
    fn groups_within_groups_are_looked_into() {
        let inner = Specification::All(vec![field("a").gt(1), field("b").eq("x")]);
        let found = Conditions::of(&Specification::All(vec![inner, field("c").le(3)]));
        assert!(["a", "b", "c"].iter().all(|path| found.on(path).is_some()));
    }
}
