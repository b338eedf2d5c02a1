//! How a test sees another test fail: with which message, and where.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, Location, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// What a failed expectation said.
pub(crate) struct Failure {
    pub(crate) message: String,
    /// The line that the panic names, and the line of the call of [`failure`].
    pub(crate) at: (String, u32),
    pub(crate) called: (String, u32),
}

thread_local! {
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
    static SEEN: RefCell<Option<(String, u32)>> = const { RefCell::new(None) };
}

/// Runs what must fail, silently.
#[track_caller]
pub(crate) fn failure<T>(test: impl FnOnce() -> T) -> Failure {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |panic| match EXPECTED.get() {
            true => SEEN.with(|seen| *seen.borrow_mut() = panic.location().map(line_of)),
            false => others(panic),
        }));
    });
    let called = line_of(Location::caller());
    EXPECTED.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(test));
    EXPECTED.set(false);
    let Err(panic) = outcome else { panic!("the test did not fail") };
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Failure { message: text.unwrap(), at: SEEN.with(|seen| seen.take()).unwrap(), called }
}

fn line_of(at: &Location<'_>) -> (String, u32) {
    (at.file().to_owned(), at.line())
}
