//! Bad days: writers that race, servers that die, callers that give up, answers that get lost.

#![allow(clippy::unwrap_used)]

mod crash;
mod domain;
mod dropped;
mod killed;
mod memory;
mod meter;
mod race;
#[path = "../support/test_server.rs"]
mod test_server;
