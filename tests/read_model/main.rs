//! Read models: saved, loaded, found by pattern and watched, on a server and in memory alike.

#![allow(clippy::unwrap_used)]

#[path = "../support/test_server.rs"]
mod test_server;

mod behind;
mod domain;
mod generations;
mod indexes;
mod live;
mod save;
mod scan;
mod view;
mod watch;
