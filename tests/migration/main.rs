//! Migrations: what they promise about data, about each other, and when they are killed.
#![allow(clippy::unwrap_used)]

mod domain;
mod followers;
mod kill;
mod plain;
mod reshape;
mod server;
#[path = "../support/test_server.rs"]
mod test_server;
mod takeover;
mod together;
mod ways;
