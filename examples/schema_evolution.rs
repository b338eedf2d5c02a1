//! A service changes its types and goes on with what it has stored: written in version 1, read in version 3 by a repository,
//! a subscription and a registry; read models migrated, and rolled back. On a private server or the one that `NATS_URL` names.
//!
//! Each run tells the story from its beginning, in a context of its own. Streams are there to stay, and nothing here removes
//! one: on a server of yours those of `shop-` and the run's id are yours to remove.
#![allow(clippy::print_stdout)] // An example talks to whoever runs it.

use std::sync::Arc;

use cim_persistence::evolution::{Evolution, Reshape, Tagged, Upcast};
use cim_persistence::migration::{
    Migration, MigrationError, MigrationRunner, Migrator, ModelDocument, ModelEdit, SchemaVersion,
    Undo,
};
use cim_persistence::prelude::*;
use cim_persistence::read_model::{ReadModelStore, SaveModel};
use cim_persistence::repository::{LoadOptions, Repository, SaveOptions};
use cim_persistence::server::{self, Server, ServerConfig};
use cim_persistence::store::{Context, NatsRepositoryConfig};
use cim_persistence::subject::AggregateId;
use cim_persistence::subscription::{
    Delivered, Dispatched, EventRegistry, SubscriptionQuery, Unmapped,
};
use cim_persistence::{Connection, ConnectionConfig};
use futures::StreamExt;
use ipld_core::ipld;
use ipld_core::ipld::Ipld;
use serde_json::json;

/// The service a year ago: whole euros, an address in one event, and a ping that nobody needs any more.
mod v1 {
    use cim_persistence::prelude::*;
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Serialize, Deserialize)]
    pub(crate) struct Order {
        pub(crate) id: String,
        pub(crate) total: i64,
    }

    #[derive(Debug, Serialize, Deserialize, DomainEvent)]
    pub(crate) enum OrderEvent {
        Placed { total: i64 },
        Relocated { street: String, city: String },
        Pinged,
    }

    impl Aggregate for Order {
        const TYPE: &'static str = "order";
        type Id = String;
        type Event = OrderEvent;
        fn new(id: &String) -> Self {
            Order { id: id.clone(), total: 0 }
        }
        fn id(&self) -> &String {
            &self.id
        }
        fn apply(&mut self, event: &OrderEvent) {
            if let OrderEvent::Placed { total } = event {
                self.total = *total;
            }
        }
    }
}

/// The service today: money with its currency, and two events where there was one. Version 2 counted in cents.
mod v3 {
    use cim_persistence::event::SchemaVersion;
    use cim_persistence::evolution::{As, Refusal, Tagged, Transcoder};
    use cim_persistence::prelude::*;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Clone, PartialEq)]
    pub(crate) struct Money {
        pub(crate) cents: i64,
        pub(crate) currency: String,
    }

    /// Money is carried as `{"$type": "money/1", "value": [1200, "EUR"]}`.
    pub(crate) struct MoneyPair;

    impl Transcoder for MoneyPair {
        const NAME: &'static str = "money/1";
        type Value = Money;
        type Wire = (i64, String);
        fn to_wire(money: &Money) -> Result<(i64, String), Refusal> {
            Ok((money.cents, money.currency.clone()))
        }
        fn from_wire((cents, currency): (i64, String)) -> Result<Money, Refusal> {
            Ok(Money { cents, currency })
        }
    }

    #[derive(Debug, Clone, Serialize, Deserialize)]
    pub(crate) struct Order {
        pub(crate) id: String,
        #[serde(with = "As::<Option<Tagged<MoneyPair>>>")]
        pub(crate) total: Option<Money>,
        pub(crate) city: String,
    }

    #[derive(Debug, Serialize, Deserialize, DomainEvent)]
    pub(crate) enum OrderEvent {
        #[event(version = 3)]
        Placed {
            #[serde(with = "As::<Tagged<MoneyPair>>")]
            total: Money,
        },
        StreetChanged {
            street: String,
        },
        CityChanged {
            city: String,
        },
    }

    impl Aggregate for Order {
        const TYPE: &'static str = "order";
        const STATE_VERSION: SchemaVersion = 2;
        type Id = String;
        type Event = OrderEvent;
        fn new(id: &String) -> Self {
            Order { id: id.clone(), total: None, city: String::new() }
        }
        fn id(&self) -> &String {
            &self.id
        }
        fn apply(&mut self, event: &OrderEvent) {
            match event {
                OrderEvent::Placed { total } => self.total = Some(total.clone()),
                OrderEvent::CityChanged { city } => self.city = city.clone(),
                OrderEvent::StreetChanged { .. } => {}
            }
        }
    }
}

/// How the types of version 1 became those of version 3. The state of version 1 has no city, so no step leads from it: kept
/// states are derived from the events again.
fn evolution() -> Result<Evolution, Box<dyn std::error::Error>> {
    let evolution = Evolution::builder()
        .events::<v3::OrderEvent>()
        .upcast(Upcast::event("placed", 1, |mut event| {
            let placed = event.within("Placed")?;
            let Ipld::Integer(euros) = placed.remove("total")? else {
                return Err("no total".into());
            };
            placed.put("cents", euros * 100)?;
            Ok(event)
        }))
        .upcast(Upcast::event("placed", 2, |mut event| {
            let placed = event.within("Placed")?;
            let Ipld::Integer(cents) = placed.remove("cents")? else {
                return Err("no cents".into());
            };
            let total = v3::Money { cents: i64::try_from(cents)?, currency: "EUR".to_owned() };
            placed.put("total", Tagged::<v3::MoneyPair>::to_ipld(&total)?)?;
            Ok(event)
        }))
        .upcast(Upcast::split(
            ("relocated", 1),
            [("street_changed", 1), ("city_changed", 1)],
            |mut event| {
                let place = event.within("Relocated")?;
                let (street, city) = (place.remove("street")?, place.remove("city")?);
                Ok(vec![
                    (("street_changed", 1), ipld!({ "StreetChanged": { "street": street } })),
                    (("city_changed", 1), ipld!({ "CityChanged": { "city": city } })),
                ])
            },
        ))
        .upcast(Upcast::dropped(("pinged", 1)))
        .build()?;
    Ok(evolution)
}

/// What is stored of the read models, changed for good: unlike an event, a read model may be written again.
struct BoardsInCents;

impl Migration for BoardsInCents {
    fn name(&self) -> &str {
        "boards in cents"
    }
    fn from(&self) -> SchemaVersion {
        SchemaVersion::NONE
    }
    fn to(&self) -> SchemaVersion {
        SchemaVersion::new(1, 0, 0)
    }
    fn undo(&self) -> Undo {
        Undo::Everything
    }
    async fn up(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        let edit = |board: &ModelDocument| {
            let euros = board.document["euros"].as_i64().ok_or("no euros")?;
            Ok(ModelEdit::Put(json!({ "cents": euros * 100 })))
        };
        migrator.models("board.>", 2, edit).await
    }
    async fn down(&self, migrator: &mut Migrator) -> Result<(), MigrationError> {
        let edit = |board: &ModelDocument| {
            let cents = board.document["cents"].as_i64().ok_or("no cents")?;
            Ok(ModelEdit::Put(json!({ "euros": cents / 100 })))
        };
        migrator.models("board.>", 1, edit).await
    }
}

/// Migrates the boards, and back.
async fn migrate(shop: &Context) -> Result<(), Box<dyn std::error::Error>> {
    let boards = ReadModelStore::new(shop).untyped("board")?;
    let id = AggregateId::new("4711")?;
    boards.save_document(&id, &json!({ "euros": 12 }), SaveModel::default()).await?;
    let mut runner = MigrationRunner::new(shop, "example");
    runner.add_migration(BoardsInCents)?;
    let newest = SchemaVersion::new(1, 0, 0);
    println!("dry run   {} board would change", runner.dry_run(newest).await?.changed());
    runner.migrate_to(newest).await?;
    println!("migrated  {}", boards.load(&id).await?.ok_or("no board")?.model);
    runner.rollback_to(SchemaVersion::NONE).await?;
    println!("back      {}", boards.load(&id).await?.ok_or("no board")?.model);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = server::from_env_or(ServerConfig::Single).await?;
    let config = match &server {
        Server::Private(server) => ConnectionConfig::new(server.url()),
        _ => ConnectionConfig::from_env()?, // Its servers, credentials and TLS files.
    };
    let connection = Connection::connect(&config).await?;
    // A context of its own leaves alone what others keep on that server.
    let config = NatsRepositoryConfig::for_context(format!("shop-{}", uuid::Uuid::now_v7()));
    let shop = Context::provision(&connection, &config).await?;
    let id = "4711".to_string();

    let orders = Repository::<v1::Order>::of(&shop)?;
    let relocated = v1::OrderEvent::Relocated { street: "Hauptstr. 1".into(), city: "Ulm".into() };
    let life = vec![v1::OrderEvent::Placed { total: 12 }, v1::OrderEvent::Pinged, relocated];
    let saved = orders.save(&v1::Order::new(&id), life, SaveOptions::default()).await?;
    println!(
        "written   version {} of {} as version 1 of the service",
        saved.version, saved.subject
    );

    // A step that is missing is found when the service starts, not when the first old event is read.
    let forgotten = Evolution::builder().events::<v3::OrderEvent>().build();
    println!("refused   {}", forgotten.expect_err("placed has three versions"));

    let shop = shop.with_evolution(Arc::new(evolution()?));
    let orders = Repository::<v3::Order>::of(&shop)?;
    let (order, known) = orders.load(&id, LoadOptions::default()).await?;
    let total = order.total.ok_or("the order was placed")?;
    println!(
        "loaded    {} {} in {} at version {}",
        total.cents, total.currency, order.city, known.version
    );

    let registry = EventRegistry::new(Unmapped::Error)
        .on(|event: v3::OrderEvent, stored| format!("{event:?}, stored as {}", stored.version()))?;
    let mut events = shop.subscribe(SubscriptionQuery::all());
    while let Some(Delivered::Event(event)) = events.next().await.transpose()? {
        for dispatched in registry.dispatch(&event)? {
            let Dispatched::Mapped(text) = dispatched else { continue };
            println!("today     {text}");
        }
    }

    for event in orders.get_history(&id, None, None).await? {
        let data: v1::OrderEvent = event.stored_data()?;
        println!("stored    {} {data:?}", event.version());
    }
    migrate(&shop).await?;
    let head = orders.verify(&id).await?;
    println!("verified  version {}, no event that is stored has changed", head.version);
    Ok(())
}
