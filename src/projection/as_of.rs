//! The models of a projection as they were at a position or a time.

use std::any::Any;
use std::collections::HashMap;

use super::changes::{Place, Target};
use super::definition::read_today;
use super::error::ProjectionError;
use super::feed::{Feed, Selection};
use super::{Changes, Projection};
use crate::backend::{Bound, Position};
use crate::read_model::{ModelPattern, ReadModel, ReadModelError};
use crate::store::Context;
use crate::subject::AggregateId;

/// All models of a projection as they were at one moment, consistent with each other. In memory.
#[derive(Debug)]
pub struct ModelsAsOf {
    places: HashMap<Target, Box<dyn Place>>,
    /// The last event that is in them.
    pub position: Position,
}

/// How many events are taken at a time.
const RUN: usize = 1000;

impl ModelsAsOf {
    /// Projects all events up to a position, or stored before a time, by the server's clock. Nothing is written.
    ///
    /// Reads all events up to there; memory holds all models. Events that the projection cannot use are an error.
    ///
    /// # Errors
    /// [`ProjectionError::Poison`] at the first event that cannot be used; [`ProjectionError::Store`],
    /// [`ProjectionError::Backend`].
    pub async fn load<P: Projection>(
        context: &Context,
        projection: &P,
        bound: Bound,
    ) -> Result<Self, ProjectionError> {
        let selection = Selection::new(&P::filters(), context.scheme())?;
        let mut feed = Feed::open(context, &selection, Position::START);
        let mut models = Self { places: HashMap::new(), position: Position::START };
        loop {
            let run = feed.next(RUN).await?;
            for delivered in run.events {
                let stored = delivered.event?;
                let within = match bound {
                    Bound::Newest => true,
                    Bound::Position(last) => stored.position() <= last,
                    Bound::Time(end) => stored.recorded_at() < end,
                };
                if !within {
                    return Ok(models);
                }
                let poison = |reason: super::Rejection| ProjectionError::Poison {
                    projection: P::NAME.to_owned(),
                    position: stored.position().get(),
                    reason: reason.to_string(),
                };
                let mut changes = Changes::default();
                for event in read_today::<P::Event>(&stored)? {
                    projection.project(event, &stored, &mut changes).map_err(poison)?;
                }
                models.apply(changes).map_err(poison)?;
                models.position = stored.position();
            }
            if run.caught_up {
                return Ok(models);
            }
        }
    }

    fn apply(&mut self, changes: Changes) -> Result<(), super::Rejection> {
        for change in changes.list {
            let place = self.places.entry(change.target).or_insert_with(change.place);
            (change.apply)(place.as_mut())?;
        }
        Ok(())
    }

    /// A model as it was; `None` when there was none.
    pub fn get<M: ReadModel>(&self, id: &AggregateId) -> Option<&M> {
        let place = self.places.get(&Target { model: M::MODEL_TYPE, id: id.clone() })?;
        model_in(place.as_ref())
    }

    /// The models that a pattern such as `board.JFK.*` means, as they were, ordered by id.
    ///
    /// # Errors
    /// [`ReadModelError::OutsideStore`] and [`ReadModelError::InvalidPattern`] for the pattern.
    pub fn matching<M: ReadModel>(
        &self,
        pattern: &str,
    ) -> Result<Vec<(&AggregateId, &M)>, ReadModelError> {
        let pattern = ModelPattern::parse(M::MODEL_TYPE, pattern)?;
        let mut found: Vec<_> = self
            .places
            .iter()
            .filter(|(target, _)| {
                target.model == M::MODEL_TYPE && pattern.matches(target.id.as_str())
            })
            .filter_map(|(target, place)| Some((&target.id, model_in(place.as_ref())?)))
            .collect();
        found.sort_by_key(|(id, _)| *id);
        Ok(found)
    }
}

fn model_in<M: ReadModel>(place: &dyn Place) -> Option<&M> {
    let held: &dyn Any = place.held();
    held.downcast_ref::<Option<M>>()?.as_ref()
}
