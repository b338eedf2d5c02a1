//! Live views: what they hold, how they are asked, how current they are.

use std::ops::Bound;
use std::time::Duration;

use cim_persistence::read_model::{
    LiveOptions, LiveState, LiveView, ModelPattern, ReadModel, ReadModelError,
};
use cim_persistence::specification::{
    SearchOptions, Specification, SpecificationError, document_of, field, select,
};
use cim_persistence::subject::{AggregateId, InvalidToken};
use futures::TryStreamExt;
use serde_json::{Value, json};

use crate::domain::{Board, Place, board, place_to_kill, places, point, put};

const PATIENCE: Duration = Duration::from_secs(20);

async fn view_of(place: &Place, pattern: &str) -> LiveView<Board> {
    let pattern = ModelPattern::parse("board", pattern).unwrap();
    let options = LiveOptions::default().index("carrier").index("delay");
    LiveView::start(&place.store().of(), &pattern, options).await.unwrap()
}

fn late(origin: &str, carrier: &str, flight: u32, delay: i64) -> Board {
    Board { delay, ..board(origin, carrier, flight) }
}

#[tokio::test]
async fn a_view_holds_what_its_pattern_means_and_every_change() {
    for place in places().await {
        let store = place.store();
        let model = late("JFK", "B6", 1, 5);
        store.save(&model).await.unwrap();
        store.save(&board("LGA", "B6", 1)).await.unwrap();
        let view = view_of(&place, "board.JFK.>").await;
        let id = model.id().unwrap();
        assert_eq!(view.len(), 1, "{}", place.name);
        assert_eq!(*view.get(&id).unwrap(), store.load::<Board>(&id).await.unwrap().unwrap());
        assert!(view.get(&board("LGA", "B6", 1).id().unwrap()).is_none());

        let saved = store.save(&late("JFK", "UA", 1, 9)).await.unwrap();
        view.wait_for(saved, PATIENCE).await.unwrap();
        assert_eq!(view.equal("carrier", "UA").unwrap()[0].model.delay, 9);
        let saved = store.save(&late("JFK", "UA", 1, 7)).await.unwrap();
        store.delete::<Board>(&id).await.unwrap();
        view.catch_up(PATIENCE).await.unwrap();
        assert!(view.staleness().revision > saved);
        assert!(view.get(&id).is_none());
        assert!(view.equal("carrier", "B6").unwrap().is_empty());
        assert!(view.equal("delay", 9).unwrap().is_empty());
        assert_eq!(view.equal("delay", 7.0).unwrap().len(), 1);
        assert_eq!(view.staleness().state, LiveState::Current);
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused() {
    let [_, place] = places().await;
    let view = view_of(&place, "board.JFK.>").await;
    let all = Specification::All(Vec::new());
    let options = SearchOptions::default();
    let more = view.query(Some(&ModelPattern::all("board")), &all, &options).unwrap_err();
    let text = "pattern board.> means more than the live view of board.JFK.> holds; ask the store";
    assert_eq!(more.to_string(), text);
    let other = view.query(Some(&ModelPattern::all("carrier")), &all, &options);
    assert!(matches!(other, Err(ReadModelError::OutsideView { .. })), "{other:?}");
    let unknown = view.query(None, &field("dely").gt(1), &options);
    let is_unknown = |error: &ReadModelError| {
        matches!(error, ReadModelError::Specification(SpecificationError::UnknownField { .. }))
    };
    assert!(unknown.as_ref().is_err_and(is_unknown), "{unknown:?}");
    let no_index = view.equal("origin", "JFK").unwrap_err();
    let text = r#"the live view has no index on "origin"; it has ["carrier", "delay"]"#;
    assert_eq!(no_index.to_string(), text);
    let behind = view.wait_for(7, Duration::ZERO).await.unwrap_err();
    let text =
        "the live view is at revision 0 after 0ns and not yet at 7; wait longer or ask the store";
    assert_eq!(behind.to_string(), text);

    let boards = place.store().of::<Board>();
    let options = LiveOptions::default().index("dely");
    let refused = LiveView::start(&boards, &ModelPattern::all("board"), options).await;
    assert!(refused.as_ref().is_err_and(is_unknown), "{refused:?}");
    let refused = LiveView::start(&boards, &ModelPattern::all("x"), LiveOptions::default()).await;
    assert!(matches!(refused, Err(ReadModelError::OutsideStore { .. })), "{refused:?}");
}

/// Whatever way a query is carried out, it gives what looking at all documents gives.
#[tokio::test]
async fn queries_give_what_a_selection_from_all_documents_gives() {
    let [_, place] = places().await;
    let store = place.store();
    let mut documents = Vec::new();
    for number in 0..60_u32 {
        let origin = ["JFK", "LGA", "EWR"][number as usize % 3];
        let carrier = ["B6", "UA", "DL", "AA"][number as usize % 4];
        let model = late(origin, carrier, number, i64::from(number % 7));
        store.save(&model).await.unwrap();
        documents.push((model.id().unwrap(), document_of(&model).unwrap()));
    }
    let view = view_of(&place, "board.>").await;
    let specifications = [
        Specification::All(Vec::new()),
        field("carrier").eq("B6"),
        field("carrier").eq("none"),
        field("carrier").eq("B6").and(field("delay").eq(3)),
        field("carrier").eq("B6").or(field("delay").eq(3)),
        field("carrier").eq("B6").not(),
        field("origin").eq("JFK").and(field("carrier").eq("UA").not()),
    ];
    let plain = SearchOptions::default();
    let options = [
        plain.clone(),
        plain.clone().limit(0),
        plain.clone().limit(3).offset(2),
        plain.clone().offset(5),
        plain.clone().order_by("-delay").unwrap().limit(4),
        plain.clone().fields(["carrier"]).distinct(),
    ];
    let patterns = ["board.>", "board.JFK.>", "board.*.B6.*", "board.JFK.B6.0", "board.JFK.B6.7"];
    let mut queries = Vec::new();
    for pattern in patterns {
        for specification in &specifications {
            queries.extend(options.iter().map(|options| (pattern, specification, options.clone())));
        }
    }
    for (pattern, specification, mut options) in queries {
        let pattern = ModelPattern::parse("board", pattern).unwrap();
        loop {
            let own = documents.iter().filter(|(id, _)| pattern.matches(id.as_str())).cloned();
            let own = own.map(|(id, document)| (id.as_str().to_owned(), document));
            let compiled = specification.clone().compile().unwrap();
            let wanted = select(own, compiled, &options, &pattern.to_string()).unwrap();
            let found = view.query(Some(&pattern), specification, &options).unwrap();
            let ids = found.items.iter().map(|stored| stored.metadata.id.as_str());
            let wanted_ids = wanted.items.iter().map(|found| found.id.as_str());
            assert!(ids.eq(wanted_ids), "{pattern} {specification} {options:?}");
            assert_eq!((found.total, &found.next), (wanted.total, &wanted.next), "{specification}");
            match found.next {
                Some(next) => options = options.cursor(next),
                None => break,
            }
        }
    }
}

#[tokio::test]
async fn ranges_are_of_one_type_and_ordered() {
    let [_, place] = places().await;
    let boards = place.store().untyped("thing").unwrap();
    let values =
        [json!(3), json!("a"), json!(1.5), json!(null), json!(true), json!("b"), json!(-2)];
    for (number, value) in values.iter().enumerate() {
        let id = cim_persistence::subject::AggregateId::new(number.to_string()).unwrap();
        let document = json!({"inner": {"value": value}});
        boards.save_document(&id, &document, Default::default()).await.unwrap();
    }
    let options = LiveOptions::default().index("inner.value");
    let view = LiveView::start(&boards, &ModelPattern::all("thing"), options).await.unwrap();
    type Bounds = (Bound<Value>, Bound<Value>);
    let range = |bounds: Bounds| {
        let found = view.range("inner.value", bounds).unwrap();
        found.iter().map(|stored| stored.model["inner"]["value"].clone()).collect::<Vec<_>>()
    };
    use Bound::{Excluded, Included, Unbounded};
    assert_eq!(range((Included(json!(1.5)), Unbounded)), [json!(1.5), json!(3)]);
    assert_eq!(range((Unbounded, Excluded(json!(3)))), [json!(-2), json!(1.5)]);
    assert_eq!(range((Unbounded, Included(json!("a")))), [json!("a")]);
    assert_eq!(range((Excluded(json!("a")), Unbounded)), [json!("b")]);
    assert_eq!(range((Included(json!(3)), Included(json!(3.0)))), [json!(3)]);
    assert!(range((Excluded(json!(3)), Excluded(json!(3)))).is_empty());
    assert!(range((Included(json!(3)), Included(json!(1)))).is_empty());
    assert!(range((Included(json!(1)), Included(json!("b")))).is_empty());
    assert!(range((Included(json!(null)), Unbounded)).is_empty());
    let all = [json!(true), json!(-2), json!(1.5), json!(3), json!("a"), json!("b")];
    assert_eq!(range((Unbounded, Unbounded)), all);
    assert!(view.equal("inner.value", Value::Null).unwrap().is_empty());
}

#[tokio::test]
async fn models_that_do_not_decode_are_told_apart() {
    for place in places().await {
        let (store, model) = (place.store(), board("JFK", "B6", 1));
        store.save(&board("JFK", "B6", 2)).await.unwrap();
        put(&place, "board.JFK.B6.1", json!({"origin": 7})).await;
        put(&place, "board.JFK.B6.3", json!("text")).await;
        let view = view_of(&place, "board.>").await;
        let errors = view.errors();
        let ids: Vec<_> = errors.iter().map(|error| error.id.as_str()).collect();
        assert_eq!(ids, ["JFK.B6.1", "JFK.B6.3"], "{}", place.name);
        assert!(errors[0].reason.contains("expected a string"), "{errors:?}");
        assert_eq!((view.len(), view.get(&model.id().unwrap())), (1, None));
        store.save(&model).await.unwrap();
        store.delete::<Board>(&board("JFK", "B6", 3).id().unwrap()).await.unwrap();
        view.catch_up(PATIENCE).await.unwrap();
        assert_eq!((view.errors(), view.len()), (Vec::new(), 2));
    }
}

/// The same models, by code that has a newer version of their shape.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct NewerBoard(Board);

impl ReadModel for NewerBoard {
    const MODEL_TYPE: &'static str = "board";
    const SCHEMA_VERSION: u32 = 4;
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        self.0.id()
    }
}

/// As in a deployment in which some instances are newer than others.
#[tokio::test]
async fn a_model_of_another_version_holds_up_no_other() {
    for place in places().await {
        let store = place.store();
        let newer = |flight| NewerBoard(board("JFK", "B6", flight));
        let first = store.save(&newer(1)).await.unwrap();
        let view = view_of(&place, "board.>").await;
        let second = store.save(&newer(2)).await.unwrap();
        store.save(&board("JFK", "B6", 3)).await.unwrap();
        view.catch_up(PATIENCE).await.unwrap();
        assert_eq!((view.len(), view.staleness().state), (1, LiveState::Current), "{}", place.name);
        let reason = "it has schema version 4, the code has 3".to_owned();
        let id = |flight| board("JFK", "B6", flight).id().unwrap();
        let undecodable = |flight, revision| {
            let found = view.errors().into_iter().find(|error| error.id == id(flight)).unwrap();
            assert_eq!((found.revision, &found.reason), (revision, &reason));
        };
        undecodable(1, first);
        undecodable(2, second);
        assert_eq!(view.errors().len(), 2);
    }
}

/// The generations hold different models, so that one of the other generation would show.
#[tokio::test(flavor = "multi_thread")]
async fn a_switch_of_generations_is_seen_whole_or_not_at_all() {
    for place in places().await {
        for flight in 0..200 {
            put(&place, &format!("board.JFK.B6.{flight}"), json!(late("JFK", "B6", flight, 1)))
                .await;
            put(&place, &format!("board=2.JFK.B6.{flight}"), json!(late("JFK", "B6", flight, 2)))
                .await;
        }
        let view = view_of(&place, "board.>").await;
        let seen = {
            let view = view.clone();
            tokio::task::spawn_blocking(move || {
                loop {
                    let found = view.equal("carrier", "B6").unwrap();
                    let delays: std::collections::BTreeSet<_> =
                        found.iter().map(|stored| stored.model.delay).collect();
                    if (found.len(), delays.len()) != (200, 1) || delays.contains(&2) {
                        return (found.len(), delays);
                    }
                }
            })
        };
        point(&place, Some(2)).await;
        view.catch_up(PATIENCE).await.unwrap();
        assert_eq!(seen.await.unwrap(), (200, [2].into()), "{}", place.name);
        assert_eq!(view.staleness().state, LiveState::Current);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_outlives_its_server_and_says_so_meanwhile() {
    let (place, mut server) = place_to_kill().await;
    let store = place.store();
    for flight in 0..20 {
        store.save(&board("JFK", "B6", flight)).await.unwrap();
    }
    let view = view_of(&place, "board.>").await;
    server.kill();
    assert_eq!(view.equal("carrier", "B6").unwrap().len(), 20);
    let behind = view.catch_up(Duration::from_millis(100)).await;
    assert!(behind.is_err(), "{behind:?}");
    while !matches!(view.staleness().state, LiveState::Unreachable { .. }) {
        tokio::task::yield_now().await;
    }
    assert!(view.staleness().age > Duration::from_millis(100));
    server.restart().await.unwrap();
    while store.save(&late("JFK", "B6", 3, 9)).await.is_err() {}
    while view.catch_up(PATIENCE).await.is_err() {}
    assert_eq!(view.equal("delay", 9).unwrap().len(), 1);
    let staleness = view.staleness();
    assert_eq!(staleness.state, LiveState::Current);
    let stored: Vec<_> = store.query::<Board>(None).await.unwrap().try_collect().await.unwrap();
    assert_eq!(stored.len(), view.len());
}

#[tokio::test]
async fn nothing_remains_of_a_view_that_was_dropped() {
    let [place, _] = places().await;
    let view = view_of(&place, "board.>").await;
    let other = view.clone();
    drop(view);
    let saved = place.store().save(&board("JFK", "B6", 1)).await.unwrap();
    other.wait_for(saved, PATIENCE).await.unwrap();
    assert_eq!(place.watchers().await, 1);
    drop(other);
    while place.watchers().await > 0 {}
}
