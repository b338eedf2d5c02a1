//! The stores in memory keep the promises of the ports.

use std::sync::Arc;

use cim_persistence::event_log::MemoryLog;
use cim_persistence::state::MemoryKeyValue;
use cim_persistence::subject::{ContextName, SubjectScheme};
use cim_persistence::testing::conformance::event_log::{self, LogUnderTest};
use cim_persistence::testing::conformance::key_value;

#[tokio::test]
async fn log_keeps_every_promise() {
    event_log::run(async || LogUnderTest { log: Arc::new(MemoryLog::new()), scheme: scheme() })
        .await;
}

#[tokio::test]
async fn bucket_keeps_every_promise() {
    key_value::run(async || Arc::new(MemoryKeyValue::new("bucket")) as _).await;
}

fn scheme() -> SubjectScheme {
    SubjectScheme::new(ContextName::new("conformance").unwrap(), "cim.events", "cim.aggregates")
        .unwrap()
}
