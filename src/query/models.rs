//! Models by a way that was chosen, as the documents that are stored.

use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;

use super::plan::Access;
use super::{IndexStrategy, QueryError, indexes};
use crate::read_model::{ModelPattern, Models, ReadModelError, Stored};
use crate::subject::{AggregateId, Pattern};

/// Models as they are read, by which way, and how many answers are waited for; a stream counts as one.
pub(super) struct ModelsRead {
    pub(super) models: BoxStream<'static, Result<Stored<Value>, ReadModelError>>,
    pub(super) strategy: IndexStrategy,
    pub(super) round_trips: u64,
}

/// The models that a pattern means, and perhaps others of the same type: ids are compared by whoever reads them.
///
/// An index that is not complete where it is asked is done without: it was dropped, or another replica knew of it.
pub(super) async fn read(
    models: &Models<Value>,
    pattern: &ModelPattern,
    access: &Access,
) -> Result<ModelsRead, QueryError> {
    let strategy = access.strategy();
    match access {
        Access::Key(id) => {
            let found = models.load(id).await?;
            let models = futures::stream::iter(found.map(Ok)).boxed();
            Ok(ModelsRead { models, strategy, round_trips: 1 })
        }
        Access::Index(used) => {
            let ids = match indexes::look_up(models, used).await {
                Err(QueryError::Model(ReadModelError::IndexNotReady { .. })) => {
                    let (models, strategy) =
                        (models.matching(pattern).await?, Access::Pattern.strategy());
                    return Ok(ModelsRead { models, strategy, round_trips: 2 });
                }
                found => found?,
            };
            let found = models.load_many(&ids).await?;
            let models = futures::stream::iter(found.into_iter().flatten().map(Ok)).boxed();
            let round_trips = 1 + ids.len().div_ceil(1000) as u64;
            Ok(ModelsRead { models, strategy, round_trips })
        }
        Access::Everything => {
            let all = models.matching(&ModelPattern::all(models.model_type())).await?;
            Ok(ModelsRead { models: all, strategy, round_trips: 1 })
        }
        Access::Pattern | Access::Since => {
            let found = models.matching(pattern).await?;
            Ok(ModelsRead { models: found, strategy, round_trips: 1 })
        }
    }
}

/// The id of a literal pattern.
pub(super) fn literal(pattern: &ModelPattern) -> Option<AggregateId> {
    let id = pattern.is_literal().then(|| pattern.ids())?;
    AggregateId::from_escaped(id).ok()
}

/// What the ids of a pattern's models match.
pub(super) fn ids(pattern: &ModelPattern) -> Result<Pattern, QueryError> {
    Ok(Pattern::parse(pattern.ids())?)
}
