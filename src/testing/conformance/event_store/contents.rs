//! What comes back of an event.

use std::collections::BTreeMap;
use std::fmt::Debug;

use ipld_core::ipld::Ipld;

use super::super::{Broken, promise, promise_eq};
use super::{Outcome, Suite, event, meta, ok};
use crate::event::{NonEmpty, SchemaVersion};
use crate::store::{EventFilter, EventStore, ExpectedVersion, NewEvent, Optimistic, Unchecked};

impl<S: EventStore, I: Fn(&str) -> S::Id, M: Fn(&str) -> S::Metadata> Suite<'_, S, I, M>
where
    S::Id: PartialEq + Debug,
    S::Metadata: PartialEq + Debug,
{
    pub(super) async fn data_comes_back_whole(&self) -> Outcome {
        let stream = self.stream("data", "1")?;
        let all = every_kind_of_data();
        let new = |data: &Ipld| {
            let data = data.clone();
            event("a", 0).map(|event| NewEvent { data, ..event })
        };
        self.append_all(&stream, ExpectedVersion::NoStream, gathered(all.iter().map(new))?).await?;
        let found = self.all_of(&stream).await?;
        promise_eq!(found.len(), all.len(), "events");
        for (found, wanted) in found.iter().zip(&all) {
            promise_eq!(found.data, *wanted, "the data of event {}", found.version);
        }
        Ok(())
    }

    pub(super) async fn type_and_schema_version_come_back(&self) -> Outcome {
        let stream = self.stream("shapes", "1")?;
        let shapes = [("a", 3), ("b", 1), ("a", SchemaVersion::MAX)];
        let new = |(event_type, schema_version)| {
            event(event_type, 0).map(|event| NewEvent { schema_version, ..event })
        };
        self.append_all(&stream, ExpectedVersion::NoStream, gathered(shapes.map(new))?).await?;
        let found = self.all_of(&stream).await?;
        let told = found.iter().map(|event| (event.event_type.as_str(), event.schema_version));
        promise_eq!(told.collect::<Vec<_>>(), shapes, "types and schema versions");
        promise!(found.iter().all(|event| event.stream == stream), "an event has another stream");
        Ok(())
    }

    pub(super) async fn every_event_has_its_commits_metadata(&self) -> Outcome {
        let stream = self.stream("metadata", "1")?;
        let (first, second) = ((self.metadata)("first"), (self.metadata)("second"));
        let pair = NonEmpty::from([event("a", 1)?, event("b", 2)?]);
        ok(self.store.append_expecting_new(&stream, pair, first.clone()).await)?;
        let mut transaction = self.store.begin::<Unchecked>(stream.clone(), ());
        transaction.append(event("c", 3)?);
        ok(transaction.commit(second.clone()).await)?;
        self.append(&stream, ExpectedVersion::Exact(3), "d").await?;
        let found = self.all_of(&stream).await?;
        let told: Vec<&S::Metadata> = found.iter().map(|event| &event.metadata).collect();
        promise_eq!(told, [&first, &first, &second, &meta::<S>()], "the metadata of each event");
        Ok(())
    }

    pub(super) async fn position_returned_is_the_last_events(&self) -> Outcome {
        let stream = self.stream("positions", "1")?;
        let pair = NonEmpty::from([event("a", 1)?, event("b", 2)?]);
        let mut returned = vec![
            self.append_all(&stream, ExpectedVersion::NoStream, pair.clone()).await?,
            self.append_all(&stream, ExpectedVersion::Exact(2), pair).await?,
        ];
        let mut transaction = self.store.begin::<Optimistic>(stream.clone(), 4);
        transaction.append(event("c", 3)?);
        returned.extend(ok(transaction.commit(meta::<S>()).await)?);
        let found = self.all_of(&stream).await?;
        let lasts = found.iter().filter(|event| [2, 4, 5].contains(&event.version));
        let told: Vec<_> = lasts.map(|event| (event.version, event.position)).collect();
        promise_eq!(returned, told, "versions and positions returned");
        for (version, position) in returned {
            let later = EventFilter::for_type(stream.aggregate.clone()).after(position);
            let later = self.read(later).await?.len() as u64;
            promise_eq!(later, 5 - version, "events after the position of version {version}");
        }
        Ok(())
    }
}

/// Each kind of data that JSON has, where it is at its limit, and all of them in a list and a map. Bytes and links are not
/// asked for: a store may write plain JSON, which has neither.
fn every_kind_of_data() -> Vec<Ipld> {
    let mut data = vec![
        Ipld::Null,
        Ipld::Bool(true),
        Ipld::Integer(i64::MIN.into()),
        Ipld::Integer(u64::MAX.into()),
        Ipld::Float(-0.1),
        Ipld::String("größe 漢字 🚀 \"\\\0\n".to_owned()),
        Ipld::String(String::new()),
    ];
    let named = data.iter().cloned().enumerate().map(|(place, data)| (place.to_string(), data));
    data.extend([Ipld::List(data.clone()), Ipld::Map(named.collect::<BTreeMap<_, _>>())]);
    data
}

fn gathered(
    events: impl IntoIterator<Item = Result<NewEvent, Broken>>,
) -> Result<NonEmpty<NewEvent>, Broken> {
    let events = events.into_iter().collect::<Result<_, _>>()?;
    NonEmpty::from_vec(events).ok_or_else(|| Broken("the checks append something".to_owned()))
}
