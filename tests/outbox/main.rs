//! The outbox: whatever happens, each message arrives, those of one key in order, and repetitions are known by their id.

#![allow(clippy::unwrap_used)]

mod beside;
mod domain;
mod faults;
mod manual;
#[path = "../support/new_leader.rs"]
mod new_leader;
mod relay;
mod server;
#[path = "../support/test_server.rs"]
mod test_server;
mod trouble;
mod webhook;
