//! Selecting: documents go in one at a time and in any order, one page comes out.
//!
//! This is the one place where order, limit, offset, cursor, distinct and the choice of fields are applied.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::compiled::Compiled;
use super::cursor::{Cursor, Place, fingerprint};
use super::error::SpecificationError;
use super::field::Field;
use super::options::{Page, SearchOptions};
use super::order::{OrderBy, compare};

/// A document that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found<T = ()> {
    /// The id it was pushed with.
    pub id: String,
    /// The document, or those fields of it that were asked for.
    pub document: Value,
    /// What it was pushed with beside that.
    pub about: T,
}

/// Collects one page from documents that arrive one at a time.
///
/// Documents come in any order, each with an id of its own, and with something about them (`T`) that goes with those
/// that are found: a revision, for instance. With a limit, at most twice `offset + limit + 1` documents are held, without
/// one all that match; `distinct` holds one of each kind.
///
/// ```
/// use cim_persistence::specification::{SearchOptions, Selection, SpecificationError, field};
/// use serde_json::json;
///
/// let options = SearchOptions::default().order_by("delay")?.limit(2);
/// let mut selection = Selection::new(field("delay").ge(10).compile()?, &options, "board.>")?;
/// for (revision, delay) in [30, 5, 20, 10].into_iter().enumerate() {
///     selection.push(&format!("flight-{delay}"), json!({"delay": delay}), revision);
/// }
/// let page = selection.finish();
/// let found: Vec<_> = page.items.iter().map(|found| (found.id.as_str(), found.about)).collect();
/// assert_eq!((found, page.total), (vec![("flight-10", 3), ("flight-20", 2)], 3));
/// # Ok::<(), SpecificationError>(())
/// ```
#[derive(Debug)]
pub struct Selection<T = ()> {
    specification: Compiled,
    options: SearchOptions,
    fingerprint: String,
    after: Option<Place>,
    /// How many documents decide the page: those left out, those on it, and one that shows that there are more.
    needed: usize,
    matched: usize,
    kept: Kept<T>,
}

impl<T> Selection<T> {
    /// Begins a selection.
    ///
    /// `scope` says where the documents come from, a subject pattern for instance; a cursor is taken only from a query
    /// with the same specification, order and scope.
    ///
    /// # Errors
    /// [`SpecificationError::InvalidCursor`] or [`SpecificationError::CursorOfAnotherQuery`] when the cursor is of no use
    /// here, and [`SpecificationError::EmptyName`] when a field to order by or to give has an empty name.
    pub fn new(
        specification: Compiled,
        options: &SearchOptions,
        scope: &str,
    ) -> Result<Self, SpecificationError> {
        options.check()?;
        let fingerprint = fingerprint(specification.specification(), options, scope);
        let mut options = options.clone();
        let cursor = options.cursor.as_ref();
        let after =
            cursor.map(|cursor| cursor.place(&fingerprint, options.order_by.len())).transpose()?;
        if after.is_some() {
            options.offset = 0;
        }
        let needed = match options.limit {
            Some(0) => 0,
            Some(limit) => options.offset.saturating_add(limit).saturating_add(1),
            None => usize::MAX,
        };
        let kept = match options.distinct {
            true => Kept::Distinct(BTreeMap::new()),
            false => Kept::Least { entries: Vec::new(), bound: false },
        };
        Ok(Self { specification, options, fingerprint, after, needed, matched: 0, kept })
    }

    /// Takes one more document, and says whether it is as specified.
    pub fn push(&mut self, id: &str, document: Value, about: T) -> bool {
        if !self.specification.matches(&document) {
            return false;
        }
        self.matched += 1;
        let order = &self.options.order_by;
        match &mut self.kept {
            Kept::Distinct(first) => {
                let entry = Entry::new(order, &self.options.fields, id, document, about);
                keep_first(first, order, entry);
            }
            Kept::Least { entries, bound } => {
                let after =
                    |keys: &[Value], than: &str| place_of(order, &document, id, keys, than).is_gt();
                let given = self.after.as_ref().is_some_and(|place| !after(&place.keys, &place.id));
                // When bounded, the last entry is the greatest of as many as are needed.
                let last = entries.get(self.needed.wrapping_sub(1)).filter(|_| *bound);
                let too_late = last.is_some_and(|last| after(&last.keys, &last.id));
                if !given && !too_late && self.needed > 0 {
                    entries.push(Entry::new(order, &self.options.fields, id, document, about));
                    if entries.len() == self.needed.saturating_mul(2) {
                        entries.select_nth_unstable_by(self.needed - 1, |a, b| a.compare(b, order));
                        entries.truncate(self.needed);
                        *bound = true;
                    }
                }
            }
        }
        true
    }

    /// How many documents were as specified so far. With `distinct`, equal ones are counted each.
    pub fn matched(&self) -> usize {
        self.matched
    }

    /// The page. Takes the time of sorting what is held.
    pub fn finish(self) -> Page<Found<T>> {
        let order = &self.options.order_by;
        let (mut entries, total) = match self.kept {
            Kept::Least { entries, .. } => (entries, self.matched),
            Kept::Distinct(first) => {
                let total = first.len();
                let entries = first
                    .into_iter()
                    .map(|(document, entry)| Entry { document: document.0, ..entry });
                let behind = |entry: &Entry<T>| match &self.after {
                    Some(place) => entry.compare_place(order, &place.keys, &place.id).is_gt(),
                    None => true,
                };
                (entries.filter(behind).collect(), total)
            }
        };
        entries.sort_unstable_by(|a, b| a.compare(b, order));
        let mut entries = entries.split_off(self.options.offset.min(entries.len()));
        let limit = self.options.limit.unwrap_or(usize::MAX);
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| more).map(|last| {
            let (keys, id) = (last.keys.clone(), last.id.clone());
            Cursor::at(&Place { query: self.fingerprint, keys, id })
        });
        Page { items: entries.into_iter().map(Entry::found).collect(), next, total }
    }
}

/// The page of documents that are all at hand, each with an id of its own.
///
/// # Errors
/// As [`Selection::new`].
pub fn select<I: AsRef<str>>(
    documents: impl IntoIterator<Item = (I, Value)>,
    specification: Compiled,
    options: &SearchOptions,
    scope: &str,
) -> Result<Page<Found>, SpecificationError> {
    let mut selection = Selection::new(specification, options, scope)?;
    for (id, document) in documents {
        selection.push(id.as_ref(), document, ());
    }
    Ok(selection.finish())
}

#[derive(Debug)]
enum Kept<T> {
    /// At least the least documents that are needed. When `bound`, the one at the place of the last that is needed is the
    /// greatest of those before it, and everything greater is refused.
    Least { entries: Vec<Entry<T>>, bound: bool },
    /// For each document, as it will be shown, the first that looks so. The document in the entry is null.
    Distinct(BTreeMap<Shown, Entry<T>>),
}

/// A document with what it is ordered by.
#[derive(Debug)]
struct Entry<T> {
    keys: Vec<Value>,
    id: String,
    document: Value,
    about: T,
}

impl<T> Entry<T> {
    fn new(order: &[OrderBy], fields: &[Field], id: &str, document: Value, about: T) -> Self {
        let keys = order.iter().map(|order| order.field.value_in(&document).clone()).collect();
        let document = if fields.is_empty() { document } else { project(&document, fields) };
        Self { keys, id: id.to_owned(), document, about }
    }

    fn compare(&self, other: &Self, order: &[OrderBy]) -> Ordering {
        self.compare_place(order, &other.keys, &other.id)
    }

    fn compare_place(&self, order: &[OrderBy], keys: &[Value], id: &str) -> Ordering {
        compare_places(order, self.keys.iter(), &self.id, keys, id)
    }

    fn found(self) -> Found<T> {
        Found { id: self.id, document: self.document, about: self.about }
    }
}

/// A document as it is shown, in the order of all JSON values.
#[derive(Debug)]
struct Shown(Value);

impl Ord for Shown {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl PartialOrd for Shown {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Shown {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Shown {}

fn keep_first<T>(first: &mut BTreeMap<Shown, Entry<T>>, order: &[OrderBy], mut entry: Entry<T>) {
    let shown = Shown(std::mem::take(&mut entry.document));
    match first.get(&shown) {
        Some(before) if before.compare(&entry, order).is_lt() => {}
        _ => {
            // The key is replaced as well: equal documents may be written differently, as 1 and 1.0.
            first.remove(&shown);
            first.insert(shown, entry);
        }
    }
}

/// Compares a document that is not kept yet with a place.
fn place_of(order: &[OrderBy], document: &Value, id: &str, keys: &[Value], than: &str) -> Ordering {
    let own = order.iter().map(|order| order.field.value_in(document));
    compare_places(order, own, id, keys, than)
}

fn compare_places<'a>(
    order: &[OrderBy],
    own: impl Iterator<Item = &'a Value>,
    id: &str,
    keys: &[Value],
    than: &str,
) -> Ordering {
    let mut pairs = order.iter().zip(own.zip(keys)).map(|(order, (a, b))| order.compare(a, b));
    pairs.find(|ordering| ordering.is_ne()).unwrap_or(Ordering::Equal).then_with(|| id.cmp(than))
}

/// The fields of a document at their paths. Of a field and one within it, the outer one is what counts.
fn project(document: &Value, fields: &[Field]) -> Value {
    let mut shown = Map::new();
    for field in fields {
        if let Some((last, outer)) = field.names().split_last() {
            let place = outer.iter().try_fold(&mut shown, |object, name| {
                let inner = object.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
                inner.as_object_mut()
            });
            if let Some(object) = place {
                object.insert(last.clone(), field.value_in(document).clone());
            }
        }
    }
    Value::Object(shown)
}
