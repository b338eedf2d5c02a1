//! Events by stream: type, slug and id.

use cim_persistence::backend::Position;
use cim_persistence::event::NonEmpty;
use cim_persistence::store::{
    CommitInfo, EventStreams, ExpectedVersion, NewEvent, StoreError, StoredEvent, StreamHead,
    StreamKey, Streams,
};
use cim_persistence::subject::{AggregateId, AggregateType, EventType, InvalidToken};
use futures::TryStreamExt;
use ipld_core::ipld::Ipld;
use uuid::Uuid;

use super::contexts::both;

fn kind(name: &str) -> AggregateType {
    AggregateType::new(name).unwrap()
}

fn key(name: &str, slug: &str, id: &str) -> StreamKey {
    StreamKey::new(kind(name), slug, id).unwrap()
}

fn types<const N: usize>(names: [&str; N]) -> NonEmpty<EventType> {
    NonEmpty::from(names.map(|name| EventType::new(name).unwrap()))
}

fn events<const N: usize>(names: [&str; N]) -> NonEmpty<NewEvent> {
    let event = |event_type| NewEvent { event_type, schema_version: 1, data: Ipld::Null };
    NonEmpty::from_vec(types(names).into_iter().map(event).collect()).unwrap()
}

fn shown(event: Option<StoredEvent>) -> Option<(String, u64)> {
    event.map(|event| (event.event_type().to_string(), event.position().get()))
}

#[tokio::test]
async fn an_append_needs_the_streams_version_and_tells_the_position() {
    for test in both().await {
        let streams = EventStreams::of(test.context());
        let (chair, request) = (key("order", "two chairs", "7"), Uuid::now_v7());
        let first = streams.append(&chair, events(["placed", "paid"]), 0, request).await.unwrap();
        assert_eq!(first, Position::new(2));
        for wrong in [0, 1, 3] {
            let refused = streams.append(&chair, events(["shipped"]), wrong, request).await;
            match refused {
                Err(StoreError::Conflict { expected, actual }) => {
                    assert_eq!((expected, actual), (wrong, 2));
                }
                other => panic!("{wrong}: {other:?}"),
            }
        }
        let next = streams.append(&chair, events(["shipped"]), 2, Uuid::nil()).await.unwrap();
        assert_eq!(next, Position::new(3));

        let read = streams.get(&chair, 1).await.unwrap();
        let seen: Vec<_> =
            read.iter().map(|e| (e.event_type().as_str(), e.correlation_id())).collect();
        assert_eq!(seen, [("paid", request), ("shipped", Uuid::nil())]);
        assert_eq!(read[0].aggregate_id().as_str(), "two=20chairs.7");
        let all: Vec<_> = streams.get_all(Position::new(1)).try_collect().await.unwrap();
        let positions: Vec<u64> = all.iter().map(|event| event.position().get()).collect();
        assert_eq!(positions, [2, 3]);
    }
}

#[tokio::test]
async fn streams_are_found_by_type_slug_and_id() {
    for test in both().await {
        let streams = EventStreams::of(test.context());
        let table =
            [key("order", "chair", "1"), key("order", "chair", "2"), key("order", "a.b", "1")];
        for stream in table.iter().chain([&key("offer", "chair", "1")]) {
            streams.append(stream, events(["placed", "paid"]), 0, Uuid::nil()).await.unwrap();
        }
        // An aggregate of the same type that is no stream.
        let (other, info) = (AggregateId::new("alone").unwrap(), CommitInfo::default());
        let new = ExpectedVersion::NoStream;
        test.context()
            .append(&kind("order"), &other, new, &events(["placed"]), &info)
            .await
            .unwrap();

        let [chair1, chair2, dotted] = table;
        let offer = key("offer", "chair", "1");
        for (asked, found) in [
            (Streams::All, vec![&offer, &dotted, &chair1, &chair2]),
            (Streams::OfType(kind("order")), vec![&dotted, &chair1, &chair2]),
            (Streams::WithSlug(kind("order"), "chair".into()), vec![&chair1, &chair2]),
            (Streams::WithSlug(kind("order"), "a.b".into()), vec![&dotted]),
            (Streams::WithId(kind("order"), "1".into()), vec![&dotted, &chair1]),
            (Streams::One(chair2.clone()), vec![&chair2]),
            (Streams::OfType(kind("none")), vec![]),
        ] {
            let listed = streams.list(&asked).await.unwrap();
            let keys: Vec<&StreamKey> =
                listed.iter().map(|StreamHead { stream, .. }| stream).collect();
            assert_eq!(keys, found, "{asked:?}");
            assert!(listed.iter().all(|stream| stream.head.version == 2), "{listed:?}");
        }
        let refused = streams.list(&Streams::WithSlug(kind("order"), String::new())).await;
        assert!(
            matches!(refused, Err(StoreError::InvalidToken(InvalidToken::Empty { what: "id" }))),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn the_last_event_of_given_types_is_found_wherever_it_lies() {
    for test in both().await {
        let streams = EventStreams::of(test.context());
        let (one, two) = (key("order", "chair", "1"), key("order", "table", "2"));
        let none = streams.last_of_types(&Streams::All, &types(["placed"])).await.unwrap();
        assert_eq!(shown(none), None);
        // Positions 1 to 3, 4 to 6, 7.
        let append = async |stream, names, version| {
            streams.append(stream, names, version, Uuid::nil()).await.unwrap();
        };
        append(&one, events(["placed", "paid", "noted"]), 0).await;
        append(&two, events(["placed", "paid", "paid"]), 0).await;
        append(&one, events(["noted"]), 3).await;
        let other = key("offer", "chair", "1");
        append(&other, events(["paid"]), 0).await;

        let orders = || Streams::OfType(kind("order"));
        for (asked, wanted, found) in [
            // The newest of all; the newest of a stream; before the newest of every stream.
            (orders(), types(["noted"]), Some(("noted", 7))),
            (orders(), types(["paid"]), Some(("paid", 6))),
            (orders(), types(["placed"]), Some(("placed", 4))),
            (orders(), types(["placed", "noted"]), Some(("noted", 7))),
            (Streams::One(one.clone()), types(["paid", "placed"]), Some(("paid", 2))),
            (Streams::One(two.clone()), types(["noted"]), None),
            (Streams::All, types(["paid"]), Some(("paid", 8))),
            (orders(), types(["unknown"]), None),
        ] {
            let last = streams.last_of_types(&asked, &wanted).await.unwrap();
            let found = found.map(|(name, position)| (name.to_owned(), position));
            assert_eq!(shown(last), found, "{asked:?} {wanted:?}");
        }

        // Between the newest of the wanted type that ends a stream, and the end of the log, lies a newer one.
        append(&two, events(["placed", "noted"]), 3).await;
        let last = streams.last_of_types(&orders(), &types(["placed"])).await.unwrap();
        assert_eq!(shown(last), Some(("placed".into(), 9)));
        append(&other, events(["placed"]), 1).await;
        append(&one, events(["placed", "paid"]), 4).await;
        let last = streams.last_of_types(&Streams::All, &types(["placed"])).await.unwrap();
        assert_eq!(shown(last), Some(("placed".into(), 12)));
    }
}

#[test]
fn a_key_is_made_of_ids() {
    let order = || kind("order");
    assert!(matches!(StreamKey::new(order(), "", "1"), Err(InvalidToken::Empty { what: "id" })));
    assert!(matches!(StreamKey::new(order(), "a", "b\n"), Err(InvalidToken::Control { .. })));
    let key = StreamKey::new(order(), "a/b", "1").unwrap();
    assert_eq!((key.stream_type(), key.slug(), key.id()), (&order(), "a/b", "1"));
}

/// More streams than one answer holds: the events are read instead.
#[tokio::test]
async fn many_streams_are_listed_all_the_same() {
    let [memory, _] = both().await;
    let (context, streams) = (memory.context(), EventStreams::of(memory.context()));
    let info = CommitInfo::default();
    for hundred in 0..11 {
        let part = |n| {
            let key = key("order", "chair", &format!("{hundred}-{n}"));
            (
                kind("order"),
                key.aggregate_id().clone(),
                ExpectedVersion::NoStream,
                events(["placed"]),
            )
        };
        let parts = NonEmpty::from_vec((0..100).map(part).collect()).unwrap();
        context.append_batch(&parts, &info).await.unwrap();
    }
    let listed = streams.list(&Streams::OfType(kind("order"))).await.unwrap();
    assert_eq!(listed.len(), 1100);
    let last = streams.last_of_types(&Streams::All, &types(["placed"])).await.unwrap();
    assert_eq!(shown(last), Some(("placed".into(), 1100)));
}
