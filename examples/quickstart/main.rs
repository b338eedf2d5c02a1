//! Records three days of flights, one aggregate per aircraft, and proves that their histories are whole.
//!
//! `cargo run --example quickstart [-- [--json] [FILE.csv]]`. It starts a private nats-server that ends with it, or
//! uses the server that `NATS_URL` names: run it there twice, and the second run finds everything recorded, because the
//! streams of its context, `flights`, stay. `domain` is what a service would write; `import` is how it stores.

// An example talks to whoever runs it.
#![allow(clippy::print_stdout)]

mod boards;
mod domain;
mod import;
mod queries;
mod rows;
mod summary;
mod verify;

use std::error::Error;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cim_persistence::backend::ConnectionConfig;
use cim_persistence::backend::nats::Connection;
use cim_persistence::projection::{ProjectionOptions, RunningProjection};
use cim_persistence::repository::{LoadOptions, Repository};
use cim_persistence::server::{self, Server, ServerConfig};
use cim_persistence::store::{Context, NatsRepositoryConfig};
use indicatif::{ProgressBar, ProgressStyle};

use boards::Boards;
use domain::{Aircraft, FlightEvent, FlightId};
use import::{Read, import};
use queries::Queried;
use summary::Summary;
use verify::verify_chains;

const USAGE: &str = "usage: quickstart [--json] [FILE.csv]";
const SAMPLE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/flights-2013-01-01_03.csv");

/// How long the boards may take to be up to date: a year's flights take a few seconds.
const PATIENCE: Duration = Duration::from_secs(600);

/// How many flights of the busiest aircraft are shown, and how many events one has at most.
const SHOWN: usize = 5;
const EVENTS_OF_A_FLIGHT: u64 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    match run(std::env::args().skip(1)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            let (mut said, mut cause) = (error.to_string(), error.source());
            while let Some(error) = cause {
                let text = error.to_string();
                if !said.contains(&text) {
                    eprintln!("because: {text}");
                }
                (said, cause) = (text, error.source());
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(args: impl Iterator<Item = String>) -> Result<(), Box<dyn Error>> {
    let Args { json, file } = Args::parse(args)?;
    let progress = progress(&file);

    let server = server::from_env_or(ServerConfig::Single).await?;
    let config = match &server {
        Server::Private(server) => ConnectionConfig::new(server.url()),
        _ => ConnectionConfig::from_env()?, // Its servers, credentials and TLS files.
    };
    let connection = Connection::connect(&config).await?;
    let config = NatsRepositoryConfig::for_context("flights");
    let context = Context::provision(&connection, &config).await?;
    let repository = Repository::<Aircraft>::of(&context)?;

    let begun = Instant::now();
    let (read, recorded) = import(&repository, file, progress.clone()).await?;
    let took = begun.elapsed();
    progress.finish_and_clear();
    context.flush().await;
    let mut boards = RunningProjection::start(&context, Boards, ProjectionOptions::default())?;
    boards.caught_up(PATIENCE).await?;
    boards.stop().await?;

    if !json {
        show_busiest(&repository, &read).await?;
    }
    let queried = Queried::ask(&context).await?;
    if !json {
        println!("{queried}");
    }
    let chains = verify_chains(&context, read.aircraft.keys()).await?;
    let summary = Summary::new(&read, &recorded, took, chains, queried);
    match json {
        true => println!("{}", serde_json::to_string(&summary)?),
        false => println!("{summary}"),
    }
    Ok(())
}

struct Args {
    json: bool,
    file: PathBuf,
}

impl Args {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut json, mut file) = (false, None);
        for arg in args {
            match arg.as_str() {
                "--json" => json = true,
                option if option.starts_with('-') => {
                    return Err(format!("unknown option {option}; {USAGE}"));
                }
                _ if file.is_some() => return Err(format!("one file at a time; {USAGE}")),
                _ => file = Some(PathBuf::from(arg)),
            }
        }
        Ok(Self { json, file: file.unwrap_or_else(|| SAMPLE.into()) })
    }
}

/// Loads the aircraft with the most flights, verifies its chain, and prints its last flights.
async fn show_busiest(
    repository: &Repository<Aircraft>,
    read: &Read,
) -> Result<(), Box<dyn Error>> {
    let Some((tailnum, rows)) = read.busiest() else { return Ok(()) };
    let (aircraft, known) = repository.load(tailnum, LoadOptions::default()).await?;
    let flights = aircraft.flights();
    println!(
        "{tailnum} has the most flights in the file, {rows}; {flights} are recorded. Its last:"
    );
    // One event more than are needed, so that no flight is shown by halves.
    let from = known.version.saturating_sub(SHOWN as u64 * EVENTS_OF_A_FLIGHT);
    let mut last: Vec<(FlightId, String)> = Vec::new();
    for stored in repository.get_history(tailnum, Some(from), None).await? {
        let event: FlightEvent = stored.data()?;
        match last.last_mut() {
            Some((flight, story)) if *flight == event.flight() => *story += &format!(", {event}"),
            _ => last.push((event.flight(), event.to_string())),
        }
    }
    for (flight, story) in last.iter().rev().take(SHOWN).rev() {
        println!("  {flight} {story}");
    }
    let head = repository.verify(tailnum).await?;
    let cid = head.cid.map(|cid| cid.to_string()).unwrap_or_default();
    println!("Its chain of {} events is whole up to {cid}.\n", head.version);
    Ok(())
}

/// A bar over the bytes of the file, where somebody looks at it.
fn progress(file: &Path) -> ProgressBar {
    let bytes = std::fs::metadata(file).map_or(0, |file| file.len());
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{bar:40} {percent:>3}% {elapsed} of about {duration}");
    ProgressBar::new(bytes).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
