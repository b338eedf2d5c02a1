//! What every [`EventStore`] promises.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use cim_persistence::store::{Context, NatsRepositoryConfig, Ports};
//! use cim_persistence::subject::AggregateId;
//! use cim_persistence::testing::conformance::event_store;
//!
//! let store = Context::on(Ports::in_memory(), &NatsRepositoryConfig::for_context("suite"))?;
//! event_store::run(&store, |name| AggregateId::new(name).expect("a plain name")).await;
//! # Ok(())
//! # }
//! ```

use std::fmt::Debug;

use ipld_core::ipld::Ipld;

use super::{Broken, promise, promise_eq};
use crate::event::NonEmpty;
use crate::store::{
    EventFilter, EventStore, ExpectedVersion, NewEvent, Optimistic, Recorded, StoreFailure,
    StreamId, Unchecked,
};
use crate::subject::{AggregateType, EventType};

type Outcome = Result<(), Broken>;

/// Checks every promise on one store, which must be new and empty. `id` makes the ids of different aggregates from
/// different names.
///
/// # Panics
/// At the first promise that is broken, with its name.
pub async fn run<S: EventStore>(store: &S, id: impl Fn(&str) -> S::Id)
where
    S::Id: PartialEq + Debug,
{
    let suite = Suite { store, id: &id };
    let checks = [
        ("new_aggregate_has_no_version", suite.new_aggregate_has_no_version().await),
        ("first_append_wins_once", suite.first_append_wins_once().await),
        ("conflict_tells_both_versions", suite.conflict_tells_both_versions().await),
        ("dropped_transaction_leaves_no_trace", suite.dropped_transaction_leaves_no_trace().await),
        ("unchecked_appends_after_anything", suite.unchecked_appends_after_anything().await),
        ("filters_are_joined_once_in_order", suite.filters_are_joined_once_in_order().await),
        ("after_is_exclusive", suite.after_is_exclusive().await),
    ];
    for (name, outcome) in checks {
        assert!(outcome.is_ok(), "{name}: {outcome:?}");
    }
}

struct Suite<'s, S: EventStore, F> {
    store: &'s S,
    id: &'s F,
}

impl<S: EventStore, F: Fn(&str) -> S::Id> Suite<'_, S, F>
where
    S::Id: PartialEq + Debug,
{
    async fn new_aggregate_has_no_version(&self) -> Outcome {
        let stream = self.stream("untouched", "1")?;
        promise_eq!(ok(self.store.stream_version(&stream).await)?, None, "its version");
        Ok(())
    }

    async fn first_append_wins_once(&self) -> Outcome {
        let stream = self.stream("first", "1")?;
        let events = NonEmpty::from([event("a", 1)?, event("b", 2)?]);
        let first = self.store.append_expecting_new(&stream, events.clone(), meta::<S>()).await;
        promise_eq!(ok(first)?.0, 2, "the version after two events");
        let second = self.store.append_expecting_new(&stream, events, meta::<S>()).await;
        let conflict = second.err().and_then(|error| error.conflict());
        promise_eq!(conflict, Some((0, 2)), "expected and actual of a second creation");
        promise_eq!(ok(self.store.stream_version(&stream).await)?, Some(2), "the version kept");
        Ok(())
    }

    async fn conflict_tells_both_versions(&self) -> Outcome {
        let stream = self.stream("exact", "1")?;
        self.append(&stream, ExpectedVersion::NoStream, "a").await?;
        self.append(&stream, ExpectedVersion::Exact(1), "a").await?;
        for wrong in [1, 7] {
            let expected = ExpectedVersion::Exact(wrong);
            let one = NonEmpty::one(event("a", 0)?);
            let refused = self.store.append(&stream, expected, one, meta::<S>()).await;
            let conflict = refused.err().and_then(|error| error.conflict());
            promise_eq!(conflict, Some((wrong, 2)), "expected and actual");
        }
        promise_eq!(self.read(EventFilter::for_type(stream.aggregate)).await?.len(), 2, "events");
        Ok(())
    }

    async fn dropped_transaction_leaves_no_trace(&self) -> Outcome {
        let stream = self.stream("dropped", "1")?;
        let mut transaction = self.store.begin::<Optimistic>(stream.clone(), 0);
        transaction.append(event("a", 1)?);
        drop(transaction);
        promise_eq!(ok(self.store.stream_version(&stream).await)?, None, "after a drop");
        let empty = self.store.begin::<Optimistic>(stream.clone(), 0);
        promise!(
            ok(empty.commit(meta::<S>()).await)?.is_none(),
            "an empty commit stored something"
        );
        let mut transaction = self.store.begin::<Optimistic>(stream.clone(), 0);
        transaction.append(event("a", 1)?).append(event("b", 2)?);
        let committed = ok(transaction.commit(meta::<S>()).await)?.map(|(version, _)| version);
        promise_eq!(committed, Some(2), "the version after the commit");
        let mut late = self.store.begin::<Optimistic>(stream, 1);
        late.append(event("c", 3)?);
        let conflict = late.commit(meta::<S>()).await.err().and_then(|error| error.conflict());
        promise_eq!(conflict, Some((1, 2)), "a transaction begun on an older version");
        Ok(())
    }

    async fn unchecked_appends_after_anything(&self) -> Outcome {
        let stream = self.stream("unchecked", "1")?;
        for version in 1..=3 {
            let mut transaction = self.store.begin::<Unchecked>(stream.clone(), ());
            transaction.append(event("a", version)?);
            let committed = ok(transaction.commit(meta::<S>()).await)?;
            promise_eq!(committed.map(|c| c.0), Some(version as u64), "the version");
        }
        Ok(())
    }

    async fn filters_are_joined_once_in_order(&self) -> Outcome {
        let (one, two) = (self.stream("joined", "1")?, self.stream("joined", "2")?);
        self.append(&one, ExpectedVersion::NoStream, "a").await?;
        self.append(&two, ExpectedVersion::NoStream, "b").await?;
        self.append(&one, ExpectedVersion::Exact(1), "b").await?;
        self.append(&two, ExpectedVersion::Exact(1), "a").await?;
        let filters = [
            EventFilter::for_type(one.aggregate.clone()).and_event(kind("b")?),
            EventFilter::for_aggregate(one.aggregate.clone(), one.id.clone()),
        ];
        let events = ok(self.store.load_events(&filters).await)?;
        let found: Vec<(&S::Id, &str)> =
            events.iter().map(|event| (&event.stream.id, event.event_type.as_str())).collect();
        promise_eq!(found, vec![(&one.id, "a"), (&two.id, "b"), (&one.id, "b")], "what was found");
        let ordered = events.windows(2).all(|pair| pair[0].position < pair[1].position);
        promise!(ordered, "positions do not grow");
        let versions: Vec<u64> = events.iter().map(|event| event.version).collect();
        promise_eq!(versions, vec![1, 1, 2], "versions");
        Ok(())
    }

    async fn after_is_exclusive(&self) -> Outcome {
        let stream = self.stream("after", "1")?;
        self.append(&stream, ExpectedVersion::NoStream, "a").await?;
        let (_, position) = self.append(&stream, ExpectedVersion::Exact(1), "b").await?;
        self.append(&stream, ExpectedVersion::Exact(2), "c").await?;
        let later = self.read(EventFilter::for_type(stream.aggregate).after(position)).await?;
        let types: Vec<&str> = later.iter().map(|event| event.event_type.as_str()).collect();
        promise_eq!(types, vec!["c"], "events after a position");
        promise_eq!(later[0].data.clone(), Ipld::Integer(0), "its data");
        Ok(())
    }

    fn stream(&self, aggregate: &str, id: &str) -> Result<StreamId<S::Id>, Broken> {
        let aggregate = AggregateType::new(aggregate).map_err(|e| Broken(e.to_string()))?;
        Ok(StreamId::new(aggregate, (self.id)(id)))
    }

    async fn append(
        &self,
        stream: &StreamId<S::Id>,
        expected: ExpectedVersion,
        event_type: &str,
    ) -> Result<(u64, S::Position), Broken> {
        let one = NonEmpty::one(event(event_type, 0)?);
        ok(self.store.append(stream, expected, one, meta::<S>()).await)
    }

    async fn read(
        &self,
        filter: EventFilter<S::Id, S::Position>,
    ) -> Result<Vec<Recorded<S::Id, S::Position, S::Metadata>>, Broken> {
        ok(self.store.load_events(&[filter]).await)
    }
}

fn meta<S: EventStore>() -> S::Metadata {
    S::Metadata::default()
}

fn kind(name: &str) -> Result<EventType, Broken> {
    EventType::new(name).map_err(|e| Broken(e.to_string()))
}

fn event(event_type: &str, number: i128) -> Result<NewEvent, Broken> {
    let data = Ipld::Integer(number);
    Ok(NewEvent { event_type: kind(event_type)?, schema_version: 1, data })
}

fn ok<T, E: std::error::Error>(result: Result<T, E>) -> Result<T, Broken> {
    result.map_err(|error| Broken(format!("an operation that must succeed failed: {error}")))
}
