//! What a way to the documents will cost. Rough: it has to tell ways apart, not to predict.

use std::time::Duration;

use crate::backend::{Count, MAX_MATCHING};

/// What a round trip to a server nearby takes.
pub const ROUND_TRIP_TIME: Duration = Duration::from_micros(200);

/// What reading one model takes that comes with others in one answer, or by its key.
pub const MODEL_TIME: Duration = Duration::from_micros(4);

/// What reading one model takes that a consumer streams.
pub const STREAMED_MODEL_TIME: Duration = Duration::from_micros(3);

/// What making and ending a consumer takes.
pub const CONSUMER_TIME: Duration = Duration::from_millis(2);

/// What reading and verifying one event takes.
pub const EVENT_TIME: Duration = Duration::from_micros(10);

/// How many models are read in about the time that looking for a better way takes.
const LITTLE: u64 = 256;

/// What a way to the documents will cost, as far as counts tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// How many documents will be read; an approximation for events.
    pub read: Count,
    /// How long that will take.
    pub time: Duration,
}

impl Estimate {
    /// So many models by pattern.
    pub(super) fn models(read: Count) -> Self {
        let time = match one_answer(read) {
            true => ROUND_TRIP_TIME + times(MODEL_TIME, read),
            false => ROUND_TRIP_TIME + CONSUMER_TIME + times(STREAMED_MODEL_TIME, read),
        };
        Self { read, time }
    }

    /// So many models by their keys, after so many round trips to find these.
    pub(super) fn keys(read: Count, lookups: usize) -> Self {
        let gets = number(read).div_ceil(1000).saturating_add(lookups as u64);
        let trips = u32::try_from(gets).unwrap_or(u32::MAX);
        let time = ROUND_TRIP_TIME.saturating_mul(trips).saturating_add(times(MODEL_TIME, read));
        Self { read, time }
    }

    /// Whether no other way is worth looking for.
    pub(super) fn is_little(self) -> bool {
        matches!(self.read, Count::Exactly(read) if read <= LITTLE)
    }

    /// So many events, read from the log.
    pub(super) fn events(read: u64) -> Self {
        let read = Count::Exactly(read);
        Self { read, time: ROUND_TRIP_TIME + times(EVENT_TIME, read) }
    }

    /// So many events, by a consumer.
    pub(super) fn followed(read: u64) -> Self {
        let read = Count::Exactly(read);
        Self { read, time: CONSUMER_TIME + times(EVENT_TIME, read) }
    }
}

/// Whether so many models come in one answer.
pub(super) fn one_answer(read: Count) -> bool {
    matches!(read, Count::Exactly(read) if read < MAX_MATCHING as u64)
}

/// The number that is known of a count.
pub(super) fn number(count: Count) -> u64 {
    match count {
        Count::Exactly(number) | Count::MoreThan(number) => number,
    }
}

fn times(each: Duration, count: Count) -> Duration {
    each.saturating_mul(u32::try_from(number(count)).unwrap_or(u32::MAX))
}
