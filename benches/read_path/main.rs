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
use cim_persistence::read_model::{
    IndexLookup, IndexSpec, LiveOptions, LiveView, ModelPattern, Models, ReadModel, ReadModelStore,
};
use cim_persistence::server::{PrivateServer, ServerConfig};
use cim_persistence::specification::{SearchOptions, document_of, field};
use cim_persistence::store::{Context, NatsRepositoryConfig};
use cim_persistence::subject::AggregateId;
use futures::TryStreamExt;

use domain::{Board, Customer, Customers, PATIENCE};
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
        let mut rebuilt = Vec::new();
        for _ in 0..self.size.rounds {
            let context = domain::context(&self.connection).await;
            domain::book(&context, events).await;
            let begun = Instant::now();
            let mut running =
                RunningProjection::start(&context, Customers, ProjectionOptions::default())?;
            running.caught_up(PATIENCE).await?;
            let ours = events as f64 / begun.elapsed().as_secs_f64();
            rebuilt.push(self.rebuild(&context, events).await?);
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
        let work = format!("rebuild of {events} events, growth of resident memory (bar in MiB)");
        self.note(work, "MiB", Bar::AtMost(64.0), &rebuilt);
        Ok(())
    }

    /// How much memory grows while a projection is rebuilt under a reader that must always see all models or their rebuilt
    /// selves.
    async fn rebuild(
        &self,
        context: &Context,
        events: u64,
    ) -> Result<(f64, f64), Box<dyn std::error::Error>> {
        let projections = Projections::of(context);
        let models = ReadModelStore::new(context).of::<Customer>();
        let ids: Vec<AggregateId> =
            (0..100).map(|n| AggregateId::new((n * 97).to_string())).collect::<Result<_, _>>()?;
        let entries = async || -> Result<u64, Box<dyn std::error::Error>> {
            let found = models.load_many(&ids).await?;
            Ok(found.iter().flatten().map(|stored| stored.model.entries).sum())
        };
        let (whole, before) = (entries().await?, resident_mib());
        let mut most = before;
        projections.rebuild("customers").await?;
        while projections.report("customers").await?.generation < Some(2) {
            assert_eq!(entries().await?, whole, "a reader sees all {events} events at any time");
            most = most.max(resident_mib());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(entries().await?, whole);
        Ok((most - before, 1.0))
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
        let models = ReadModelStore::new(&context).of::<Board>();
        if self.wants("pattern") {
            self.patterns(&names(&context).read_model_bucket, &models).await;
        }
        if self.wants("index") {
            self.index(&models).await?;
        }
        if self.wants("live") {
            self.live(&models).await?;
        }
        Ok(())
    }

    async fn patterns(&mut self, bucket: &str, models: &Models<Board>) {
        let queries = self.size.queries;
        let pattern = "board.O1.C3.*";
        let rounds = self
            .rounds(async |bench| {
                let ours = p50(queries, async || assert_eq!(found(models, pattern).await, 1_000));
                let ours = ours.await;
                let raw = p50(queries, async || {
                    assert_eq!(bench.raw.multi_last(bucket, pattern).await.len(), 1_000);
                });
                (ours, raw.await)
            })
            .await;
        let work = "pattern query, 1,000 of 100,000 models, p50";
        self.note(work, "ms", Bar::AtMost(1.5), &rounds);
        let (pattern, queries) = ("board.O1.>", queries.div_ceil(10));
        let rounds = self
            .rounds(async |bench| {
                let ours = p50(queries, async || assert_eq!(found(models, pattern).await, 20_000));
                let ours = ours.await;
                let raw = p50(queries, async || {
                    assert_eq!(bench.raw.last_per_subject(bucket, pattern).await.len(), 20_000);
                });
                (ours, raw.await)
            })
            .await;
        let work = "pattern query, 20,000 of 100,000 models, streamed, p50";
        self.note(work, "ms", Bar::AtMost(1.3), &rounds);
        let rounds = self
            .rounds(async |_| {
                let first = p50(queries, async || {
                    let mut stream = models.query(Some(pattern)).await.expect("a query");
                    stream.try_next().await.expect("a model").expect("there are models");
                });
                let all = p50(queries, async || assert_eq!(found(models, pattern).await, 20_000));
                (first.await, all.await)
            })
            .await;
        let work = "the same, the first result against the last, p50";
        self.note(work, "ms", Bar::AtMost(0.9), &rounds);
    }

    /// An index against looking at every model, both ours.
    async fn index(&mut self, models: &Models<Board>) -> Result<(), Box<dyn std::error::Error>> {
        let spec = IndexSpec::on(["delay"]);
        models.build_index(&spec).await?;
        let late = field("delay").eq(700);
        let compiled = late.clone().compile()?;
        let everything = async || {
            let all = models.query(None).await.expect("a query");
            let matches = all.try_filter(|stored| {
                let document = document_of(&stored.model).expect("a document");
                std::future::ready(compiled.matches(&document))
            });
            matches.try_fold(0, |n, _| std::future::ready(Ok(n + 1))).await.expect("models")
        };
        let queries = self.size.queries;
        let rounds = self
            .rounds(async |_| {
                let options = SearchOptions::default();
                let indexed = p50(queries, async || {
                    let lookup = IndexLookup::equal([700]);
                    let found = models.load_where(&spec, &lookup).await.expect("an index");
                    assert_eq!(found.len(), 100);
                });
                let indexed = indexed.await;
                let planned = p50(queries, async || {
                    let page = models.search(None, &late, &options).await.expect("a search");
                    assert_eq!(page.total, 100);
                });
                let planned = planned.await;
                let scanned = p50(3, async || assert_eq!(everything().await, 100)).await;
                (1.0 / indexed, 1.0 / planned, 1.0 / scanned)
            })
            .await;
        let against = |part: fn(&(f64, f64, f64)) -> f64| -> Vec<(f64, f64)> {
            rounds.iter().map(|round| (1000.0 * part(round), 1000.0 * round.2)).collect()
        };
        let work = "equality on an index, 100 of 100,000, against a full scan";
        self.note(work, "queries/s", Bar::AtLeast(50.0), &against(|round| round.0));
        let work = "the same by a search that plans";
        self.note(work, "queries/s", Bar::AtLeast(50.0), &against(|round| round.1));
        Ok(())
    }

    /// A live view on one core. The bars are rates, so there is nothing beside them.
    async fn live(&mut self, models: &Models<Board>) -> Result<(), Box<dyn std::error::Error>> {
        let options = LiveOptions::default().index("delay");
        let view = LiveView::start(models, &ModelPattern::all("board"), options).await?;
        assert_eq!(view.len(), 100_000);
        let ids: Vec<AggregateId> =
            domain::boards().map(|board| board.id()).collect::<Result<_, _>>()?;
        let rounds = self
            .rounds(async |_| {
                let begun = Instant::now();
                assert!(ids.iter().all(|id| view.get(id).is_some()));
                (ids.len() as f64 / begun.elapsed().as_secs_f64(), 1.0)
            })
            .await;
        self.note("live view, point gets", "gets/s", Bar::AtLeast(1_000_000.0), &rounds);
        let rounds = self
            .rounds(async |_| {
                let begun = Instant::now();
                for delay in 0..10_000 {
                    let found = view.equal("delay", delay % 1_000).expect("an index");
                    assert_eq!(found.len(), 100);
                }
                (10_000.0 / begun.elapsed().as_secs_f64(), 1.0)
            })
            .await;
        self.note(
            "live view, indexed queries of 100",
            "queries/s",
            Bar::AtLeast(100_000.0),
            &rounds,
        );
        Ok(())
    }

    async fn rounds<T>(&self, mut round: impl AsyncFnMut(&Self) -> T) -> Vec<T> {
        let mut rounds = Vec::with_capacity(self.size.rounds);
        for _ in 0..self.size.rounds {
            rounds.push(round(self).await);
        }
        rounds
    }
}

async fn found(models: &Models<Board>, pattern: &str) -> usize {
    let stream = models.query(Some(pattern)).await.expect("a query");
    stream.try_fold(0, |count, _| std::future::ready(Ok(count + 1))).await.expect("models")
}

fn names(context: &Context) -> cim_persistence::subject::Names {
    NatsRepositoryConfig::for_context(context.scheme().context().to_string()).names()
}

/// The memory that this process holds, in MiB.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = status.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.map_or(f64::NAN, |pages| pages * 4096.0 / f64::from(1 << 20))
}
