//! Streams of events copied through a function, in memory: what the copy holds, killed and in bad weather.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cim_persistence::backend::{BackendError, Guard, NewMessage, Position, StoredMessage};
use cim_persistence::event::{Headers, NonEmpty};
use cim_persistence::event_log::{EventLog, LogQuery, MemoryLog};
use cim_persistence::migration::reshape::{EventCopy, EventEdit, ORIGIN, ORIGIN_POSITION};
use cim_persistence::migration::{MigrationError, Refusal};
use cim_persistence::store::ExpectedVersion;
use cim_persistence::store::{NewEvent, Ports};
use cim_persistence::subject::{AggregateId, AggregateType, ContextName, EventType, SubjectScheme};
use cim_persistence::testing::faults::{Call, CallKind, Fault, Faults, Gate, Rates};
use cim_persistence::{Context, StoredEvent};
use futures::TryStreamExt;
use ipld_core::ipld;

use super::domain::bank;

/// Payments of a third of the accounts are left out, others become two, and others get another name.
pub(crate) fn payments(event: &StoredEvent) -> Result<EventEdit, Refusal> {
    if event.event_type().as_str() != "paid" {
        return Ok(EventEdit::Keep);
    }
    let cents = event.data::<serde_json::Value>()?["cents"].as_u64().ok_or("no cents")?;
    let new = |name: &str, cents: u64| -> Result<NewEvent, Refusal> {
        let event_type = EventType::new(name)?;
        Ok(NewEvent { event_type, schema_version: 2, data: ipld!({ "cents": cents }) })
    };
    Ok(match cents % 3 {
        0 => EventEdit::Drop,
        1 => EventEdit::Become(NonEmpty::from([
            new("half", cents / 2)?,
            new("rest", cents - cents / 2)?,
        ])),
        _ => EventEdit::Become(NonEmpty::one(new("payment", cents)?)),
    })
}

pub(crate) fn account() -> AggregateType {
    AggregateType::new("account").unwrap()
}

pub(crate) fn id(number: usize) -> AggregateId {
    AggregateId::new(format!("a{number}")).unwrap()
}

fn event(name: &str, cents: usize) -> NewEvent {
    let event_type = EventType::new(name).unwrap();
    NewEvent { event_type, schema_version: 1, data: ipld!({ "cents": cents as u64 }) }
}

/// So many accounts with so many payments each, one after the other.
pub(crate) async fn pay(context: &Context, accounts: usize, payments: usize) {
    let expected = ExpectedVersion::Any;
    let mut appends = Vec::new();
    for round in 0..=payments {
        for number in 0..accounts {
            let new = match round {
                0 => event("opened", 0),
                round => event("paid", number + round),
            };
            appends.push((number, new));
        }
    }
    for appends in appends.chunks(accounts) {
        let all = appends.iter().map(|(number, new)| async move {
            let (id, events) = (id(*number), NonEmpty::one(new.clone()));
            context.append(&account(), &id, expected, &events, &Default::default()).await.unwrap();
        });
        futures::future::join_all(all).await;
    }
}

fn on(log: &MemoryLog) -> Context {
    Context::on(Ports { log: Arc::new(log.clone()), ..Ports::in_memory() }, &bank()).unwrap()
}

/// A source with payments, and among them a message that is no event.
async fn source(payments: usize) -> Context {
    let context = on(&MemoryLog::new());
    pay(&context, 7, payments).await;
    let name = ContextName::new("bank").unwrap();
    let outbox = SubjectScheme::new(name, "cim.outbox", "cim.aggregates").unwrap();
    let mut headers = Headers::new();
    headers.push("Nats-Msg-Id", "letter-1");
    headers.push("Topic", "greeting");
    let message = NewMessage {
        subject: outbox.events_of(&account(), &id(0)),
        headers,
        payload: "hello".into(),
        guard: Guard::Free,
    };
    context.log().publish(message).await.unwrap();
    pay(&context, 7, 1).await;
    context
}

async fn all(log: &dyn EventLog) -> Vec<StoredMessage> {
    log.read(LogQuery { filter: None, after: Position::START }).try_collect().await.unwrap()
}

/// What a log holds, but for when.
async fn contents(log: &MemoryLog) -> Vec<(String, Headers, String)> {
    let messages = all(log).await.into_iter();
    let shown =
        |m: StoredMessage| (m.subject.to_string(), m.headers, m.payload.escape_ascii().to_string());
    messages.map(shown).collect()
}

fn copy(from: &Context, to: &MemoryLog) -> EventCopy {
    EventCopy::new(from, Arc::new(to.clone())).with_patience(Duration::from_secs(5))
}

#[tokio::test(start_paused = true)]
async fn a_copy_holds_what_the_function_says_chained_and_linked_to_its_origin() {
    let from = source(8).await;
    let to = MemoryLog::new();
    let copied = copy(&from, &to).copy(payments).await.unwrap();
    let verified = copy(&from, &to).verify(payments).await.unwrap();
    assert_eq!(
        (copied.read, copied.written, copied.dropped),
        (verified.read, verified.written, verified.dropped)
    );
    assert_eq!(copied.read, 7 * 9 + 1 + 7 * 2);
    assert_eq!((verified.aggregates, verified.up_to), (7, from.status().await.unwrap().last));
    // A call with nothing to do does nothing.
    assert_eq!(copy(&from, &to).copy(payments).await.unwrap().written, 0);

    let new = on(&to);
    for number in 0..7 {
        let mut wanted = Vec::new();
        for old in from.get_events(&account(), &id(number), 0).await.unwrap() {
            let names: &[&str] =
                match old.data::<serde_json::Value>().unwrap()["cents"].as_u64().unwrap() % 3 {
                    _ if old.event_type().as_str() == "opened" => &["opened"],
                    0 => &[],
                    1 => &["half", "rest"],
                    _ => &["payment"],
                };
            wanted.extend(names.iter().map(|name| (*name, old.clone())));
        }
        let found = new.get_events(&account(), &id(number), 0).await.unwrap();
        assert_eq!(found.len(), wanted.len());
        let mut previous = None;
        for (place, (event, (name, old))) in found.iter().zip(&wanted).enumerate() {
            assert_eq!(event.event_type().as_str(), *name);
            assert_eq!((event.version(), event.previous().copied()), (place as u64 + 1, previous));
            assert_eq!(event.metadata().get(ORIGIN), Some(old.cid().unwrap().to_string().as_str()));
            assert_eq!(
                event.metadata().get(ORIGIN_POSITION),
                Some(old.position().to_string().as_str())
            );
            assert_eq!(event.occurred_at(), old.occurred_at());
            assert_eq!(event.correlation_id(), old.correlation_id());
            let first = *name != "rest";
            assert_eq!(event.event_id() == old.event_id(), first);
            previous = event.cid().copied();
        }
    }
    let letter =
        all(&to).await.into_iter().find(|m| m.subject.as_str().starts_with("cim.outbox")).unwrap();
    assert_eq!(letter.payload, "hello");
    assert_eq!(letter.headers.get("Nats-Msg-Id"), Some("letter-1"));
    assert_eq!(letter.headers.get("Topic"), Some("greeting"));
    assert_eq!(letter.headers.get("Cim-Origin-Position"), Some("64"));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_killed_at_any_write_ends_as_an_undisturbed_one() {
    // Some pages.
    let from = source(90).await;
    let undisturbed = MemoryLog::new();
    copy(&from, &undisturbed).copy(payments).await.unwrap();
    let wanted = contents(&undisturbed).await;
    let mut kills = 0;
    for stored in [true, false] {
        for write in 0.. {
            let (to, faults, gate) = (MemoryLog::new(), Faults::new(), Gate::new());
            let written = Arc::new(AtomicUsize::new(0));
            let here = move |call: &Call<'_>| {
                call.kind == CallKind::Write && written.fetch_add(1, Ordering::Relaxed) == write
            };
            let pause = if stored { Fault::PauseAfter } else { Fault::PauseBefore };
            faults.plan_when(here, pause(gate.clone()));
            let copying = copy(&from, &to.clone().with_faults(&faults));
            let killed = tokio::select! {
                () = gate.reached() => true,
                outcome = copying.copy(payments) => outcome.is_err(),
            };
            if !killed {
                break;
            }
            kills += 1;
            copy(&from, &to).copy(payments).await.unwrap();
            assert!(contents(&to).await == wanted, "killed at write {write}, stored {stored}");
        }
    }
    assert!(kills >= 6, "only {kills}");
}

#[tokio::test(start_paused = true)]
async fn two_copies_at_once_in_bad_weather_make_one() {
    let from = source(90).await;
    let undisturbed = MemoryLog::new();
    copy(&from, &undisturbed).copy(payments).await.unwrap();
    let wanted = contents(&undisturbed).await;
    let rates = Rates {
        lost_ack: 100,
        lost_write: 100,
        late_write: 100,
        conflict: 100,
        stale_read: 100,
        outage: 50,
    };
    for seed in 0..12 {
        let to = MemoryLog::new();
        let faults = [Faults::random(seed, rates), Faults::random(seed + 1000, rates)];
        let copies = faults.clone().map(|faults| copy(&from, &to.clone().with_faults(&faults)));
        let both = futures::future::join_all(copies.iter().map(|copy| copy.copy(payments))).await;
        both.into_iter().for_each(|outcome| assert!(outcome.is_ok(), "seed {seed}: {outcome:?}"));
        faults.iter().for_each(Faults::deliver_late);
        assert!(contents(&to).await == wanted, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_not_what_it_should_be_is_found_out() {
    let from = source(2).await;
    let to = MemoryLog::new();
    let copying = copy(&from, &to);
    copying.copy(payments).await.unwrap();
    let text = |error: MigrationError| error.to_string();
    let keep = |_: &StoredEvent| Ok(EventEdit::Keep);
    // The function changed.
    let differs = text(copying.verify(keep).await.unwrap_err());
    assert_eq!(
        differs,
        "the copy cannot be used: the payload is not that of what position 8 became"
    );
    // The original went on.
    pay(&from, 1, 0).await;
    let ends = text(copying.verify(payments).await.unwrap_err());
    let wanted = "the copy cannot be used: it ends before the end of what position 37 became";
    assert_eq!(ends, wanted);
    // Somebody else wrote to the copy.
    copying.copy(payments).await.unwrap();
    let last = to.status().await.unwrap().last;
    pay(&on(&to), 1, 0).await;
    let more = text(copying.verify(payments).await.unwrap_err());
    let next = last.get() + 1;
    assert_eq!(more, format!("the copy cannot be used: position {next} of it has no origin"));
    let foreign = text(copying.copy(payments).await.unwrap_err());
    let wanted = format!(
        "the copy cannot be used: the message at position {next} of it was not copied there"
    );
    assert_eq!(foreign, wanted);

    let refuses = |_: &StoredEvent| Err("never".into());
    let refused = text(copy(&from, &MemoryLog::new()).copy(refuses).await.unwrap_err());
    assert_eq!(refused, "event opened at position 1 cannot be migrated: never");
    let gone = Faults::new();
    gone.begin_outage();
    let outage = copy(&from, &MemoryLog::new().with_faults(&gone)).copy(payments).await;
    assert!(matches!(outage, Err(MigrationError::Backend(BackendError::Unavailable { .. }))));
}
