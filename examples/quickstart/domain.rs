//! The domain: aircraft and what happens to their flights. Nothing in it knows how events are stored.

mod values;

use std::collections::BTreeSet;
use std::fmt;

use cim_persistence::event::DomainEvent;
use cim_persistence::repository::Aggregate;
use serde::{Deserialize, Serialize};

pub(crate) use values::{Airport, Carrier, Clock, Day};

/// An aircraft, known by its tail number, with the flights that are recorded of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Aircraft {
    tailnum: String,
    recorded: BTreeSet<FlightId>,
}

/// What tells two flights of one aircraft apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "FlightIdAsList", into = "FlightIdAsList")]
pub(crate) struct FlightId {
    pub(crate) day: Day,
    pub(crate) scheduled: Clock,
    pub(crate) carrier: Carrier,
    pub(crate) number: u16,
    pub(crate) origin: Airport,
}

/// How a flight is written in events and state: an aircraft has hundreds, so without the names of the fields.
type FlightIdAsList = (Day, Clock, Carrier, u16, Airport);

/// A flight as it is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flight {
    pub(crate) id: FlightId,
    pub(crate) destination: Airport,
    pub(crate) course: Course,
}

/// What became of a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Course {
    Cancelled,
    Diverted { departure: Moment },
    Flown { departure: Moment, arrival: Moment },
}

/// A time of day, and how many minutes behind the plan that was, if it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    pub(crate) at: Clock,
    pub(crate) delay: Option<i16>,
}

/// What happens to an aircraft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, DomainEvent)]
pub(crate) enum FlightEvent {
    Departed { flight: FlightId, destination: Airport, departure: Moment },
    Arrived { flight: FlightId, destination: Airport, arrival: Moment },
    Diverted { flight: FlightId, planned: Airport },
    Cancelled { flight: FlightId, destination: Airport },
}

impl Aircraft {
    /// Decides what a report of a flight adds: nothing if the flight is recorded already.
    pub(crate) fn record(&self, reported: &Flight) -> Vec<FlightEvent> {
        let Flight { id: flight, destination, course } = *reported;
        if self.recorded.contains(&flight) {
            return Vec::new();
        }
        let departed = |departure| FlightEvent::Departed { flight, destination, departure };
        match course {
            Course::Cancelled => vec![FlightEvent::Cancelled { flight, destination }],
            Course::Diverted { departure } => {
                vec![departed(departure), FlightEvent::Diverted { flight, planned: destination }]
            }
            Course::Flown { departure, arrival } => {
                vec![departed(departure), FlightEvent::Arrived { flight, destination, arrival }]
            }
        }
    }

    /// How many flights are recorded.
    pub(crate) fn flights(&self) -> usize {
        self.recorded.len()
    }
}

impl Aggregate for Aircraft {
    const TYPE: &'static str = "aircraft";
    type Id = String;
    type Event = FlightEvent;

    fn new(tailnum: &String) -> Self {
        Self { tailnum: tailnum.clone(), recorded: BTreeSet::new() }
    }

    fn id(&self) -> &String {
        &self.tailnum
    }

    fn apply(&mut self, event: &FlightEvent) {
        self.recorded.insert(event.flight());
    }
}

impl FlightEvent {
    /// The flight it happened to.
    pub(crate) fn flight(&self) -> FlightId {
        match self {
            Self::Departed { flight, .. }
            | Self::Arrived { flight, .. }
            | Self::Diverted { flight, .. }
            | Self::Cancelled { flight, .. } => *flight,
        }
    }
}

impl From<FlightIdAsList> for FlightId {
    fn from((day, scheduled, carrier, number, origin): FlightIdAsList) -> Self {
        Self { day, scheduled, carrier, number, origin }
    }
}

impl From<FlightId> for FlightIdAsList {
    fn from(id: FlightId) -> Self {
        (id.day, id.scheduled, id.carrier, id.number, id.origin)
    }
}

impl fmt::Display for FlightId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { day, scheduled, carrier, number, origin } = self;
        write!(f, "{day} {scheduled} {carrier} {number:<4} from {origin}")
    }
}

impl fmt::Display for FlightEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Departed { destination, departure, .. } => {
                write!(f, "departed for {destination} at {departure}")
            }
            Self::Arrived { arrival, .. } => write!(f, "arrived at {arrival}"),
            Self::Diverted { planned, .. } => write!(f, "diverted, did not reach {planned}"),
            Self::Cancelled { destination, .. } => write!(f, "to {destination} cancelled"),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.delay {
            Some(delay) => write!(f, "{} ({delay:+} min)", self.at),
            None => self.at.fmt(f),
        }
    }
}
