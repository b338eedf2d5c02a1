//! Units of work: several aggregates, unique values and messages in one commit, or none of it.

#![allow(clippy::unwrap_used)]

mod domain;
mod commit;
mod faults;
mod hooks;
mod server;
mod unique;
