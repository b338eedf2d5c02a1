//! Finding models by pattern: one answer where it holds them, else a stream of them.

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde::de::DeserializeOwned;

use super::resolve::Found;
use super::{ModelPattern, Models, ReadModelError, Stored};
use crate::backend::{Count, Start};
use crate::event::NonEmpty;
use crate::specification::ReadModelList;
use crate::state::{Entry, each_once};

impl<T: DeserializeOwned + Send + 'static> Models<T> {
    /// The models that a pattern such as `board.JFK.*.*` means, in no order; all models for `None`.
    ///
    /// The server filters. Up to about a thousand come by one round trip and are as they were at one moment; more are
    /// streamed by a consumer that ends with the stream, the first before the last is read. Of those only the keys are
    /// remembered; one that is saved meanwhile comes once, as it was before or after.
    ///
    /// # Errors
    /// [`ReadModelError::OutsideStore`] and [`ReadModelError::InvalidPattern`] for the pattern; as items of the stream what
    /// [`load`](Self::load) can meet, and [`ReadModelError::Switched`] when a rebuild was finished meanwhile.
    pub async fn query(
        &self,
        pattern: Option<&str>,
    ) -> Result<BoxStream<'static, Result<Stored<T>, ReadModelError>>, ReadModelError> {
        let pattern = match pattern {
            Some(text) => ModelPattern::parse(&self.model, text)?,
            None => ModelPattern::all(&self.model),
        };
        self.matching(&pattern).await
    }

    /// As [`query`](Self::query), by a pattern that is read already.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn matching(
        &self,
        pattern: &ModelPattern,
    ) -> Result<BoxStream<'static, Result<Stored<T>, ReadModelError>>, ReadModelError> {
        let models = self.clone();
        let entries = self.entries_matching(pattern).await?;
        let decoded =
            entries.try_filter_map(move |entry| std::future::ready(models.decode(&entry)));
        Ok(decoded.boxed())
    }

    /// The models by id, `limit` of them after `offset`, and how many there are.
    ///
    /// All models are read, the page alone is kept.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn list(
        &self,
        limit: usize,
        offset: usize,
    ) -> Result<ReadModelList<Stored<T>>, ReadModelError> {
        let mut entries = self.entries_matching(&ModelPattern::all(&self.model)).await?;
        let end = offset.saturating_add(limit);
        let (mut first, mut total) = (std::collections::BTreeMap::new(), 0);
        while let Some(entry) = entries.try_next().await? {
            if entry.value.is_some() {
                total += 1;
                first.insert(entry.key.clone(), entry);
                if first.len() > end {
                    first.pop_last();
                }
            }
        }
        let page = first.into_values().skip(offset);
        let items: Result<Vec<_>, _> =
            page.filter_map(|entry| self.decode(&entry).transpose()).collect();
        Ok(ReadModelList { offset, limit: Some(limit), total, items: items? })
    }

    /// How many models a pattern means, deleted ones that are still known included. One round trip.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn estimate(&self, pattern: &ModelPattern) -> Result<Count, ReadModelError> {
        let generation = self.reader.generation(&self.model).await?;
        let keys = NonEmpty::one(pattern.keys(generation)?);
        Ok(self.reader.bucket.count(&keys).await?)
    }

    async fn entries_matching(
        &self,
        pattern: &ModelPattern,
    ) -> Result<BoxStream<'static, Result<Entry, ReadModelError>>, ReadModelError> {
        if pattern.model_type() != &*self.model {
            return Err(ReadModelError::OutsideStore {
                pattern: pattern.to_string(),
                model_type: self.model.to_string(),
            });
        }
        let found =
            self.reader.find(&self.model, |generation| Ok(vec![pattern.keys(generation)?])).await?;
        let generation = match found {
            Found::All(entries, _) => return Ok(futures::stream::iter(entries).map(Ok).boxed()),
            Found::TooMany(generation) => generation,
        };
        let keys = NonEmpty::one(pattern.keys(generation)?);
        let watched = self.reader.bucket.watch(keys, Start::Latest);
        let swept = each_once(watched).map_err(ReadModelError::from);
        let models = self.clone();
        let same = async move { models.reader.is_still(&models.model, generation).await };
        let same =
            futures::stream::once(same).filter_map(|same| std::future::ready(same.err().map(Err)));
        Ok(swept.chain(same).boxed())
    }
}
