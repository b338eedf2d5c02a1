//! Filters: alone, joined, after a position.

use std::fmt::Debug;

use ipld_core::ipld::Ipld;

use super::super::{promise, promise_eq};
use super::{Outcome, Suite, kind, positions};
use crate::store::{EventFilter, EventStore, ExpectedVersion};

impl<S: EventStore, I: Fn(&str) -> S::Id, M: Fn(&str) -> S::Metadata> Suite<'_, S, I, M>
where
    S::Id: PartialEq + Debug,
    S::Metadata: PartialEq + Debug,
{
    pub(super) async fn each_filter_alone_finds_what_it_names(&self) -> Outcome {
        let (one, eleven) = (self.stream("filtered", "1")?, self.stream("filtered", "11")?);
        let other = self.stream("filtered-too", "1")?;
        let mut all = Vec::new();
        for (stream, expected, event_type) in [
            (&one, ExpectedVersion::NoStream, "sent"),
            (&eleven, ExpectedVersion::NoStream, "sent"),
            (&other, ExpectedVersion::NoStream, "sent"),
            (&one, ExpectedVersion::Exact(1), "sent-back"),
        ] {
            all.push(self.append(stream, expected, event_type).await?.1);
        }
        let of_type = EventFilter::for_type(one.aggregate.clone());
        let of_one = EventFilter::for_aggregate(one.aggregate.clone(), one.id.clone());
        for (what, filter, wanted) in [
            ("one type of event", EventFilter::for_event(kind("sent")?), vec![0, 1, 2]),
            ("another", EventFilter::for_event(kind("sent-back")?), vec![3]),
            ("one without events", EventFilter::for_event(kind("lost")?), vec![]),
            (
                "one after a position",
                EventFilter::for_event(kind("sent")?).after(all[0]),
                vec![1, 2],
            ),
            ("one aggregate", of_one.clone(), vec![0, 3]),
            ("one aggregate and type", of_one.and_event(kind("sent-back")?), vec![3]),
            ("a type of aggregates", of_type.clone(), vec![0, 1, 3]),
            ("that, and one type of event", of_type.and_event(kind("sent")?), vec![0, 1]),
            ("all after a position", EventFilter::all().after(all[0]), vec![1, 2, 3]),
        ] {
            let wanted: Vec<_> = wanted.into_iter().map(|index: usize| all[index]).collect();
            promise_eq!(positions::<S>(&self.read(filter).await?), wanted, "{what}");
        }
        promise_eq!(self.load(Vec::new()).await?.len(), 0, "events by no filter");
        Ok(())
    }

    /// Those of the checks before this one.
    pub(super) async fn all_finds_every_event(&self) -> Outcome {
        let all = positions::<S>(&self.read(EventFilter::all()).await?);
        let types = ["first", "contended", "data", "metadata", "filtered", "filtered-too"];
        for aggregate in types {
            let own = positions::<S>(&self.all_of(&self.stream(aggregate, "1")?).await?);
            promise!(!own.is_empty(), "there is no event of {aggregate}");
            let found = own.iter().filter(|position| all.contains(position)).count();
            promise_eq!(found, own.len(), "of all events, those of {aggregate}");
        }
        promise!(all.is_sorted_by(|one, next| one < next), "positions do not grow");
        Ok(())
    }

    pub(super) async fn filters_are_joined_once_in_order(&self) -> Outcome {
        let (one, two) = (self.stream("joined", "1")?, self.stream("joined", "2")?);
        self.append(&one, ExpectedVersion::NoStream, "a").await?;
        self.append(&two, ExpectedVersion::NoStream, "b").await?;
        self.append(&one, ExpectedVersion::Exact(1), "b").await?;
        self.append(&two, ExpectedVersion::Exact(1), "a").await?;
        let filters = [
            EventFilter::for_type(one.aggregate.clone()).and_event(kind("b")?),
            EventFilter::for_aggregate(one.aggregate.clone(), one.id.clone()),
        ];
        let events = self.load(filters.into()).await?;
        let found: Vec<(&S::Id, &str)> =
            events.iter().map(|event| (&event.stream.id, event.event_type.as_str())).collect();
        promise_eq!(found, vec![(&one.id, "a"), (&two.id, "b"), (&one.id, "b")], "what was found");
        let ordered = events.windows(2).all(|pair| pair[0].position < pair[1].position);
        promise!(ordered, "positions do not grow");
        let versions: Vec<u64> = events.iter().map(|event| event.version).collect();
        promise_eq!(versions, vec![1, 1, 2], "versions");
        Ok(())
    }

    pub(super) async fn after_is_exclusive(&self) -> Outcome {
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
}
