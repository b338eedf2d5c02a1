//! One reaction: a unit of work, and what is wished of timeouts.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::error::TimeoutError;
use super::records::{FORMAT, HeldMark, Mark, Wish, WishRecord, mark_subject};
use crate::clock::Timestamp;
use crate::store::{CommitInfo, Context};
use crate::subject::{AggregateId, TimeoutAddress};
use crate::timeouts::MAX_TIMEOUT;
use crate::unit_of_work::UnitOfWork;

/// What one reaction of a process does: it is the [`UnitOfWork`] that is committed when the reaction returns, and holds
/// the timeouts of its instance.
///
/// Everything in it carries the correlation id of what is reacted to, and its id as causation id.
#[derive(Debug)]
pub struct Reaction {
    unit: UnitOfWork,
    process: &'static str,
    instance: AggregateId,
    held: HeldMark,
    wishes: BTreeMap<String, Wish>,
    correlation_id: Uuid,
}

impl Reaction {
    pub(super) fn begin(
        context: &Context,
        process: &'static str,
        instance: &AggregateId,
        held: HeldMark,
        (correlation_id, causation_id): (Uuid, Uuid),
    ) -> Self {
        let mut unit = UnitOfWork::begin(context);
        unit.describe(CommitInfo {
            correlation_id: Some(correlation_id),
            causation_id: Some(causation_id),
            ..CommitInfo::default()
        });
        let (instance, wishes) = (instance.clone(), BTreeMap::new());
        Self { unit, process, instance, held, wishes, correlation_id }
    }

    /// The instance of the process that reacts.
    pub fn instance(&self) -> &AggregateId {
        &self.instance
    }

    /// Whether the instance waits for a timeout of this name.
    pub fn waits_for(&self, name: &str) -> bool {
        self.held.mark.pending.contains_key(name)
    }

    /// Lets a timeout come due at a time, by the server's clock, instead of one that waits under this name. One that is over
    /// comes at once. Scheduled if the reaction is committed, and then it comes once in effect.
    ///
    /// # Errors
    /// [`TimeoutError`]; nothing is noted then.
    pub fn schedule(
        &mut self,
        name: &str,
        at: Timestamp,
        data: &impl Serialize,
    ) -> Result<(), TimeoutError> {
        self.check(name)?;
        if at > MAX_TIMEOUT {
            return Err(TimeoutError::TooFar { at });
        }
        let data = serde_json::to_value(data).map_err(|error| TimeoutError::Data {
            name: name.to_owned(),
            reason: error.to_string(),
        })?;
        let id = self.unit.context().encoder().ids.next_id();
        let correlation_id = self.correlation_id;
        self.held.mark.pending.insert(name.to_owned(), id);
        self.wishes.insert(name.to_owned(), Wish::Schedule { id, at, correlation_id, data });
        Ok(())
    }

    /// As [`schedule`](Self::schedule), so long after now, by the context's clock.
    ///
    /// # Errors
    /// As [`schedule`](Self::schedule).
    pub fn schedule_after(
        &mut self,
        name: &str,
        after: Duration,
        data: &impl Serialize,
    ) -> Result<(), TimeoutError> {
        let now = self.unit.context().clock().now().as_micros();
        let after = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.schedule(name, Timestamp::from_micros(now.saturating_add(after)), data)
    }

    /// Cancels the timeout of this name, if one waits. Once the reaction is committed it does not take effect, even if
    /// its time comes in the same moment.
    ///
    /// # Errors
    /// [`TimeoutError`] for a name that is none.
    pub fn cancel(&mut self, name: &str) -> Result<(), TimeoutError> {
        self.check(name)?;
        if self.held.mark.pending.remove(name).is_some() {
            self.wishes.insert(name.to_owned(), Wish::Cancel);
        }
        Ok(())
    }

    fn check(&self, name: &str) -> Result<(), TimeoutError> {
        TimeoutAddress::new(self.process, &self.instance, name)?;
        self.unit.context().timeouts().map(drop).ok_or(TimeoutError::None)
    }

    /// Notes that the timeout of this name came.
    pub(super) fn came(&mut self, name: &str) {
        self.held.mark.pending.remove(name);
    }

    /// Notes that the instance has reacted to the event at a position.
    pub(super) fn handled(&mut self, position: crate::backend::Position) {
        self.held.mark.handled = position;
    }

    /// The unit with everything that belongs into its commit.
    pub(super) fn finish(mut self) -> UnitOfWork {
        let context = self.unit.context().clone();
        let (name, ids) = (context.scheme().context(), &context.encoder().ids);
        let HeldMark { mark, position } = self.held;
        let subject = mark_subject(name, self.process, &self.instance);
        let mark = Mark { format: FORMAT, ..mark };
        self.unit.note(mark.message(subject, position, ids.next_id()));
        for (timeout, wish) in self.wishes {
            let instance = self.instance.clone();
            let record = WishRecord { format: FORMAT, instance, name: timeout, wish };
            self.unit.note(record.message(name, self.process, ids.next_id()));
        }
        self.unit
    }
}

impl Deref for Reaction {
    type Target = UnitOfWork;
    fn deref(&self) -> &UnitOfWork {
        &self.unit
    }
}

impl DerefMut for Reaction {
    fn deref_mut(&mut self) -> &mut UnitOfWork {
        &mut self.unit
    }
}
