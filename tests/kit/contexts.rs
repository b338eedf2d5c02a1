//! A context for tests: in memory and on a server, overtaken where a test says so.

use std::time::Duration;

use cim_persistence::store::StoreError;
use cim_persistence::testing::{CountingIds, TEST_TIME, TestBackend, TestContext};
use cim_persistence::{LoadOptions, Repository, RepositoryError, SaveOptions, TransactError};

use super::domain::{AlreadyLent, Book, BookEvent, Lend, lent};

/// One context of each kind.
pub(crate) async fn both() -> [TestContext; 2] {
    let start = async |backend| TestContext::start_on(backend).await.unwrap();
    [start(TestBackend::Memory).await, start(TestBackend::PrivateServer).await]
}

fn isbn(text: &str) -> String {
    text.to_owned()
}

#[tokio::test]
async fn what_was_seeded_has_happened() {
    for test in both().await {
        let one = isbn("1");
        assert_eq!(test.seed::<Book>(&one, [lent("kim")]).await.unwrap().version, 1);
        let head = test.seed::<Book>(&one, [BookEvent::Returned, lent("lee")]).await.unwrap();
        let books = test.repository::<Book>().unwrap();
        let (book, about) = books.load(&one, LoadOptions::default()).await.unwrap();
        assert_eq!((book.lent_to.as_deref(), book.times_lent), (Some("lee"), 2));
        assert_eq!((about.version, about.position), (head.version, head.position));
        let nothing = test.seed::<Book>(&one, []).await;
        assert!(matches!(nothing, Err(StoreError::Empty)), "{nothing:?}");
    }
}

#[tokio::test]
async fn time_and_ids_are_known() {
    for test in both().await {
        let one = isbn("1");
        test.seed::<Book>(&one, [lent("kim")]).await.unwrap();
        test.clock().advance(Duration::from_secs(60));
        let books = test.repository::<Book>().unwrap();
        books.transact(&one, |_| Ok::<_, ()>([BookEvent::Returned])).await.unwrap();
        let history = books.get_history(&one, None, None).await.unwrap();
        let seen: Vec<_> =
            history.iter().map(|e| (e.event_id(), e.occurred_at().since(TEST_TIME))).collect();
        let minute = Duration::from_secs(60);
        assert_eq!(seen, [(CountingIds::id(1), Duration::ZERO), (CountingIds::id(2), minute)]);
    }
}

#[tokio::test]
async fn a_commit_is_overtaken_exactly_where_it_is_planned() {
    for test in both().await {
        let (one, two) = (isbn("1"), isbn("2"));
        let books = test.repository::<Book>().unwrap();
        test.overtake::<Book>(&one, [lent("lee"), BookEvent::Returned]).unwrap();

        // Another aggregate, and another process, meet nothing.
        let options = SaveOptions::default;
        books.save(&new(&two), vec![lent("max")], options()).await.unwrap();
        let elsewhere = Repository::<Book>::of(&test.another().unwrap()).unwrap();
        elsewhere.save(&new(&isbn("3")), vec![lent("max")], options()).await.unwrap();
        assert_eq!(test.still_planned(), 1);

        let lost = books.save(&new(&one), vec![lent("kim")], options()).await;
        let Err(RepositoryError::VersionConflict { expected: 0, actual: 2 }) = lost else {
            panic!("{lost:?}")
        };
        assert_eq!(test.still_planned(), 0);
        let won = books.execute_command(&one, &Lend("kim")).await.unwrap();
        assert_eq!((won.version, won.attempts), (3, 1));
    }
}

#[tokio::test]
async fn each_plan_lets_one_attempt_fail() {
    for test in both().await {
        let one = isbn("1");
        let books = test.repository::<Book>().unwrap();
        for _ in 0..2 {
            test.overtake::<Book>(&one, [lent("lee"), BookEvent::Returned]).unwrap();
        }
        let lent_to_kim = books.execute_with_retry(&one, &Lend("kim")).await.unwrap();
        assert_eq!((lent_to_kim.version, lent_to_kim.attempts), (5, 3));

        // What overtakes decides anew.
        books.transact(&one, |_| Ok::<_, ()>([BookEvent::Returned])).await.unwrap();
        test.overtake::<Book>(&one, [lent("lee")]).unwrap();
        match books.execute_with_retry(&one, &Lend("kim")).await {
            Err(TransactError::Rejected(AlreadyLent { to })) => assert_eq!(to, "lee"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn only_one_of_the_two_lives_on_a_server() {
    let [memory, server] = both().await;
    assert_eq!(memory.url(), None);
    assert!(server.url().unwrap().starts_with("nats://127.0.0.1:"));
}

fn new(isbn: &String) -> Book {
    use cim_persistence::Aggregate;
    Book::new(isbn)
}
