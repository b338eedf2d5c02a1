//! Subscriptions: which events come, in which order, and what a handler that fails leads to.
#![allow(clippy::unwrap_used)]

mod bench;
mod dispatch;
mod faults;
mod routed;
mod running;
mod selects;
mod server;
#[path = "../support/test_server.rs"]
mod test_server;
