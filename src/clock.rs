//! Time and identity, the two things that code under test must be able to fix.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A point in time: microseconds since 1970-01-01 00:00 UTC.
///
/// Microseconds, so that every JSON reader keeps it exact. [`Display`](fmt::Display) writes RFC 3339.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The point in time so many microseconds after 1970-01-01 00:00 UTC.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since 1970-01-01 00:00 UTC.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The system clock's time.
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// The time that passed since `earlier`, zero when it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for Timestamp {
    /// A time before 1970 becomes 1970.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_micros(time.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i128::from(self.0) * 1000;
        match time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
            .map(|t| t.format(&time::format_description::well_known::Rfc3339))
        {
            Ok(Ok(text)) => f.write_str(&text),
            _ => write!(f, "{}us", self.0),
        }
    }
}

/// Tells the time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// Makes event ids.
pub trait IdSource: fmt::Debug + Send + Sync {
    /// An id that no other call, in any process, returns.
    fn next_id(&self) -> Uuid;
}

/// The machine's clock, and UUIDs of version 7 made from it.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Clock for System {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

impl IdSource for System {
    fn next_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}
