//! What every implementation of a port promises, as checks that anybody can run on a store.
//!
//! One [`Case`] is one promise, by name. Each gets a store of its own, new and empty.

pub mod event_log;
pub mod key_value;

use std::fmt;

use futures::future::BoxFuture;

use crate::backend::BackendError;

/// One promise and how to see whether it is kept by a store `S`.
pub struct Case<S> {
    name: &'static str,
    check: fn(S) -> BoxFuture<'static, Result<(), Broken>>,
}

impl<S> Case<S> {
    /// The promise.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Sees whether a new and empty store keeps the promise.
    ///
    /// # Errors
    /// [`Broken`] when it does not.
    pub async fn run(&self, store: S) -> Result<(), Broken> {
        (self.check)(store).await
    }
}

impl<S> fmt::Debug for Case<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({})", self.name)
    }
}

/// How a promise was broken.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(String);

impl From<BackendError> for Broken {
    fn from(error: BackendError) -> Self {
        Self(format!("an operation that must succeed failed: {error} ({error:?})"))
    }
}

/// Runs every case on a store of its own and panics with the names of the promises that were broken.
async fn run_all<S>(cases: &[Case<S>], make: impl AsyncFn() -> S) {
    let mut broken = Vec::new();
    for case in cases {
        if let Err(how) = case.run(make().await).await {
            broken.push(format!("{}: {how}", case.name));
        }
    }
    assert!(broken.is_empty(), "{} broken promises:\n{}", broken.len(), broken.join("\n"));
}

/// Returns [`Broken`] unless the condition holds.
macro_rules! promise {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::testing::conformance::Broken(format!($($text)+)));
        }
    };
}

/// Returns [`Broken`] unless two values are equal.
macro_rules! promise_eq {
    ($actual:expr, $wanted:expr, $($text:tt)+) => {
        match (&$actual, &$wanted) {
            (actual, wanted) if actual == wanted => {}
            (actual, wanted) => {
                let text = format!($($text)+);
                let how = format!("{text}: {actual:?}, not {wanted:?}");
                return Err($crate::testing::conformance::Broken(how));
            }
        }
    };
}

/// Returns [`Broken`] unless the result is an error of this form.
macro_rules! promise_refused {
    ($result:expr, $error:pat, $($text:tt)+) => {
        match $result {
            Err($error) => {}
            other => {
                let text = format!($($text)+);
                let how = format!("{text}: {other:?}, not {}", stringify!($error));
                return Err($crate::testing::conformance::Broken(how));
            }
        }
    };
}

/// The cases of these functions, named as they are.
macro_rules! cases {
    ($($check:path),+ $(,)?) => {
        vec![$($crate::testing::conformance::Case {
            name: stringify!($check),
            check: |store| Box::pin($check(store)),
        }),+]
    };
}

use {cases, promise, promise_eq, promise_refused};
