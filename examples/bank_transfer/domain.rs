//! The domain: accounts, and what happens to them. Pure.

use cim_persistence::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    id: String,
    pub(crate) cents: i64,
    open: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum AccountEvent {
    Opened { number: String, cents: i64 },
    Withdrawn { transfer: String, cents: i64 },
    Deposited { transfer: String, cents: i64 },
}

/// Why an account does not do what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum No {
    #[error("there is no such account")]
    NotOpen,
    #[error("there is not enough money")]
    TooLittle,
}

impl AccountEvent {
    pub(crate) fn transfer(&self) -> Option<&str> {
        match self {
            Self::Opened { .. } => None,
            Self::Withdrawn { transfer, .. } | Self::Deposited { transfer, .. } => Some(transfer),
        }
    }
}

impl DomainEvent for AccountEvent {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::Withdrawn { .. } => "withdrawn",
            Self::Deposited { .. } => "deposited",
        }
    }
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Id = String;
    type Event = AccountEvent;

    fn new(id: &String) -> Self {
        Self { id: id.clone(), cents: 0, open: false }
    }

    fn id(&self) -> &String {
        &self.id
    }

    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Opened { cents, .. } => (self.open, self.cents) = (true, *cents),
            AccountEvent::Withdrawn { cents, .. } => self.cents -= cents,
            AccountEvent::Deposited { cents, .. } => self.cents += cents,
        }
    }
}

impl Account {
    pub(crate) fn withdraw(&self, transfer: &str, cents: i64) -> Result<[AccountEvent; 1], No> {
        match self {
            Self { open: false, .. } => Err(No::NotOpen),
            Self { cents: there, .. } if *there < cents => Err(No::TooLittle),
            _ => Ok([AccountEvent::Withdrawn { transfer: transfer.to_owned(), cents }]),
        }
    }

    pub(crate) fn deposit(&self, transfer: &str, cents: i64) -> Result<[AccountEvent; 1], No> {
        match self.open {
            true => Ok([AccountEvent::Deposited { transfer: transfer.to_owned(), cents }]),
            false => Err(No::NotOpen),
        }
    }
}
