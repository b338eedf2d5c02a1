//! The read path beside the same work by hand on async-nats, in one run, on a durable single server.
//!
//! `cargo bench --bench read_path` prints a table and, as its last line, the rows as JSON. `-- --quick` runs fewer and
//! smaller rounds in under two minutes; other arguments choose the rows whose names hold them.
#![allow(missing_docs, clippy::print_stdout, unreachable_pub)]

mod domain;
mod raw;
#[path = "../write_path/report.rs"]
mod report;

use std::time::{Duration, Instant};

use cim_persistence::backend::nats::Connection;
use cim_persistence::projection::{ProjectionOptions, Projections, RunningProjection};
use cim_persistence::read_model::{Models, ReadModelStore};
use cim_persistence::server::{PrivateServer, ServerConfig};
use cim_persistence::store::{Context, NatsRepositoryConfig};
use futures::TryStreamExt;

use domain::{Board, Customers, PATIENCE};
use raw::{Raw, p50};
use report::{Bar, Goal, Row};

/// How much is done.
#[derive(Clone, Copy)]
struct Size {
    rounds: usize,
    events: u64,
    puts: u64,
    queries: usize,
}

const FULL: Size = Size { rounds: 5, events: 1_000_000, puts: 2_000, queries: 100 };
const QUICK: Size = Size { rounds: 3, events: 100_000, puts: 300, queries: 20 };

struct Bench {
    connection: Connection,
    raw: Raw,
    size: Size,
    chosen: Vec<String>,
    rows: Vec<Row>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let size = if args.iter().any(|arg| arg == "--quick") { QUICK } else { FULL };
    let chosen = args.into_iter().filter(|arg| !arg.starts_with("--")).collect();
    report::head("A durable single server (`nats-config/single.conf`)");
    let server = PrivateServer::start(ServerConfig::Single).await?;
    let client = async_nats::connect(server.url()).await?;
    let connection = Connection::from_client(client.clone()).with_timeout(Duration::from_secs(60));
    let mut bench = Bench { connection, raw: Raw::new(&client), size, chosen, rows: Vec::new() };
    bench.projection().await?;
    bench.read_your_writes().await?;
    bench.queries().await?;
    println!("\n{}", serde_json::json!({ "rows": bench.rows }));
    Ok(())
}

impl Bench {
    fn wants(&self, row: &str) -> bool {
        self.chosen.is_empty() || self.chosen.iter().any(|part| row.contains(part.as_str()))
    }

    fn note(
        &mut self,
        work: impl Into<String>,
        unit: &'static str,
        bar: Bar,
        rounds: &[(f64, f64)],
    ) {
        self.rows.push(Row::of(Goal { work: work.into(), server: "durable", unit, bar }, rounds));
    }

    async fn projection(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        if !self.wants("projection") {
            return Ok(());
        }
        let events = self.size.events;
        let mut counted = Vec::new();
        let mut put = Vec::new();
        for _ in 0..self.size.rounds {
            let context = domain::context(&self.connection).await;
            domain::book(&context, events).await;
            let begun = Instant::now();
            let mut running =
                RunningProjection::start(&context, Customers, ProjectionOptions::default())?;
            running.caught_up(PATIENCE).await?;
            let ours = events as f64 / begun.elapsed().as_secs_f64();
            running.stop().await?;
            let raw = self.raw.count(&names(&context).event_stream, events).await;
            counted.push((ours, raw));
            put.push((ours, self.raw.puts(self.size.puts).await));
            let stream = names(&context).event_stream;
            self.raw.js.delete_stream(stream).await?;
        }
        let work = format!("projection of {events} events into 10,000 models, against counting");
        self.note(work, "events/s", Bar::AtLeast(0.4), &counted);
        let work = "the same against one put per event";
        self.note(work, "events/s", Bar::AtLeast(10.0), &put);
        Ok(())
    }

    async fn read_your_writes(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        if !self.wants("read-your-writes") {
            return Ok(());
        }
        let context = domain::context(&self.connection).await;
        let mut running =
            RunningProjection::start(&context, Customers, ProjectionOptions::default())?;
        running.caught_up(PATIENCE).await?;
        let projections = Projections::of(&context);
        let mut rounds = Vec::new();
        for _ in 0..self.size.rounds {
            let ours = p50(self.size.queries, async || {
                let position = domain::book_one(&context).await;
                projections.wait_for("customers", position, PATIENCE).await.expect("reached");
            })
            .await;
            // The bar is a time, not a ratio.
            rounds.push((ours, 1.0));
        }
        running.stop().await?;
        let work = "read-your-writes, save to visible, p50 (bar in ms)";
        self.note(work, "ms", Bar::AtMost(5.0), &rounds);
        Ok(())
    }

    async fn queries(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let context = domain::context(&self.connection).await;
        domain::fill(&context).await;
        let bucket = names(&context).read_model_bucket;
        let models = ReadModelStore::new(&context).of::<Board>();
        if self.wants("pattern") {
            let pattern = "board.O1.C3.*";
            let mut rounds = Vec::new();
            for _ in 0..self.size.rounds {
                let queries = self.size.queries;
                let ours = p50(queries, async || assert_eq!(found(&models, pattern).await, 1_000));
                let ours = ours.await;
                let raw = p50(queries, async || {
                    assert_eq!(self.raw.multi_last(&bucket, pattern).await.len(), 1_000);
                });
                rounds.push((ours, raw.await));
            }
            let work = "pattern query, 1,000 of 100,000 models, p50";
            self.note(work, "ms", Bar::AtMost(1.5), &rounds);
            let pattern = "board.O1.>";
            let mut rounds = Vec::new();
            for _ in 0..self.size.rounds {
                let queries = self.size.queries.div_ceil(10);
                let ours = p50(queries, async || assert_eq!(found(&models, pattern).await, 20_000));
                let ours = ours.await;
                let raw = p50(queries, async || {
                    assert_eq!(self.raw.last_per_subject(&bucket, pattern).await.len(), 20_000);
                });
                rounds.push((ours, raw.await));
            }
            let work = "pattern query, 20,000 of 100,000 models, streamed, p50";
            self.note(work, "ms", Bar::AtMost(1.3), &rounds);
        }
        Ok(())
    }
}

async fn found(models: &Models<Board>, pattern: &str) -> usize {
    let stream = models.query(Some(pattern)).await.expect("a query");
    stream.try_fold(0, |count, _| std::future::ready(Ok(count + 1))).await.expect("models")
}

fn names(context: &Context) -> cim_persistence::subject::Names {
    NatsRepositoryConfig::for_context(context.scheme().context().to_string()).names()
}
