//! NATS JetStream as the database of event-sourced, domain-driven services.
//!
//! An aggregate's events are appended to one JetStream stream per bounded context, atomically and guarded by the version
//! the writer saw; each is an IPLD block whose CID covers the one before, so a history can be verified. State and
//! snapshots are derived from the events, kept in KV buckets, and never believed without a look at the events.
//!
//! A service implements [`Aggregate`] for its types, opens a [`Context`], takes a [`Repository`] from it for each type,
//! and calls [`Repository::transact`] and [`Repository::load`]. `README.md` has a whole first program, `ARCHITECTURE.md`
//! says how everything hangs together and what is stored in which form.
//!
//! # Modules, in reading order
//! A module uses those above it only.
//!
//! | module | what it holds |
//! |---|---|
//! | `panics` (private) | what a panic said |
//! | [`clock`] | time and ids, the two things a test must be able to fix |
//! | [`subject`] | what a subject is: names, escaped ids, patterns, addresses |
//! | [`specification`] | what is asked of JSON documents: predicates, order, pages, query text |
//! | [`event`] | what an event is: envelope, metadata, headers |
//! | [`lifecycle`](mod@lifecycle) | the stages of an aggregate's life, and which may follow which |
//! | [`ipld`] | the bytes of an event, its CID, the chain |
//! | [`evolution`] | old shapes of events, states and models read as the newest; carried types |
//! | [`backend`] | messages and failures; connecting; streams and buckets as data |
//! | [`event_log`] | the seam for a stream: append, read, group commit |
//! | [`state`] | the seam for a bucket: keys, compare-and-swap, writing behind |
//! | [`timeouts`] | the seam for what comes due at a time |
//! | `lease` (private) | which of several instances of a worker is active |
//! | [`content_store`] | blocks by their CID, in a bucket |
//! | [`store`] | the events of a context, encoded, chained, read back verified |
//! | [`outbox`] | messages for other systems, stored with the events, published after them |
//! | [`subscription`] | events followed: what is stored, then what is being stored |
//! | [`repository`] | aggregates: load, decide, save |
//! | [`unit_of_work`] | several aggregates, unique values and messages in one commit |
//! | [`read_model`] | documents that queries read: saved, found by pattern and index, watched |
//! | [`projection`] | read models kept by events, each event taking effect once |
//! | [`process`] | process managers: reactions to events and to times, each taking effect once |
//! | [`query`] | queries over models and events: planned, explained, measured |
//! | [`routing`] | messages to handlers, by subject |
//! | [`blocking`] | the same for callers that are not async |
//! | [`migration`] | what is stored, brought from one version to another and back |
//! | [`prelude`] | the traits |
//! | `server` | private servers for tests (feature `server`) |
//! | `testing` | given, when, then; contexts for tests; conformance suites and injected faults (feature `testing`) |
//!
//! # Features
//! - `server`: a private nats-server for examples, tests and benches.
//! - `testing`: the memory adapters, a kit for tests of a domain, injected faults and the conformance suites.
//! - `webhook`: a publisher of outbox messages to web services, over HTTP or HTTPS.
//!
//! None is on by default; `server` and `testing` are for tests, examples and benches, `webhook` is for services.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod panics;
pub mod clock;
pub mod subject;
pub mod specification;
pub mod event;
pub mod lifecycle;
pub mod ipld;
pub mod evolution;
pub mod backend;
pub mod event_log;
pub mod state;
pub mod timeouts;
mod lease;
pub mod content_store;
pub mod store;
pub mod outbox;
pub mod subscription;
pub mod repository;
pub mod unit_of_work;
pub mod read_model;
pub mod projection;
pub mod process;
pub mod query;
pub mod routing;
pub mod migration;
pub mod blocking;
pub mod prelude;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "testing")]
pub mod testing;

pub use backend::nats::Connection;
pub use backend::{ConnectionConfig, Position};
pub use event::{DomainEvent, Metadata};
pub use repository::{
    Aggregate, AggregateMetadata, Freshness, Handle, LoadOptions, NatsRepository, Repository,
    RepositoryError, SaveOptions, SnapshotPolicy, TransactError, TransactOptions, Transacted,
};
pub use store::{Context, ExpectedVersion, NatsRepositoryConfig, StoreError, StoredEvent};

/// The programs of the README, compiled with the doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
