//! What a test needs that has no server, or that wants to see whether a store of its own keeps the promises.
//!
//! Tests of a domain are written with [`AggregateTest`] and [`ProjectionTest`], pure and without a runtime; those of
//! process managers with [`ProcessTest`], those of a service with a [`TestContext`], in memory or on a private server by one switch. [`FixedClock`], [`SteppingClock`] and
//! [`CountingIds`] are for [`Ports`](crate::store::Ports) of a test's own.
//!
//! The stores in memory stand beside their ports: [`MemoryLog`](crate::event_log::MemoryLog) and
//! [`MemoryKeyValue`](crate::state::MemoryKeyValue). What goes wrong with them on purpose is in [`faults`], what every
//! store promises is in [`conformance`]. [`SchemaLock`] keeps in a file what released events look like.

mod deterministic;
mod difference;
mod histories;
mod aggregate;
mod projection;
mod overtaken;
mod context;
mod process;
pub mod faults;
pub mod conformance;
mod schema_lock;

pub use schema_lock::SchemaLock;

pub use aggregate::{AggregateTest, Decided};
pub use context::{TEST_SERVER, TEST_TIME, TestBackend, TestContext, TestContextError};
pub use deterministic::{CountingIds, FixedClock, SteppingClock};
pub use process::ProcessTest;
pub use projection::ProjectionTest;
