//! What was written by an earlier version of a service is read by a later one: aggregates, snapshots, projections,
//! subscriptions, read models; and what is stored stays what it was.
#![allow(clippy::unwrap_used)]

mod domain;
mod models;
mod old;
mod process;
mod property;
mod registry;
mod service;
#[path = "../support/test_server.rs"]
mod test_server;
