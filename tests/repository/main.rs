//! Aggregates on real servers: what saving, loading, deciding and forgetting promise.

#![allow(clippy::unwrap_used)]

#[path = "../support/test_server.rs"]
mod test_server;

mod as_of;
mod bad_input;
mod branches;
mod cache_state;
mod config;
mod delete_history;
mod distrust;
mod domain;
mod lifecycle;
mod load;
mod odd_state;
mod outcomes;
mod query;
mod rows;
mod save;
mod snapshots;
mod stale;
mod transact;
mod unknown;
