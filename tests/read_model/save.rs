//! Saving, loading, deleting.

use std::collections::BTreeMap;

use cim_persistence::read_model::{ExpectedRevision, ReadModel, ReadModelError, SaveModel};
use cim_persistence::subject::AggregateId;
use serde_json::json;

use crate::domain::{Board, board, places};

#[tokio::test]
async fn a_model_is_loaded_as_it_was_saved_with_what_is_known_of_it() {
    for place in places().await {
        let store = place.store();
        let said = BTreeMap::from([("by".to_owned(), "Zoë\nKim".to_owned())]);
        let saved = board("JFK", "B6", 1);
        let revision = store.save_with(&saved, said.clone()).await.unwrap();
        let id = saved.id().unwrap();
        let stored = store.load::<Board>(&id).await.unwrap().unwrap();
        assert_eq!(stored.model, saved, "{}", place.name);
        let known = stored.metadata;
        assert_eq!((known.model_type.as_str(), &known.id), ("board", &id));
        assert_eq!((known.schema_version, known.revision), (3, revision));
        assert_eq!((known.position, known.metadata), (None, said));
        store.delete::<Board>(&id).await.unwrap();
        assert_eq!(store.load::<Board>(&id).await.unwrap(), None);
        store.delete::<Board>(&id).await.unwrap();
    }
}

#[tokio::test]
async fn many_come_in_the_order_asked() {
    for place in places().await {
        let store = place.store();
        for flight in 0..5 {
            store.save(&board("JFK", "B6", flight)).await.unwrap();
        }
        let ids = [4, 9, 0].map(|flight| board("JFK", "B6", flight).id().unwrap());
        let loaded = store.of::<Board>().load_many(&ids).await.unwrap();
        let flights: Vec<_> = loaded.iter().map(|s| s.as_ref().map(|s| s.model.flight)).collect();
        assert_eq!(flights, [Some(4), None, Some(0)], "{}", place.name);
    }
}

#[tokio::test]
async fn an_expected_revision_decides() {
    for place in places().await {
        let boards = place.store().of::<Board>();
        let model = board("JFK", "B6", 1);
        let expecting = |expected| SaveModel { expected, ..SaveModel::default() };
        let first = boards.save(&model, expecting(ExpectedRevision::New)).await.unwrap();
        let again = boards.save(&model, expecting(ExpectedRevision::New)).await;
        match again {
            Err(ReadModelError::Conflict { key, expected: 0, actual }) => {
                assert_eq!((key.as_str(), actual), ("board.JFK.B6.1", first));
            }
            other => panic!("{other:?}"),
        }
        let second = boards.save(&model, expecting(ExpectedRevision::Exact(first))).await.unwrap();
        let late = boards.save(&model, expecting(ExpectedRevision::Exact(first))).await;
        let text = format!("board.JFK.B6.1 has revision {second}, not {first}; load it again");
        assert_eq!(late.unwrap_err().to_string(), text);
        let id = model.id().unwrap();
        boards.delete(&id, ExpectedRevision::Exact(second)).await.unwrap();
        boards.save(&model, expecting(ExpectedRevision::New)).await.unwrap();
    }
}

#[tokio::test]
async fn one_of_many_savers_wins_each_revision() {
    for place in places().await {
        let boards = place.store().of::<Board>();
        let model = board("JFK", "B6", 1);
        let saves = (0..16).map(|_| {
            let how = SaveModel { expected: ExpectedRevision::New, ..SaveModel::default() };
            boards.save(&model, how)
        });
        let outcomes = futures::future::join_all(saves).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{}", place.name);
    }
}

#[tokio::test]
async fn documents_without_a_type_are_the_same_documents() {
    for place in places().await {
        let store = place.store();
        let saved = board("JFK", "B6", 1);
        store.save(&saved).await.unwrap();
        let boards = store.untyped("board").unwrap();
        let stored = boards.load(&saved.id().unwrap()).await.unwrap().unwrap();
        let document = json!({ "origin": "JFK", "carrier": "B6", "flight": 1, "delay": 0 });
        assert_eq!(stored.model, document, "{}", place.name);
        let id = AggregateId::from_tokens(["LGA", "AA", "7"]).unwrap();
        let document = json!({ "origin": "LGA", "carrier": "AA", "flight": 7, "delay": -3 });
        boards.save_document(&id, &document, SaveModel::default()).await.unwrap();
        let typed = store.load::<Board>(&id).await.unwrap().unwrap();
        assert_eq!(typed.model, Board { delay: -3, ..board("LGA", "AA", 7) });
    }
}

#[tokio::test]
async fn nothing_is_written_to_delete_what_is_not_there() {
    for place in places().await {
        let store = place.store();
        store.delete::<Board>(&board("JFK", "B6", 1).id().unwrap()).await.unwrap();
        assert_eq!(place.bucket.keys(">").await.unwrap(), [], "{}", place.name);
    }
}

/// The same documents, by code that has another version of their shape.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct NewerBoard(serde_json::Value);

impl ReadModel for NewerBoard {
    const MODEL_TYPE: &'static str = "board";
    const SCHEMA_VERSION: u32 = 4;
    fn id(&self) -> Result<AggregateId, cim_persistence::subject::InvalidToken> {
        AggregateId::new("JFK")
    }
}

#[tokio::test]
async fn a_document_of_another_version_is_its_own_error() {
    for place in places().await {
        let store = place.store();
        let revision = store.save(&board("JFK", "B6", 1)).await.unwrap();
        let id = board("JFK", "B6", 1).id().unwrap();
        let newer = store.load::<NewerBoard>(&id).await.unwrap_err().to_string();
        let text =
            format!("board.JFK.B6.1 at revision {revision} has schema version 3, the code has 4");
        assert_eq!(newer, text, "{}", place.name);
        let documents = store.untyped("board").unwrap();
        let stored = documents.load(&id).await.unwrap().unwrap();
        assert_eq!(stored.metadata.schema_version, 3);
        documents.save_document(&id, &stored.model, Default::default()).await.unwrap();
        assert_eq!(store.load::<Board>(&id).await.unwrap().unwrap().metadata.schema_version, 3);
    }
}

/// A model by a mapping is read by any client as the mapping makes it, and as nothing else by the service.
#[tokio::test]
async fn a_mapped_model_is_stored_by_its_mapping() {
    use cim_persistence::read_model::Mapping;
    use futures::TryStreamExt;
    for place in places().await {
        let mapping = Mapping::<Board>::new()
            .rename("delay", "minutes")
            .derive("late", |board: &Board| (board.delay > 30).into());
        let boards = place.store().mapped("board", mapping).unwrap();
        let (model, id) =
            (Board { delay: 45, ..board("JFK", "B6", 1) }, board("JFK", "B6", 1).id().unwrap());
        boards.save(&id, &model, Default::default()).await.unwrap();
        assert_eq!(boards.load(&id).await.unwrap().unwrap().model, model, "{}", place.name);
        let document = boards.documents().load(&id).await.unwrap().unwrap().model;
        assert_eq!((&document["minutes"], &document["late"]), (&45.into(), &true.into()));
        let all: Vec<_> = boards.query(None).await.unwrap().try_collect().await.unwrap();
        assert_eq!(all[0].model, model);
        boards.documents().save_document(&id, &7.into(), Default::default()).await.unwrap();
        match boards.load(&id).await {
            Err(error @ ReadModelError::Mapping { .. }) => assert_eq!(
                error.to_string(),
                "board JFK.B6.1: only an object has fields to be mapped, and this is a number"
            ),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_document_of_another_shape_is_its_own_error() {
    for place in places().await {
        let store = place.store();
        let id = AggregateId::new("broken").unwrap();
        let boards = store.untyped("board").unwrap();
        let revision =
            boards.save_document(&id, &json!({ "origin": 1 }), SaveModel::default()).await.unwrap();
        match store.load::<Board>(&id).await {
            Err(ReadModelError::Shape { key, revision: found, reason }) => {
                assert_eq!((key.as_str(), found), ("board.broken", revision));
                assert!(reason.contains("invalid type"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(store.untyped("a b"), Err(ReadModelError::InvalidToken(_))));
    }
}

#[tokio::test]
async fn a_plain_client_reads_a_model_as_plain_json() {
    let [place, _] = places().await;
    place.store().save(&board("JFK", "B6", 1)).await.unwrap();
    let server = place.server.as_ref().unwrap();
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let bucket = jetstream.get_key_value(server.name("cim-readmodels-flights")).await.unwrap();
    let value = bucket.get("board.JFK.B6.1").await.unwrap().unwrap();
    let text = r#"{"origin":"JFK","carrier":"B6","flight":1,"delay":0}"#;
    assert_eq!(value, text.as_bytes());
}
