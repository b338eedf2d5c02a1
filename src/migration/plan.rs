//! Which migrations are run to get somewhere, from what the ledger says. Pure.

use super::records::{AppliedMigration, Ledger, Outcome, Running, Tally};
use super::{Direction, MigrationError, PathStep, SchemaVersion};
use crate::clock::Timestamp;

/// Where the data should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goal {
    /// At this version or a later one on the way there.
    Up(SchemaVersion),
    /// Back at this version.
    Down(SchemaVersion),
}

/// The migrations to run, in order, beginning with the one that was interrupted.
pub(super) fn plan(
    ledger: &Ledger,
    goal: Goal,
    path: impl Fn(SchemaVersion, SchemaVersion) -> Result<Vec<PathStep>, MigrationError>,
) -> Result<Vec<PathStep>, MigrationError> {
    match goal {
        Goal::Up(target) => up(ledger, target, path),
        Goal::Down(target) => down(ledger, target),
    }
}

fn up(
    ledger: &Ledger,
    target: SchemaVersion,
    path: impl Fn(SchemaVersion, SchemaVersion) -> Result<Vec<PathStep>, MigrationError>,
) -> Result<Vec<PathStep>, MigrationError> {
    let mut steps = Vec::new();
    let mut current = ledger.version;
    if let Some(running) = &ledger.running {
        if running.direction == Direction::Down || running.to > target {
            return Err(running.unfinished());
        }
        steps.push(running.step());
        current = running.to;
    }
    if current > target {
        return Err(MigrationError::Later { current, target });
    }
    steps.extend(path(current, target)?);
    Ok(steps)
}

fn down(ledger: &Ledger, target: SchemaVersion) -> Result<Vec<PathStep>, MigrationError> {
    let back = |name: &str, from, to| PathStep {
        name: name.to_owned(),
        direction: Direction::Down,
        from,
        to,
    };
    let mut way: Vec<PathStep> =
        ledger.applied.iter().rev().map(|run| back(&run.name, run.to, run.from)).collect();
    let mut current = ledger.version;
    if let Some(running) = &ledger.running
        && running.direction == Direction::Up
    {
        if !running.changed {
            return Err(running.unfinished());
        }
        way.insert(0, back(&running.name, running.to, running.from));
        current = running.to;
    }
    let found = std::iter::once(current).chain(way.iter().map(|step| step.to));
    let Some(length) = found.into_iter().position(|version| version == target) else {
        return Err(MigrationError::NotOnTheWay { current, target });
    };
    if let (0, Some(running)) = (length, &ledger.running) {
        return Err(running.unfinished());
    }
    way.truncate(length);
    Ok(way)
}

impl Ledger {
    /// A step as it is begun, or as it is taken up again.
    pub(super) fn running_again(&self, step: &PathStep, now: Timestamp) -> Running {
        let same = |running: &&Running| running.step() == *step;
        match self.running.as_ref().filter(same) {
            Some(running) => Running { attempts: running.attempts + 1, ..running.clone() },
            None => Running {
                name: step.name.clone(),
                direction: step.direction,
                from: step.from,
                to: step.to,
                run: uuid::Uuid::new_v4(),
                changed: false,
                begun_at: now,
                attempts: 1,
            },
        }
    }

    /// Gives up the run that was begun and has changed nothing. Where it began to go back over what validation had not
    /// accepted, that waits for its validation again: it is not in effect.
    pub(super) fn give_up(&mut self) {
        self.running = None;
        if let Some(refused) = self.applied.pop_if(|run| run.outcome != Outcome::Done) {
            self.version = refused.from;
            self.running = Some(Running {
                name: refused.name,
                direction: refused.direction,
                from: refused.from,
                to: refused.to,
                run: uuid::Uuid::new_v4(),
                changed: true,
                begun_at: refused.begun_at,
                attempts: refused.attempts,
            });
        }
    }
}

impl Running {
    fn step(&self) -> PathStep {
        let (name, direction) = (self.name.clone(), self.direction);
        PathStep { name, direction, from: self.from, to: self.to }
    }

    pub(super) fn unfinished(&self) -> MigrationError {
        let (name, direction) = (self.name.clone(), self.direction);
        MigrationError::Unfinished { name, direction, to: self.to }
    }

    pub(super) fn ended(
        &self,
        by: &str,
        ended_at: Timestamp,
        tally: Tally,
        outcome: Outcome,
    ) -> AppliedMigration {
        AppliedMigration {
            name: self.name.clone(),
            direction: self.direction,
            from: self.from,
            to: self.to,
            by: by.to_owned(),
            begun_at: self.begun_at,
            ended_at,
            attempts: self.attempts,
            tally,
            outcome,
        }
    }
}
