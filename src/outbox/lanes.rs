//! Which message is published next: in order per key, any number of keys at a time, within bounds. Pure.
//!
//! A message that was read is in the window until everything up to it is settled: published, passed over, or held. While it
//! was not tried in vain it is in memory; once it is held it is only known by its record, and read again when its turn
//! comes. What is settled from the window's beginning goes into the [`Delta`] that is written next.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::PendingMessage;
use super::ledger::{Delta, Ledger};
use super::pending::Lane;
use super::records::HeldMessage;
use crate::backend::Position;
use crate::clock::Timestamp;

/// The most messages that are read and not settled, and of those that are held and waiting, together.
pub(super) const MOST_AHEAD: usize = 1000;

/// The most bytes of messages that are in memory, about; one message more may be.
const MOST_BYTES: usize = 32 * 1024 * 1024;

/// The most records that leave the window for one write. Messages that were held before add to them one by one.
const MOST_DRAINED: usize = 500;

/// A place in the window.
#[derive(Debug)]
struct Slot {
    position: Position,
    stored_at: Timestamp,
    bytes: usize,
    fate: Fate,
}

#[derive(Debug)]
enum Fate {
    /// In memory, or being published.
    Open,
    Published,
    Held(HeldMessage),
    /// None of this relay's.
    Skipped,
}

/// A message whose turn it is.
#[derive(Debug)]
pub(super) enum Job {
    /// One that is in memory, and was not tried in vain.
    Fresh(PendingMessage),
    /// One that waits, and is read again from the log.
    Held(HeldMessage),
}

impl Job {
    pub(super) fn position(&self) -> Position {
        match self {
            Self::Fresh(message) => message.position(),
            Self::Held(message) => message.position,
        }
    }

    pub(super) fn lane(&self) -> Lane {
        match self {
            Self::Fresh(message) => message.lane(),
            Self::Held(message) => message.lane(),
        }
    }

    /// What is known of it, to be written down.
    pub(super) fn record(&self, now: Timestamp) -> HeldMessage {
        match self {
            Self::Fresh(message) => HeldMessage::behind(message, now),
            Self::Held(message) => message.clone(),
        }
    }
}

/// The messages a relay has read, or holds.
#[derive(Debug)]
pub(super) struct Lanes {
    window: VecDeque<Slot>,
    bytes: usize,
    /// The messages of each lane that are in memory and not under way, in order. A lane is here while one of its messages
    /// is in memory or under way.
    fresh: HashMap<Lane, VecDeque<PendingMessage>>,
    /// Lanes of which nothing is under way, and something is in memory.
    ready: VecDeque<Lane>,
    /// The messages that are waiting, and those of them that belong together.
    waiting: BTreeMap<Position, HeldMessage>,
    held_lanes: HashMap<Lane, BTreeSet<Position>>,
    /// The first waiting message of each lane, unless it is under way, and when it is due.
    agenda: BTreeSet<(Instant, Position)>,
    /// The messages that are to be parked, and whether they waited before. Their lanes stand still until that is stored:
    /// whoever takes over must not find them waiting when later ones are published.
    parking: BTreeMap<Position, (Lane, bool)>,
    delta: Delta,
}

impl Lanes {
    /// The lanes of a relay that begins where the ledger stands. No message that waits is due later than after the longest
    /// pause, whatever the clocks say.
    pub(super) fn after(ledger: &Ledger, now: Timestamp, longest: Duration) -> Self {
        let mut lanes = Self {
            window: VecDeque::new(),
            bytes: 0,
            fresh: HashMap::new(),
            ready: VecDeque::new(),
            waiting: BTreeMap::new(),
            held_lanes: HashMap::new(),
            agenda: BTreeSet::new(),
            parking: BTreeMap::new(),
            delta: Delta::after(ledger.cursor.position),
        };
        for message in ledger.waiting.values() {
            let pause = message.due.since(now).min(longest);
            lanes.wait(message.clone(), Instant::now() + pause);
        }
        lanes
    }

    /// Whether another message may be read.
    pub(super) fn has_room(&self) -> bool {
        self.window.len() + self.waiting.len() < MOST_AHEAD && self.bytes < MOST_BYTES
    }

    /// How many messages are read and not published.
    pub(super) fn unpublished(&self) -> usize {
        self.window.iter().filter(|slot| matches!(slot.fate, Fate::Open)).count()
            + self.waiting.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// When the oldest message that is read and not published was stored.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let open = self.window.iter().find(|slot| matches!(slot.fate, Fate::Open));
        let waiting = self.waiting.values().next().map(|message| message.stored_at);
        open.map(|slot| slot.stored_at).into_iter().chain(waiting).min()
    }

    /// What was settled since this was called last.
    pub(super) fn take_delta(&mut self) -> Delta {
        let next = Delta::after(self.delta.position());
        let delta = std::mem::replace(&mut self.delta, next);
        self.drain();
        delta
    }

    pub(super) fn delta(&self) -> &Delta {
        &self.delta
    }

    /// A message that is none of this relay's.
    pub(super) fn skip(&mut self, position: Position, stored_at: Timestamp) {
        self.window.push_back(Slot { position, stored_at, bytes: 0, fate: Fate::Skipped });
        self.drain();
    }

    /// The next message of the log.
    pub(super) fn admit(&mut self, message: PendingMessage, now: Timestamp) {
        let lane = message.lane();
        let (position, stored_at, bytes) =
            (message.position(), message.stored_at(), message.bytes());
        self.bytes += bytes;
        self.window.push_back(Slot { position, stored_at, bytes, fate: Fate::Open });
        if self.held_lanes.contains_key(&lane) {
            self.hold_behind(&message, now);
            return self.drain();
        }
        match self.fresh.get_mut(&lane) {
            Some(queue) => queue.push_back(message),
            None => {
                self.fresh.insert(lane.clone(), VecDeque::from([message]));
                self.ready.push_back(lane);
            }
        }
    }

    /// The next message to be published for the first time.
    pub(super) fn next_fresh(&mut self) -> Option<Job> {
        let lane = self.ready.pop_front()?;
        self.fresh.get_mut(&lane)?.pop_front().map(Job::Fresh)
    }

    /// The next message to be published again that is due.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Job> {
        let (due, position) = *self.agenda.first()?;
        if due > now {
            return None;
        }
        self.agenda.pop_first();
        self.waiting.get(&position).cloned().map(Job::Held)
    }

    /// When the next message is due that waits.
    pub(super) fn next_due_at(&self) -> Option<Instant> {
        self.agenda.first().map(|(due, _)| *due)
    }

    /// A message was published.
    pub(super) fn published(&mut self, position: Position, lane: &Lane) {
        self.settle(position, Fate::Published);
        if self.waiting.remove(&position).is_some() {
            self.free_held(lane, position);
        } else {
            self.free_fresh(lane);
        }
        self.drain();
    }

    /// A message is held from now on: it waits until it is due, or is parked.
    pub(super) fn held(&mut self, message: HeldMessage, lane: &Lane, due: Instant, now: Timestamp) {
        let position = message.position;
        let was_waiting = self.waiting.remove(&position).is_some();
        self.settle(position, Fate::Held(message.clone()));
        if message.is_waiting() {
            self.wait(message, due);
            // What is behind it in memory waits behind it, so that the window can go on.
            for behind in self.fresh.remove(lane).into_iter().flatten() {
                self.hold_behind(&behind, now);
            }
        } else {
            self.parking.insert(position, (lane.clone(), was_waiting));
        }
        self.drain();
    }

    /// These messages are parked, and that is stored: what is behind them goes on.
    pub(super) fn saved(&mut self, parked: &[Position]) {
        for position in parked {
            match self.parking.remove(position) {
                Some((lane, true)) => self.free_held(&lane, *position),
                Some((lane, false)) => self.free_fresh(&lane),
                None => {}
            }
        }
    }

    /// A message was not published, and nothing is known of it that was not known before.
    pub(super) fn back(&mut self, job: Job, due: Instant) {
        let lane = job.lane();
        match job {
            Job::Held(message) => drop(self.agenda.insert((due, message.position))),
            Job::Fresh(message) => {
                self.fresh.entry(lane.clone()).or_default().push_front(message);
                self.ready.push_back(lane);
            }
        }
    }

    /// A message waits because of those before it.
    fn hold_behind(&mut self, message: &PendingMessage, now: Timestamp) {
        let held = HeldMessage::behind(message, now);
        self.settle(held.position, Fate::Held(held.clone()));
        self.wait(held, Instant::now());
    }

    fn wait(&mut self, message: HeldMessage, due: Instant) {
        let (lane, position) = (message.lane(), message.position);
        let lane = self.held_lanes.entry(lane).or_default();
        let was_first = lane.first().copied();
        lane.insert(position);
        if was_first.is_none_or(|first| first >= position) {
            if let Some(first) = was_first.filter(|first| *first != position) {
                self.agenda.retain(|(_, other)| *other != first);
            }
            self.agenda.insert((due, position));
        }
        self.waiting.insert(position, message);
    }

    /// The first held message of a lane is held no more; the next one is due at once.
    fn free_held(&mut self, lane: &Lane, position: Position) {
        let Some(positions) = self.held_lanes.get_mut(lane) else { return };
        positions.remove(&position);
        match positions.first() {
            Some(next) => drop(self.agenda.insert((Instant::now(), *next))),
            None => drop(self.held_lanes.remove(lane)),
        }
    }

    /// The message of a lane that was under way is so no more.
    fn free_fresh(&mut self, lane: &Lane) {
        match self.fresh.get(lane).map(VecDeque::is_empty) {
            Some(false) => self.ready.push_back(lane.clone()),
            Some(true) => drop(self.fresh.remove(lane)),
            None => {}
        }
    }

    /// Writes down what became of a message: in the window while it is there, and else in what is written next.
    fn settle(&mut self, position: Position, fate: Fate) {
        let index = self.window.partition_point(|slot| slot.position < position);
        if let Some(slot) = self.window.get_mut(index).filter(|slot| slot.position == position) {
            slot.fate = fate;
            self.bytes -= std::mem::take(&mut slot.bytes);
            return;
        }
        match fate {
            Fate::Published => self.delta.publish(position),
            Fate::Held(message) => self.delta.hold(message),
            Fate::Open | Fate::Skipped => {}
        }
    }

    /// Moves what is settled from the window's beginning into what is written next.
    fn drain(&mut self) {
        let settled = |slot: &Slot| !matches!(slot.fate, Fate::Open);
        while self.delta.records() < MOST_DRAINED && self.window.front().is_some_and(settled) {
            let Some(slot) = self.window.pop_front() else { return };
            match slot.fate {
                Fate::Published => self.delta.publish(slot.position),
                Fate::Held(message) => self.delta.hold(message),
                Fate::Open | Fate::Skipped => {}
            }
            self.delta.advance(slot.position);
        }
    }
}
