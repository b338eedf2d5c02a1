//! The smallest service on `NatsRepository`: a bank account, on a private server or the one that `NATS_URL` names.
//! Streams are there to stay: on a server of yours, each run adds an account to those of the context `persistence-example`.
#![allow(clippy::print_stdout)] // An example talks to whoever runs it.

use cim_persistence::prelude::*;
use cim_persistence::repository::{LoadOptions, NatsRepository, SaveOptions};
use cim_persistence::server::{self, Server, ServerConfig};
use cim_persistence::store::{Context, NatsRepositoryConfig};
use cim_persistence::{Connection, ConnectionConfig};
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
    let config = match &server {
        Server::Private(server) => ConnectionConfig::new(server.url()),
        _ => ConnectionConfig::from_env()?, // Its servers, credentials and TLS files.
    };
    let connection = Connection::connect(&config).await?;
    let layout = NatsRepositoryConfig::for_context("persistence-example");
    let bank = Context::provision(&connection, &layout).await?;
    let accounts = NatsRepository::<Account>::of(&bank)?;

    let number = format!("DE-{}", uuid::Uuid::now_v7());
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
