//! Counting what happens inside while a test runs, apart from the tests that run beside it.

use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// Sees the metrics of one test.
pub(crate) struct Meter {
    snapshotter: Snapshotter,
    resolved: AtomicU64,
}

impl Meter {
    /// How often so far the outcome of a commit was unknown, and was looked for in the log.
    pub(crate) fn resolved(&self) -> u64 {
        // A snapshot has what came since the one before.
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            if let ("cim_commits_resolved_total", DebugValue::Counter(more)) =
                (key.key().name(), value)
            {
                self.resolved.fetch_add(more, Ordering::SeqCst);
            }
        }
        self.resolved.load(Ordering::SeqCst)
    }
}

/// Runs a test on threads of its own that all count with the same meter.
pub(crate) fn metered(test: impl AsyncFnOnce(Meter)) {
    // As long as the threads live, which is longer than this function may know.
    let recorder: &'static DebuggingRecorder = Box::leak(Box::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(|| mem::forget(metrics::set_default_local_recorder(recorder)))
        .build()
        .unwrap();
    let meter = Meter { snapshotter: recorder.snapshotter(), resolved: AtomicU64::new(0) };
    metrics::with_local_recorder(recorder, || runtime.block_on(test(meter)));
}
