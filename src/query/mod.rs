//! Queries over read models and over events: which way to the documents is the cheapest, and what it really cost.
//!
//! [`Models::search`](crate::read_model::Models::search) asks the models of one type. [`QueryOptimizer`] plans a [`Query`] or its
//! text, says what it will do ([`QueryPlan::explain`]) and does it. What has to hold for a document, order and pages are
//! those of [`specification`](crate::specification); every way gives the same result as reading everything would.

mod error;
mod hint;
mod source;
mod conditions;
mod indexes;
mod estimate;
mod plan;
mod planner;
mod events;
mod models;
mod search;
mod performance;
mod cache;
mod optimizer;

pub use error::QueryError;
pub use estimate::{
    CONSUMER_TIME, EVENT_TIME, Estimate, MODEL_TIME, ROUND_TRIP_TIME, STREAMED_MODEL_TIME,
};
pub use hint::{IndexStrategy, QueryHint, TimeRange};
pub use optimizer::{QueryOptimizer, QueryResult};
pub use performance::{PatternUse, QueryPerformance};
pub use plan::{Operation, QueryPlan};
pub use source::{Query, Source};
