//! Callers that are not async: the same operations from anywhere, and never a deadlock.

use std::future::poll_fn;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Barrier};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use cim_persistence::backend::{Position, ReadFrom};
use cim_persistence::blocking::{Context, Runtime};
use cim_persistence::event::NonEmpty;
use cim_persistence::event_log::MemoryLog;
use cim_persistence::prelude::*;
use cim_persistence::projection::ProjectionOptions;
use cim_persistence::read_model::{ExpectedRevision, SaveModel};
use cim_persistence::specification::{SearchOptions, field};
use cim_persistence::store::{
    CommitInfo, EventFilter, ExpectedVersion, NatsRepositoryConfig, NewEvent, Ports, StoreError,
};
use cim_persistence::subject::{AggregateId, AggregateType};
use cim_persistence::testing::faults::{CallKind, Fault, Faults, Gate};
use cim_persistence::{
    Connection, ConnectionConfig, LoadOptions, RepositoryError, SaveOptions, TransactError,
    TransactOptions,
};
use futures::StreamExt;

use super::domain::{AlreadyLent, Book, BookEvent, Lend, Reader, Readers, lent};
use super::test_server::TestServer;

const PATIENCE: Duration = Duration::from_secs(60);

/// Runs something on a thread of its own. What never ends fails.
fn within_patience<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, waiting) = channel();
    let thread = thread::spawn(move || {
        let _ = done.send(run());
    });
    match waiting.recv_timeout(PATIENCE) {
        Ok(value) => value,
        Err(RecvTimeoutError::Timeout) => panic!("it does not end"),
        Err(RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().unwrap_err())
        }
    }
}

fn config() -> NatsRepositoryConfig {
    NatsRepositoryConfig::for_context("library")
}

fn in_memory() -> Context {
    Context::on(&Runtime::start().unwrap(), Ports::in_memory(), &config()).unwrap()
}

fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn isbn(text: &str) -> String {
    text.to_owned()
}

/// Every kind of operation once.
fn use_everything(library: &Context) {
    let books = library.repository::<Book>().unwrap();
    let (one, two) = (isbn("1"), isbn("2"));
    assert!(!books.exists(&one).unwrap());
    books.save(&Book::new(&one), vec![lent("kim")], SaveOptions::default()).unwrap();
    let again = books.save(&Book::new(&one), vec![lent("kim")], SaveOptions::default());
    assert!(
        matches!(again, Err(RepositoryError::VersionConflict { expected: 0, actual: 1 })),
        "{again:?}"
    );
    match books.execute_command(&one, &Lend("lee")) {
        Err(TransactError::Rejected(AlreadyLent { to })) => assert_eq!(to, "kim"),
        other => panic!("{other:?}"),
    }
    let returned = books.transact(&one, |book| match &book.lent_to {
        Some(reader) => Ok((vec![BookEvent::Returned], reader.clone())),
        None => Err("not lent"),
    });
    let returned = returned.unwrap();
    assert_eq!((returned.reply.as_str(), returned.version), ("kim", 2));
    books.execute_with_retry(&one, &Lend("lee")).unwrap();
    books.create_snapshot(&one).unwrap();
    let (book, about) = books.load(&one, LoadOptions::default()).unwrap();
    assert_eq!((book.times_lent, about.version), (2, 3));
    assert_eq!(books.get_at_version(&one, 1).unwrap().0.lent_to.as_deref(), Some("kim"));
    assert_eq!(books.get_history(&one, Some(2), None).unwrap().len(), 2);
    assert_eq!(books.verify(&one).unwrap().position, about.position);
    books.save(&Book::new(&two), vec![lent("max")], SaveOptions::default()).unwrap();
    books.delete(&two, SaveOptions::default()).unwrap();
    assert!(!books.exists(&two).unwrap());

    let kind = AggregateType::new("book").unwrap();
    let three = AggregateId::new("3").unwrap();
    let events = NonEmpty::one(NewEvent::of(&lent("max")).unwrap());
    let new = ExpectedVersion::NoStream;
    let info = CommitInfo::default();
    let head = library.append(&kind, &three, new, &events, &info).unwrap().head;
    assert_eq!((head.version, head.position), (1, Position::new(6)));
    let parts = NonEmpty::one((kind.clone(), three.clone(), new, events));
    let refused = library.append_batch(&parts, &info);
    assert!(matches!(refused, Err(StoreError::Conflict { expected: 0, actual: 1 })), "{refused:?}");
    assert_eq!(library.head(&kind, &three, ReadFrom::Leader).unwrap(), head);
    assert_eq!(library.get_events(&kind, &three, 0).unwrap().len(), 1);
    assert_eq!(library.get_events_after(Position::new(4), 10).unwrap().len(), 2);
    assert_eq!(library.load_events(&[EventFilter::all()]).unwrap().len(), 6);
    let positions = library.events_after(Position::new(1)).map(|e| e.unwrap().position().get());
    assert_eq!(positions.collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    assert_eq!(library.status().unwrap().last, head.position);

    let mut running = library.start_projection(Readers::default(), ProjectionOptions::default());
    let running = running.as_mut().unwrap();
    running.caught_up(PATIENCE).unwrap();
    let projections = library.projections();
    projections.wait_for("readers", head.position, PATIENCE).unwrap();
    assert_eq!(projections.list().unwrap(), ["readers"]);
    assert_eq!(projections.report("readers").unwrap().projection, "readers");
    let readers = library.read_models().of::<Reader>();
    let max = AggregateId::new("max").unwrap();
    assert_eq!(readers.load(&max).unwrap().unwrap().model.books, 2);
    let once = readers.search(None, &field("books").eq(1), &SearchOptions::default()).unwrap();
    let mut names: Vec<_> = once.items.into_iter().map(|reader| reader.model.name).collect();
    names.sort();
    assert_eq!(names, ["kim", "lee"]);
    assert!(readers.query(Some("reader.m>x")).is_err());
    assert_eq!(readers.query(None).unwrap().count(), 3);
    assert_eq!(readers.list(2, 0).unwrap().total, 3);

    let notes = library.read_models().of::<super::domain::Undeclared>();
    notes.save(&super::domain::Undeclared, SaveModel::default()).unwrap();
    let note = AggregateId::new("one").unwrap();
    assert!(notes.load(&note).unwrap().is_some());
    notes.delete(&note, ExpectedRevision::Any).unwrap();
    assert!(notes.load(&note).unwrap().is_none());
    library.flush();
}

#[test]
fn everything_works_outside_of_a_runtime() {
    within_patience(|| use_everything(&in_memory()));
}

#[test]
fn everything_works_on_a_server_and_what_runs_can_be_stopped() {
    within_patience(|| {
        let runtime = Runtime::start().unwrap();
        let server = runtime.wait(TestServer::start());
        let library = Context::connect(&runtime, server.url(), &server.name("library")).unwrap();
        use_everything(&library);

        // Another way to open it, for another process.
        let config = NatsRepositoryConfig::for_context(server.name("library"));
        let connection =
            Context::connection(&runtime, &ConnectionConfig::new(server.url())).unwrap();
        let another = Context::open(&runtime, &connection, &config).unwrap();
        let running = another.start_projection(Readers::default(), ProjectionOptions::default());
        let running = running.unwrap();
        assert_eq!((running.name(), running.is_running()), ("readers", true));
        running.stop().unwrap();
        let elsewhere = NatsRepositoryConfig::for_context(server.name("elsewhere"));
        assert!(matches!(
            Context::open(&runtime, &connection, &elsewhere),
            Err(StoreError::Topology(_))
        ));
        let elsewhere = Context::provision(&runtime, &connection, &elsewhere).unwrap();
        assert_eq!(elsewhere.status().unwrap().messages, 0);
    });
}

#[test]
fn everything_works_inside_a_current_thread_runtime() {
    within_patience(|| current_thread().block_on(async { use_everything(&in_memory()) }));
}

#[test]
fn everything_works_inside_a_task_of_a_runtime_with_one_thread() {
    within_patience(|| {
        let outer = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        outer.block_on(async {
            tokio::spawn(async { use_everything(&in_memory()) }).await.unwrap();
        });
    });
}

#[test]
fn everything_works_inside_a_task_of_its_own_runtime() {
    within_patience(|| {
        let library = in_memory();
        let runtime = library.runtime().clone();
        let task = async { tokio::spawn(async move { use_everything(&library) }).await.unwrap() };
        runtime.wait(task);
    });
}

/// A task may do only so much at a time before it has to give way; a call within it cannot.
#[test]
fn many_calls_in_one_turn_of_a_task_do_not_starve() {
    within_patience(|| {
        current_thread().block_on(async {
            tokio::spawn(async {
                let books = in_memory().repository::<Book>().unwrap();
                for version in 1..=300 {
                    let lent = books.transact(&isbn("1"), |_| Ok::<_, ()>([lent("kim")])).unwrap();
                    assert_eq!(lent.version, version);
                }
            })
            .await
            .unwrap();
        });
    });
}

/// Within another runtime a task of the own one gives way, as what is polled here cannot.
#[test]
fn a_task_that_gives_way_is_waited_for_within_another_runtime() {
    within_patience(|| {
        let giving_way = async { tokio::spawn(tokio::task::yield_now()).await.unwrap() };
        current_thread().block_on(async { Runtime::start().unwrap().wait(giving_way) });
    });
}

#[test]
fn a_decision_may_make_calls_of_its_own() {
    within_patience(|| {
        let books = in_memory().repository::<Book>().unwrap();
        for n in 1..=100 {
            let both = books.transact(&isbn("1"), |_| {
                let other = books.transact(&isbn("2"), |_| Ok::<_, ()>([lent("lee")])).unwrap();
                Ok::<_, ()>((vec![lent("kim")], other.version))
            });
            let both = both.unwrap();
            assert_eq!((both.version, both.reply), (n, n));
        }
    });
}

/// The wake of what is waited for outside is not lost on what is waited for inside.
#[test]
fn a_call_within_a_call_takes_no_wake_from_it() {
    within_patience(|| {
        let runtime = Runtime::start().unwrap();
        let mut polls = 0;
        runtime.wait(poll_fn(|context| {
            polls += 1;
            if polls == 2 {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            runtime.wait(async { tokio::time::sleep(Duration::from_millis(1)).await });
            Poll::Pending
        }));
        assert_eq!(polls, 2);
    });
}

#[test]
fn what_ends_with_a_read_may_start_a_task() {
    struct Farewell(std::sync::mpsc::Sender<()>);
    impl Drop for Farewell {
        fn drop(&mut self) {
            let sender = self.0.clone();
            tokio::spawn(async move { sender.send(()).unwrap() });
        }
    }
    within_patience(|| {
        let runtime = Runtime::start().unwrap();
        let (sender, told) = channel();
        let farewell = Farewell(sender);
        let numbers = futures::stream::iter(1..4).map(move |n| {
            let _held = &farewell;
            n
        });
        let mut numbers = runtime.iterate(numbers);
        assert_eq!(numbers.next(), Some(1));
        drop(numbers);
        told.recv().unwrap();
    });
}

#[test]
fn many_threads_share_one_runtime() {
    within_patience(|| {
        let library = in_memory();
        let begin = Arc::new(Barrier::new(8));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (library, begin) = (library.clone(), Arc::clone(&begin));
                thread::spawn(move || {
                    let books = library.repository::<Book>().unwrap();
                    begin.wait();
                    for _ in 0..25 {
                        let options = TransactOptions { attempts: 1000, ..Default::default() };
                        let lend = |_: &Book| Ok::<_, ()>([lent("kim")]);
                        books.transact_with(&isbn("1"), options, lend).unwrap();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let books = library.repository::<Book>().unwrap();
        assert_eq!(books.load(&isbn("1"), LoadOptions::default()).unwrap().0.times_lent, 200);
    });
}

#[test]
fn a_call_under_way_is_finished_although_all_else_is_dropped() {
    within_patience(|| {
        let (faults, gate) = (Faults::new(), Gate::new());
        let is_write =
            |call: &cim_persistence::testing::faults::Call<'_>| call.kind == CallKind::Write;
        faults.plan_when(is_write, Fault::PauseBefore(gate.clone()));
        let log = Arc::new(MemoryLog::new().with_faults(&faults));
        let ports = Ports { log, ..Ports::in_memory() };
        let runtime = Runtime::start().unwrap();
        let library = Context::on(&runtime, ports, &config()).unwrap();
        let books = library.repository::<Book>().unwrap();
        let saving = thread::spawn(move || {
            books.save(&Book::new(&isbn("1")), vec![lent("kim")], SaveOptions::default())
        });
        current_thread().block_on(gate.reached());
        drop((library, runtime));
        gate.open();
        assert_eq!(saving.join().unwrap().unwrap().version, 1);
    });
}

/// Something that ends with the task that holds it, on the runtime of a context.
fn held_by_a_task(library: &Context) -> std::sync::Weak<()> {
    let held = Arc::new(());
    let seen = Arc::downgrade(&held);
    library.runtime().wait(async {
        tokio::spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
    });
    seen
}

fn until_gone(seen: &std::sync::Weak<()>) {
    while seen.upgrade().is_some() {
        thread::yield_now();
    }
}

#[test]
fn it_ends_with_the_last_handle_wherever_that_is_dropped() {
    within_patience(|| {
        // Inside of runtimes of both kinds, in a task of its own, and outside.
        let library = in_memory();
        let seen = held_by_a_task(&library);
        current_thread().block_on(async move { drop(library) });
        until_gone(&seen);

        let library = in_memory();
        let seen = held_by_a_task(&library);
        let outer = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        outer.block_on(async { tokio::spawn(async move { drop(library) }).await.unwrap() });
        until_gone(&seen);

        let library = in_memory();
        let seen = held_by_a_task(&library);
        let runtime = library.runtime().clone();
        let (go, waiting) = tokio::sync::oneshot::channel::<()>();
        let (dropped, told) = channel();
        runtime.wait(async move {
            tokio::spawn(async move {
                waiting.await.unwrap();
                drop(library);
                dropped.send(()).unwrap();
            });
        });
        drop(runtime);
        go.send(()).unwrap();
        told.recv().unwrap();
        until_gone(&seen);

        let library = in_memory();
        let seen = held_by_a_task(&library);
        let books = library.repository::<Book>().unwrap();
        drop(library);
        assert!(seen.upgrade().is_some() && !books.exists(&isbn("1")).unwrap());
        drop(books);
        until_gone(&seen);
    });
}

#[test]
fn a_read_that_is_dropped_half_way_leaves_nothing_on_the_server() {
    within_patience(|| {
        let runtime = Runtime::start().unwrap();
        let server = runtime.wait(TestServer::start());
        let library = Context::connect(&runtime, server.url(), &server.name("library")).unwrap();
        let books = library.repository::<Book>().unwrap();
        for n in 0..20 {
            let events = (0..100).map(|_| lent("kim")).collect();
            books.save(&Book::new(&n.to_string()), events, SaveOptions::default()).unwrap();
        }
        let mut events = library.events_after(Position::START);
        assert_eq!(events.next().unwrap().unwrap().position(), Position::new(1));
        drop(events);
        // A stream that stays in its consumer's hands until it is dropped.
        let everything = cim_persistence::backend::TailQuery {
            patterns: NonEmpty::one(cim_persistence::subject::Pattern::everything()),
            start: cim_persistence::backend::Start::After(Position::START),
        };
        let follow = library.as_async().log().follow(everything);
        let mut followed = runtime.iterate(follow.boxed());
        followed.next().unwrap().unwrap();
        drop(followed);

        let stream = runtime.wait(async {
            let client = async_nats::connect(server.url()).await.unwrap();
            let jetstream = async_nats::jetstream::new(client);
            jetstream.get_stream(server.name("CIM-EVENTS-library")).await.unwrap()
        });
        while runtime.wait(stream.get_info()).unwrap().state.consumer_count > 0 {
            thread::yield_now();
        }
    });
}

/// What is opened on the runtime may be used by async code elsewhere, as long as a handle is kept.
#[test]
fn async_code_elsewhere_may_use_the_same_context() {
    within_patience(|| {
        let library = in_memory();
        let books = library.repository::<Book>().unwrap();
        let saved = current_thread().block_on(async {
            let books = books.as_async();
            books.save(&Book::new(&isbn("1")), vec![lent("kim")], SaveOptions::default()).await
        });
        assert_eq!(saved.unwrap().version, 1);
        assert!(books.exists(&isbn("1")).unwrap());
    });
}

#[test]
fn a_connection_may_be_shared_by_contexts() {
    fn is_shared<T: Clone + Send + Sync>() {}
    is_shared::<Runtime>();
    is_shared::<Context>();
    is_shared::<Connection>();
    is_shared::<cim_persistence::blocking::Repository<Book>>();
    is_shared::<cim_persistence::blocking::Models<Reader>>();
}
