//! What goes wrong with a store in memory, when a test says so.
//!
//! Here is which fault meets which operation; what it then does to the store is the business of the model above.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::gate::Gate;
use super::random::{Random, Rates};
use crate::backend::NewMessage;

/// One thing that goes wrong with one operation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Fault {
    /// A write reaches the store, its answer does not come back: `Unknown`.
    LostAck,
    /// A write never reaches the store: `Unknown`, and nothing is stored.
    LostWrite,
    /// A write is `Unknown` now and reaches the store later; its guards are judged then.
    LateWrite(Late),
    /// A write is refused although its guards hold: `Conflict`.
    Conflict,
    /// A write is refused because its message id is known, though no message with it can be seen: `Duplicate`.
    KnownId,
    /// Another writer's message is stored just before a write. Its own guard is judged too.
    Overtaken(NewMessage),
    /// A read that any replica may answer sees what was stored so many writes ago.
    StaleRead(usize),
    /// The store is not there: `Unavailable`.
    Outage,
    /// The permission is refused: `Denied`.
    Denied,
    /// The operation waits at this gate before it reaches the store.
    PauseBefore(Gate),
    /// A write waits at this gate after it was stored, before its answer comes back. A read waits as
    /// [`PauseBefore`](Self::PauseBefore) says.
    PauseAfter(Gate),
}

/// When a late write reaches the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Late {
    /// When the test calls [`Faults::deliver_late`].
    WhenDelivered,
    /// Just before the n-th operation that follows, counted from 1, on any store with the same faults.
    BeforeOperation(usize),
}

/// What kind of operation a fault meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallKind {
    /// One message or a batch is written.
    Write,
    /// A read that any replica may answer: `Nearest`, the last messages of many subjects, values of many keys, and each
    /// chunk of reading a log.
    NearestRead,
    /// A read that the leader answers.
    LeaderRead,
}

/// An operation as a fault's condition sees it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Call<'a> {
    /// The stream: `memory` for a log, `KV_` and the bucket's name for a bucket.
    pub stream: &'a str,
    /// What it does.
    pub kind: CallKind,
    /// The subjects it names, in order; a pattern where it reads by one, none where it reads everything. A key of a
    /// bucket is the subject `$KV.<bucket>.<key>`.
    pub subjects: &'a [&'a str],
}

type Condition = Arc<dyn Fn(&Call<'_>) -> bool + Send + Sync>;

/// Faults to come, for one or more stores in memory. Cloning shares them.
///
/// Each planned fault meets one operation, the first that it fits, and is then used up. Faults that fit the same
/// operation meet one operation each, in the order they were planned; an outage comes first of all.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use cim_persistence::backend::BackendError;
/// use cim_persistence::event_log::{EventLog, MemoryLog};
/// use cim_persistence::testing::faults::{Fault, Faults};
///
/// let faults = Faults::new();
/// let log = MemoryLog::new().with_faults(&faults);
/// faults.plan(Fault::Outage);
/// assert!(matches!(log.status().await, Err(BackendError::Unavailable { .. })));
/// assert!(log.status().await.is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    planned: VecDeque<(Option<Condition>, Fault)>,
    random: Option<Random>,
    down: bool,
    met: usize,
    late: Vec<LateWrite>,
}

/// A write under way, and how many operations begin before it arrives.
struct LateWrite {
    countdown: Option<usize>,
    arrive: Box<dyn FnOnce() + Send>,
}

impl Faults {
    /// Nothing goes wrong until a fault is planned.
    pub fn new() -> Self {
        Self::default()
    }

    /// Faults drawn for each operation, the same for the same seed and the same operations in the same order.
    ///
    /// Others can be planned beside them and come first.
    pub fn random(seed: u64, rates: Rates) -> Self {
        let state = State { random: Some(Random::new(seed, rates)), ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Plans a fault for the next operation that it fits.
    pub fn plan(&self, fault: Fault) {
        self.state().planned.push_back((None, fault));
    }

    /// Plans a fault for the next operation that it fits and that the condition holds for.
    pub fn plan_when(
        &self,
        condition: impl Fn(&Call<'_>) -> bool + Send + Sync + 'static,
        fault: Fault,
    ) {
        self.state().planned.push_back((Some(Arc::new(condition)), fault));
    }

    /// Plans an outage of so many operations.
    pub fn outage_of(&self, operations: usize) {
        let outages = std::iter::repeat_n((None, Fault::Outage), operations);
        self.state().planned.extend(outages);
    }

    /// Begins an outage that lasts until [`end_outage`](Self::end_outage). Late writes arrive all the same.
    pub fn begin_outage(&self) {
        self.state().down = true;
    }

    /// Ends the outage.
    pub fn end_outage(&self) {
        self.state().down = false;
    }

    /// Draws no more random faults. What is planned stays planned.
    pub fn calm(&self) {
        self.state().random = None;
    }

    /// Lets every late write reach its store, in the order they were made. A write whose guard no longer holds is
    /// refused there, and nobody is told.
    pub fn deliver_late(&self) {
        let late = std::mem::take(&mut self.state().late);
        late.into_iter().for_each(|write| (write.arrive)());
    }

    /// How many faults are planned and have not met their operation.
    pub fn planned(&self) -> usize {
        self.state().planned.len()
    }

    /// How many operations met a fault.
    pub fn met(&self) -> usize {
        self.state().met
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operation begins: late writes that are due arrive, then it meets its fault.
    pub(super) fn meet(&self, call: &Call<'_>) -> Option<Fault> {
        let due = self.state().due();
        due.into_iter().for_each(|write| (write.arrive)());
        let mut state = self.state();
        let fault = state.next(call);
        state.met += usize::from(fault.is_some());
        fault
    }

    pub(super) fn keep_late(&self, late: Late, arrive: impl FnOnce() + Send + 'static) {
        let countdown = match late {
            Late::WhenDelivered => None,
            Late::BeforeOperation(number) => Some(number),
        };
        self.state().late.push(LateWrite { countdown, arrive: Box::new(arrive) });
    }
}

impl State {
    fn due(&mut self) -> Vec<LateWrite> {
        for write in &mut self.late {
            write.countdown = write.countdown.map(|left| left.saturating_sub(1));
        }
        self.late.extract_if(.., |write| write.countdown == Some(0)).collect()
    }

    fn next(&mut self, call: &Call<'_>) -> Option<Fault> {
        if self.down {
            return Some(Fault::Outage);
        }
        let fits = |(condition, fault): &(Option<Condition>, Fault)| {
            fault.fits(call.kind) && condition.as_ref().is_none_or(|holds| holds(call))
        };
        match self.planned.iter().position(fits) {
            Some(place) => self.planned.remove(place).map(|(_, fault)| fault),
            None => self.random.as_mut()?.draw(call.kind),
        }
    }
}

impl Fault {
    fn fits(&self, kind: CallKind) -> bool {
        match self {
            Self::LostAck
            | Self::LostWrite
            | Self::LateWrite(_)
            | Self::Conflict
            | Self::KnownId
            | Self::Overtaken(_) => kind == CallKind::Write,
            Self::StaleRead(_) => kind == CallKind::NearestRead,
            Self::Outage | Self::Denied | Self::PauseBefore(_) | Self::PauseAfter(_) => true,
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        write!(f, "Faults({} planned, {} met)", state.planned.len(), state.met)
    }
}
