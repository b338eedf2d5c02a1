//! What every [`EventStore`] promises.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use cim_persistence::event::Metadata;
//! use cim_persistence::store::{Context, NatsRepositoryConfig, Ports};
//! use cim_persistence::subject::AggregateId;
//! use cim_persistence::testing::conformance::event_store;
//!
//! let store = Context::on(Ports::in_memory(), &NatsRepositoryConfig::for_context("suite"))?;
//! let id = |name: &str| AggregateId::new(name).expect("a plain name");
//! let metadata = |name: &str| Metadata::new([("test", name)]).expect("a plain name");
//! event_store::run(&store, id, metadata).await;
//! # Ok(())
//! # }
//! ```

mod contents;
mod filters;

use std::fmt::Debug;

use futures::future::join_all;
use ipld_core::ipld::Ipld;

use super::{Broken, promise, promise_eq};
use crate::event::NonEmpty;
use crate::store::{
    Concurrency, EventFilter, EventStore, ExpectedVersion, Loaded, NewEvent, Optimistic,
    StoreFailure, StreamId, Unchecked,
};
use crate::subject::{AggregateType, EventType};

/// How many write to one aggregate at once.
const WRITERS: usize = 8;

type Outcome = Result<(), Broken>;

type Filters<S> = Vec<EventFilter<<S as EventStore>::Id, <S as EventStore>::Position>>;

/// What these methods of a suite find, each beside its name.
macro_rules! checks {
    ($suite:ident, $($check:ident),+ $(,)?) => {
        [$((stringify!($check), $suite.$check().await)),+]
    };
}

/// Checks every promise on one store, which must be new and empty. `id` and `metadata` make different ids and different
/// metadata from different names, which are of `a-z 0-9 -`.
///
/// Writers that write at once do so on the task of the caller, so a store is seen to let two of them win only if it waits
/// between looking and writing.
///
/// # Panics
/// At the first promise that is broken, with its name.
pub async fn run<S: EventStore>(
    store: &S,
    id: impl Fn(&str) -> S::Id,
    metadata: impl Fn(&str) -> S::Metadata,
) where
    S::Id: PartialEq + Debug,
    S::Metadata: PartialEq + Debug,
{
    let suite = Suite { store, id: &id, metadata: &metadata };
    let checks = checks!(
        suite,
        new_aggregate_has_no_version,
        first_append_wins_once,
        conflict_tells_both_versions,
        one_of_many_writers_wins,
        unchecked_writers_all_succeed,
        dropped_transaction_leaves_no_trace,
        unchecked_appends_after_anything,
        data_comes_back_whole,
        type_and_schema_version_come_back,
        every_event_has_its_commits_metadata,
        position_returned_is_the_last_events,
        each_filter_alone_finds_what_it_names,
        all_finds_every_event,
        filters_are_joined_once_in_order,
        after_is_exclusive,
    );
    for (name, outcome) in checks {
        assert!(outcome.is_ok(), "{name}: {outcome:?}");
    }
}

struct Suite<'s, S: EventStore, I, M> {
    store: &'s S,
    id: &'s I,
    metadata: &'s M,
}

impl<S: EventStore, I: Fn(&str) -> S::Id, M: Fn(&str) -> S::Metadata> Suite<'_, S, I, M>
where
    S::Id: PartialEq + Debug,
    S::Metadata: PartialEq + Debug,
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
        promise_eq!(self.all_of(&stream).await?.len(), 2, "events");
        Ok(())
    }

    async fn one_of_many_writers_wins(&self) -> Outcome {
        let stream = self.stream("contended", "1")?;
        for version in 0..4 {
            let one = NonEmpty::one(event("a", 0)?);
            let expected = Optimistic::expected(version);
            let write = |_| self.store.append(&stream, expected, one.clone(), meta::<S>());
            let mut winners = Vec::new();
            for outcome in join_all((0..WRITERS).map(write)).await {
                match outcome {
                    Ok((reached, _)) => winners.push(reached),
                    Err(lost) => {
                        let both = Some((version, version + 1));
                        promise_eq!(lost.conflict(), both, "expected and actual of one that lost");
                    }
                }
            }
            promise_eq!(winners, [version + 1], "the versions of those that won");
        }
        promise_eq!(self.all_of(&stream).await?.len(), 4, "events");
        Ok(())
    }

    async fn unchecked_writers_all_succeed(&self) -> Outcome {
        let stream = self.stream("crowded", "1")?;
        let one = NonEmpty::one(event("a", 0)?);
        let write = |_| self.store.append(&stream, ExpectedVersion::Any, one.clone(), meta::<S>());
        let mut reached = Vec::new();
        for outcome in join_all((0..WRITERS).map(write)).await {
            reached.push(ok(outcome)?.0);
        }
        reached.sort_unstable();
        promise_eq!(reached, (1..=WRITERS as u64).collect::<Vec<_>>(), "the versions reached");
        let events = self.all_of(&stream).await?;
        let versions: Vec<u64> = events.iter().map(|event| event.version).collect();
        promise_eq!(versions, reached, "the versions read");
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
        self.append_all(stream, expected, one).await
    }

    async fn append_all(
        &self,
        stream: &StreamId<S::Id>,
        expected: ExpectedVersion,
        events: NonEmpty<NewEvent>,
    ) -> Result<(u64, S::Position), Broken> {
        ok(self.store.append(stream, expected, events, meta::<S>()).await)
    }

    /// The events of every aggregate of the type. The checks use a type of their own each.
    async fn all_of(&self, stream: &StreamId<S::Id>) -> Result<Loaded<S>, Broken> {
        self.read(EventFilter::for_type(stream.aggregate.clone())).await
    }

    async fn read(&self, filter: EventFilter<S::Id, S::Position>) -> Result<Loaded<S>, Broken> {
        self.load(vec![filter]).await
    }

    async fn load(&self, filters: Filters<S>) -> Result<Loaded<S>, Broken> {
        ok(self.store.load_events(&filters).await)
    }
}

fn positions<S: EventStore>(events: &Loaded<S>) -> Vec<S::Position> {
    events.iter().map(|event| event.position).collect()
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
