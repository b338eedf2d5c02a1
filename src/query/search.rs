//! Asking the models of one type, as that type.

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::plan::Access;
use super::{QueryError, QueryHint, models, planner};
use crate::read_model::{ModelPattern, Models, ReadModelMetadata, Stored};
use crate::specification::{Compiled, Page, SearchOptions, Selection, Specification, fields_of};
use crate::subject::Pattern;

/// Models by what they hold. The server filters by the pattern, the rest is compared here, as the models are stored; a
/// model that does not match is not read as a `T`.
impl<T: DeserializeOwned + Send + 'static> Models<T> {
    /// One page of the models that a pattern means (all for `None`) and a specification holds for.
    ///
    /// Models are given whole: of the options, `fields` says only what `distinct` compares. A cursor belongs to the same type, pattern,
    /// specification and order. All models of the pattern are read, the page alone is kept; round trips as for
    /// [`query`](Models::query).
    ///
    /// ```
    /// # #[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
    /// # struct Board { origin: String, carrier: String, delay: i64 }
    /// # impl cim_persistence::read_model::ReadModel for Board {
    /// #     const MODEL_TYPE: &'static str = "board";
    /// #     fn id(&self) -> Result<cim_persistence::subject::AggregateId, cim_persistence::subject::InvalidToken> {
    /// #         cim_persistence::subject::AggregateId::from_tokens([&self.origin, &self.carrier])
    /// #     }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::sync::Arc;
    /// # use cim_persistence::state::MemoryKeyValue;
    /// use cim_persistence::read_model::ReadModelStore;
    /// use cim_persistence::specification::{SearchOptions, field};
    ///
    /// # let store = ReadModelStore::on(Arc::new(MemoryKeyValue::new("readmodels")));
    /// store.save(&Board { origin: "JFK".into(), carrier: "B6".into(), delay: 45 }).await?;
    /// store.save(&Board { origin: "JFK".into(), carrier: "DL".into(), delay: 5 }).await?;
    /// let worst_first = SearchOptions::default().order_by("-delay")?.limit(10);
    /// let late = store.of::<Board>().search(Some("board.JFK.*"), &field("delay").gt(30), &worst_first).await?;
    /// assert_eq!((late.items[0].model.carrier.as_str(), late.total), ("B6", 1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`QueryError::Specification`] for a specification, an option or a cursor that is refused, and for a field that `T` does
    /// not have; [`QueryError::Model`] for the pattern and for what reading can meet.
    pub async fn search(
        &self,
        pattern: Option<&str>,
        specification: &Specification,
        options: &SearchOptions,
    ) -> Result<Page<Stored<T>>, QueryError> {
        if let Some(known) = fields_of::<T>() {
            options.check_fields(known)?;
        }
        let search = Search::new(self, pattern, specification)?;
        let scope = search.pattern.to_string();
        let mut selection = Selection::new(search.specification.clone(), options, &scope)?;
        let mut found = search.read().await?;
        while let Some(stored) = found.try_next().await? {
            // What the selection gives back may be a part of the model.
            let whole = (!options.fields.is_empty()).then(|| stored.model.clone());
            let id = stored.metadata.id.clone();
            selection.push(id.as_str(), stored.model, (stored.metadata, whole));
        }
        let Page { items, next, total } = selection.finish();
        let typed = items.into_iter().map(|found| {
            let (metadata, whole) = found.about;
            self.typed(whole.unwrap_or(found.document), metadata)
        });
        Ok(Page { items: typed.collect::<Result<_, _>>()?, next, total })
    }

    /// The models that match, in no order, in batches of those that are there, at most `batch` (at least one) together.
    /// Memory is bounded; the first come before the last are read. Dropping the stream ends the read.
    ///
    /// # Errors
    /// As [`search`](Self::search); the first that reading meets comes as the last item of the stream, after all that was found
    /// before.
    pub async fn search_stream(
        &self,
        pattern: Option<&str>,
        specification: &Specification,
        batch: usize,
    ) -> Result<BoxStream<'static, Result<Vec<Stored<T>>, QueryError>>, QueryError> {
        let search = Search::new(self, pattern, specification)?;
        let (specification, models) = (search.specification.clone(), self.clone());
        let found = search.read().await?.try_filter_map(move |stored| {
            let matching = specification.matches(&stored.model);
            let typed = matching.then(|| models.typed(stored.model, stored.metadata)).transpose();
            std::future::ready(typed)
        });
        let batches = until_error(found.boxed()).ready_chunks(batch.max(1)).flat_map(|batch| {
            let mut models = Vec::with_capacity(batch.len());
            let mut error = None;
            for found in batch {
                match found {
                    Ok(found) => models.push(found),
                    Err(met) => error = Some(Err(met)),
                }
            }
            let models = (!models.is_empty()).then_some(Ok(models));
            futures::stream::iter(models.into_iter().chain(error))
        });
        Ok(batches.boxed())
    }

    /// The first of the models that match, in this order.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub async fn first(
        &self,
        pattern: Option<&str>,
        specification: &Specification,
        options: &SearchOptions,
    ) -> Result<Option<Stored<T>>, QueryError> {
        let page = self.search(pattern, specification, &options.clone().limit(1)).await?;
        Ok(page.items.into_iter().next())
    }

    /// How many models match. All of the pattern are read, none is kept.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub async fn count(
        &self,
        pattern: Option<&str>,
        specification: &Specification,
    ) -> Result<usize, QueryError> {
        let only_count = SearchOptions::default().limit(0);
        Ok(self.search(pattern, specification, &only_count).await?.total)
    }

    fn typed(&self, document: Value, metadata: ReadModelMetadata) -> Result<Stored<T>, QueryError> {
        let model = self.model_of(&document, &metadata)?;
        Ok(Stored { model, metadata })
    }
}

/// The same up to the first error, which ends it.
fn until_error<T>(
    found: BoxStream<'static, Result<T, QueryError>>,
) -> impl Stream<Item = Result<T, QueryError>> {
    futures::stream::unfold(Some(found), |found| async move {
        let mut found = found?;
        let next = found.next().await?;
        let rest = next.is_ok().then_some(found);
        Some((next, rest))
    })
}

/// What is searched, checked.
struct Search {
    models: Models<Value>,
    pattern: ModelPattern,
    ids: Pattern,
    specification: Compiled,
}

impl Search {
    fn new<T: DeserializeOwned>(
        models: &Models<T>,
        pattern: Option<&str>,
        specification: &Specification,
    ) -> Result<Self, QueryError> {
        let specification = specification.clone().compile()?;
        if let Some(known) = fields_of::<T>() {
            specification.check_fields(known)?;
        }
        let pattern = match pattern {
            Some(text) => ModelPattern::parse(models.model_type(), text)?,
            None => ModelPattern::all(models.model_type()),
        };
        let ids = models::ids(&pattern)?;
        Ok(Self { models: models.documents(), pattern, ids, specification })
    }

    /// The models of the pattern, and perhaps fewer of those that do not match.
    async fn read(
        self,
    ) -> Result<BoxStream<'static, Result<Stored<Value>, QueryError>>, QueryError> {
        let access = self.access().await?;
        let found = models::read(&self.models, &self.pattern, &access).await?.models;
        let meant = found.try_filter(move |stored| {
            std::future::ready(self.ids.matches(stored.metadata.id.as_str()))
        });
        Ok(meant.map_err(QueryError::from).boxed())
    }

    /// Nothing is counted where there is no choice.
    async fn access(&self) -> Result<Access, QueryError> {
        if let Some(id) = models::literal(&self.pattern) {
            return Ok(Access::Key(id));
        }
        let (specification, hint) = (self.specification.specification(), QueryHint::default());
        if !planner::could_help(self.models.indexes(), specification) {
            return Ok(Access::Pattern);
        }
        let candidates =
            planner::model_candidates(&self.models, &self.pattern, specification, &hint).await?;
        let cheapest = candidates.into_iter().min_by_key(|(_, estimate)| estimate.time);
        Ok(cheapest.map_or(Access::Pattern, |(access, _)| access))
    }
}
