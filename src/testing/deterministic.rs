//! Time and ids that a test knows beforehand, for [`Ports`](crate::store::Ports).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use uuid::{Builder, Uuid};

use crate::clock::{Clock, IdSource, Timestamp};

/// A clock that stands still until a test moves it.
///
/// ```
/// use std::time::Duration;
/// use cim_persistence::clock::{Clock, Timestamp};
/// use cim_persistence::testing::FixedClock;
///
/// let clock = FixedClock::at(Timestamp::from_micros(1_000));
/// clock.advance(Duration::from_micros(5));
/// assert_eq!((clock.now(), clock.now()), (Timestamp::from_micros(1_005), Timestamp::from_micros(1_005)));
/// ```
#[derive(Debug, Default)]
pub struct FixedClock(AtomicU64);

impl FixedClock {
    /// A clock that shows this time.
    pub fn at(time: Timestamp) -> Self {
        Self(AtomicU64::new(time.as_micros()))
    }

    /// Sets it, forwards or backwards.
    pub fn set(&self, time: Timestamp) {
        self.0.store(time.as_micros(), Ordering::SeqCst);
    }

    /// Moves it forwards, by whole microseconds; at most to the last time that there is.
    pub fn advance(&self, by: Duration) {
        let add = |now: u64| Some(now.saturating_add(micros(by)));
        // It fails only when `add` gives nothing.
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// A clock that goes on by the same step each time it is read, so that every event of a test has a time of its own.
///
/// Whoever else reads it moves it too: beside a projection that runs, [`FixedClock`] is the one to use.
///
/// ```
/// use std::time::Duration;
/// use cim_persistence::clock::{Clock, Timestamp};
/// use cim_persistence::testing::SteppingClock;
///
/// let clock = SteppingClock::new(Timestamp::from_micros(10), Duration::from_micros(2));
/// assert_eq!([clock.now(), clock.now()].map(Timestamp::as_micros), [10, 12]);
/// ```
#[derive(Debug)]
pub struct SteppingClock {
    next: AtomicU64,
    step: u64,
}

impl SteppingClock {
    /// A clock that shows `first` when it is read for the first time.
    pub fn new(first: Timestamp, step: Duration) -> Self {
        Self { next: AtomicU64::new(first.as_micros()), step: micros(step) }
    }
}

impl Clock for SteppingClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.next.fetch_add(self.step, Ordering::SeqCst))
    }
}

/// Ids in a row: `00000000-0000-7000-8000-000000000001` and so on, UUIDs of version 7 as all ids are.
///
/// Two of them give the same ids, so all contexts on one stream share one: a server takes two events with one id for the
/// same event.
///
/// ```
/// use cim_persistence::clock::IdSource;
/// use cim_persistence::testing::CountingIds;
///
/// let ids = CountingIds::new();
/// assert_eq!(ids.next_id().to_string(), "00000000-0000-7000-8000-000000000001");
/// assert_eq!(ids.next_id(), CountingIds::id(2));
/// ```
#[derive(Debug, Default)]
pub struct CountingIds(AtomicU64);

impl CountingIds {
    /// Ids from the first one on.
    pub fn new() -> Self {
        Self::default()
    }

    /// The id that is given at the n-th time, counted from 1.
    pub fn id(n: u64) -> Uuid {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&n.to_be_bytes());
        Builder::from_unix_timestamp_millis(0, &random).into_uuid()
    }
}

impl IdSource for CountingIds {
    fn next_id(&self) -> Uuid {
        Self::id(self.0.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
