//! The service: opening accounts under unique numbers, and transfers that are whole.

use cim_persistence::outbox::{OutboxError, OutboxMessage, Topic};
use cim_persistence::unit_of_work::{DecisionError, UnitError, UnitOfWork};
use cim_persistence::{Context, Repository, RepositoryError, StoreError};
use serde_json::json;

use crate::domain::{Account, AccountEvent, No};

#[derive(Clone)]
pub(crate) struct Bank {
    pub(crate) context: Context,
    pub(crate) accounts: Repository<Account>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum BankError {
    #[error("{0}")]
    Rejected(No),
    #[error(transparent)]
    Unit(#[from] UnitError),
    #[error(transparent)]
    Message(#[from] OutboxError),
}

impl From<DecisionError<No>> for BankError {
    fn from(error: DecisionError<No>) -> Self {
        match error {
            DecisionError::Rejected(no) => Self::Rejected(no),
            DecisionError::Unit(error) => Self::Unit(error),
        }
    }
}

impl Bank {
    /// Opens an account: its first event and the claim on its number are one commit.
    pub(crate) async fn open(&self, id: &str, number: &str, cents: i64) -> Result<(), BankError> {
        let id = id.to_owned();
        let mut unit = UnitOfWork::begin(&self.context);
        unit.claim("number", number, &self.accounts, &id).await?;
        let opened = AccountEvent::Opened { number: number.to_owned(), cents };
        unit.record(&self.accounts, &id, vec![opened]).await?;
        unit.commit().await?;
        Ok(())
    }

    /// Moves money: what one account loses, what the other gets, and the message about it are one commit.
    pub(crate) async fn transfer(
        &self,
        transfer: &str,
        from: &String,
        to: &String,
        cents: i64,
    ) -> Result<(), BankError> {
        UnitOfWork::run(&self.context, async |mut unit| {
            unit.decide(&self.accounts, from, |account| account.withdraw(transfer, cents)).await?;
            unit.decide(&self.accounts, to, |account| account.deposit(transfer, cents)).await?;
            let data = json!({ "transfer": transfer, "from": from, "to": to, "cents": cents });
            let topic = Topic::new("transfers").map_err(OutboxError::from)?;
            unit.send(
                OutboxMessage::json(topic, "bank.transferred", &data)?.with_key(from.as_str()),
            );
            Ok::<_, BankError>((unit, ()))
        })
        .await?;
        Ok(())
    }

    /// As [`transfer`](Self::transfer), however often the server is away, and once: after an answer that never came it looks
    /// whether the transfer is stored.
    pub(crate) async fn transfer_surely(
        &self,
        transfer: &str,
        from: &String,
        to: &String,
        cents: i64,
    ) -> Result<(), BankError> {
        loop {
            match self.transfer(transfer, from, to, cents).await {
                Err(BankError::Unit(error)) if is_unknown(&error) => {
                    if self.is_stored(transfer, from).await? {
                        return Ok(());
                    }
                }
                // Others were first ten times in a row, or the server is away: nothing is stored.
                Err(BankError::Unit(error)) if error.is_conflict() || is_away(&error) => {
                    tokio::task::yield_now().await;
                }
                result => return result,
            }
        }
    }

    async fn is_stored(&self, transfer: &str, from: &String) -> Result<bool, UnitError> {
        loop {
            match self.accounts.get_history(from, None, None).await {
                Ok(history) => {
                    let events = history.iter().filter_map(|stored| stored.data().ok());
                    let mut transfers =
                        events.map(|event: AccountEvent| event.transfer() == Some(transfer));
                    return Ok(transfers.any(|found| found));
                }
                Err(error) if is_transient(&error) => tokio::task::yield_now().await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn is_unknown(error: &UnitError) -> bool {
    matches!(error, UnitError::Store(StoreError::OutcomeUnknown { .. }))
}

fn is_away(error: &UnitError) -> bool {
    match error {
        UnitError::Store(StoreError::Backend(error)) => error.is_transient(),
        UnitError::Repository(error) => is_transient(error),
        _ => false,
    }
}

fn is_transient(error: &RepositoryError) -> bool {
    matches!(error, RepositoryError::Store(StoreError::Backend(error)) if error.is_transient())
}
