//! What the tools for tests promise to those who write tests with them, and what the thin layers above the store promise.

#![allow(clippy::unwrap_used)]

#[path = "../support/test_server.rs"]
mod test_server;

mod aggregates;
mod blocking;
mod contexts;
mod domain;
mod failures;
mod processes;
mod projections;
mod streams;
