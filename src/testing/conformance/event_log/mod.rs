//! What every [`EventLog`] promises.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use cim_persistence::event_log::MemoryLog;
//! use cim_persistence::subject::{ContextName, SubjectScheme};
//! use cim_persistence::testing::conformance::event_log::{LogUnderTest, run};
//!
//! let context = ContextName::new("sales")?;
//! let scheme = SubjectScheme::new(context, "cim.events", "cim.aggregates")?;
//! run(async || LogUnderTest { log: Arc::new(MemoryLog::new()), scheme: scheme.clone() }).await;
//! # Ok(())
//! # }
//! ```

mod batches;
mod follows;
mod guards;
mod matches;
mod messages;
mod reads;
mod writers;

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;

use super::{Broken, Case, cases, run_all};
use crate::backend::{BackendError, Guard, NewMessage, Position, StoredMessage};
use crate::event::{Headers, NonEmpty};
use crate::event_log::{EventLog, LogQuery};
use crate::subject::{AggregateId, AggregateType, Pattern, Subject, SubjectScheme};

/// A log to be checked, and the subjects it takes.
#[derive(Debug, Clone)]
pub struct LogUnderTest {
    /// The log, new and empty.
    pub log: Arc<dyn EventLog>,
    /// The scheme of the subjects that it holds.
    pub scheme: SubjectScheme,
}

/// Every promise of an event log.
pub fn cases() -> Vec<Case<LogUnderTest>> {
    cases![
        guards::positions_grow,
        guards::start_is_accepted_once,
        guards::exact_position_is_accepted,
        guards::position_behind_or_ahead_is_refused,
        guards::other_subject_is_guarded,
        guards::refusal_stores_nothing,
        batches::messages_lie_together_in_order,
        batches::one_message_is_a_batch,
        batches::messages_that_come_one_by_one_are_a_batch,
        batches::any_guard_refuses_the_whole,
        batches::other_subjects_are_guarded,
        batches::guard_on_what_the_batch_wrote_is_refused,
        batches::status_ends_with_a_whole_batch,
        batches::limit_is_accepted,
        batches::more_than_the_limit_is_refused,
        messages::largest_is_stored_and_larger_refused,
        messages::largest_of_a_batch_is_stored_and_larger_refused,
        messages::known_id_is_a_duplicate,
        messages::known_id_refuses_the_batch,
        messages::id_of_a_refused_message_is_not_known,
        messages::empty_payload_is_stored,
        messages::odd_headers_come_back,
        messages::line_break_in_a_header_is_refused,
        messages::times_do_not_go_back,
        reads::empty_log_has_nothing,
        reads::last_is_the_newest_on_its_subject,
        reads::first_after_is_the_next_on_its_subject,
        reads::lasts_are_in_order_of_position,
        reads::lasts_of_a_thousand_subjects,
        reads::lasts_of_many_bytes,
        reads::query_selects_by_position_and_filter,
        reads::long_log_is_read_whole,
        reads::large_messages_are_read_whole,
        reads::reading_while_writing_keeps_order,
        reads::dropped_read_disturbs_nothing,
        reads::status_counts,
        matches::last_of_each_subject_as_of_each_position,
        matches::last_of_each_subject_as_of_a_time,
        matches::overlapping_patterns_find_a_subject_once,
        matches::no_more_than_one_answer_holds,
        matches::matches_of_many_bytes_are_whole,
        follows::past_comes_first_and_then_what_is_stored,
        follows::empty_log_is_caught_up_at_once,
        follows::nothing_that_matches_is_caught_up_at_once,
        follows::begins_after_any_position,
        follows::begins_at_any_time,
        follows::begins_now,
        follows::begins_with_the_last_of_each_subject,
        follows::overlapping_patterns_deliver_once,
        follows::following_while_writing_leaves_nothing_out,
        follows::long_log_is_followed_whole,
        follows::large_messages_are_followed_whole,
        follows::message_is_as_it_is_read,
        follows::position_beyond_the_end_is_another_log,
        follows::followers_are_independent,
        follows::dropped_follower_disturbs_nothing,
        writers::one_of_many_writers_wins,
        writers::one_of_many_batches_wins,
        writers::disjoint_batches_all_succeed,
    ]
}

/// Checks every promise, each on a log of its own that `make` returns new and empty.
///
/// # Panics
/// When a promise is broken, with the names of all that are.
pub async fn run(make: impl AsyncFn() -> LogUnderTest) {
    run_all(&cases(), make).await;
}

impl LogUnderTest {
    /// The subject of one of many aggregates of one type.
    fn subject(&self, number: usize) -> Subject {
        self.subject_of("order", number)
    }

    fn subject_of(&self, aggregate: &str, number: usize) -> Subject {
        let aggregate = AggregateType::new(aggregate).expect("the checks use plain names");
        let id = AggregateId::new(number.to_string()).expect("digits are an id");
        self.scheme.events_of(&aggregate, &id)
    }

    /// A pattern of the subjects after the context.
    fn pattern(&self, rest: &str) -> Pattern {
        let all = self.scheme.all_events();
        let base = all.strip_suffix('>').expect("the pattern of all events has a tail");
        Pattern::parse(&format!("{base}{rest}")).expect("the checks use plain patterns")
    }

    fn patterns(&self, rests: &[&str]) -> NonEmpty<Pattern> {
        let patterns = rests.iter().map(|rest| self.pattern(rest)).collect();
        NonEmpty::from_vec(patterns).expect("the checks name at least one pattern")
    }

    /// Stores a message on each of so many subjects.
    async fn fill(&self, subjects: usize) -> Result<(), BackendError> {
        let size = self.log.limits().max_batch_messages.min(500);
        let numbers: Vec<usize> = (0..subjects).collect();
        for chunk in numbers.chunks(size) {
            let messages = chunk.iter().map(|number| message(self.subject(*number), Guard::Free));
            self.batch(messages.collect()).await?;
        }
        Ok(())
    }

    async fn publish(&self, number: usize, guard: Guard) -> Result<Position, BackendError> {
        self.log.publish(message(self.subject(number), guard)).await
    }

    async fn batch(&self, messages: Vec<NewMessage>) -> Result<Position, BackendError> {
        let messages = NonEmpty::from_vec(messages).expect("the checks send no empty batch");
        self.log.publish_batch(messages).await
    }

    async fn stream(&self, messages: BoxStream<'_, NewMessage>) -> Result<Position, BackendError> {
        self.log.publish_stream(messages).await
    }

    async fn read(
        &self,
        filter: Option<&str>,
        after: Position,
    ) -> Result<Vec<StoredMessage>, BackendError> {
        let query = LogQuery { filter: filter.map(str::to_owned), after };
        self.log.read(query).try_collect().await
    }

    /// Everything the log holds.
    async fn all(&self) -> Result<Vec<StoredMessage>, BackendError> {
        self.read(None, Position::START).await
    }

    async fn count(&self) -> Result<u64, BackendError> {
        Ok(self.log.status().await?.messages)
    }
}

fn message(subject: Subject, guard: Guard) -> NewMessage {
    with_payload(subject, guard, "payload")
}

fn with_payload(subject: Subject, guard: Guard, payload: impl Into<Bytes>) -> NewMessage {
    NewMessage { subject, headers: Headers::new(), payload: payload.into(), guard }
}

fn positions(messages: &[StoredMessage]) -> Vec<Position> {
    messages.iter().map(|message| message.position).collect()
}

type Outcome = Result<(), Broken>;
