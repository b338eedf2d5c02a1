//! What a test needs that has no server, or that wants to see whether a store of its own keeps the promises.
//!
//! The stores in memory stand beside their ports: [`MemoryLog`](crate::event_log::MemoryLog) and
//! [`MemoryKeyValue`](crate::state::MemoryKeyValue). What goes wrong with them on purpose is in [`faults`], what every
//! store promises is in [`conformance`]. [`SchemaLock`] keeps in a file what released events look like.

pub mod faults;
pub mod conformance;
mod schema_lock;

pub use schema_lock::SchemaLock;
