//! Process managers and their timeouts: each event and each timeout takes effect once, whatever happens.

#![allow(clippy::unwrap_used)]

mod domain;
mod grounds;
mod once;
mod poison;
mod queue;
mod server;
