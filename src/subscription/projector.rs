//! The order of events, aggregate by aggregate: doubles are told, gaps are errors.

use std::collections::HashMap;

use crate::store::{StoredEvent, StreamId};
use crate::subject::{AggregateId, AggregateType};

/// What an event is to somebody who takes each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The next one of its aggregate: take it.
    Next,
    /// One that was taken before: ignore it.
    Duplicate,
}

/// An event is missing between those that were taken and this one. Read the aggregate's events from `expected` on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "events of {} {} are missing: version {expected} was expected, {found} came; read them from version {expected} on",
    aggregate.aggregate, aggregate.id
)]
pub struct GapError {
    /// Whose event it is.
    pub aggregate: StreamId<AggregateId>,
    /// The version that should have come.
    pub expected: u64,
    /// The version that came.
    pub found: u64,
}

/// Knows how far each aggregate's events were taken. Pure; what is done with the events is up to its owner.
///
/// It is for those who see every event of an aggregate: whoever filters by event type sees gaps where there are none. It
/// keeps one number for each aggregate that it saw.
///
/// ```
/// # use cim_persistence::store::StreamId;
/// # use cim_persistence::subject::{AggregateId, AggregateType};
/// use cim_persistence::subscription::{Admission, Projector};
///
/// let mut projector = Projector::new();
/// let order = StreamId::new(AggregateType::new("order")?, AggregateId::new("42")?);
/// assert_eq!(projector.admit_version(&order, 1), Ok(Admission::Next));
/// assert_eq!(projector.admit_version(&order, 1), Ok(Admission::Duplicate));
/// let gap = projector.admit_version(&order, 3).unwrap_err();
/// assert_eq!((gap.expected, gap.found), (2, 3));
/// assert_eq!(projector.version(&order), 1);
/// # Ok::<(), cim_persistence::subject::InvalidToken>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Projector {
    versions: HashMap<AggregateType, HashMap<AggregateId, u64>>,
    joins: bool,
}

impl Projector {
    /// Nothing was taken yet: of each aggregate version 1 has to come first.
    pub fn new() -> Self {
        Self::default()
    }

    /// For those who begin in the middle of a log: of each aggregate any version may come first.
    pub fn joining() -> Self {
        Self { joins: true, ..Self::default() }
    }

    /// Takes an event, unless it was taken before.
    ///
    /// # Errors
    /// [`GapError`] when events before it were not taken. Nothing changes then.
    pub fn admit(&mut self, event: &StoredEvent) -> Result<Admission, GapError> {
        self.take(event.aggregate_type(), event.aggregate_id(), event.version())
    }

    /// Takes a version of an aggregate, unless it was taken before.
    ///
    /// # Errors
    /// As [`admit`](Self::admit).
    pub fn admit_version(
        &mut self,
        aggregate: &StreamId<AggregateId>,
        version: u64,
    ) -> Result<Admission, GapError> {
        self.take(&aggregate.aggregate, &aggregate.id, version)
    }

    /// The last version of an aggregate that was taken; 0 for none.
    pub fn version(&self, aggregate: &StreamId<AggregateId>) -> u64 {
        self.known(&aggregate.aggregate, &aggregate.id).unwrap_or(0)
    }

    /// Begins after a version that was taken elsewhere or earlier.
    pub fn resume(&mut self, aggregate: StreamId<AggregateId>, version: u64) {
        self.versions.entry(aggregate.aggregate).or_default().insert(aggregate.id, version);
    }

    fn known(&self, aggregate: &AggregateType, id: &AggregateId) -> Option<u64> {
        self.versions.get(aggregate)?.get(id).copied()
    }

    fn take(
        &mut self,
        aggregate: &AggregateType,
        id: &AggregateId,
        version: u64,
    ) -> Result<Admission, GapError> {
        let taken = match self.known(aggregate, id) {
            None if self.joins => version.saturating_sub(1),
            known => known.unwrap_or(0),
        };
        if version <= taken {
            return Ok(Admission::Duplicate);
        }
        if version != taken + 1 {
            let aggregate = StreamId::new(aggregate.clone(), id.clone());
            return Err(GapError { aggregate, expected: taken + 1, found: version });
        }
        self.resume(StreamId::new(aggregate.clone(), id.clone()), version);
        Ok(Admission::Next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aggregate(kind: &str, id: &str) -> StreamId<AggregateId> {
        StreamId::new(AggregateType::new(kind).unwrap(), AggregateId::new(id).unwrap())
    }

    #[test]
    fn each_aggregate_has_an_order_of_its_own() {
        let mut projector = Projector::new();
        let all = [aggregate("order", "1"), aggregate("order", "2"), aggregate("invoice", "1")];
        for version in 1..=3 {
            for aggregate in &all {
                assert_eq!(projector.admit_version(aggregate, version), Ok(Admission::Next));
            }
        }
        for version in 1..=3 {
            assert_eq!(projector.admit_version(&all[0], version), Ok(Admission::Duplicate));
        }
        let gap = GapError { aggregate: all[1].clone(), expected: 4, found: 6 };
        assert_eq!(projector.admit_version(&all[1], 6), Err(gap));
        assert_eq!(projector.version(&all[1]), 3);
        assert_eq!(projector.admit_version(&all[1], 4), Ok(Admission::Next));
    }

    #[test]
    fn first_version_is_one_unless_it_joins_or_resumes() {
        let order = aggregate("order", "1");
        let gap = GapError { aggregate: order.clone(), expected: 1, found: 2 };
        assert_eq!(Projector::new().admit_version(&order, 2), Err(gap.clone()));
        assert!(gap.to_string().contains("order 1"), "{gap}");
        let mut joining = Projector::joining();
        assert_eq!(joining.admit_version(&order, 7), Ok(Admission::Next));
        assert_eq!(joining.admit_version(&order, 7), Ok(Admission::Duplicate));
        assert!(joining.admit_version(&order, 9).is_err());
        let mut resumed = Projector::new();
        resumed.resume(order.clone(), 7);
        assert_eq!(resumed.admit_version(&order, 7), Ok(Admission::Duplicate));
        assert_eq!(resumed.admit_version(&order, 8), Ok(Admission::Next));
    }
}
