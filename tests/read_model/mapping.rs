//! Mappings: how fields are stored, and that nothing is lost on the way there and back.

use std::time::Duration;

use cim_persistence::read_model::{
    InvalidMapping, LiveOptions, LiveView, Mapping, ModelPattern, ReadModel, ReadModelError,
};
use cim_persistence::specification::{SearchOptions, field};
use cim_persistence::subject::{AggregateId, InvalidToken};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::domain::{places, put};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Flight {
    number: String,
    delay: i64,
    seats: Vec<u32>,
    cache: Vec<String>,
}

impl ReadModel for Flight {
    const MODEL_TYPE: &'static str = "flight";
    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::new(&self.number)
    }
    fn mapping() -> Mapping {
        Mapping::none()
            .rename("delay", "delay_seconds")
            .convert("delay", |minutes| scaled(&minutes, 60, 1), |seconds| scaled(&seconds, 1, 60))
            .exclude("cache", json!([]))
            .derive("seat_count", |flight| flight["seats"].as_array().map_or(0, Vec::len).into())
    }
}

fn scaled(value: &Value, times: i64, by: i64) -> Result<Value, String> {
    let number = value.as_i64().ok_or("it is no whole number")?;
    let scaled = number.checked_mul(times).ok_or("it is too large")?;
    Ok(Value::from(scaled / by))
}

fn flight() -> Flight {
    Flight { number: "B6".to_owned(), delay: 7, seats: vec![1, 2], cache: Vec::new() }
}

#[tokio::test]
async fn models_are_stored_and_read_as_their_mapping_says() {
    for place in places().await {
        let (store, flight) = (place.store(), flight());
        let cached = Flight { cache: vec!["x".to_owned()], ..flight.clone() };
        let saved = store.save(&cached).await.unwrap();
        let id = flight.id().unwrap();
        let stored = store.untyped("flight").unwrap().load(&id).await.unwrap().unwrap().model;
        let wanted =
            json!({"number": "B6", "delay_seconds": 420, "seats": [1, 2], "seat_count": 2});
        assert_eq!(stored, wanted, "{}", place.name);
        assert_eq!(store.load::<Flight>(&id).await.unwrap().unwrap().model, flight);

        let options = LiveOptions::default().index("delay_seconds");
        let flights = store.of::<Flight>();
        let view = LiveView::start(&flights, &ModelPattern::all("flight"), options).await.unwrap();
        view.wait_for(saved, Duration::from_secs(20)).await.unwrap();
        assert_eq!(view.equal("delay_seconds", 420).unwrap()[0].model, flight);
        let two_seats = field("seat_count").eq(2);
        let page = view.query(None, &two_seats, &SearchOptions::default()).unwrap();
        assert_eq!(page.items[0].model, flight);
        let by_model_name = view.query(None, &field("delay").eq(7), &SearchOptions::default());
        assert!(matches!(by_model_name, Err(ReadModelError::Specification(_))));
    }
}

#[tokio::test]
async fn what_does_not_fit_its_mapping_is_refused() {
    let [_, place] = places().await;
    let store = place.store();
    let error = store.save(&Flight { delay: i64::MAX, ..flight() }).await.unwrap_err();
    let text = "a model of type flight cannot be encoded: \
                field \"delay\" cannot be converted: it is too large";
    assert_eq!(error.to_string(), text);
    let id = flight().id().unwrap();
    assert_eq!(store.load::<Flight>(&id).await.unwrap(), None);
    put(&place, "flight.B6", json!({"number": "B6", "delay_seconds": "no", "seats": []})).await;
    match store.load::<Flight>(&id).await {
        Err(ReadModelError::Shape { key, reason, .. }) => {
            assert_eq!(key, "flight.B6");
            assert_eq!(reason, "field \"delay\" cannot be converted: it is no whole number");
        }
        other => panic!("{other:?}"),
    }
    let mapping = Mapping::none().rename("a", "b");
    let twice = InvalidMapping::Twice { field: "b".to_owned() };
    assert_eq!(mapping.write(json!({"a": 1, "b": 2})), Err(twice));
    let twice = InvalidMapping::Twice { field: "a".to_owned() };
    assert_eq!(mapping.read(json!({"a": 1, "b": 2})), Err(twice));
    assert_eq!(mapping.write(json!([])), Err(InvalidMapping::NoObject));
    assert_eq!(Mapping::none().write(json!([])), Ok(json!([])));
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(
        number in ".*", delay in -1_000_000_000_i64..1_000_000_000, seats: Vec<u32>,
    ) {
        let flight = Flight { number, delay, seats, cache: Vec::new() };
        let model = serde_json::to_value(&flight).unwrap();
        let stored = Flight::mapping().write(model.clone()).unwrap();
        prop_assert_eq!(&stored["delay_seconds"], &json!(delay * 60));
        prop_assert_eq!(Flight::mapping().read(stored).unwrap(), model);
    }
}
