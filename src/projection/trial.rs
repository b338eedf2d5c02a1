//! A projection without its runner: models in memory, changed event by event, for the test kit.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::changes::Target;
use super::feed::Selection;
use super::{Changes, Projection, ProjectionError, Rejection, read_today};
use crate::backend::StoredMessage;
use crate::store::StoredEvent;
use crate::subject::{AggregateId, SubjectScheme};

/// Models as they are stored.
type Documents = BTreeMap<Target, Bytes>;

/// A projection and the models it keeps.
pub(crate) struct Trial<P> {
    projection: P,
    reads: Selection,
    declared: Vec<&'static str>,
    documents: Documents,
}

impl<P: Projection> Trial<P> {
    pub(crate) fn new(projection: P, scheme: &SubjectScheme) -> Result<Self, ProjectionError> {
        Ok(Self {
            projection,
            reads: Selection::new(&P::filters(), scheme)?,
            declared: P::models().iter().map(|declared| declared.model).collect(),
            documents: Documents::new(),
        })
    }

    /// Lets an event take effect whole or not at all, if the projection reads it. Twice, and both must come to the same.
    pub(crate) fn take(
        &mut self,
        message: &StoredMessage,
        stored: &StoredEvent,
    ) -> Result<(), Rejection> {
        if !self.reads.passes(message) {
            return Ok(());
        }
        let (once, again) = (self.after(stored)?, self.after(stored)?);
        if once != again {
            return Err("it says something else when it gets the same event again".into());
        }
        self.documents = once;
        Ok(())
    }

    /// The models of one type, by id, as they are stored.
    pub(crate) fn documents(
        &self,
        model: &'static str,
    ) -> impl Iterator<Item = (&AggregateId, &Bytes)> {
        let documents = self.documents.iter();
        documents.filter(move |(at, _)| at.model == model).map(|(at, document)| (&at.id, document))
    }

    fn after(&self, stored: &StoredEvent) -> Result<Documents, Rejection> {
        let mut documents = self.documents.clone();
        let mut changes = Changes::default();
        for event in read_today::<P::Event>(stored)? {
            self.projection.project(event, stored, &mut changes)?;
        }
        for change in changes.list {
            if !self.declared.contains(&change.target.model) {
                let model = change.target.model;
                let reason =
                    format!("it changes models of type {model}, which it does not declare");
                return Err(reason.into());
            }
            let mut place = (change.place)();
            if let Some(document) = documents.get(&change.target) {
                place.read(document)?;
            }
            (change.apply)(place.as_mut())?;
            match place.written()? {
                Some(document) => documents.insert(change.target, document),
                None => documents.remove(&change.target),
            };
        }
        Ok(documents)
    }
}
