//! State folded from events when it is asked for, kept nowhere, or only as a snapshot.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::EventSet;
use super::definition::read_today;
use super::error::ProjectionError;
use super::feed::{Feed, Selection, mark_of};
use super::generations::is_same_log;
use super::records::{Checkpoint, FORMAT, decode, put};
use crate::backend::{BackendError, Bound, Position, ReadFrom};
use crate::event::NonEmpty;
use crate::state::{Expected, Key};
use crate::store::{Context, EventFilter, StoredEvent};
use crate::subject::AggregateId;

/// State that is folded from the events of several aggregates.
///
/// The value it begins with says which events it reads, so it can be about one customer, or one pair of accounts.
///
/// ```
/// use cim_persistence::projection::{Fold, load_projection};
/// use cim_persistence::store::{EventFilter, StoredEvent};
/// # use cim_persistence::event::DomainEvent;
/// # use cim_persistence::store::Ports;
/// # use cim_persistence::subject::AggregateType;
/// # use cim_persistence::{Context, NatsRepositoryConfig};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # struct Booked { cents: i64 }
/// # impl DomainEvent for Booked { fn event_type(&self) -> &'static str { "booked" } }
/// struct Turnover { cents: i64 }
///
/// impl Fold for Turnover {
///     type Event = Booked;
///     fn filters(&self) -> Vec<EventFilter> { vec![EventFilter::all()] }
///     fn apply(&mut self, event: Booked, _: &StoredEvent) { self.cents += event.cents; }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let bank = Context::on(Ports::in_memory(), &NatsRepositoryConfig::for_context("bank"))?;
/// let turnover = load_projection(&bank, Turnover { cents: 0 }).await?;
/// assert_eq!(turnover.state.cents, 0);
/// # Ok(())
/// # }
/// ```
pub trait Fold: Send + Sync {
    /// The events it reads.
    type Event: EventSet;

    /// Which events it reads; an event that passes any of these.
    fn filters(&self) -> Vec<EventFilter>;

    /// What an event does to it.
    fn apply(&mut self, event: Self::Event, stored: &StoredEvent);
}

/// A fold, and up to where it reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded<F> {
    /// The state.
    pub state: F,
    /// The last event of the context that was looked at; what was committed up to here is in the state.
    pub position: Position,
}

/// Folds all events up to now. Reads them all, in bounded memory.
///
/// # Errors
/// [`ProjectionError::Definition`] when it reads no events; [`ProjectionError::Store`] at the first event that cannot be
/// trusted or does not have its shape; [`ProjectionError::Backend`].
pub async fn load_projection<F: Fold>(
    context: &Context,
    initial: F,
) -> Result<Folded<F>, ProjectionError> {
    load_projection_as_of(context, initial, Bound::Newest).await
}

/// Folds all events up to a position, or stored before a time.
///
/// # Errors
/// As [`load_projection`].
pub async fn load_projection_as_of<F: Fold>(
    context: &Context,
    initial: F,
    bound: Bound,
) -> Result<Folded<F>, ProjectionError> {
    let (folded, _, _) = fold_on(context, initial, Position::START, None, bound).await?;
    Ok(folded)
}

/// Folds from a snapshot of this name on, and writes a new one after `every` events that were not in it. A snapshot of
/// another `version`, or of another log, counts for nothing.
///
/// # Errors
/// As [`load_projection`]; a snapshot that cannot be written is no error.
pub async fn load_projection_with_snapshot<F: Fold + Serialize + DeserializeOwned>(
    context: &Context,
    name: &str,
    version: u32,
    every: u64,
    initial: F,
) -> Result<Folded<F>, ProjectionError> {
    let bucket = context.snapshots().bucket();
    let key = Key::new(format!("=fold.{}.{version}", AggregateId::new(name)?.as_str()))?;
    let slot = bucket.get(&key, ReadFrom::Nearest).await?;
    let snapshot = slot.value.as_deref().and_then(|value| decode::<Snapshot<F>>(&key, value).ok());
    let (initial, from, mark) = match snapshot {
        Some(found) if is_same_log(context, name, &found.at).await? => {
            (found.state, found.at.position, found.at.mark)
        }
        _ => (initial, Position::START, None),
    };
    let (folded, mark, events) = fold_on(context, initial, from, mark, Bound::Newest).await?;
    if events < every.max(1) {
        return Ok(folded);
    }
    let at = Checkpoint {
        format: FORMAT,
        version,
        position: folded.position,
        mark,
        log_created: context.status().await?.created,
        events,
        parked: 0,
        rebuild: 0,
        writer: Uuid::new_v4(),
    };
    let snapshot = Snapshot { at, state: folded.state };
    let write = put(key, &snapshot, Expected::Revision(slot.revision));
    match bucket.write(NonEmpty::one(write)).await {
        Ok(_) | Err(BackendError::Conflict { .. }) => {}
        Err(error) => tracing::warn!(name, %error, "snapshot of a projection not written"),
    }
    Ok(Folded { state: snapshot.state, position: folded.position })
}

#[derive(Serialize, Deserialize)]
struct Snapshot<F> {
    at: Checkpoint,
    state: F,
}

/// How many events are taken at a time.
const RUN: usize = 1000;

async fn fold_on<F: Fold>(
    context: &Context,
    mut state: F,
    from: Position,
    mut mark: Option<String>,
    bound: Bound,
) -> Result<(Folded<F>, Option<String>, u64), ProjectionError> {
    let selection = Selection::new(&state.filters(), context.scheme())?;
    let mut feed = Feed::open(context, &selection, from);
    let (mut position, mut events) = (from, 0);
    loop {
        let run = feed.next(RUN).await?;
        for delivered in run.events {
            let stored = delivered.event?;
            let within = match bound {
                Bound::Newest => true,
                Bound::Position(last) => stored.position() <= last,
                Bound::Time(end) => stored.recorded_at() < end,
            };
            if !within {
                return Ok((Folded { state, position }, mark, events));
            }
            for event in read_today::<F::Event>(&stored)? {
                state.apply(event, &stored);
            }
            (position, mark) = (delivered.position, Some(mark_of(&stored)));
            events += 1;
        }
        if run.caught_up {
            return Ok((Folded { state, position }, mark, events));
        }
    }
}
