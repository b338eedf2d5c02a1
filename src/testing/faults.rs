//! What goes wrong with the stores in memory, on purpose.
//!
//! A test makes [`Faults`], hands them to [`MemoryLog::with_faults`](crate::event_log::MemoryLog::with_faults) or
//! [`MemoryKeyValue::with_faults`](crate::state::MemoryKeyValue::with_faults), and plans what should happen, or lets a
//! seed decide. What a fault does to a store is told by [`Fault`].

pub use crate::backend::memory::{Call, CallKind, Fault, Faults, Gate, Late, Rates};
