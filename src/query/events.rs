//! Events by a way that was chosen, and the documents they are.

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::plan::Access;
use super::{QueryError, TimeRange};
use crate::backend::{BackendError, Followed, Position, Start, StoredMessage, TailQuery};
use crate::event::{NonEmpty, names};
use crate::event_log::LogQuery;
use crate::store::Context;
use crate::subject::EventPattern;

/// The messages in which a pattern's events are, and perhaps others.
pub(super) fn read(
    context: &Context,
    pattern: &EventPattern,
    access: &Access,
    range: Option<TimeRange>,
) -> BoxStream<'static, Result<StoredMessage, BackendError>> {
    let subjects = pattern.server_filter();
    match (access, range) {
        (Access::Since, Some(range)) => {
            let patterns = NonEmpty::one(subjects.clone());
            let query = TailQuery { patterns, start: Start::Since(range.from) };
            let until = context.log().follow(query).try_take_while(move |followed| {
                std::future::ready(Ok(match followed {
                    Followed::Message(message) => range.until.is_none_or(|end| message.time < end),
                    Followed::CaughtUp => false,
                }))
            });
            let messages = until.try_filter_map(|followed| {
                std::future::ready(Ok(match followed {
                    Followed::Message(message) => Some(message),
                    Followed::CaughtUp => None,
                }))
            });
            messages.boxed()
        }
        (Access::Everything, _) => {
            let filter = Some(context.scheme().all_events());
            context.log().read(LogQuery { filter, after: Position::START })
        }
        _ => {
            let filter = Some(subjects.to_string());
            context.log().read(LogQuery { filter, after: Position::START })
        }
    }
}

/// Whether a message holds an event that is meant, told without decoding it.
pub(super) fn is_meant(
    message: &StoredMessage,
    pattern: &EventPattern,
    range: Option<TimeRange>,
) -> bool {
    range.is_none_or(|range| range.contains(message.time))
        && pattern.server_filter().matches(message.subject.as_str())
        && (pattern.header_filter().is_any() || headers_match(message, pattern))
}

/// The event in a message as a document, once it is verified.
pub(super) fn document(message: StoredMessage, context: &Context) -> Result<Value, QueryError> {
    let event = context.verifier().verify(message)?;
    let metadata: serde_json::Map<String, Value> =
        event.metadata().iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    Ok(json!({
        "aggregate": event.aggregate_type().as_str(),
        "id": event.aggregate_id().as_str(),
        "version": event.version(),
        "type": event.event_type().as_str(),
        "schema": event.schema_version(),
        "event_id": event.event_id().to_string(),
        "occurred_at": event.occurred_at().as_micros(),
        "correlation_id": event.correlation_id().to_string(),
        "causation_id": event.causation_id().map(|id| id.to_string()),
        "position": event.position().get(),
        "metadata": metadata,
        "data": event.stored_data::<Value>()?,
    }))
}

fn headers_match(message: &StoredMessage, pattern: &EventPattern) -> bool {
    let header = |name| message.headers.get(name);
    let version = header(names::SCHEMA_VERSION).and_then(|text| text.parse().ok());
    match (header(names::EVENT_TYPE), version) {
        (Some(event_type), Some(version)) => pattern.header_filter().matches(event_type, version),
        _ => false,
    }
}
