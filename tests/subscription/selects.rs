//! Which events a query means.

use cim_persistence::backend::{Position, Start};
use cim_persistence::clock::Timestamp;
use cim_persistence::store::EventFilter;
use cim_persistence::subject::EventPattern;
use cim_persistence::subscription::SubscriptionQuery;

use crate::bench::{append, append_version, event, event_type, id, in_memory, kind, past};

#[tokio::test]
async fn each_kind_of_selection_means_its_events() {
    let shop = in_memory();
    let stored = [
        ("order", "1", "placed", 1),
        ("order", "1", "paid", 1),
        ("order", "2", "placed", 2),
        ("invoice", "1", "paid", 1),
        ("order", "2", "shipped", 1),
    ];
    for (aggregate, of, event, version) in stored {
        append_version(&shop, aggregate, of, event, version).await;
    }
    // Positions: 1 placed, 2 paid, 3 placed v2, 4 invoice paid, 5 shipped.
    let pattern = |text: &str| {
        EventPattern::parse(shop.scheme(), &format!("cim.events.shop.{text}")).unwrap()
    };
    let (orders, paid) = (EventFilter::for_type(kind("order")), event_type("paid"));
    let queries: [(SubscriptionQuery, &[u64]); 13] = [
        (SubscriptionQuery::all(), &[1, 2, 3, 4, 5]),
        (orders.clone().into(), &[1, 2, 3, 5]),
        (EventFilter::for_aggregate(kind("order"), id("1")).into(), &[1, 2]),
        (EventFilter::for_event(paid.clone()).into(), &[2, 4]),
        (orders.clone().and_event(paid.clone()).into(), &[2]),
        (pattern("order.*.placed").into(), &[1, 3]),
        (pattern("order.*.placed.v2").into(), &[3]),
        (pattern("*.1.>").into(), &[1, 2, 4]),
        (EventFilter::for_type(kind("none")).into(), &[]),
        (
            // Each event once, whatever the number of selections that mean it.
            SubscriptionQuery::of(orders.clone())
                .or(EventFilter::for_event(paid.clone()))
                .or(pattern("*.1.>")),
            &[1, 2, 3, 4, 5],
        ),
        (
            SubscriptionQuery::of(pattern("order.*.shipped"))
                .or(EventFilter::for_aggregate(kind("invoice"), id("1"))),
            &[4, 5],
        ),
        (
            // A filter's own position holds for that filter only.
            SubscriptionQuery::of(orders.clone().after(Position::new(3)))
                .or(EventFilter::for_event(paid.clone()).after(Position::new(1))),
            &[2, 4, 5],
        ),
        (SubscriptionQuery::of(orders).from(Start::After(Position::new(2))), &[3, 5]),
    ];
    for (query, wanted) in queries {
        let mut events = shop.subscribe(query.clone());
        assert_eq!(past(&mut events).await, wanted, "{query:?}");
    }
}

#[tokio::test]
async fn past_events_come_first_and_then_the_new_ones() {
    let shop = in_memory();
    append(&shop, "order", "1", "placed").await;
    append(&shop, "invoice", "1", "sent").await;
    let mut events = shop.subscribe(EventFilter::for_type(kind("order")));
    assert_eq!(past(&mut events).await, [1]);
    append(&shop, "invoice", "1", "paid").await;
    let position = append(&shop, "order", "1", "paid").await;
    let event = event(&mut events).await;
    assert_eq!((event.position().get(), event.version()), (position, 2));
    assert_eq!(event.event_type().as_str(), "paid");
}

#[tokio::test]
async fn it_begins_where_it_is_told() {
    let shop = in_memory();
    for of in ["1", "2", "1"] {
        append(&shop, "order", of, "placed").await;
    }
    let time = shop.get_events_after(Position::new(1), 1).await.unwrap()[0].recorded_at();
    let far = Timestamp::from_micros(time.as_micros() + 3_600_000_000);
    let starts: [(Start, &[u64]); 5] = [
        (Start::After(Position::new(1)), &[2, 3]),
        (Start::Since(Timestamp::from_micros(0)), &[1, 2, 3]),
        (Start::Since(far), &[]),
        (Start::Now, &[]),
        (Start::Latest, &[2, 3]),
    ];
    for (start, wanted) in starts {
        let mut events = shop.subscribe(SubscriptionQuery::all().from(start));
        assert_eq!(past(&mut events).await, wanted, "{start:?}");
    }
    let mut since = shop.subscribe(SubscriptionQuery::all().from(Start::Since(time)));
    assert!(past(&mut since).await.ends_with(&[2, 3]));
}
