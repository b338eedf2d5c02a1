//! Queries over read models and events: each way gives the same, plans explain themselves, what is refused is refused exactly.
#![allow(clippy::unwrap_used)]

#[path = "../support/test_server.rs"]
mod test_server;

mod cache;
mod domain;
mod events;
mod indexes;
mod plans;
mod property;
mod refusals;
mod search;
