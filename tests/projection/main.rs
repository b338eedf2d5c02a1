//! Projections: each event takes effect once, whatever happens to those who run them and to what they run on.

#![allow(clippy::unwrap_used)]

mod as_of;
mod domain;
mod effects;
mod generations;
#[path = "../support/new_leader.rs"]
mod new_leader;
mod once;
mod other_events;
mod poison;
mod server;
mod stale;
#[path = "../support/test_server.rs"]
mod test_server;
mod trouble;
mod versions;
