//! Events that another version of the code wrote, or another program: serde would read some of them all the same.

use cim_persistence::DomainEvent;
use cim_persistence::prelude::Aggregate;
use cim_persistence::repository::{LoadOptions, Repository, SaveOptions};
use cim_persistence::store::{Context, Ports};
use serde::{Deserialize, Serialize};

use crate::domain::bare_bank;

/// Three kinds of events that serde cannot tell apart.
#[derive(Clone, Serialize, Deserialize, DomainEvent)]
struct Booked {
    cents: i64,
}

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
struct Returned {
    cents: i64,
}

#[derive(Clone, Serialize, Deserialize, DomainEvent)]
#[event(name = "booked", version = 2)]
struct BookedWithFee {
    cents: i64,
    fee: i64,
}

/// A till whose events are of this type.
#[derive(Clone, Serialize, Deserialize)]
struct Till<E> {
    id: String,
    cents: i64,
    #[serde(skip)]
    events: std::marker::PhantomData<fn() -> E>,
}

trait Amount: Clone {
    fn cents(&self) -> i64;
}

macro_rules! amounts {
    ($($event:ty),*) => {$(
        impl Amount for $event {
            fn cents(&self) -> i64 {
                self.cents
            }
        }
    )*};
}
amounts!(Booked, Returned, BookedWithFee, ByHand, ReturnedByHand);

/// Those that do not say which kinds there are.
macro_rules! by_hand {
    ($($event:ident $name:literal),*) => {$(
        #[derive(Clone, Serialize, Deserialize)]
        struct $event {
            cents: i64,
        }

        impl DomainEvent for $event {
            fn event_type(&self) -> &'static str {
                $name
            }
        }
    )*};
}
by_hand!(ByHand "booked", ReturnedByHand "returned");

impl<E: DomainEvent + Amount + 'static> Aggregate for Till<E> {
    const TYPE: &'static str = "till";
    type Id = String;
    type Event = E;
    fn new(id: &String) -> Self {
        Self { id: id.clone(), cents: 0, events: std::marker::PhantomData }
    }
    fn id(&self) -> &String {
        &self.id
    }
    fn apply(&mut self, event: &E) {
        self.cents += event.cents();
    }
}

/// What the code that knows `R` says of a till that the code that knows `W` wrote.
async fn read<W, R>(event: W) -> Result<i64, String>
where
    W: DomainEvent + Amount + Send + Sync + 'static,
    R: DomainEvent + Amount + Send + Sync + 'static,
{
    let context = Context::on(Ports::in_memory(), &bare_bank()).unwrap();
    let till = Till::<W>::new(&"1".to_owned());
    let writer = Repository::<Till<W>>::of(&context).unwrap();
    writer.save(&till, vec![event], SaveOptions::default()).await.unwrap();
    let reader = Repository::<Till<R>>::of(&context).unwrap();
    let read = reader.load(&"1".to_owned(), LoadOptions::default()).await;
    read.map(|(till, _)| till.cents).map_err(|error| error.to_string())
}

#[tokio::test]
async fn an_event_of_another_name_is_not_taken_for_one_of_its_own() {
    let said = read::<Returned, Booked>(Returned { cents: 5 }).await.unwrap_err();
    assert_eq!(
        said,
        "event returned version 1 at position 1 does not decode: repository::unknown::Booked has no event of this name; \
         add it, or an upcaster"
    );
    assert_eq!(read::<Booked, Booked>(Booked { cents: 5 }).await, Ok(5));
}

#[tokio::test]
async fn an_event_of_a_newer_version_is_not_read_as_an_older_one() {
    let said = read::<BookedWithFee, Booked>(BookedWithFee { cents: 5, fee: 1 }).await.unwrap_err();
    assert_eq!(
        said,
        "event booked version 2 at position 1 does not decode: repository::unknown::Booked knows versions up to 1; bring \
         the code up to date"
    );
}

#[tokio::test]
async fn an_event_that_does_not_say_what_there_is_is_known_by_what_it_calls_itself() {
    let said = read::<Returned, ByHand>(Returned { cents: 5 }).await.unwrap_err();
    assert_eq!(
        said,
        "event returned version 1 at position 1 does not decode: repository::unknown::ByHand has no event of this name; \
         add it, or an upcaster"
    );
    let said = read::<BookedWithFee, ByHand>(BookedWithFee { cents: 5, fee: 1 }).await.unwrap_err();
    assert_eq!(
        said,
        "event booked version 2 at position 1 does not decode: repository::unknown::ByHand knows versions up to 1; bring \
         the code up to date"
    );
    let said = read::<ReturnedByHand, ByHand>(ReturnedByHand { cents: 5 }).await.unwrap_err();
    assert!(said.contains("ByHand has no event of this name"), "{said}");
    assert_eq!(read::<ByHand, Booked>(ByHand { cents: 5 }).await, Ok(5));
    assert_eq!(read::<Booked, ByHand>(Booked { cents: 5 }).await, Ok(5));
}
