//! Asking the contents. Nothing here waits for anybody but a writer that applies a few changes.

use std::ops::RangeBounds;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::contents::{Contents, Kept};
use super::{LiveView, Progress};
use crate::read_model::{ModelPattern, ReadModelError, Stored};
use crate::specification::{
    Comparison, Compiled, Field, Found, Page, SearchOptions, Selection, Specification,
};
use crate::subject::{AggregateId, Pattern};

/// A page of documents with the models they are.
pub(in crate::read_model) type Documents<T> = Page<Found<Arc<Stored<T>>>>;

impl<T> LiveView<T> {
    /// A model; `None` when there is none, or when it does not decode.
    pub fn get(&self, id: &AggregateId) -> Option<Arc<Stored<T>>> {
        Some(Arc::clone(&self.shared.contents().models.get(id)?.stored))
    }

    /// The models whose `field`, an indexed one, is equal to `value`, by id. Nothing is equal to null.
    ///
    /// # Errors
    /// [`ReadModelError::NoIndex`] when the field has none here.
    pub fn equal(
        &self,
        field: &str,
        value: impl Into<Value>,
    ) -> Result<Vec<Arc<Stored<T>>>, ReadModelError> {
        let contents = self.shared.contents();
        let index = contents.index(field).ok_or_else(|| no_index(&contents, field))?;
        let found = index.equal(&value.into());
        Ok(found.map_or_else(Vec::new, |models| {
            models.values().map(|kept| Arc::clone(&kept.stored)).collect()
        }))
    }

    /// The models whose `field`, an indexed one, lies between `bounds` and is of their type, by value and then by id.
    ///
    /// # Errors
    /// [`ReadModelError::NoIndex`] when the field has none here.
    pub fn range(
        &self,
        field: &str,
        bounds: impl RangeBounds<Value>,
    ) -> Result<Vec<Arc<Stored<T>>>, ReadModelError> {
        let contents = self.shared.contents();
        let index = contents.index(field).ok_or_else(|| no_index(&contents, field))?;
        let found = index.range(&bounds).into_iter();
        Ok(found.map(|kept| Arc::clone(&kept.stored)).collect())
    }
}

impl<T: DeserializeOwned> LiveView<T> {
    /// One page of the models that a pattern means, all of the view for `None`, and a specification holds for.
    ///
    /// Field names are those of the stored documents. The models are whole, whatever fields the options name. An index is
    /// used where the specification demands that its field be equal to something; else every document is looked at.
    ///
    /// # Errors
    /// [`ReadModelError::OutsideView`] for a pattern that means more than the view holds;
    /// [`ReadModelError::Specification`] for a specification or options that cannot be used.
    pub fn query(
        &self,
        pattern: Option<&ModelPattern>,
        specification: &Specification,
        options: &SearchOptions,
    ) -> Result<Page<Arc<Stored<T>>>, ReadModelError> {
        let compiled = specification.clone().compile()?;
        if let Some(known) = self.shared.known {
            compiled.check_fields(known)?;
            options.check_fields(known)?;
        }
        let (found, _) = self.find(pattern, &compiled)?;
        if is_plain(options) && options.limit.is_none_or(|limit| found.len() <= limit) {
            return Ok(plain_page(found, options.offset));
        }
        let scope = pattern.unwrap_or(&self.shared.pattern).to_string();
        Ok(select(found, compiled, options, &scope)?.map(|found| found.about))
    }

    /// A page with the documents as the options want them shown, and the moment that it is of.
    pub(in crate::read_model) fn page_of_documents(
        &self,
        compiled: Compiled,
        options: &SearchOptions,
    ) -> Result<(Documents<T>, Moment), ReadModelError> {
        let (found, moment) = self.find(None, &compiled)?;
        let page = select(found, compiled, options, &self.shared.pattern.to_string())?;
        Ok((page, moment))
    }

    /// The models that are as specified, in no order, as of one moment. Documents are looked at when the lock is free.
    fn find(
        &self,
        pattern: Option<&ModelPattern>,
        compiled: &Compiled,
    ) -> Result<(Vec<Kept<T>>, Moment), ReadModelError> {
        let ids = pattern.map(|pattern| self.ids(pattern)).transpose()?;
        let (mut found, moment) = {
            let contents = self.shared.contents();
            let moment = Moment { revision: contents.revision, generation: contents.generation };
            (candidates(&contents, ids.as_ref(), compiled.specification()), moment)
        };
        found.retain(|kept| {
            let id = kept.stored.metadata.id.as_str();
            ids.as_ref().is_none_or(|ids| ids.matches(id)) && compiled.matches(&kept.document)
        });
        Ok((found, moment))
    }

    fn ids(&self, pattern: &ModelPattern) -> Result<Pattern, ReadModelError> {
        let (ids, held) =
            (Pattern::parse(pattern.ids())?, Pattern::parse(self.shared.pattern.ids())?);
        let same_type = pattern.model_type() == self.shared.pattern.model_type();
        match same_type && held.covers(&ids) {
            true => Ok(ids),
            false => Err(ReadModelError::OutsideView {
                pattern: pattern.to_string(),
                view: self.shared.pattern.to_string(),
            }),
        }
    }
}

/// What a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::read_model) struct Moment {
    pub(in crate::read_model) revision: u64,
    pub(in crate::read_model) generation: Option<u64>,
}

impl Moment {
    pub(super) fn of(progress: &Progress) -> Self {
        Self { revision: progress.revision, generation: progress.generation }
    }
}

/// As few models as can be told at once, all that match among them.
fn candidates<T>(
    contents: &Contents<T>,
    ids: Option<&Pattern>,
    specification: &Specification,
) -> Vec<Kept<T>> {
    if let Some(ids) = ids.filter(|ids| ids.is_literal()) {
        let id = AggregateId::from_escaped(ids.as_str()).ok();
        return id.and_then(|id| contents.models.get(&id)).cloned().into_iter().collect();
    }
    let mut equalities = Vec::new();
    demanded(specification, &mut equalities);
    let by_index = equalities.into_iter().filter_map(|(field, value)| {
        let index = contents.indexes.iter().find(|index| index.field == *field)?;
        Some(index.equal(value))
    });
    match by_index.min_by_key(|models| models.map_or(0, |models| models.len())) {
        Some(models) => models.into_iter().flat_map(|models| models.values()).cloned().collect(),
        None => contents.models.values().cloned().collect(),
    }
}

/// The equalities without which a specification does not hold.
fn demanded<'a>(specification: &'a Specification, into: &mut Vec<(&'a Field, &'a Value)>) {
    match specification {
        Specification::All(parts) => parts.iter().for_each(|part| demanded(part, into)),
        Specification::Compare { field, is: Comparison::Eq, value } => into.push((field, value)),
        _ => {}
    }
}

/// Whether a page is nothing but the matching models by id.
fn is_plain(options: &SearchOptions) -> bool {
    let SearchOptions { order_by, limit: _, offset: _, cursor, distinct, fields } = options;
    order_by.is_empty() && cursor.is_none() && !distinct && fields.is_empty()
}

fn plain_page<T>(mut found: Vec<Kept<T>>, offset: usize) -> Page<Arc<Stored<T>>> {
    // What an index gave is in order already, and seeing that is cheap.
    found.sort_by(|a, b| a.stored.metadata.id.cmp(&b.stored.metadata.id));
    let total = found.len();
    let items = found.into_iter().skip(offset).map(|kept| kept.stored).collect();
    Page { items, next: None, total }
}

fn select<T>(
    found: Vec<Kept<T>>,
    compiled: Compiled,
    options: &SearchOptions,
    scope: &str,
) -> Result<Documents<T>, ReadModelError> {
    let mut selection = Selection::new(compiled, options, scope)?;
    for Kept { stored, document } in found {
        let id = stored.metadata.id.clone();
        selection.push(id.as_str(), Arc::unwrap_or_clone(document), stored);
    }
    Ok(selection.finish())
}

fn no_index<T>(contents: &Contents<T>, field: &str) -> ReadModelError {
    let indexes = contents.indexes.iter().map(|index| index.name.clone()).collect();
    ReadModelError::NoIndex { field: field.to_owned(), indexes }
}
