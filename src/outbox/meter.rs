//! The metrics of a relay. What they mean stands in `README.md`.

use std::time::Duration;

use metrics::{Counter, Gauge};

/// The metrics of one relay, looked up once.
pub(super) struct Meter {
    published: Counter,
    failed: Counter,
    parked: Counter,
    lag: Gauge,
    unpublished: Gauge,
}

impl Meter {
    pub(super) fn of(relay: &str) -> Self {
        let relay = || relay.to_owned();
        Self {
            published: metrics::counter!("cim_outbox_published_total", "relay" => relay()),
            failed: metrics::counter!("cim_outbox_failed_total", "relay" => relay()),
            parked: metrics::counter!("cim_outbox_parked_total", "relay" => relay()),
            lag: metrics::gauge!("cim_outbox_lag_seconds", "relay" => relay()),
            unpublished: metrics::gauge!("cim_outbox_unpublished", "relay" => relay()),
        }
    }

    pub(super) fn published(&self) {
        self.published.increment(1);
    }

    pub(super) fn failed(&self) {
        self.failed.increment(1);
    }

    pub(super) fn parked(&self) {
        self.parked.increment(1);
    }

    pub(super) fn lag(&self, lag: Duration, unpublished: usize) {
        self.lag.set(lag.as_secs_f64());
        self.unpublished.set(unpublished as f64);
    }
}
