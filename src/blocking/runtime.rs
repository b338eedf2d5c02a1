//! The runtime that blocking calls share, and how a thread waits without entering it.
//!
//! The calling thread polls what it waits for by itself, so nothing has to be sent to another thread and a decision of the
//! domain runs where it was made. Timers, sockets and tasks are the business of the runtime's own thread.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use futures::stream::{Stream, StreamExt};
use tokio::runtime::{Builder, Handle};
use tokio::task::{block_in_place, unconstrained};

/// A runtime of its own for blocking calls. Cloning is cheap and shares it.
///
/// - It has one thread, and more while one of its own tasks makes a blocking call.
/// - It ends when the last handle is dropped, and everything opened on it holds one. Dropping does not wait, so it may happen
///   anywhere, within a runtime too. Tasks are then dropped wherever they stand: call
///   [`Context::flush`](super::Context::flush) before if current state should be written behind the last commits. Nothing
///   that was acknowledged is lost without it.
/// - A call under way holds it: it is finished although every other handle is dropped meanwhile.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

struct Inner {
    handle: Handle,
    /// Present until it is dropped.
    runtime: Option<tokio::runtime::Runtime>,
}

thread_local! {
    /// Whether this is a thread of a runtime for blocking calls.
    static OWN: Cell<bool> = const { Cell::new(false) };
}

impl Runtime {
    /// Starts a runtime.
    ///
    /// # Errors
    /// When the system gives no thread, or no means to wait for sockets.
    pub fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("cim-blocking")
            .on_thread_start(|| OWN.set(true))
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        Ok(Self { inner: Arc::new(Inner { handle, runtime: Some(runtime) }) })
    }

    /// Waits for a future, polled on this thread; tasks that it spawns run on the runtime.
    ///
    /// The way to everything of the async side that has no counterpart here, on what was opened on this runtime.
    ///
    /// Waiting within another runtime, for what only the calling thread could do there, never ends: for a task of a
    /// current-thread runtime that the thread is in, and for a future that gives way by itself
    /// ([`tokio::task::yield_now`]), which that runtime would take up again. A task of this runtime may give way:
    /// `wait(async { tokio::spawn(future).await })`.
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = cim_persistence::blocking::Runtime::start()?;
    /// assert_eq!(runtime.wait(async { 1 + 1 }), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        // A task's budget is that of whoever polls it: within another runtime it would run out while this waits.
        let future = unconstrained(future);
        let wait = || {
            let _entered = self.inner.handle.enter();
            wait_here(future)
        };
        match OWN.get() {
            // Another thread takes over what this one would do.
            true => block_in_place(wait),
            false => wait(),
        }
    }

    /// The items of a stream, each waited for when it is asked for.
    pub fn iterate<S: Stream + Unpin>(&self, stream: S) -> Items<S> {
        Items { stream: Some(stream), runtime: self.clone() }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtime")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The items of a stream. Dropping it ends the read.
pub struct Items<S> {
    /// Present until it is dropped.
    stream: Option<S>,
    runtime: Runtime,
}

impl<S: Stream + Unpin> Iterator for Items<S> {
    type Item = S::Item;

    fn next(&mut self) -> Option<S::Item> {
        let stream = self.stream.as_mut()?;
        self.runtime.wait(stream.next())
    }
}

impl<S> Drop for Items<S> {
    fn drop(&mut self) {
        // What ends with it may have to tell the server, by a task.
        let _entered = self.runtime.inner.handle.enter();
        self.stream = None;
    }
}

impl<S> fmt::Debug for Items<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Items")
    }
}

/// Polls a future on this thread, which sleeps in between.
fn wait_here<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let signal = Arc::new(Signal { thread: thread::current(), given: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&signal));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        while !signal.given.swap(false, Ordering::AcqRel) {
            thread::park();
        }
    }
}

/// Wakes a thread. Whether it was woken is remembered apart from the thread's own token, which a call within the future
/// may use up.
struct Signal {
    thread: Thread,
    given: AtomicBool,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.given.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
