//! Models asked as their type.

use cim_persistence::query::{QueryError, QueryOptimizer};
use cim_persistence::read_model::{ReadModelError, ReadModelStore};
use cim_persistence::specification::{SearchOptions, Specification, SpecificationError, field};
use cim_persistence::subject::AggregateId;
use futures::{StreamExt, TryStreamExt};
use serde_json::json;

use crate::domain::{Board, board, fill, in_memory, places};

#[tokio::test]
async fn pages_follow_each_other_in_order_and_say_how_many_match() {
    let (contexts, _server) = places().await;
    for context in contexts {
        fill(&context).await;
        let boards = ReadModelStore::new(&context).of::<Board>();
        let late = field("delay").ge(30).and(field("carrier").is_in(["B6", "UA"]));
        let options = SearchOptions::default().order_by("-delay").unwrap().limit(5);
        let mut delays = Vec::new();
        let mut next = options.clone();
        loop {
            let page = boards.search(None, &late, &next).await.unwrap();
            assert_eq!(page.total, 15);
            delays.extend(page.items.iter().map(|stored| stored.model.delay));
            let Some(cursor) = page.next else { break };
            next = options.clone().cursor(cursor);
        }
        let wanted = [230, 220, 210, 200, 170, 160, 150, 140, 110, 100, 90, 80, 50, 40, 30];
        assert_eq!(delays, wanted);
    }
}

#[tokio::test]
async fn the_first_the_number_and_the_stream_are_of_the_same_models() {
    let (contexts, _server) = places().await;
    for context in contexts {
        fill(&context).await;
        let boards = ReadModelStore::new(&context).of::<Board>();
        let (pattern, late) = (Some("board.JFK.*.*"), field("delay").gt(70));
        assert_eq!(boards.count(pattern, &late).await.unwrap(), 4);
        let by_delay = SearchOptions::default().order_by("-delay").unwrap();
        let first = boards.first(pattern, &late, &by_delay).await.unwrap().unwrap();
        assert_eq!(first.model, board("JFK", "UA", 2, 110));
        assert_eq!(first.metadata.id.as_str(), "JFK.UA.2");
        let batches = boards.search_stream(pattern, &late, 3).await.unwrap();
        let batches: Vec<_> = batches.try_collect().await.unwrap();
        assert!(batches.iter().all(|batch| (1..=3).contains(&batch.len())));
        let mut delays: Vec<_> = batches.iter().flatten().map(|one| one.model.delay).collect();
        delays.sort();
        assert_eq!(delays, [80, 90, 100, 110]);
        let one = boards.count(Some("board.JFK.UA.2"), &late).await.unwrap();
        assert_eq!((one, boards.count(Some("board.JFK.XX.1"), &late).await.unwrap()), (1, 0));
    }
}

/// The error is the last item, and what was read before it comes before it.
#[tokio::test]
async fn a_stream_ends_with_the_model_that_does_not_decode() {
    let context = in_memory();
    let store = ReadModelStore::new(&context);
    let documents = store.untyped("board").unwrap();
    store.save(&board("JFK", "AA", 1, 0)).await.unwrap();
    let broken = AggregateId::new("broken").unwrap();
    let document = json!({"carrier": "ZZ", "delay": 0});
    documents.save_document(&broken, &document, Default::default()).await.unwrap();
    store.save(&board("JFK", "AA", 2, 0)).await.unwrap();
    let boards = store.of::<Board>();
    for batch in [1, 10] {
        let batches = boards.search_stream(None, &field("delay").eq(0), batch).await.unwrap();
        let batches: Vec<_> = batches.collect().await;
        assert_eq!(batches.len(), 2, "{batches:?}");
        let first: Vec<_> =
            batches[0].as_ref().unwrap().iter().map(|one| one.model.flight).collect();
        assert_eq!(first, [1]);
        assert!(matches!(&batches[1], Err(QueryError::Model(ReadModelError::Shape { .. }))));
    }
}

/// `a.b` as one token and as two are different ids, and lie under different keys.
#[tokio::test]
async fn ids_are_told_apart_by_their_keys() {
    let context = in_memory();
    let users = ReadModelStore::new(&context).untyped("user").unwrap();
    let ids = [
        AggregateId::new("a.b").unwrap(),
        AggregateId::from_tokens(["a", "b"]).unwrap(),
        AggregateId::new("kim@home").unwrap(),
    ];
    for id in &ids {
        users.save_document(id, &json!({"age": 7}), Default::default()).await.unwrap();
    }
    let keys = ["user.a.b", "user.a=2Eb", "user.kim=40home"];
    let text = "subject:user.> AND age = 7";
    let optimizer = QueryOptimizer::new(&context);
    let found = crate::domain::found(&optimizer, text, None).await;
    assert_eq!(crate::domain::keys(&found), keys);
    let (specification, options) = (field("age").eq(7), SearchOptions::default().limit(1));
    let (mut next, mut paged) = (options.clone(), Vec::new());
    loop {
        let page = users.search(None, &specification, &next).await.unwrap();
        paged.extend(page.items.iter().map(|one| format!("user.{}", one.metadata.id.as_str())));
        let Some(cursor) = page.next else { break };
        next = options.clone().cursor(cursor);
    }
    assert_eq!(paged, keys);
}

#[tokio::test]
async fn what_does_not_decode_is_named_by_its_key() {
    let context = in_memory();
    let store = ReadModelStore::new(&context);
    let id = AggregateId::new("kim@home").unwrap();
    let documents = store.untyped("board").unwrap();
    documents.save_document(&id, &json!({"delay": 7}), Default::default()).await.unwrap();
    let options = SearchOptions::default();
    let refused = store.of::<Board>().search(None, &field("delay").eq(7), &options).await;
    match refused.unwrap_err() {
        QueryError::Model(ReadModelError::Shape { key, .. }) => assert_eq!(key, "board.kim=40home"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn distinct_models_are_given_whole() {
    let context = in_memory();
    fill(&context).await;
    let boards = ReadModelStore::new(&context).of::<Board>();
    let options = SearchOptions::default().fields(["carrier"]).distinct();
    let page = boards.search(None, &Specification::everything(), &options).await.unwrap();
    let found: Vec<_> = page.items.iter().map(|stored| stored.model.clone()).collect();
    let wanted = [board("EWR", "AA", 1, 0), board("EWR", "B6", 1, 20), board("EWR", "UA", 1, 40)];
    assert_eq!(found, wanted);
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused() {
    let context = in_memory();
    fill(&context).await;
    let store = ReadModelStore::new(&context);
    let boards = store.of::<Board>();
    let (all, options) = (Specification::everything(), SearchOptions::default());
    let unknown = "there is no field \"dealy\"; known are origin, carrier, flight, delay, status";
    let typo = field("dealy").gt(1);
    let refused = boards.search(None, &typo, &options).await.unwrap_err();
    assert_eq!(refused.to_string(), unknown);
    let order = options.clone().order_by("dealy").unwrap();
    assert_eq!(boards.search(None, &all, &order).await.unwrap_err().to_string(), unknown);
    assert_eq!(boards.count(None, &typo).await.unwrap_err().to_string(), unknown);
    assert!(boards.search_stream(None, &typo, 1).await.is_err());
    // Nothing is known of the fields of documents.
    assert_eq!(store.untyped("board").unwrap().count(None, &typo).await.unwrap(), 0);

    let page = boards.search(Some("board.JFK.>"), &all, &options.clone().limit(1)).await.unwrap();
    let foreign = options.clone().cursor(page.next.unwrap());
    let refused = boards.search(Some("board.LGA.>"), &all, &foreign).await.unwrap_err();
    let wanted = SpecificationError::CursorOfAnotherQuery;
    assert!(matches!(refused, QueryError::Specification(error) if error == wanted));
    let outside = boards.search(Some("carrier.>"), &all, &options).await.unwrap_err();
    assert!(matches!(outside, QueryError::Model(ReadModelError::OutsideStore { .. })));
}

#[tokio::test]
async fn a_model_of_another_shape_matters_only_where_it_matches() {
    let context = in_memory();
    fill(&context).await;
    let store = ReadModelStore::new(&context);
    let id = board("JFK", "ZZ", 1, 0);
    let id = cim_persistence::read_model::ReadModel::id(&id).unwrap();
    let broken = json!({"carrier": "ZZ", "delay": "soon"});
    let key = cim_persistence::state::Key::new(format!("board.{id}")).unwrap();
    let put = cim_persistence::state::Change::Put(broken.to_string().into());
    let write =
        cim_persistence::state::KeyWrite::new(key, put, cim_persistence::state::Expected::Anything);
    context.read_models().write(cim_persistence::event::NonEmpty::one(write)).await.unwrap();
    let boards = store.of::<Board>();
    assert_eq!(boards.count(None, &field("delay").ge(0)).await.unwrap(), 24);
    let page = boards.search(None, &field("carrier").eq("ZZ"), &SearchOptions::default()).await;
    match page.unwrap_err() {
        QueryError::Model(ReadModelError::Shape { key, .. }) => assert_eq!(key, "board.JFK.ZZ.1"),
        other => panic!("{other:?}"),
    }
}
