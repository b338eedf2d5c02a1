//! Callers that give up half-way: a commit is then stored whole or not at all.

use std::time::Duration;

use cim_persistence::repository::Repository;
use cim_persistence::store::{ExpectedVersion, NatsRepositoryConfig};
use futures::future::join_all;

use crate::domain::{Log, config, enter, process, sound};
use crate::test_server::TestServer;

async fn process_on(server: &TestServer) -> Repository<Log> {
    let config = NatsRepositoryConfig { context: server.name("bad-days"), ..config(1, 30_000) };
    process(&[server.url()], &config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_save_is_stored_whole_or_not_at_all() {
    const SAVES: u64 = 600;
    let server = TestServer::start().await;
    let logs = process_on(&server).await;
    let saving = (0..SAVES).map(async |number| {
        let id = format!("log-{}", number % 20);
        // From before the first write to after the acknowledgement, in uneven steps.
        let after = Duration::from_micros(number * number % 7919 * 2);
        let events = if number.is_multiple_of(3) { 1 } else { 3 };
        let save = enter(&logs, &id, number, events, ExpectedVersion::Any);
        tokio::time::timeout(after, save).await.is_ok_and(|saved| saved.is_ok()).then_some(number)
    });
    let finished: Vec<u64> = join_all(saving).await.into_iter().flatten().collect();
    let there = sound(&process_on(&server).await).await;
    assert!(finished.iter().all(|number| there.contains(number)));
    assert!((finished.len() as u64) < SAVES, "some are given up");
    // The process that gave up goes on, and its cache is right.
    enter(&logs, "log-0", SAVES, 3, ExpectedVersion::Any).await.unwrap();
    assert!(sound(&logs).await.contains(&SAVES));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_task_leaves_no_half_commit() {
    const TASKS: u64 = 300;
    let server = TestServer::start().await;
    let logs = process_on(&server).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|number| {
            let logs = logs.clone();
            tokio::spawn(async move {
                let id = format!("log-{number}");
                enter(&logs, &id, number, 3, ExpectedVersion::NoStream).await.unwrap();
            })
        })
        .collect();
    for (number, task) in tasks.iter().enumerate() {
        if number.is_multiple_of(2) {
            task.abort();
        }
        if number.is_multiple_of(16) {
            tokio::task::yield_now().await;
        }
    }
    let finished: Vec<bool> = join_all(tasks).await.iter().map(Result::is_ok).collect();
    let there = sound(&logs).await;
    for (number, finished) in (0..).zip(finished) {
        assert!(!finished || there.contains(&number), "commit {number} is lost");
    }
}
