//! Planning queries and running the plans.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use futures::TryStreamExt;
use serde_json::Value;

use super::cache::Results;
use super::models::ModelsRead;
use super::performance::Uses;
use super::{
    IndexStrategy, PatternUse, Query, QueryError, QueryHint, QueryPerformance, QueryPlan, Source,
    events, models, planner,
};
use crate::read_model::{IndexSpec, ModelPattern, Models, ReadModel, ReadModelStore};
use crate::specification::{Page, Selection, fields_of};
use crate::store::Context;
use crate::subject::EventPattern;

/// A document that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryResult {
    /// Where it lies: `<type>.<id>` of a model, its id escaped as in its key; the subject of an event.
    pub key: String,
    /// The document, or those fields of it that were asked for.
    pub document: Value,
    /// The revision of a model, the position of an event.
    pub revision: u64,
}

/// Plans queries over the read models and the events of a context, runs the plans, and remembers what they cost. Cloning is cheap
/// and shares what is remembered.
///
/// Models are documents here; a type that [`knows`](Self::knows) names has its fields checked and its indexes used.
/// Reads are as current as those of [`Models`], and whatever way is taken gives the same result.
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
/// # use cim_persistence::{Context, NatsRepositoryConfig, read_model::ReadModelStore};
/// use cim_persistence::query::{IndexStrategy, QueryHint, QueryOptimizer};
///
/// # let ports = cim_persistence::store::Ports::in_memory();
/// # let context = Context::on(ports, &NatsRepositoryConfig::for_context("flights"))?;
/// # ReadModelStore::new(&context).save(&Board { origin: "JFK".into(), carrier: "B6".into(), delay: 45 }).await?;
/// let optimizer = QueryOptimizer::new(&context).knows::<Board>();
/// let text = "subject:board.JFK.* AND delay > 30 ORDER BY -delay LIMIT 5";
/// let plan = optimizer.create_plan(text, QueryHint::default()).await?;
/// assert_eq!(plan.strategy(), IndexStrategy::SubjectPattern);
/// let (found, performance) = optimizer.execute_plan(&plan).await?;
/// assert_eq!((found[0].key.as_str(), performance.returned), ("board.JFK.B6", 1));
/// println!("{}", plan.explain(Some(&performance)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct QueryOptimizer {
    context: Context,
    store: ReadModelStore,
    known: BTreeMap<&'static str, Known>,
    results: Arc<Results>,
    uses: Arc<Uses>,
}

#[derive(Debug, Clone)]
struct Known {
    fields: Option<&'static [&'static str]>,
    models: Models<Value>,
}

/// The fields that documents of events have.
const EVENT_FIELDS: [&str; 12] = [
    "aggregate",
    "id",
    "version",
    "type",
    "schema",
    "event_id",
    "occurred_at",
    "correlation_id",
    "causation_id",
    "position",
    "metadata",
    "data",
];

impl QueryOptimizer {
    /// The queries of a context.
    pub fn new(context: &Context) -> Self {
        Self {
            context: context.clone(),
            store: ReadModelStore::new(context),
            known: BTreeMap::new(),
            results: Arc::new(Results::new()),
            uses: Arc::default(),
        }
    }

    /// Makes a type of models known: queries that ask for fields it does not have are refused, and its indexes are used.
    #[must_use]
    pub fn knows<M: ReadModel>(mut self) -> Self {
        let models = self.store.of::<M>().documents();
        self.known.insert(M::MODEL_TYPE, Known { fields: fields_of::<M>(), models });
        self
    }

    /// How a query text will be answered. One round trip to count, none for a single model or with an expected size, one more
    /// for each index that could help.
    ///
    /// # Errors
    /// [`QueryError::Text`], [`QueryError::NoSubject`], [`QueryError::OutsideStore`] for the text; what
    /// [`plan`](Self::plan) refuses.
    pub async fn create_plan(&self, text: &str, hint: QueryHint) -> Result<QueryPlan, QueryError> {
        self.plan(Query::parse(self.context.scheme(), text)?, hint).await
    }

    /// How a query will be answered. Round trips as for [`create_plan`](Self::create_plan).
    ///
    /// # Errors
    /// [`QueryError::Specification`] when the specification or the options are refused or name a field that the documents do not
    /// have, [`QueryError::StrategyNotPossible`] for a hint that cannot be followed, [`QueryError::Model`] and
    /// [`QueryError::Store`] when nothing can be counted.
    pub async fn plan(&self, mut query: Query, hint: QueryHint) -> Result<QueryPlan, QueryError> {
        query.options.fields.extend(hint.projection.iter().cloned());
        planner::check(&query, &hint)?;
        let specification = query.specification.clone().compile()?;
        if let Some(known) = self.fields_of(&query.source) {
            specification.check_fields(known)?;
            query.options.check_fields(known)?;
        }
        // Refuses a cursor or an order that cannot be used before anything is asked.
        let scope = query.scope(hint.time_range);
        Selection::<()>::new(specification.clone(), &query.options, &scope)?;
        let (candidates, everything) = match &query.source {
            Source::Events(pattern) => {
                let found = planner::event_candidates(&self.context, pattern, &hint).await?;
                (found, self.context.scheme().all_events())
            }
            Source::Models(pattern) => {
                let models = self.models(pattern)?;
                let asked = &query.specification;
                let found = planner::model_candidates(&models, pattern, asked, &hint).await?;
                (found, ModelPattern::all(pattern.model_type()).to_string())
            }
        };
        let declared = match &query.source {
            Source::Models(pattern) => self.get_index(pattern.model_type()),
            Source::Events(_) => &[],
        };
        let ((access, estimate), others) = planner::choose(candidates, &query, &hint, declared)?;
        let (range, use_cache) = (hint.time_range, hint.use_cache);
        Ok(QueryPlan {
            query,
            specification,
            range,
            access,
            estimate,
            others,
            use_cache,
            everything,
        })
    }

    /// Runs a plan: what was found, in order, and what it cost.
    ///
    /// Where the index of the plan is not complete, because it was dropped since or a replica that is behind answers, the
    /// pattern is asked instead; [`QueryPerformance::strategy`] tells.
    ///
    /// With the hint `use_cache`, one round trip asks whether anything was written since the same query was asked; if not, its
    /// result is given again, for ten seconds at most.
    ///
    /// # Errors
    /// [`QueryError::Model`] or [`QueryError::Store`] for what reading meets: an event that is not what it claims to be, for
    /// instance. Nothing is returned then.
    pub async fn execute_plan(
        &self,
        plan: &QueryPlan,
    ) -> Result<(Vec<QueryResult>, QueryPerformance), QueryError> {
        let (page, performance) = self.execute_page(plan).await?;
        Ok((page.items, performance))
    }

    /// As [`execute_plan`](Self::execute_plan), with the cursor of the next page and how many there are in all.
    ///
    /// # Errors
    /// As [`execute_plan`](Self::execute_plan).
    pub async fn execute_page(
        &self,
        plan: &QueryPlan,
    ) -> Result<(Page<QueryResult>, QueryPerformance), QueryError> {
        let (began, mut round_trips) = (Instant::now(), 0);
        let mut kept = None;
        if plan.use_cache {
            round_trips += 1;
            let (identity, revision) = (plan.identity(), self.revision(&plan.query.source).await?);
            if let Some(page) = self.results.get(&identity, revision) {
                let run = Run { strategy: plan.strategy(), read: 0, round_trips, cached: true };
                let measured = measured(&page, run, began);
                self.update_stats(plan, &measured);
                return Ok((page, measured));
            }
            kept = Some((identity, revision));
        }
        let (page, mut run) = match &plan.query.source {
            Source::Models(pattern) => self.run_models(plan, pattern).await?,
            Source::Events(pattern) => self.run_events(plan, pattern).await?,
        };
        run.round_trips += round_trips;
        if let Some((identity, revision)) = kept {
            self.results.keep(identity, revision, &page);
        }
        let measured = measured(&page, run, began);
        self.update_stats(plan, &measured);
        Ok((page, measured))
    }

    /// What was asked so far and what it cost, by pattern and fields, what took longest first. At most 1000 patterns are
    /// remembered.
    pub fn analyze_patterns(&self) -> Vec<PatternUse> {
        self.uses.all()
    }

    /// Remembers what a run of a plan cost. [`execute_plan`](Self::execute_plan) does it itself; for those who run a plan elsewhere.
    pub fn update_stats(&self, plan: &QueryPlan, performance: &QueryPerformance) {
        self.uses.add(plan, performance);
    }

    /// Builds an index for the models of a type that are there; [`Models::build_index`] says more. Queries use it if the type
    /// declares it and is [known](Self::knows).
    ///
    /// # Errors
    /// [`QueryError::Model`] when the type is none, when the index cannot be kept, and for what building meets.
    pub async fn create_index(
        &self,
        model_type: &str,
        index: &IndexSpec,
    ) -> Result<(), QueryError> {
        self.models(&ModelPattern::all(model_type))?.build_index(index).await?;
        Ok(())
    }

    /// The indexes that are used for models of a type: those that its type declares, if it is [known](Self::knows).
    pub fn get_index(&self, model_type: &str) -> &[IndexSpec] {
        self.known.get(model_type).map_or(&[], |known| known.models.indexes())
    }

    async fn run_models(
        &self,
        plan: &QueryPlan,
        pattern: &ModelPattern,
    ) -> Result<(Page<QueryResult>, Run), QueryError> {
        let mut selection = selection(plan)?;
        let mut found = models::read(&self.models(pattern)?, pattern, &plan.access).await?;
        let ids = models::ids(pattern)?;
        let ModelsRead { strategy, round_trips, .. } = found;
        let mut run = Run { strategy, read: 0, round_trips, cached: false };
        while let Some(stored) = found.models.try_next().await? {
            run.read += 1;
            let id = stored.metadata.id;
            if ids.matches(id.as_str()) {
                let key = format!("{}.{}", pattern.model_type(), id.as_str());
                selection.push(id.as_str(), stored.model, (key, stored.metadata.revision));
            }
        }
        Ok((results(selection), run))
    }

    async fn run_events(
        &self,
        plan: &QueryPlan,
        pattern: &EventPattern,
    ) -> Result<(Page<QueryResult>, Run), QueryError> {
        let mut selection = selection(plan)?;
        let mut found = events::read(&self.context, pattern, &plan.access, plan.range);
        let strategy = plan.strategy();
        let mut run = Run { strategy, read: 0, round_trips: 1, cached: false };
        while let Some(message) = found.try_next().await? {
            run.read += 1;
            if events::is_meant(&message, pattern, plan.range) {
                let (subject, position) = (message.subject.to_string(), message.position.get());
                let document = events::document(message, &self.context)?;
                // As text, positions have the order that they have as numbers.
                selection.push(&format!("{position:020}"), document, (subject, position));
            }
        }
        Ok((results(selection), run))
    }

    /// What grows with every change of the store that a query looks at. One round trip, answered by the leader.
    async fn revision(&self, source: &Source) -> Result<u64, QueryError> {
        Ok(match source {
            Source::Models(_) => self.context.read_models().last_revision().await?,
            Source::Events(_) => self.context.status().await?.last.get(),
        })
    }

    fn models(&self, pattern: &ModelPattern) -> Result<Models<Value>, QueryError> {
        match self.known.get(pattern.model_type()) {
            Some(known) => Ok(known.models.clone()),
            None => Ok(self.store.untyped(pattern.model_type())?),
        }
    }

    fn fields_of(&self, source: &Source) -> Option<&[&'static str]> {
        match source {
            Source::Events(_) => Some(&EVENT_FIELDS),
            Source::Models(pattern) => self.known.get(pattern.model_type())?.fields,
        }
    }
}

/// What a run counts.
struct Run {
    strategy: IndexStrategy,
    read: u64,
    round_trips: u64,
    cached: bool,
}

type About = (String, u64);

fn selection(plan: &QueryPlan) -> Result<Selection<About>, QueryError> {
    let scope = plan.query.scope(plan.range);
    Ok(Selection::new(plan.specification.clone(), &plan.query.options, &scope)?)
}

fn results(selection: Selection<About>) -> Page<QueryResult> {
    selection.finish().map(|found| {
        let (key, revision) = found.about;
        QueryResult { key, document: found.document, revision }
    })
}

fn measured(page: &Page<QueryResult>, run: Run, began: Instant) -> QueryPerformance {
    QueryPerformance {
        strategy: run.strategy,
        read: run.read,
        matched: page.total as u64,
        returned: page.items.len() as u64,
        round_trips: run.round_trips,
        time: began.elapsed(),
        cached: run.cached,
    }
}
