//! What is asked of the flights: a board per flight number, and how punctual each carrier is.

use cim_persistence::projection::{Changes, Declared, Projection, Rejection};
use cim_persistence::read_model::{IndexSpec, ReadModel};
use cim_persistence::repository::Aggregate;
use cim_persistence::store::{EventFilter, StoredEvent};
use cim_persistence::subject::{AggregateId, AggregateType, InvalidToken};
use serde::{Deserialize, Serialize};

use crate::domain::{Aircraft, Carrier, FlightEvent, FlightId, Moment};

/// The last flight of a number from an airport, and how many there were: `board.<origin>.<carrier>.<number>`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Board {
    pub(crate) origin: String,
    pub(crate) carrier: String,
    pub(crate) flight: u16,
    /// Day and scheduled time, as one reads and sorts them.
    pub(crate) last_departure: String,
    /// Minutes behind the plan, at departure.
    pub(crate) delay: Option<i16>,
    pub(crate) status: Status,
    pub(crate) flights: u64,
    /// The aircraft that flew, or did not: of two flights at one time the last by name counts.
    pub(crate) tailnum: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    #[default]
    Departed,
    Arrived,
    Diverted,
    Cancelled,
}

/// How a carrier's flights went: `punctuality.<carrier>`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Punctuality {
    pub(crate) carrier: String,
    pub(crate) departed: u64,
    /// Departures more than a quarter of an hour behind the plan.
    pub(crate) late: u64,
    pub(crate) diverted: u64,
    pub(crate) cancelled: u64,
}

impl ReadModel for Board {
    const MODEL_TYPE: &'static str = "board";

    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::from_tokens([&self.origin, &self.carrier, &self.flight.to_string()])
    }

    fn indexes() -> Vec<IndexSpec> {
        vec![IndexSpec::on(["carrier"]), IndexSpec::on(["delay"])]
    }
}

impl ReadModel for Punctuality {
    const MODEL_TYPE: &'static str = "punctuality";

    fn id(&self) -> Result<AggregateId, InvalidToken> {
        AggregateId::new(&self.carrier)
    }
}

/// Keeps both.
pub(crate) struct Boards;

impl Projection for Boards {
    const NAME: &'static str = "boards";
    type Event = FlightEvent;

    fn models() -> Vec<Declared> {
        vec![Declared::of::<Board>(), Declared::of::<Punctuality>()]
    }

    fn filters() -> Vec<EventFilter> {
        AggregateType::new(Aircraft::TYPE).map(EventFilter::for_type).into_iter().collect()
    }

    fn project(
        &self,
        event: FlightEvent,
        stored: &StoredEvent,
        changes: &mut Changes,
    ) -> Result<(), Rejection> {
        let FlightId { carrier, number, origin, .. } = event.flight();
        let board = [origin.to_string(), carrier.to_string(), number.to_string()];
        let tailnum: String = stored.aggregate_id().tokens().collect();
        let told = event.clone();
        changes.upsert(&AggregateId::from_tokens(board)?, move |board: &mut Board| {
            board.tell(&told, tailnum);
        });
        let id = AggregateId::new(carrier.to_string())?;
        changes.upsert(&id, move |punctuality: &mut Punctuality| punctuality.tell(carrier, &event));
        Ok(())
    }
}

impl Board {
    fn tell(&mut self, event: &FlightEvent, tailnum: String) {
        let FlightId { day, scheduled, carrier, number, origin } = event.flight();
        let (status, delay) = match event {
            FlightEvent::Departed { departure, .. } => (Status::Departed, departure.delay),
            FlightEvent::Arrived { .. } => (Status::Arrived, None),
            FlightEvent::Diverted { .. } => (Status::Diverted, None),
            FlightEvent::Cancelled { .. } => (Status::Cancelled, None),
        };
        let begins = matches!(status, Status::Departed | Status::Cancelled);
        self.flights += u64::from(begins);
        let departure = format!("{day} {scheduled}");
        // Aircraft are recorded side by side, so an earlier flight may be told after a later one.
        if (&departure, &tailnum) < (&self.last_departure, &self.tailnum) {
            return;
        }
        if begins {
            self.delay = delay;
        }
        *self = Self {
            origin: origin.to_string(),
            carrier: carrier.to_string(),
            flight: number,
            last_departure: departure,
            status,
            tailnum,
            ..std::mem::take(self)
        };
    }
}

impl Punctuality {
    /// Late departures in a hundred.
    pub(crate) fn late_share(&self) -> f64 {
        100.0 * self.late as f64 / self.departed.max(1) as f64
    }

    fn tell(&mut self, carrier: Carrier, event: &FlightEvent) {
        self.carrier = carrier.to_string();
        match event {
            FlightEvent::Departed { departure: Moment { delay, .. }, .. } => {
                self.departed += 1;
                self.late += u64::from(delay.is_some_and(|minutes| minutes > 15));
            }
            FlightEvent::Arrived { .. } => {}
            FlightEvent::Diverted { .. } => self.diverted += 1,
            FlightEvent::Cancelled { .. } => self.cancelled += 1,
        }
    }
}
