//! Read models of an earlier shape: loaded, listed, changed by a projection, without a path.

use std::time::Duration;

use cim_persistence::projection::{ProjectionOptions, RunningProjection};
use cim_persistence::query::{IndexStrategy, QueryError, QueryHint, QueryOptimizer};
use cim_persistence::read_model::{
    IndexLookup, IndexSpec, LiveOptions, LiveView, ModelPattern, ReadModelError, ReadModelStore,
};
use cim_persistence::specification::{SearchOptions, Specification, field};
use cim_persistence::subject::AggregateId;
use cim_persistence::{Aggregate, Context, Repository, SaveOptions};
use futures::TryStreamExt;

use crate::domain::{Board, Boards, Order, OrderEvent, config, events, in_memory};
use crate::old;

const PATIENCE: Duration = Duration::from_secs(60);

fn id() -> AggregateId {
    AggregateId::new("1").unwrap()
}

fn today() -> Board {
    let (order, city) = ("1".to_owned(), "ULM".to_owned());
    Board { order, city, cents: 1200, events: vec!["before".to_owned()] }
}

fn before() -> old::Board {
    old::Board { order: "1".to_owned(), city: "ulm".to_owned(), total: 12 }
}

#[tokio::test]
async fn models_are_read_in_the_newest_shape() {
    let (old, new) = in_memory(&config());
    ReadModelStore::new(&old).save(&before()).await.unwrap();
    let store = ReadModelStore::new(&new);
    let loaded = store.load::<Board>(&id()).await.unwrap().unwrap();
    assert_eq!((loaded.model, loaded.metadata.schema_version), (today(), 1));
    let listed: Vec<_> = store.query::<Board>(None).await.unwrap().try_collect().await.unwrap();
    assert_eq!(listed[0].model, today());
    // What is stored is as it was.
    let stored = ReadModelStore::new(&old).load::<old::Board>(&id()).await.unwrap().unwrap();
    assert_eq!((stored.model, stored.metadata.revision), (before(), loaded.metadata.revision));
}

#[tokio::test]
async fn models_without_a_path_are_refused_as_before() {
    let (old, new) = in_memory(&config());
    ReadModelStore::new(&old).save(&before()).await.unwrap();
    let new = new.with_evolution(events().build().unwrap());
    let error = ReadModelStore::new(&new).load::<Board>(&id()).await.unwrap_err();
    assert!(
        matches!(error, ReadModelError::OtherSchema { stored: 1, expected: 2, .. }),
        "{error:?}"
    );
}

/// With an index and without, by type, by text and in a live view.
#[tokio::test]
async fn conditions_see_models_as_they_are_stored() {
    let (old, new) = in_memory(&config());
    ReadModelStore::new(&old).save(&before()).await.unwrap();
    let boards = ReadModelStore::new(&new).of::<Board>();
    let optimizer = QueryOptimizer::new(&new).knows::<Board>();
    let (all, options) = (ModelPattern::all("board"), SearchOptions::default());
    let live = LiveOptions::default().index("city");
    let live = LiveView::start(&boards, &all, live).await.unwrap();
    for strategy in [IndexStrategy::SubjectPattern, IndexStrategy::Composite] {
        if strategy == IndexStrategy::Composite {
            boards.build_index(&IndexSpec::on(["city"])).await.unwrap();
        }
        for (name, models) in [("ulm", vec![today()]), ("ULM", vec![])] {
            let city = field("city").eq(name);
            let page = boards.search(None, &city, &options).await.unwrap();
            let found: Vec<_> = page.items.into_iter().map(|stored| stored.model).collect();
            assert_eq!(found, models, "{name} by {strategy}");
            let hint = QueryHint { strategy: Some(strategy), ..QueryHint::default() };
            let text = format!("subject:board.> AND city = '{name}'");
            let plan = optimizer.create_plan(&text, hint).await.unwrap();
            let (found, _) = optimizer.execute_plan(&plan).await.unwrap();
            let totals: Vec<_> =
                found.iter().map(|found| found.document["total"].clone()).collect();
            assert_eq!(totals, vec![12; models.len()], "{name} by {strategy}");
            let shown = live.query(None, &city, &options).unwrap();
            let shown: Vec<_> = shown.items.iter().map(|stored| stored.model.clone()).collect();
            assert_eq!(shown, models, "{name} in a live view");
            assert_eq!(live.equal("city", name).unwrap().len(), models.len());
        }
    }
}

#[tokio::test]
async fn a_model_without_a_path_matters_only_where_it_matches() {
    let (old, new) = in_memory(&config());
    let new = new.with_evolution(events().build().unwrap());
    ReadModelStore::new(&old).save(&before()).await.unwrap();
    let boards = ReadModelStore::new(&new).of::<Board>();
    let (options, elsewhere) = (SearchOptions::default(), field("city").eq("Bonn"));
    assert_eq!(boards.search(None, &elsewhere, &options).await.unwrap().total, 0);
    let refused = boards.search(None, &Specification::everything(), &options).await.unwrap_err();
    let other = QueryError::Model(ReadModelError::OtherSchema {
        key: "board.1".to_owned(),
        revision: 1,
        stored: 1,
        expected: 2,
    });
    assert_eq!(refused.to_string(), other.to_string());
}

async fn caught_up(context: &Context, old: bool) {
    let options = ProjectionOptions::default();
    let mut running = match old {
        true => RunningProjection::start(context, old::Boards, options).unwrap(),
        false => RunningProjection::start(context, Boards, options).unwrap(),
    };
    running.caught_up(PATIENCE).await.unwrap();
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_projection_goes_on_with_the_models_of_the_version_before() {
    let (old, new) = in_memory(&config());
    let orders = Repository::<old::Order>::of(&old).unwrap();
    let order = old::Order::new(&"1".to_owned());
    orders.save(&order, old::life(), SaveOptions::default()).await.unwrap();
    caught_up(&old, true).await;

    let orders = Repository::<Order>::of(&new).unwrap();
    let placed = |_: &Order| {
        let (customer, currency) = (old::KIM, "EUR".to_owned());
        Ok::<_, ()>(vec![OrderEvent::Placed { customer, cents: 50, currency }])
    };
    orders.transact(&"1".to_owned(), placed).await.unwrap();
    caught_up(&new, false).await;
    let store = ReadModelStore::new(&new);
    let board = store.load::<Board>(&id()).await.unwrap().unwrap();
    let events = vec!["before".to_owned(), "placed".to_owned()];
    assert_eq!(board.model, Board { cents: 1250, events, ..today() });
    assert_eq!(board.metadata.schema_version, 2);
    // The entry of the old shape is gone from the index, that of the new one is there.
    let city = IndexSpec::on(["city"]);
    for (name, ids) in [("ulm", vec![]), ("ULM", vec![id()])] {
        let found = store.of::<Board>().ids_where(&city, &IndexLookup::equal([name])).await;
        assert_eq!(found.unwrap(), ids, "{name}");
    }
}
