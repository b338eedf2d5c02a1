//! What is wanted of the documents that a specification holds for: order, how many, and which part; and what comes back.
//!
//! How it is carried out is in `select.rs`.

use serde::{Deserialize, Serialize};

use super::cursor::Cursor;
use super::error::SpecificationError;
use super::field::Field;
use super::order::OrderBy;

/// Which of the matching documents are wanted, in which order, and which part of each.
///
/// By default all of them, whole, ordered by id.
///
/// ```
/// use cim_persistence::specification::{SearchOptions, SpecificationError};
///
/// let second_page = SearchOptions::default().order_by("-delay")?.order_by("carrier")?.limit(20).offset(20);
/// let carriers = SearchOptions::default().fields(["carrier"]).distinct();
/// assert_eq!(second_page.order_by.len(), 2);
/// assert!(carriers.distinct);
/// # Ok::<(), SpecificationError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchOptions {
    /// The fields to order by, the most important first. Documents that are equal in all of them are ordered by id.
    pub order_by: Vec<OrderBy>,
    /// How many documents a page holds at most; all, when `None`. A limit of 0 counts only.
    pub limit: Option<usize>,
    /// How many documents to leave out at the beginning. Not applied to the pages that a cursor leads to, which lie
    /// behind them.
    pub offset: usize,
    /// Where the last page ended. Only documents after it are given.
    pub cursor: Option<Cursor>,
    /// Whether of documents that are equal, as far as `fields` shows them, only the first is given.
    ///
    /// One document of each kind is held in memory then, whatever the limit.
    pub distinct: bool,
    /// The fields to give of each document; the whole document, when empty. A missing one is given as null.
    pub fields: Vec<Field>,
}

impl SearchOptions {
    /// Orders by one more field, written as [`OrderBy::parse`] reads it: `-created_at` for the greatest first.
    ///
    /// # Errors
    /// [`SpecificationError::EmptyName`] when there is no path, or one with an empty name.
    pub fn order_by(mut self, order: &str) -> Result<Self, SpecificationError> {
        self.order_by.push(OrderBy::parse(order)?);
        Ok(self)
    }

    /// At most `limit` documents a page.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Leaves out the first `offset` documents.
    #[must_use]
    pub fn offset(mut self, offset: usize) -> Self {
        self.offset = offset;
        self
    }

    /// Goes on where the page ended that gave this cursor.
    #[must_use]
    pub fn cursor(mut self, cursor: Cursor) -> Self {
        self.cursor = Some(cursor);
        self
    }

    /// Gives equal documents once.
    #[must_use]
    pub fn distinct(mut self) -> Self {
        self.distinct = true;
        self
    }

    /// Gives these fields only, at the paths where they are.
    #[must_use]
    pub fn fields<F: Into<Field>>(mut self, fields: impl IntoIterator<Item = F>) -> Self {
        self.fields.extend(fields.into_iter().map(Into::into));
        self
    }

    /// Checks that each field to order by or to give is one of `known`, as [`fields_of`](super::fields_of) tells
    /// them. Only the first name of a path is checked.
    ///
    /// # Errors
    /// [`SpecificationError::UnknownField`] for the first that is not.
    pub fn check_fields(&self, known: &[&str]) -> Result<(), SpecificationError> {
        self.all_fields().try_for_each(|field| field.check_known(known))
    }

    pub(super) fn check(&self) -> Result<(), SpecificationError> {
        self.all_fields().try_for_each(Field::check)
    }

    fn all_fields(&self) -> impl Iterator<Item = &Field> {
        self.order_by.iter().map(|order| &order.field).chain(&self.fields)
    }
}

/// One page of what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What was found, in order.
    pub items: Vec<T>,
    /// Where the next page begins; `None` after the last, and with a limit of 0.
    pub next: Option<Cursor>,
    /// How many documents match on all pages together, those before the offset or the cursor included.
    pub total: usize,
}

impl<T> Page<T> {
    /// The same page of something else.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(change).collect(),
            next: self.next,
            total: self.total,
        }
    }

    /// The page as a list that says which part of the whole it is. `options` are those it was found with.
    pub fn into_list(self, options: &SearchOptions) -> ReadModelList<T> {
        let (offset, limit) = (options.offset, options.limit);
        ReadModelList { offset, limit, total: self.total, items: self.items }
    }
}

/// A part of a list of read models, and which part it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadModelList<T> {
    /// How many models stand before the first one here.
    pub offset: usize,
    /// How many models were asked for at most; all, when `None`.
    pub limit: Option<usize>,
    /// How many models there are in the whole list.
    pub total: usize,
    /// The models.
    pub items: Vec<T>,
}
