//! Process managers and their timeouts: each event and each timeout takes effect once, whatever happens.

#![allow(clippy::unwrap_used)]

#[path = "../support/test_server.rs"]
mod test_server;

mod domain;
mod grounds;
mod once;
mod poison;
mod queue;
mod server;
