//! What is known to be published, and what a change of that writes. Pure; where it is kept is in `book.rs`.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use super::records::{Cursor, HeldMessage, HeldState, Keys};
use crate::backend::Position;
use crate::state::{Change, Expected, Key, KeyWrite};

/// The ledger as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ledger {
    pub(super) cursor: Cursor,
    /// The revision of the cursor's key.
    pub(super) revision: u64,
    /// The messages that are waiting.
    pub(super) waiting: BTreeMap<Position, HeldMessage>,
}

/// What has changed since.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Delta {
    /// Where the ledger stood when this began.
    base: Position,
    /// Up to where everything is settled.
    position: Position,
    published: u64,
    /// Parked messages that are parked no more.
    unparked: u64,
    /// What is held from now on, and what no more.
    held: BTreeMap<Position, Option<HeldMessage>>,
}

impl Delta {
    pub(super) fn after(base: Position) -> Self {
        Self { base, position: base, ..Self::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.position == self.base && self.held.is_empty()
    }

    /// How many records it changes.
    pub(super) fn records(&self) -> usize {
        self.held.len()
    }

    /// The messages that it parks.
    pub(super) fn parked(&self) -> Vec<Position> {
        let parked = self.held.values().flatten().filter(|held| !held.is_waiting());
        parked.map(|held| held.position).collect()
    }

    /// Up to where everything is settled when it is stored.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    pub(super) fn published(&self) -> u64 {
        self.published
    }

    /// Everything up to here is settled.
    pub(super) fn advance(&mut self, position: Position) {
        self.position = self.position.max(position);
    }

    /// A message is published, which may have been held.
    pub(super) fn publish(&mut self, position: Position) {
        self.published += 1;
        match position <= self.base {
            true => self.held.insert(position, None),
            // What is held since the last write only is not written at all.
            false => self.held.remove(&position),
        };
    }

    pub(super) fn hold(&mut self, message: HeldMessage) {
        self.held.insert(message.position, Some(message));
    }

    /// A parked message waits again, or is parked no more for another reason.
    pub(super) fn unpark(&mut self) {
        self.unparked += 1;
    }
}

impl Ledger {
    /// The ledger after a change, without its new revision, and what has to be written for it: all or nothing, on the
    /// condition that the cursor is still this one. The cursor comes last.
    pub(super) fn step(&self, keys: &Keys, delta: &Delta, writer: Uuid) -> (Self, Vec<KeyWrite>) {
        let mut next = self.clone();
        let cursor = &mut next.cursor;
        let mut writes = Vec::with_capacity(delta.held.len() + 1);
        for (position, held) in &delta.held {
            next.waiting.remove(position);
            let key = keys.held(*position);
            let change = match held {
                Some(message) => {
                    match message.state {
                        HeldState::Waiting => {
                            next.waiting.insert(*position, message.clone());
                        }
                        HeldState::Parked => cursor.parked += 1,
                    }
                    json(message)
                }
                None => Change::Delete,
            };
            // Who writes a record holds the cursor.
            writes.push(KeyWrite::new(key, change, Expected::Anything));
        }
        cursor.position = cursor.position.max(delta.position);
        cursor.published += delta.published;
        cursor.parked = cursor.parked.saturating_sub(delta.unparked);
        cursor.deferred = next.waiting.len() as u64;
        cursor.writer = writer;
        writes.push(cursor_write(keys.cursor.clone(), cursor, self.revision));
        (next, writes)
    }
}

fn cursor_write(key: Key, cursor: &Cursor, revision: u64) -> KeyWrite {
    KeyWrite::new(key, json(cursor), Expected::Revision(revision))
}

fn json(record: &impl Serialize) -> Change {
    let json = serde_json::to_vec(record).expect("records have string keys and finite numbers");
    Change::Put(json.into())
}
