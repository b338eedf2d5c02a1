//! What a test process traces, kept to be looked at.

use std::fmt::Write as _;
use std::sync::{Mutex, Once, PoisonError};

static LINES: Mutex<String> = Mutex::new(String::new());

/// Keeps what this process traces from now on, at every level.
pub(crate) fn start() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Capture).unwrap());
}

pub(crate) fn captured() -> String {
    LINES.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

struct Capture;

impl tracing::Subscriber for Capture {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut Keep);
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut Keep);
    }
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Keep);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

struct Keep;

impl tracing::field::Visit for Keep {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(lines, "{}={value:?}", field.name()).unwrap();
    }
}
