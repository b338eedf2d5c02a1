//! The smallest service on `NatsRepository`: a bank account, on a private server or the one that `NATS_URL` names.
#![allow(clippy::print_stdout)] // An example talks to whoever runs it.

use cim_persistence::prelude::*;
use cim_persistence::repository::{LoadOptions, NatsRepository, SaveOptions};
use cim_persistence::server::{self, ServerConfig};
use cim_persistence::store::NatsRepositoryConfig;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Account {
    number: String,
    cents: i64,
}

/// Money came in, or went out where `cents` is negative.
#[derive(Serialize, Deserialize, DomainEvent)]
struct Booked {
    cents: i64,
}

impl Aggregate for Account {
    const TYPE: &'static str = "account";
    type Id = String;
    type Event = Booked;
    fn new(number: &String) -> Self {
        Account { number: number.clone(), cents: 0 }
    }
    fn id(&self) -> &String {
        &self.number
    }
    fn apply(&mut self, event: &Booked) {
        self.cents += event.cents;
    }
}

fn withdraw(account: &Account, cents: i64) -> Result<[Booked; 1], &'static str> {
    if account.cents < cents { Err("not enough money") } else { Ok([Booked { cents: -cents }]) }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = server::from_env_or(ServerConfig::Single).await?;
    let client = async_nats::connect(server.url()).await?;
    // A context of its own leaves alone what others keep on that server.
    let config = NatsRepositoryConfig::for_context(format!("bank-{}", uuid::Uuid::now_v7()));
    let accounts = NatsRepository::<Account>::new(client, config, "account".to_string()).await?;

    let number = "DE-4711".to_string();
    let new = Account::new(&number);
    let saved = accounts.save(&new, vec![Booked { cents: 1000 }], SaveOptions::default()).await?;
    println!("saved     version {} of {}", saved.version, saved.subject);

    let (account, known) = accounts.load(&number, LoadOptions::default()).await?;
    println!("loaded    {} cents at version {}", account.cents, known.version);
    let done = accounts.transact(&number, |account| withdraw(account, 300)).await?;
    println!("withdrawn 300 cents, version {} at position {}", done.version, done.position);
    let Err(no) = accounts.transact(&number, |account| withdraw(account, 900)).await else {
        return Err("more was withdrawn than there is".into());
    };
    println!("withdrawn nothing, {no}");

    // Somebody changed the account after it was loaded: saving on what was loaded is refused.
    let late = accounts.save(&account, vec![Booked { cents: 1 }], SaveOptions::after(&known)).await;
    println!("saved     nothing, {}", late.expect_err("version 2 is stored"));

    println!("snapshot  {}", accounts.create_snapshot(&number).await?);
    for event in accounts.get_history(&number, None, None).await? {
        let Booked { cents } = event.data()?;
        println!("history   {} {cents} cents, {}", event.version(), event.occurred_at());
    }
    Ok(())
}
