//! Units of work: several aggregates, unique values and messages in one commit, or none of it.

#![allow(clippy::unwrap_used)]

#[path = "../support/test_server.rs"]
mod test_server;

mod domain;
mod commit;
mod faults;
mod hooks;
mod server;
mod unique;
