//! Money between accounts, under tellers who all work at once while the server is killed and started again.
//!
//! `cargo run --example bank_transfer [tellers] [transfers of each]`. `domain` is what an account is, `bank` the units of
//! work, `reminders` a process with timeouts; here they are put together and counted. The server is always a private one,
//! whatever `NATS_URL` says.
#![allow(clippy::print_stdout)] // An example talks to whoever runs it.

mod bank;
mod domain;
mod reminders;

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use cim_persistence::outbox::{JetStreamPublisher, Outbox, Relay, RelayOptions, Subjects};
use cim_persistence::process::{ProcessOptions, RunningProcess};
use cim_persistence::server::{PrivateServer, ServerConfig};
use cim_persistence::unit_of_work::{UniqueValues, UnitError};
use cim_persistence::{
    Connection, ConnectionConfig, Context, LoadOptions, NatsRepositoryConfig, Repository,
};
use futures::future::try_join_all;

use bank::{Bank, BankError};
use domain::No;
use reminders::Reminders;

const ACCOUNTS: u64 = 20;
const CENTS: i64 = 10_000;
const CRASHES: u64 = 3;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let tellers = numbers.next().transpose()?.unwrap_or(64);
    let each = numbers.next().transpose()?.unwrap_or(5);

    let mut server = PrivateServer::start(ServerConfig::Single).await?;
    let connection = Connection::connect(&ConnectionConfig::new(server.url())).await?;
    let config = NatsRepositoryConfig::for_context("bank");
    let context = Context::provision(&connection, &config).await?;
    let bank = Bank { accounts: Repository::of(&context)?, context };

    for account in 0..ACCOUNTS {
        bank.open(&format!("account-{account}"), &format!("DE-{account}"), CENTS).await?;
    }
    let Err(BankError::Unit(taken @ UnitError::UniqueViolation { .. })) =
        bank.open("another", "DE-7", CENTS).await
    else {
        return Err("a number was given away twice".into());
    };
    println!("refused     {taken}");

    // Another stream, of another team: the relay copies the messages about transfers into it.
    let client = async_nats::connect(server.url()).await?;
    let jetstream = jetstream::new(client);
    let ledger = jetstream::stream::Config {
        name: "LEDGER".to_owned(),
        subjects: vec!["ledger.>".to_owned()],
        ..Default::default()
    };
    jetstream.create_stream(ledger).await?;
    let publisher = JetStreamPublisher::new(&connection, Subjects::under("ledger")?);
    let outbox = Outbox::of(&bank.context);
    let mut relay = Relay::start(&outbox, publisher, RelayOptions::default());
    let reminders = ProcessOptions::default();
    let mut reminders = RunningProcess::start(&bank.context, Reminders, reminders)?;

    let (done, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let working = work(&bank, tellers, each, &done, &refused);
    let crashing = crash(&mut server, tellers * each, &done);
    let (worked, crashed) = futures::join!(working, crashing);
    worked?;
    crashed?;
    let (done, refused) = (done.into_inner(), refused.into_inner());
    println!("transfers   {} stored, {refused} refused: {}", done - refused, No::TooLittle);

    let end = bank.context.status().await?.last;
    reminders.handled(end).await?;
    relay.wait_until(|status| status.position >= end && status.unpublished == 0).await?;
    relay.stop().await?;
    let mut stream = jetstream.get_stream("LEDGER").await?;
    println!("reminders   {} still waiting", waiting(&jetstream).await?);
    reminders.stop().await?;
    println!("messages    {} in the ledger of the other team", stream.info().await?.state.messages);
    let numbers = UniqueValues::of(&bank.context).all("number").await?;
    println!("numbers     {}, each of one account", numbers.len());

    let mut sum = 0;
    for account in 0..ACCOUNTS {
        let id = format!("account-{account}");
        bank.accounts.verify(&id).await?;
        sum += bank.accounts.load(&id, LoadOptions::default()).await?.0.cents;
    }
    println!("money       {sum} cents of {} in {ACCOUNTS} accounts", ACCOUNTS as i64 * CENTS);
    match sum == ACCOUNTS as i64 * CENTS {
        true => Ok(()),
        false => Err("money was made or lost".into()),
    }
}

/// How many reminders wait for their time, once what was cancelled is gone.
async fn waiting(jetstream: &jetstream::Context) -> Result<u64, Box<dyn Error>> {
    let mut stream = jetstream.get_stream("CIM-TIMEOUTS-bank").await?;
    let mut left = stream.info().await?.state.messages;
    for _ in 0..100 {
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        left = stream.info().await?.state.messages;
    }
    Ok(left)
}

/// Every teller makes one transfer after the other.
async fn work(
    bank: &Bank,
    tellers: u64,
    each: u64,
    done: &AtomicU64,
    refused: &AtomicU64,
) -> Result<(), BankError> {
    let tellers = (0..tellers).map(async |teller| {
        for number in 0..each {
            let transfer = format!("{teller}-{number}");
            let from = (teller * 7 + number * 3) % ACCOUNTS;
            let to = (from + 1 + (teller + number) % (ACCOUNTS - 1)) % ACCOUNTS;
            let (from, to) = (format!("account-{from}"), format!("account-{to}"));
            let cents = 1 + ((teller * 911 + number * 577) % 6_000) as i64;
            match bank.transfer_surely(&transfer, &from, &to, cents).await {
                Ok(()) => {}
                Err(BankError::Rejected(_)) => drop(refused.fetch_add(1, Ordering::SeqCst)),
                Err(error) => return Err(error),
            }
            done.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    });
    try_join_all(tellers).await.map(drop)
}

/// Kills the server now and then while there is work, and starts it again.
async fn crash(
    server: &mut PrivateServer,
    all: u64,
    done: &AtomicU64,
) -> Result<(), Box<dyn Error>> {
    for crash in 1..=CRASHES {
        while done.load(Ordering::SeqCst) < all * crash / (CRASHES + 1) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.kill();
        server.restart().await?;
        println!("crash       the server was killed and is back");
    }
    Ok(())
}
