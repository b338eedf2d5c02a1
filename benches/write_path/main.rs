//! The write path beside the same work by hand on async-nats, in one run.
//!
//! `cargo bench --bench write_path` prints a table per server and, as its last line, the rows as JSON. `-- --quick` runs
//! fewer and smaller rounds in under two minutes; `-- durable`, `default` or `cluster` runs that table only, and
//! `-- --rows=<name>` only the rows of that name: `one`, `many`, `three`, `transfers`,
//! `relay`, `callers`, `load`, `read`.
#![allow(missing_docs, clippy::print_stdout, unreachable_pub)]

mod domain;
mod leader;
mod raw;
mod report;
mod transactions;
mod work;

use bytes::Bytes;
use cim_persistence::backend::Position;
use cim_persistence::backend::nats::Connection;
use cim_persistence::event_log::LogQuery;
use cim_persistence::server::{PrivateCluster, PrivateServer, ServerConfig};
use cim_persistence::store::{Context, NatsRepositoryConfig};
use futures::TryStreamExt;

use domain::Shape;
use raw::Raw;
use report::{Bar, Goal, Row};
use transactions::Target;
use work::Round;

/// How much is done.
#[derive(Clone, Copy)]
struct Size {
    rounds: usize,
    /// How often everything is read.
    reads: usize,
    /// How many commits each of many callers makes by a slow way of raw.
    slow: usize,
    /// About how many commits a round of a fast way has.
    commits: usize,
    read: usize,
}

const FULL: Size = Size { rounds: 7, reads: 5, slow: 2, commits: 20_000, read: 1_000_000 };
const QUICK: Size = Size { rounds: 3, reads: 2, slow: 1, commits: 2_000, read: 30_000 };

/// By how many MiB the memory of the process may grow while everything is read: a small part of what is read.
const MOST_GROWTH: f64 = 16.0;

struct Bench {
    connection: Connection,
    client: async_nats::Client,
    server: &'static str,
    replicas: usize,
    size: Size,
    rows: Vec<Row>,
}

/// Which rows are run: those of one name, or all.
#[derive(Clone, Copy)]
struct Selection<'a>(Option<&'a str>);

impl Selection<'_> {
    fn has(self, name: &str) -> bool {
        self.0.is_none_or(|only| only == name)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let size = if args.iter().any(|arg| arg == "--quick") { QUICK } else { FULL };
    let chosen: Vec<&str> =
        args.iter().map(String::as_str).filter(|arg| !arg.starts_with("--")).collect();
    let selection = Selection(args.iter().find_map(|arg| arg.strip_prefix("--rows=")));
    let wanted = |name: &str| chosen.is_empty() || chosen.contains(&name);
    let mut rows = Vec::new();
    if wanted("durable") {
        report::head("A durable single server (`nats-config/single.conf`)");
        let server = PrivateServer::start(ServerConfig::Single).await?;
        rows.extend(Bench::run(server.url(), "durable", 1, size, selection).await?);
    }
    if wanted("default") {
        report::head("A single server with the default sync, which loses data on a power cut");
        let server = PrivateServer::start(ServerConfig::DefaultSync).await?;
        rows.extend(Bench::run(server.url(), "default", 1, size, selection).await?);
    }
    if wanted("cluster") {
        report::head("A durable cluster of three on one machine (`nats-config/cluster.conf`)");
        let cluster = PrivateCluster::start().await?;
        rows.extend(Bench::run(&cluster.urls()[0], "cluster", 3, size, selection).await?);
    }
    println!("\n{}", serde_json::json!({ "rows": rows }));
    Ok(())
}

impl Bench {
    async fn run(
        url: &str,
        server: &'static str,
        replicas: usize,
        size: Size,
        selection: Selection<'_>,
    ) -> Result<Vec<Row>, Box<dyn std::error::Error>> {
        let client = async_nats::connect(url).await?;
        let connection = Connection::from_client(client.clone())
            .with_timeout(std::time::Duration::from_secs(60));
        let mut bench = Self { connection, client, server, replicas, size, rows: Vec::new() };
        let payload = bench.payload().await?;
        for name in ["one", "many", "three", "transfers", "relay", "callers", "load", "read"] {
            if selection.has(name) {
                bench.work(name, &payload).await;
                bench.clear().await?;
            }
        }
        Ok(bench.rows)
    }

    async fn work(&mut self, name: &str, payload: &Bytes) {
        let durable = self.server == "durable";
        match name {
            "one" => self.one_caller(payload).await,
            "many" => self.many_callers(payload).await,
            "three" => self.three_events(payload).await,
            "transfers" if durable => self.transfers(payload).await,
            "relay" if durable => self.relays().await,
            "callers" => self.concurrencies(payload).await,
            "load" => self.loads().await,
            "read" => self.read_everything().await,
            _ => {}
        }
    }

    /// Removes every stream, so that no row has to do with what those before it left behind.
    async fn clear(&self) -> Result<(), Box<dyn std::error::Error>> {
        let jetstream = async_nats::jetstream::new(self.client.clone());
        let streams: Vec<String> = jetstream.stream_names().try_collect().await?;
        for stream in streams {
            jetstream.delete_stream(stream).await?;
        }
        Ok(())
    }

    fn shape(&self, keep_state: bool) -> Shape {
        Shape { keep_state, cache_size: 10_000, replicas: self.replicas }
    }

    async fn context(&self, keep_state: bool) -> Context {
        self.context_of(self.shape(keep_state)).await
    }

    async fn context_of(&self, shape: Shape) -> Context {
        let context = domain::context(&self.connection, shape).await;
        if self.replicas > 1 {
            let name = context.scheme().context().to_string();
            let stream = NatsRepositoryConfig::for_context(name).names().event_stream;
            leader::lead_here(&self.client, &stream).await;
        }
        context
    }

    async fn raw(&self) -> Raw {
        let raw = Raw::new(&self.client, self.replicas).await;
        if self.replicas > 1 {
            leader::lead_here(&self.client, &raw.stream).await;
        }
        raw
    }

    /// What raw sends: a payload with which its message is as large as one of ours, though it has fewer headers.
    async fn payload(&self) -> Result<Bytes, Box<dyn std::error::Error>> {
        let context = self.context(false).await;
        work::save_round(&context, 1, 2, 1).await;
        let query = LogQuery { filter: None, after: Position::new(1) };
        let messages: Vec<_> = context.log().read(query).try_collect().await?;
        let last = messages.last().ok_or("nothing was stored")?;
        let headers: usize =
            last.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        let block = last.payload.len();
        println!("(a block of ours has {block} bytes, its headers {headers})");
        Ok(vec![b'x'; block + headers].into())
    }

    fn goal(&self, work: impl Into<String>, unit: &'static str, bar: Bar) -> Goal {
        Goal { work: work.into(), server: self.server, unit, bar }
    }

    fn note(&mut self, goal: Goal, rounds: &[(f64, f64)]) {
        self.rows.push(Row::of(goal, rounds));
    }

    /// Runs a round as often as wanted, after one that does not count. Ours and raw keep their streams from round to round,
    /// so that these grow alike, and use other subjects in each. What ours writes behind is stored before it is raw's turn.
    async fn rounds<T>(&self, mut round: impl AsyncFnMut(&Self) -> T) -> Vec<T> {
        round(self).await;
        let mut all = Vec::new();
        for _ in 0..self.size.rounds {
            all.push(round(self).await);
        }
        all
    }

    async fn one_caller(&mut self, payload: &Bytes) {
        let commits = self.size.commits / 20;
        let (context, raw) = (self.context(true).await, self.raw().await);
        let rounds = self
            .rounds(async |_| {
                let ours = work::save_round(&context, 1, commits, 1).await;
                context.flush().await;
                let raw = work::singles_round(&raw.afresh(), 1, commits, payload).await;
                (ours.commits_per_second, raw.commits_per_second)
            })
            .await;
        let goal =
            self.goal("one caller, one event, one aggregate", "commits/s", Bar::AtLeast(0.85));
        self.note(goal, &rounds);
    }

    async fn many_callers(&mut self, payload: &Bytes) {
        let each = (self.size.commits * 4 / 1024).max(4);
        let context = self.context(true).await;
        let (single, batched) = (self.raw().await, self.raw().await);
        let rounds = self
            .rounds(async |bench| {
                let ours = work::save_round(&context, 1024, each, 1).await;
                context.flush().await;
                let raw = single.afresh();
                let singles_each = if bench.server == "default" { each } else { bench.size.slow };
                let singles = work::singles_round(&raw, 1024, singles_each, payload).await;
                let raw = batched.afresh();
                let packed = work::packed_round(&raw, 1024, each, 1, 300, payload).await;
                (ours.commits_per_second, better(singles, packed).0)
            })
            .await;
        let goal = self.goal(
            "1,024 callers, one event, distinct aggregates",
            "commits/s",
            Bar::AtLeast(0.8),
        );
        self.note(goal, &rounds);
    }

    async fn three_events(&mut self, payload: &Bytes) {
        let each = (self.size.commits / 256).max(4);
        let (off, kept) = (self.context(false).await, self.context(true).await);
        let (batched, alone) = (self.raw().await, self.raw().await);
        let rounds = self
            .rounds(async |bench| {
                let without = work::save_round(&off, 256, each, 3).await.commits_per_second;
                let packed =
                    work::packed_round(&batched.afresh(), 256, each, 3, 300, payload).await;
                let with = work::save_round(&kept, 256, each, 3).await.commits_per_second;
                kept.flush().await;
                let single =
                    work::batch_each_round(&alone.afresh(), 256, bench.size.slow, 3, payload).await;
                (without, with, packed.commits_per_second, single)
            })
            .await;
        let each_alone: Vec<_> = rounds.iter().map(|round| (round.0, round.3)).collect();
        let packed_off: Vec<_> = rounds.iter().map(|round| (round.0, round.2)).collect();
        let packed_kept: Vec<_> = rounds.iter().map(|round| (round.1, round.2)).collect();
        if self.server == "durable" {
            let work = "256 callers, three events, state off, against a batch each";
            let goal = self.goal(work, "commits/s", Bar::AtLeast(30.0));
            self.note(goal, &each_alone);
        }
        let work = "256 callers, three events, state off, against packed";
        let goal = self.goal(work, "commits/s", Bar::AtLeast(0.75));
        self.note(goal, &packed_off);
        let work = "256 callers, three events, state kept, against packed";
        let goal = self.goal(work, "commits/s", Bar::AtLeast(0.6));
        self.note(goal, &packed_kept);
    }

    async fn transfers(&mut self, payload: &Bytes) {
        let each = (self.size.commits / 256 / 2).max(4);
        let (context, raw) = (self.context(true).await, self.raw().await);
        let rounds = self
            .rounds(async |bench| {
                let ours = transactions::transfers(&context, 256, each).await;
                context.flush().await;
                (
                    ours,
                    transactions::raw_transfers(&raw.afresh(), 256, bench.size.slow, payload).await,
                )
            })
            .await;
        let work = "256 callers, transfers with a message, against a batch each";
        let goal = self.goal(work, "commits/s", Bar::AtLeast(20.0));
        self.note(goal, &rounds);
    }

    async fn relays(&mut self) {
        for (target, name) in [(Target::Core, "NATS"), (Target::Stream, "a stream")] {
            let messages = self.size.commits;
            let rounds = self
                .rounds(async |bench| {
                    let (context, raw) = (bench.context(false).await, bench.raw().await);
                    let connection = &bench.connection;
                    let ours =
                        transactions::relay(&context, connection, &raw, messages, target).await;
                    (ours, transactions::republish(&raw, &context, messages, target).await)
                })
                .await;
            let work = format!("relay to {name}, against a consumer that republishes");
            let goal = self.goal(work, "messages/s", Bar::AtLeast(0.5));
            self.note(goal, &rounds);
        }
    }

    async fn concurrencies(&mut self, payload: &Bytes) {
        for callers in [1, 4, 16, 64, 256] {
            let context = self.context(false).await;
            let (single, batched) = (self.raw().await, self.raw().await);
            let each = (self.size.commits / callers).clamp(20, self.size.commits / 10);
            let rounds = self
                .rounds(async |_| {
                    let ours = work::save_round(&context, callers, each, 1).await;
                    let singles =
                        work::singles_round(&single.afresh(), callers, each, payload).await;
                    let packed =
                        work::packed_round(&batched.afresh(), callers, each, 1, 300, payload).await;
                    (ours, better(singles, packed))
                })
                .await;
            let who = if callers == 1 { "1 caller".into() } else { format!("{callers} callers") };
            let rates: Vec<_> =
                rounds.iter().map(|(ours, raw)| (ours.commits_per_second, raw.0)).collect();
            let goal = self.goal(format!("{who}, throughput"), "commits/s", Bar::AtLeast(0.8));
            self.note(goal, &rates);
            let times: Vec<_> = rounds.iter().map(|(ours, raw)| (ours.p50_ms, raw.1)).collect();
            let goal = self.goal(format!("{who}, latency p50"), "ms", Bar::AtMost(1.25));
            self.note(goal, &times);
            self.clear().await.expect("streams can be removed");
        }
    }

    async fn loads(&mut self) {
        let cached = self.saved(self.shape(true), 20).await;
        let kept = self.saved(Shape { cache_size: 0, ..self.shape(true) }, 20).await;
        let events = self.saved(Shape { cache_size: 0, ..self.shape(false) }, 100).await;
        // In this order because the followers of a replicated stream look only every two seconds whether they can take part in
        // direct gets (`monitorStream` of nats-server). Both sides of the first row ask one stream; those of the others would not be alike until then.
        self.load_events(events).await;
        self.load_with_state("load with current state, not cached, p50", kept).await;
        self.load_with_state("load with current state, cached as by default, p50", cached).await;
    }

    async fn load_with_state(&mut self, work: &str, (context, id): (Context, String)) {
        let count = self.size.commits / 20;
        let name = context.scheme().context().to_string();
        let bucket = NatsRepositoryConfig::for_context(name).names().state_bucket;
        let (stream, key) = (format!("KV_{bucket}"), format!("$KV.{bucket}.account.{id}"));
        let raw = self.raw().await;
        let rounds = self
            .rounds(async |_| {
                let accounts = domain::accounts(&context);
                let ours = async || work::load(&accounts, &id).await;
                let raw = async || work::direct_get(&raw, &stream, &key).await;
                work::p50s_in_turn(count, ours, raw).await
            })
            .await;
        let goal = self.goal(work, "ms", Bar::AtMost(1.5));
        self.note(goal, &rounds);
    }

    async fn load_events(&mut self, (context, id): (Context, String)) {
        let count = self.size.commits / 100;
        let name = context.scheme().context().to_string();
        let stream = NatsRepositoryConfig::for_context(name.clone()).names().event_stream;
        let subject = format!("cim.events.{name}.account.{id}");
        let raw = self.raw().await;
        let rounds = self
            .rounds(async |_| {
                let accounts = domain::accounts(&context);
                let ours = async || work::load(&accounts, &id).await;
                let raw = async || work::batched_get(&raw, &stream, &subject, 100).await;
                work::p50s_in_turn(count, ours, raw).await
            })
            .await;
        let goal = self.goal("load of 100 events, no state, p50", "ms", Bar::AtMost(1.25));
        self.note(goal, &rounds);
    }

    /// A context, and the id of an aggregate in it of so many events, one commit each.
    async fn saved(&self, shape: Shape, events: usize) -> (Context, String) {
        use cim_persistence::repository::Aggregate;
        let context = self.context_of(shape).await;
        let repository = domain::accounts(&context);
        let account = domain::Account::new(&"loaded".to_owned());
        for _ in 0..events {
            let event = vec![domain::Booked::new()];
            let expected = cim_persistence::store::ExpectedVersion::Any;
            repository.save(&account, event, expected).await.expect("saved");
        }
        context.flush().await;
        (context, account.id().clone())
    }

    async fn read_everything(&mut self) {
        let context = self.context(false).await;
        let each = self.size.read / 256 / 3;
        let total = each * 256 * 3;
        work::save_round(&context, 256, each, 3).await;
        let name = context.scheme().context().to_string();
        let stream = NatsRepositoryConfig::for_context(name).names().event_stream;
        let raw = self.raw().await;
        let mut growth: f64 = 0.0;
        let mut rounds = Vec::new();
        for _ in 0..self.size.reads {
            let (ours, grown) = work::read_all(&context, total).await;
            growth = growth.max(grown);
            rounds.push((ours, work::consume_all(&raw, &stream, total).await));
        }
        let work = format!("read {total} events from the start");
        let goal = self.goal(work, "events/s", Bar::AtLeast(0.6));
        self.note(goal, &rounds);
        let work = "the same, growth of resident memory (bar in MiB)";
        let goal = self.goal(work, "MiB", Bar::AtMost(MOST_GROWTH));
        self.note(goal, &[(growth, 1.0)]);
    }
}

/// The better of two raw ways: the higher rate, and the shorter median.
fn better(singles: Round, packed: Round) -> (f64, f64) {
    let rate = singles.commits_per_second.max(packed.commits_per_second);
    (rate, singles.p50_ms.min(packed.p50_ms))
}
