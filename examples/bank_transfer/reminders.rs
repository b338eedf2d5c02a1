//! A process manager: whoever withdraws is reminded an hour later, unless the money has arrived by then.

use std::time::Duration;

use cim_persistence::process::{DueTimeout, ProcessManager, Reaction};
use cim_persistence::projection::Rejection;
use cim_persistence::store::StoredEvent;
use cim_persistence::subject::AggregateId;

use crate::domain::AccountEvent;

pub(crate) struct Reminders;

const HOUR: Duration = Duration::from_secs(3600);

impl ProcessManager for Reminders {
    const NAME: &'static str = "reminders";
    type Event = AccountEvent;

    fn instance(
        &self,
        event: &AccountEvent,
        _: &StoredEvent,
    ) -> Result<Option<AggregateId>, Rejection> {
        Ok(event.transfer().map(AggregateId::new).transpose()?)
    }

    async fn react(
        &self,
        event: AccountEvent,
        _: &StoredEvent,
        reaction: &mut Reaction,
    ) -> Result<(), Rejection> {
        match event {
            AccountEvent::Opened { .. } => {}
            AccountEvent::Withdrawn { .. } => reaction.schedule_after("arrival", HOUR, &())?,
            AccountEvent::Deposited { .. } => reaction.cancel("arrival")?,
        }
        Ok(())
    }

    async fn timeout(&self, _: &DueTimeout, reaction: &mut Reaction) -> Result<(), Rejection> {
        println!("transfer {} has not arrived", reaction.instance());
        Ok(())
    }
}
