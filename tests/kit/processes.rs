//! Given, when, then: process managers.

use std::time::Duration;

use cim_persistence::Repository;
use cim_persistence::process::{DueTimeout, ProcessManager, Reaction};
use cim_persistence::projection::Rejection;
use cim_persistence::store::{EventFilter, StoredEvent};
use cim_persistence::subject::{AggregateId, AggregateType};
use cim_persistence::testing::ProcessTest;

use super::domain::{Book, BookEvent, lent};
use super::failures::failure;

const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// Takes a book back after a week, and then lends it to whoever waits: always to lee, if kim had it. A reader who is a
/// number passes it on to the one before.
struct Return {
    books: Repository<Book>,
}

impl ProcessManager for Return {
    const NAME: &'static str = "return";
    type Event = BookEvent;

    fn filters() -> Vec<EventFilter> {
        vec![EventFilter::for_type(AggregateType::new("book").unwrap())]
    }

    fn instance(
        &self,
        _: &BookEvent,
        stored: &StoredEvent,
    ) -> Result<Option<AggregateId>, Rejection> {
        Ok(Some(stored.aggregate_id().clone()))
    }

    async fn react(
        &self,
        event: BookEvent,
        stored: &StoredEvent,
        reaction: &mut Reaction,
    ) -> Result<(), Rejection> {
        match event {
            BookEvent::Lent { reader } if reader == "nobody" => Err("nobody reads".into()),
            BookEvent::Lent { reader } if reader.parse::<u32>().is_ok() => {
                let left: u32 = reader.parse()?;
                if let Some(left) = left.checked_sub(1) {
                    let book = reaction.instance().to_string();
                    reaction.record(&self.books, &book, vec![lent(&left.to_string())]).await?;
                }
                Ok(())
            }
            BookEvent::Lent { .. } => Ok(reaction.schedule_after("overdue", WEEK, &())?),
            // The first reader's book goes on to the second; the third has it for good.
            BookEvent::Returned if stored.version() == 2 => {
                let book = reaction.instance().to_string();
                reaction.record(&self.books, &book, vec![lent("lee")]).await?;
                Ok(())
            }
            _ => Ok(reaction.cancel("overdue")?),
        }
    }

    async fn timeout(&self, due: &DueTimeout, reaction: &mut Reaction) -> Result<(), Rejection> {
        assert_eq!(due.name(), "overdue");
        let book = reaction.instance().to_string();
        reaction.record(&self.books, &book, vec![BookEvent::Returned]).await?;
        Ok(())
    }
}

async fn returns() -> ProcessTest<Return> {
    ProcessTest::of(|context| Return { books: Repository::of(context).unwrap() }).await
}

#[tokio::test]
async fn what_a_process_does_is_known_when_a_step_ends() {
    let test = returns().await.when::<Book>("1", [lent("kim")]).await;
    let test = test.then_expect_nothing_recorded().then_expect_timeout("1", "overdue", WEEK);
    let test = test.when_time_passes(WEEK - Duration::from_micros(1)).await;
    let test = test.then_expect_nothing_recorded().then_expect_timeout(
        "1",
        "overdue",
        Duration::from_micros(1),
    );
    // It reacts to what it recorded itself as well: the book is lent on, and is overdue a week later.
    let test = test.when_time_passes(Duration::from_micros(1)).await;
    let test = test
        .then_expect_recorded::<Book>("1", [BookEvent::Returned, lent("lee")])
        .then_expect_recorded::<Book>("2", [])
        .then_expect_timeout("1", "overdue", WEEK);
    let test = test.when_time_passes(WEEK).await;
    test.then_expect_recorded::<Book>("1", [BookEvent::Returned]).then_expect_no_timeouts();
}

#[tokio::test]
async fn several_events_of_several_aggregates_are_reacted_to() {
    let test = returns().await.given::<Book>("1", [lent("kim"), BookEvent::Returned]).await;
    // The second event cancels nothing yet: the book is lent on.
    let test = test.then_expect_recorded::<Book>("1", [lent("lee")]);
    let test = test.when::<Book>("2", [lent("max")]).await;
    let test = test.then_expect_nothing_recorded().then_expect_timeout("2", "overdue", WEEK);
    let test = test.when::<Book>("1", [BookEvent::Returned]).await;
    test.then_expect_nothing_recorded().then_expect_timeout("2", "overdue", WEEK);
}

/// On two threads, so that the test does not only look when the process gives way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_ends_with_the_last_of_what_it_caused() {
    let test = returns().await.when::<Book>("1", [lent("30")]).await;
    let all: Vec<_> = (0..30).rev().map(|n: u32| lent(&n.to_string())).collect();
    let test = test.then_expect_recorded::<Book>("1", all);
    // Each of the first forty schedules what the last one cancels.
    let mut events = vec![lent("kim"); 40];
    events.push(BookEvent::Returned);
    let test = test.when::<Book>("2", events).await;
    test.then_expect_nothing_recorded().then_expect_no_timeouts();
}

#[tokio::test]
async fn a_reaction_that_is_refused_must_be_expected() {
    let test = returns().await.when::<Book>("1", [lent("nobody"), lent("nobody")]).await;
    let test = test.then_expect_refusal(|reason| reason == "nobody reads");
    let test = test.then_expect_nothing_recorded().then_expect_no_timeouts();
    let test = test.when::<Book>("1", [lent("nobody")]).await;
    let failed = failure(|| test.then_expect_nothing_recorded());
    assert_eq!(failed.message, "return refused to react:\nnobody reads");
    assert_eq!(failed.at, failed.called);
    let test = returns().await;
    let failed = failure(|| test.then_expect_refusal(|_| true));
    assert_eq!(failed.message, "no reaction was refused, a refusal was expected");
    let test = returns().await.when::<Book>("1", [lent("nobody")]).await;
    let failed = failure(|| test.then_expect_refusal(|reason| reason.is_empty()));
    assert_eq!(failed.message, "no reaction was refused for such a reason:\nnobody reads");
}

#[tokio::test]
async fn something_else_than_expected_is_shown() {
    let lent_on = async || {
        let events = [lent("kim"), BookEvent::Returned];
        returns().await.when::<Book>("1", events).await
    };
    let test = lent_on().await;
    let failed = failure(|| test.then_expect_recorded::<Book>("1", [lent("max")]));
    assert_eq!(
        failed.message,
        "other events than expected were recorded on book 1 (- expected, + found):
  lent (version 1) {
    \"Lent\": {
-     \"reader\": \"max\"
+     \"reader\": \"lee\"
    }
  }"
    );
    assert_eq!(failed.at, failed.called);
    let test = lent_on().await;
    let failed = failure(|| test.then_expect_nothing_recorded());
    assert_eq!(
        failed.message,
        "events were recorded, none were expected:\non book 1: lent (version 1) {\n  \"Lent\": {\n    \"reader\": \"lee\"\n  }\n}"
    );
    let test = lent_on().await;
    let failed = failure(|| test.then_expect_no_timeouts());
    assert_eq!(
        failed.message,
        "timeouts wait, none were expected:\n1 overdue at 2024-01-08T00:00:00Z"
    );
    let test = lent_on().await;
    let failed = failure(|| test.then_expect_timeout("1", "overdue", WEEK * 2));
    assert_eq!(
        failed.message,
        "the timeout is not scheduled (- expected, + found):\n- 1 overdue at 2024-01-15T00:00:00Z\n+ 1 overdue at 2024-01-08T00:00:00Z"
    );
}

#[tokio::test]
async fn events_that_the_process_does_not_read_are_not_waited_for() {
    let test = returns().await.when::<Film>("1", [lent("kim")]).await;
    test.then_expect_nothing_recorded().then_expect_no_timeouts();
}

/// Another kind of aggregate with the same events.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Film {
    id: String,
}

impl cim_persistence::Aggregate for Film {
    const TYPE: &'static str = "film";
    type Id = String;
    type Event = BookEvent;
    fn new(id: &String) -> Self {
        Self { id: id.clone() }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, _: &BookEvent) {}
}
