//! Following on real servers on bad days: nothing is missed, nothing is doubled, nothing is left behind.
#![allow(clippy::unwrap_used)]

mod bench;
mod crash;
mod cut;
mod leave;
mod now;
mod rights;
#[path = "../support/test_server.rs"]
mod test_server;
