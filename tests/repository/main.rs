//! Aggregates on real servers: what saving, loading, deciding and forgetting promise.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod cache_state;
mod config;
mod delete_history;
mod domain;
mod load;
mod rows;
mod save;
mod snapshots;
mod transact;
