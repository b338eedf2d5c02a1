//! What is asked of an index: as patterns for a server, and as a look at a document that decides.
//!
//! A server can compare whole tokens only. A range therefore becomes a list of beginnings of tokens that cover it: at its
//! two ends they may cover a little more, never less.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::{Bound, RangeBounds};

use serde_json::{Number, Value};

use super::encode::{self, DIGITS, END, Scalar};
use super::{Index, ReadModelError};
use crate::read_model::layout::Shelf;
use crate::subject::Pattern;

/// The patterns that ranges may become; with several of them, each is covered more coarsely.
const MAX_PATTERNS: usize = 64;

/// The levels that a range of texts looks at.
const TEXT_LEVELS: usize = 16;

/// Which models to find by an index: those where its first fields equal some values, and, if that is asked, the next field
/// lies in a range.
///
/// Values are compared as the index holds them: numbers as numbers whatever they are written as, texts by code point,
/// times by moment, and nothing of one kind with anything of another, so a range holds values of the kind of its
/// bounds only. A field with an array is found by any of its elements.
///
/// ```
/// use cim_persistence::read_model::IndexLookup;
/// use serde_json::json;
/// let jet_blue = IndexLookup::equal(["B6"]);
/// let late_jet_blue = IndexLookup::equal(["B6"]).within(json!(30)..);
/// let late = IndexLookup::range(json!(30)..=json!(90));
/// assert_ne!(late, late_jet_blue);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct IndexLookup {
    /// A model is meant that one of these means.
    places: Vec<Place>,
}

/// Where in an index to look.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    equal: Vec<Value>,
    range: Option<(Bound<Value>, Bound<Value>)>,
}

impl IndexLookup {
    /// The first fields have these values.
    pub fn equal<V: Into<Value>>(values: impl IntoIterator<Item = V>) -> Self {
        let equal = values.into_iter().map(Into::into).collect();
        Self { places: vec![Place { equal, range: None }] }
    }

    /// The first field lies in a range.
    pub fn range(bounds: impl RangeBounds<Value>) -> Self {
        Self::equal::<Value>([]).within(bounds)
    }

    /// And the field after those that are named lies in a range.
    pub fn within(mut self, bounds: impl RangeBounds<Value>) -> Self {
        let range = (bounds.start_bound().cloned(), bounds.end_bound().cloned());
        for place in &mut self.places {
            place.range = Some(range.clone());
        }
        self
    }

    /// What any of these means, asked for at once and so as of one moment.
    pub(crate) fn any_of(lookups: &[Self]) -> Self {
        Self { places: lookups.iter().flat_map(|lookup| lookup.places.clone()).collect() }
    }

    /// Patterns that match every entry that is meant, and perhaps a few more. None when nothing can be meant.
    pub(crate) fn patterns(
        &self,
        index: &Index,
        shelf: &Shelf,
    ) -> Result<Vec<Pattern>, ReadModelError> {
        let room = MAX_PATTERNS / self.places.len().max(1);
        let mut patterns = BTreeSet::new();
        for place in &self.places {
            // Values that the index does not tell apart have the same pattern, and no consumer takes one twice.
            patterns.extend(place.beginnings(index, room)?);
        }
        Ok(patterns.iter().map(|values| shelf.entries(index.name(), values)).collect())
    }

    /// Whether a document is meant.
    pub(crate) fn matches(&self, index: &Index, document: &Value) -> bool {
        self.places.iter().any(|place| place.matches(index, document))
    }
}

impl Place {
    /// Beginnings of the values of every entry that is meant.
    fn beginnings(&self, index: &Index, room: usize) -> Result<Vec<String>, ReadModelError> {
        let refused = |reason: &str| ReadModelError::InvalidLookup {
            index: index.spec().to_string(),
            reason: reason.to_owned(),
        };
        if self.equal.len() + usize::from(self.range.is_some()) > index.width() {
            return Err(refused("it names more values than the index has fields"));
        }
        let mut first = String::new();
        for (field, value) in self.equal.iter().enumerate() {
            let tokens = encode::tokens(value, index.is_time(field));
            let tokens = tokens.ok_or_else(|| refused("arrays and objects are not indexed"))?;
            first = joined(&first, &tokens);
        }
        Ok(match &self.range {
            None | Some((Bound::Unbounded, Bound::Unbounded)) => vec![first],
            Some((from, to)) => {
                let time = index.is_time(self.equal.len());
                let of = |bound| {
                    scalar(bound, time).map_err(|()| refused("arrays and objects are not indexed"))
                };
                let ends = covering(of(from)?, of(to)?, room);
                ends.iter().map(|tokens| joined(&first, tokens)).collect()
            }
        })
    }

    fn matches(&self, index: &Index, document: &Value) -> bool {
        let any = |field: usize, passes: &dyn Fn(&Value) -> bool| {
            index.values(field, document).iter().any(passes)
        };
        let equal = self.equal.iter().enumerate().all(|(field, wanted)| {
            let time = index.is_time(field);
            any(field, &|value| {
                same_kind(value, wanted, time) && compare(value, wanted, time).is_eq()
            })
        });
        equal
            && self.range.as_ref().is_none_or(|(from, to)| {
                let time = index.is_time(self.equal.len());
                any(self.equal.len(), &|value| above(value, from, time) && below(value, to, time))
            })
    }
}

fn joined(first: &str, tokens: &str) -> String {
    let dot = if first.is_empty() { "" } else { "." };
    format!("{first}{dot}{tokens}")
}

fn scalar(bound: &Bound<Value>, time: bool) -> Result<Option<Scalar<'_>>, ()> {
    match bound {
        Bound::Unbounded => Ok(None),
        Bound::Included(value) | Bound::Excluded(value) => {
            Scalar::of(value, time).map(Some).ok_or(())
        }
    }
}

fn above(value: &Value, bound: &Bound<Value>, time: bool) -> bool {
    match bound {
        Bound::Unbounded => true,
        Bound::Included(from) => in_order(value, from, time) && compare(value, from, time).is_ge(),
        Bound::Excluded(from) => in_order(value, from, time) && compare(value, from, time).is_gt(),
    }
}

fn below(value: &Value, bound: &Bound<Value>, time: bool) -> bool {
    match bound {
        Bound::Unbounded => true,
        Bound::Included(to) => in_order(value, to, time) && compare(value, to, time).is_le(),
        Bound::Excluded(to) => in_order(value, to, time) && compare(value, to, time).is_lt(),
    }
}

/// Whether two values are of one kind that has an order: nothing lies above null or below it.
fn in_order(a: &Value, b: &Value, time: bool) -> bool {
    !a.is_null() && same_kind(a, b, time)
}

fn same_kind(a: &Value, b: &Value, time: bool) -> bool {
    match (Scalar::of(a, time), Scalar::of(b, time)) {
        (Some(a), Some(b)) => a.kind() == b.kind(),
        _ => false,
    }
}

/// The order of two values of one kind, without loss.
pub(super) fn compare(a: &Value, b: &Value, time: bool) -> Ordering {
    match (Scalar::of(a, time), Scalar::of(b, time)) {
        (Some(Scalar::Bool(a)), Some(Scalar::Bool(b))) => a.cmp(&b),
        (Some(Scalar::Number(a)), Some(Scalar::Number(b))) => numbers(a, b),
        (Some(Scalar::Text(a)), Some(Scalar::Text(b))) => a.cmp(b),
        (Some(Scalar::Time(a)), Some(Scalar::Time(b))) => a.cmp(&b),
        _ => Ordering::Equal,
    }
}

fn numbers(a: &Number, b: &Number) -> Ordering {
    let whole = |n: &Number| n.as_i64().map(i128::from).or(n.as_u64().map(i128::from));
    let float = |n: &Number| n.as_f64().unwrap_or_default();
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (None, None) => float(a).partial_cmp(&float(b)).unwrap_or(Ordering::Equal),
        (Some(a), None) => whole_and_float(a, float(b)),
        (None, Some(b)) => whole_and_float(b, float(a)).reverse(),
    }
}

fn whole_and_float(whole: i128, float: f64) -> Ordering {
    // The cast saturates far beyond every whole number of JSON, so it does not change the order.
    whole
        .cmp(&(float.trunc() as i128))
        .then_with(|| 0.0.partial_cmp(&float.fract()).unwrap_or(Ordering::Equal))
}

/// Beginnings of tokens that cover a range, both ends included. There are as many as there is room for, or as
/// those that cover it most coarsely, which are fewer than twenty.
fn covering(from: Option<Scalar<'_>>, to: Option<Scalar<'_>>, room: usize) -> Vec<String> {
    let Some(kind) = from.or(to).map(Scalar::kind) else { return Vec::new() };
    if to.is_some_and(|to| to.kind() != kind) || kind == Scalar::Null.kind() {
        return Vec::new();
    }
    let fine = |scalar: Scalar<'_>| {
        let mut digits = scalar.digits().0.into_bytes();
        digits.truncate(TEXT_LEVELS);
        digits
    };
    let (from, to) = (from.map(fine), to.map(fine));
    let beginnings = beginnings(kind, from.as_deref(), to.as_deref(), room);
    beginnings.iter().map(|digits| encode::prefix(kind, digits)).collect()
}

/// The digits that may stand at a level, in order.
fn alphabet(kind: char, level: usize) -> impl DoubleEndedIterator<Item = u8> {
    let end = (kind == 's' && level.is_multiple_of(2)).then_some(END as u8);
    let digits = if kind == 'b' { &DIGITS[..2] } else { &DIGITS[..] };
    end.into_iter().chain(digits.iter().copied())
}

/// One end of a range on its way from a coarse beginning to an exact one.
struct Edge<'d> {
    digits: &'d [u8],
    depth: usize,
    lower: bool,
}

impl Edge<'_> {
    /// The digits beside its own at the next level that are inside the range; `None` when nothing finer is needed.
    fn beside(&self, kind: char) -> Option<Vec<u8>> {
        let rest = self.digits.get(self.depth..)?;
        let furthest = |(digit, level): (&u8, usize)| {
            let mut alphabet = alphabet(kind, level);
            let furthest = if self.lower { alphabet.next() } else { alphabet.next_back() };
            furthest == Some(*digit)
        };
        if rest.iter().zip(self.depth..).all(furthest) {
            return None;
        }
        let own = rest.first()?;
        let inside = |digit: &u8| if self.lower { digit > own } else { digit < own };
        Some(alphabet(kind, self.depth).filter(inside).collect())
    }

    fn beginning(&self, next: Option<u8>) -> String {
        self.digits[..self.depth].iter().copied().chain(next).map(char::from).collect()
    }
}

fn beginnings(kind: char, from: Option<&[u8]>, to: Option<&[u8]>, room: usize) -> Vec<String> {
    let shared = match (from, to) {
        (Some(from), Some(to)) if from > to => return Vec::new(),
        (Some(from), Some(to)) if from == to => {
            return vec![from.iter().copied().map(char::from).collect()];
        }
        (Some(from), Some(to)) => from.iter().zip(to).take_while(|(a, b)| a == b).count(),
        _ => 0,
    };
    let digit = |end: Option<&[u8]>| end.and_then(|end| end.get(shared).copied());
    let (least, most) = (digit(from), digit(to));
    let between =
        |d: &u8| least.is_none_or(|least| *d > least) && most.is_none_or(|most| *d < most);
    let common = from.or(to).map_or(&[][..], |end| &end[..shared]);
    let common = Edge { digits: common, depth: shared, lower: true };
    let mut found: Vec<String> =
        alphabet(kind, shared).filter(between).map(|d| common.beginning(Some(d))).collect();
    let lower = from.map(|digits| Edge { digits, depth: shared + 1, lower: true });
    let upper = to.map(|digits| Edge { digits, depth: shared + 1, lower: false });
    let mut edges: Vec<Edge<'_>> = lower.into_iter().chain(upper).collect();
    let mut budget = room.saturating_sub(edges.len() + found.len());
    // The coarser end is made finer first; an end that is exact, or for which there is no room, is done.
    let mut open: Vec<usize> = (0..edges.len()).collect();
    while let Some(at) = open.iter().copied().min_by_key(|at| edges[*at].depth) {
        match edges[at].beside(kind) {
            Some(beside) if beside.len() <= budget => {
                budget -= beside.len();
                found.extend(beside.into_iter().map(|d| edges[at].beginning(Some(d))));
                edges[at].depth += 1;
            }
            _ => open.retain(|other| *other != at),
        }
    }
    found.extend(edges.iter().map(|edge| edge.beginning(None)));
    found
}

#[cfg(test)]
mod tests;
