//! What an operator sees of operations: how often they came out how, how long their callers waited, and what their spans
//! say. Counted once for each call, whatever it took to answer it.

use std::time::Instant;

use tracing::Span;
use tracing::field::display;

use super::{AggregateMetadata, RepositoryError, TransactError, Transacted};

/// A save or a deletion that has come out.
pub(super) fn saved(begun: Instant, result: &Result<AggregateMetadata, RepositoryError>) {
    let span = Span::current();
    match result {
        Ok(saved) => {
            span.record("version", saved.version);
            span.record("position", saved.position.get());
            span.record("outcome", "stored");
            count_save(begun, Outcome::Ok);
        }
        Err(error) => {
            span.record("outcome", display(error));
            count_save(begun, Outcome::of(error));
        }
    }
}

/// A transaction that has come out.
pub(super) fn transacted<R, E>(
    begun: Instant,
    result: &Result<Transacted<R>, TransactError<E>>,
    attempts: u32,
) {
    let span = Span::current();
    span.record("attempts", attempts);
    match result {
        Ok(done) => {
            span.record("version", done.version);
            span.record("position", done.position.get());
            span.record("outcome", if done.events > 0 { "stored" } else { "nothing to do" });
            count_save(begun, Outcome::Ok);
        }
        Err(TransactError::Rejected(_)) => {
            span.record("outcome", "rejected");
            count_save(begun, Outcome::Rejected);
        }
        Err(TransactError::Repository(error)) => {
            span.record("outcome", display(error));
            count_save(begun, Outcome::of(error));
        }
    }
}

/// A load that has come out.
pub(super) fn loaded<A>(begun: Instant, result: &Result<(A, AggregateMetadata), RepositoryError>) {
    let span = Span::current();
    match result {
        Ok((_, loaded)) => {
            span.record("version", loaded.version);
            span.record("position", loaded.position.get());
            span.record("outcome", "ok");
            metrics::counter!("cim_loads_total", "outcome" => "ok").increment(1);
        }
        Err(error) => {
            span.record("outcome", display(error));
            metrics::counter!("cim_loads_total", "outcome" => "error").increment(1);
        }
    }
    metrics::histogram!("cim_load_seconds").record(begun.elapsed().as_secs_f64());
}

/// One of the operations that are neither saves nor loads, which says how it came out when it has.
pub(super) async fn operation<T>(
    name: &'static str,
    work: impl Future<Output = Result<T, RepositoryError>>,
) -> Result<T, RepositoryError> {
    let begun = Instant::now();
    let result = work.await;
    let outcome = match &result {
        Ok(_) => {
            Span::current().record("outcome", "ok");
            "ok"
        }
        Err(error) => {
            Span::current().record("outcome", display(error));
            "error"
        }
    };
    metrics::counter!("cim_operations_total", "operation" => name, "outcome" => outcome)
        .increment(1);
    metrics::histogram!("cim_operation_seconds", "operation" => name)
        .record(begun.elapsed().as_secs_f64());
    result
}

enum Outcome {
    Ok,
    Conflict,
    Rejected,
    Error,
}

impl Outcome {
    fn of(error: &RepositoryError) -> Self {
        match error {
            RepositoryError::VersionConflict { .. } => Self::Conflict,
            RepositoryError::Transition { .. } => Self::Rejected,
            _ => Self::Error,
        }
    }
}

/// With each label written out, since one that is not known before costs an allocation even where nobody counts.
fn count_save(begun: Instant, outcome: Outcome) {
    let counter = match outcome {
        Outcome::Ok => metrics::counter!("cim_saves_total", "outcome" => "ok"),
        Outcome::Conflict => metrics::counter!("cim_saves_total", "outcome" => "conflict"),
        Outcome::Rejected => metrics::counter!("cim_saves_total", "outcome" => "rejected"),
        Outcome::Error => metrics::counter!("cim_saves_total", "outcome" => "error"),
    };
    counter.increment(1);
    metrics::histogram!("cim_save_seconds").record(begun.elapsed().as_secs_f64());
}
