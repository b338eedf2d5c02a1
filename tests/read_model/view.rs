//! Materialized views: made, kept current, and honest about how current they are.

use cim_persistence::backend::ReadFrom;
use cim_persistence::read_model::{
    MAX_VIEW_ITEMS, MaterializedView, ReadModelError, ReadModelStore, ViewDefinition, ViewKeeper,
    ViewStatus,
};
use cim_persistence::specification::{SearchOptions, field};
use cim_persistence::state::Key;
use serde_json::{Value, json};

use crate::domain::{Board, board, place_to_kill, places, point, put};

fn worst() -> ViewDefinition {
    let options = SearchOptions::default().order_by("-delay").unwrap().fields(["delay"]).limit(2);
    ViewDefinition::new("board.JFK.>", field("delay").gt(0), options)
}

fn late(flight: u32, delay: i64) -> Board {
    Board { delay, ..board("JFK", "B6", flight) }
}

async fn until(
    store: &ReadModelStore,
    name: &str,
    is: impl Fn(&MaterializedView) -> bool,
) -> MaterializedView {
    loop {
        // A server that is just restarting does not answer.
        if let Ok(Some(view)) = store.get_view(name).await
            && is(&view)
        {
            return view;
        }
        tokio::task::yield_now().await;
    }
}

async fn up_to_date(store: &ReadModelStore, name: &str) -> Vec<(String, Value)> {
    let view = until(store, name, |view| view.status == ViewStatus::UpToDate).await;
    let items = view.result.unwrap().items.into_iter();
    items.map(|item| (item.id, item.document)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_follows_its_models() {
    for place in places().await {
        let store = place.store();
        store.save(&late(1, 10)).await.unwrap();
        store.create_view("worst", worst()).await.unwrap();
        let view = store.get_view("worst").await.unwrap().unwrap();
        assert_eq!(view.status, ViewStatus::Lagging { behind_by: 1 }, "{}", place.name);
        assert_eq!((view.definition, view.result), (worst(), None));

        let keepers = [ViewKeeper::start(&store), ViewKeeper::start(&store)];
        assert_eq!(
            up_to_date(&store, "worst").await,
            [("JFK.B6.1".to_owned(), json!({"delay": 10}))]
        );
        let mut saved = 0;
        for flight in 2..30 {
            saved = store.save(&late(flight, i64::from(flight) * 10)).await.unwrap();
        }
        store.save(&board("LGA", "B6", 1)).await.unwrap();
        let last = ("JFK.B6.29".to_owned(), json!({"delay": 290}));
        let before = ("JFK.B6.28".to_owned(), json!({"delay": 280}));
        assert_eq!(up_to_date(&store, "worst").await, [last, before]);
        let result = store.get_view("worst").await.unwrap().unwrap().result.unwrap();
        assert_eq!((result.total, result.revision, result.generation), (29, saved, 1));

        drop(keepers);
        let key = Key::new("=view.worst").unwrap();
        let plain = place.bucket.get(&key, ReadFrom::Leader).await.unwrap().value.unwrap();
        let plain: Value = serde_json::from_slice(&plain).unwrap();
        assert_eq!(
            plain["result"]["items"][0],
            json!({"id": "JFK.B6.29", "document": {"delay": 290}})
        );
        assert_eq!((&plain["format"], &plain["pattern"]), (&json!(1), &json!("board.JFK.>")));
    }
}

#[tokio::test]
async fn without_a_keeper_a_view_lags_and_says_by_how_much() {
    for place in places().await {
        let store = place.store();
        // It is older than every result, so only the generation tells that the results are not of it.
        put(&place, "board=2.JFK.B6.1", json!(late(1, 7))).await;
        store.create_view("worst", worst()).await.unwrap();
        store.save(&late(1, 10)).await.unwrap();
        let keeper = ViewKeeper::start(&store);
        up_to_date(&store, "worst").await;
        drop(keeper);
        store.save(&late(1, 20)).await.unwrap();
        store.save(&late(2, 20)).await.unwrap();
        store.save(&board("LGA", "B6", 2)).await.unwrap();
        let status = store.get_view("worst").await.unwrap().unwrap().status;
        assert_eq!(status, ViewStatus::Lagging { behind_by: 2 }, "{}", place.name);
        point(&place, Some(2)).await;
        let status = store.get_view("worst").await.unwrap().unwrap().status;
        assert_eq!(status, ViewStatus::Lagging { behind_by: 1 });
        let _keeper = ViewKeeper::start(&store);
        let rebuilt = up_to_date(&store, "worst").await;
        assert_eq!(rebuilt, [("JFK.B6.1".to_owned(), json!({"delay": 7}))]);
        point(&place, None).await;
        assert_eq!(store.get_view("worst").await.unwrap().unwrap().status, ViewStatus::Building);
    }
}

#[tokio::test]
async fn views_are_made_once_listed_and_dropped() {
    for place in places().await {
        let store = place.store();
        assert!(store.list_views().await.unwrap().is_empty());
        store.create_view("worst", worst()).await.unwrap();
        store.create_view("worst", worst()).await.unwrap();
        let other = ViewDefinition::new("board.>", field("delay").gt(0), worst().options);
        let exists = store.create_view("worst", other.clone()).await.unwrap_err();
        let text = "view worst exists with another definition; take another name or drop it";
        assert_eq!(exists.to_string(), text, "{}", place.name);
        store.create_view("all", other.clone()).await.unwrap();
        let listed = [("all".to_owned(), other.clone()), ("worst".to_owned(), worst())];
        assert_eq!(store.list_views().await.unwrap(), listed);
        assert!(store.drop_view("worst").await.unwrap());
        assert!(!store.drop_view("worst").await.unwrap());
        assert_eq!(store.get_view("worst").await.unwrap(), None);
        store.create_view("worst", other).await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_a_view_is_refused() {
    let [_, place] = places().await;
    let store = place.store();
    let with = |options| ViewDefinition { options, ..worst() };
    let too_many = SearchOptions::default().limit(MAX_VIEW_ITEMS + 1);
    for options in [SearchOptions::default(), too_many] {
        let error = store.create_view("worst", with(options)).await.unwrap_err();
        let text = "view worst cannot be made: its options need a limit of at most 1000";
        assert_eq!(error.to_string(), text);
    }
    let bad_name = store.create_view("a.b", worst()).await;
    assert!(matches!(bad_name, Err(ReadModelError::InvalidToken(_))), "{bad_name:?}");
    let pattern = ViewDefinition { pattern: "board".to_owned(), ..worst() };
    let bad_pattern = store.create_view("worst", pattern).await;
    assert!(matches!(bad_pattern, Err(ReadModelError::OutsideStore { .. })), "{bad_pattern:?}");
    let specification = ViewDefinition { specification: field("a").regex("("), ..worst() };
    let bad_regex = store.create_view("worst", specification).await;
    assert!(matches!(bad_regex, Err(ReadModelError::Specification(_))), "{bad_regex:?}");
    let nameless =
        store.create_view("worst", with(SearchOptions::default().limit(1).fields([""]))).await;
    assert!(matches!(nameless, Err(ReadModelError::Specification(_))), "{nameless:?}");
    assert!(store.list_views().await.unwrap().is_empty());
    put(&place, "=view.bad", json!(7)).await;
    let bad = store.get_view("bad").await;
    assert!(matches!(bad, Err(ReadModelError::ViewRecord { .. })), "{bad:?}");
}

#[tokio::test]
async fn a_result_that_cannot_be_computed_is_a_failure_until_it_can() {
    for place in places().await {
        let store = place.store();
        let _keeper = ViewKeeper::start(&store);
        store.create_view("worst", worst()).await.unwrap();
        store.save(&late(1, 10)).await.unwrap();
        up_to_date(&store, "worst").await;
        let key = Key::new("board.JFK.B6.2").unwrap();
        let text = cim_persistence::state::KeyWrite::new(
            key,
            cim_persistence::state::Change::Put("{".into()),
            cim_persistence::state::Expected::Anything,
        );
        place.bucket.write(cim_persistence::event::NonEmpty::one(text)).await.unwrap();
        let failed = |view: &MaterializedView| matches!(view.status, ViewStatus::Failed { .. });
        let view = until(&store, "worst", failed).await;
        assert_eq!(view.result.unwrap().total, 1);
        let ViewStatus::Failed { error } = view.status else { unreachable!() };
        assert!(error.starts_with("JFK.B6.2 at revision "), "{}: {error}", place.name);
        store.save(&late(2, 20)).await.unwrap();
        assert_eq!(up_to_date(&store, "worst").await.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_outlives_its_server() {
    let (place, mut server) = place_to_kill().await;
    let store = place.store();
    let _keeper = ViewKeeper::start(&store);
    store.create_view("worst", worst()).await.unwrap();
    store.save(&late(1, 10)).await.unwrap();
    up_to_date(&store, "worst").await;
    server.kill();
    server.restart().await.unwrap();
    while store.save(&late(2, 20)).await.is_err() {}
    let found = until(&store, "worst", |view| {
        view.status == ViewStatus::UpToDate && view.result.as_ref().is_some_and(|r| r.total == 2)
    });
    assert_eq!(found.await.result.unwrap().items[0].id, "JFK.B6.2");
}
