//! The configuration: every field has an effect.

use cim_persistence::backend::Durability;
use cim_persistence::ipld::{Codec, Hash};
use cim_persistence::repository::{LoadOptions, NatsRepository, Repository, SaveOptions};
use cim_persistence::server::{PrivateServer, ServerConfig};
use cim_persistence::store::{Context, NatsRepositoryConfig};
use futures::TryStreamExt;

use crate::domain::{
    Account, Lab, account, bank, bare_bank, deposit, deposit_times, deposited, opened,
};

fn named() -> NatsRepositoryConfig {
    NatsRepositoryConfig {
        event_stream_name: "LEDGER_{context}".into(),
        timeout_stream_name: "LATER_{context}".into(),
        aggregate_stream_name: "states_{context}".into(),
        read_model_bucket: "views".into(),
        snapshot_bucket: "shots".into(),
        meta_bucket: "meta".into(),
        event_subject_prefix: "acme.facts".into(),
        aggregate_subject_prefix: "acme.things".into(),
        ..bank()
    }
}

#[tokio::test]
async fn streams_buckets_and_subjects_have_the_names_that_are_configured() {
    let lab = Lab::alone().await;
    let accounts = lab.accounts_with(&named()).await;
    let options = SaveOptions { create_snapshot: true, ..SaveOptions::default() };
    let saved = accounts.save(&account("a"), vec![opened("Ada")], options).await.unwrap();
    accounts.context().flush().await;
    assert_eq!(saved.subject.as_str(), "acme.things.bank.account.a.state");
    let jetstream = lab.jetstream().await;
    let mut streams: Vec<String> = jetstream.stream_names().try_collect().await.unwrap();
    streams.sort();
    let wanted = ["KV_meta", "KV_shots", "KV_states_bank", "KV_views", "LATER_bank", "LEDGER_bank"];
    assert_eq!(streams, wanted);
    let ledger = jetstream.get_stream("LEDGER_bank").await.unwrap();
    let first = ledger.get_raw_message(1).await.unwrap();
    assert_eq!(first.subject.as_str(), "acme.facts.bank.account.a");
    let state = lab.bucket("states_bank").await;
    assert!(state.get("account.a").await.unwrap().is_some());
    let shots = lab.bucket("shots").await;
    assert!(shots.get("account.a.1").await.unwrap().is_some());
    let fresh = lab.accounts_with(&named()).await;
    assert_eq!(fresh.load(&"a".into(), LoadOptions::default()).await.unwrap().0.owner, "Ada");
}

#[tokio::test]
async fn contexts_do_not_see_each_other() {
    let lab = Lab::start().await;
    let bank = lab.accounts().await;
    let shop = lab.accounts_with(&NatsRepositoryConfig::for_context("shop")).await;
    deposit(&bank, "a", 1).await;
    assert!(!shop.exists(&"a".into()).await.unwrap());
    deposit_times(&shop, "a", 2).await;
    assert_eq!(bank.load(&"a".into(), LoadOptions::default()).await.unwrap().0.cents, 1);
}

#[tokio::test]
async fn without_ipld_everything_works_on_plain_json() {
    let lab = Lab::start().await;
    let config = NatsRepositoryConfig { enable_ipld: false, ..bank() };
    let accounts = lab.accounts_with(&config).await;
    let events = vec![opened("Ada"), deposited(5)];
    let saved = accounts.save(&account("a"), events, SaveOptions::default()).await.unwrap();
    assert_eq!((saved.head_cid, saved.state_cid), (None, None));
    let message = lab.events().await.get_raw_message(2).await.unwrap();
    assert!(message.headers.get("Cim-Cid").is_none());
    assert!(message.headers.get("Cim-Previous").is_none());
    let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
    assert_eq!(json["data"]["Deposited"]["cents"], 5);
    assert_eq!((&json["version"], &json["previous"]), (&2.into(), &serde_json::Value::Null));
    accounts.create_snapshot(&"a".into()).await.unwrap();
    deposit(&accounts, "a", 1).await;
    accounts.context().flush().await;
    for keep_state in [true, false] {
        let fresh = lab.accounts_with(&NatsRepositoryConfig { keep_state, ..config.clone() }).await;
        let (loaded, known) = fresh.load(&"a".into(), LoadOptions::default()).await.unwrap();
        assert_eq!((loaded.cents, known.version, known.head_cid), (6, 3, None));
        assert_eq!(fresh.get_at_version(&"a".into(), 2).await.unwrap().0.cents, 5);
        assert_eq!(fresh.verify(&"a".into()).await.unwrap().version, 3);
    }
    let chained = lab.accounts_with(&bare_bank()).await;
    assert_eq!(
        chained.get_history(&"a".into(), None, None).await.unwrap_err().to_string(),
        format!(
            "event at position 1 on {}: the event has no CID, but this context keeps chains (enable_ipld = true); keep \
             it false where events were written so, else compare the event with a copy of the stream",
            lab.text("cim.events.bank.account.a"),
        )
    );
    accounts.delete(&"a".into(), SaveOptions::default()).await.unwrap();
    assert!(!accounts.exists(&"a".into()).await.unwrap());
}

#[tokio::test]
async fn codec_and_hash_are_those_that_are_configured_and_readers_take_all() {
    let lab = Lab::start().await;
    let ways = [
        (Codec::DagCbor, Hash::Sha2, 0x71, 0x12),
        (Codec::DagCbor, Hash::Blake3, 0x71, 0x1e),
        (Codec::DagJson, Hash::Sha2, 0x0129, 0x12),
        (Codec::DagJson, Hash::Blake3, 0x0129, 0x1e),
    ];
    for (version, (codec, hash, codec_code, hash_code)) in (1..).zip(ways) {
        let accounts = lab.accounts_with(&NatsRepositoryConfig { codec, hash, ..bank() }).await;
        let saved = deposit(&accounts, "a", 1).await;
        for cid in [saved.head_cid, saved.state_cid].map(Option::unwrap) {
            assert_eq!((cid.codec(), cid.hash().code()), (codec_code, hash_code));
        }
        accounts.context().flush().await;
        // One history may be written in all ways, each event linked to the one before.
        let head = lab.accounts().await.verify(&"a".into()).await.unwrap();
        assert_eq!((head.version, head.cid), (version, saved.head_cid));
    }
    let accounts = lab.accounts().await;
    assert_eq!(accounts.load(&"a".into(), LoadOptions::default()).await.unwrap().0.cents, 4);
}

#[tokio::test]
async fn state_is_not_kept_where_it_is_switched_off() {
    let lab = Lab::start().await;
    let accounts = lab.accounts_with(&NatsRepositoryConfig { keep_state: false, ..bank() }).await;
    deposit_times(&accounts, "a", 3).await;
    let context = accounts.context().clone();
    drop(accounts);
    context.flush().await;
    let state = lab.bucket("cim-state-bank").await;
    assert!(state.get("account.a").await.unwrap().is_none());
    let fresh = Repository::<Account>::of(&context).unwrap();
    assert_eq!(fresh.load(&"a".into(), LoadOptions::default()).await.unwrap().0.cents, 3);
}

#[tokio::test]
async fn cache_of_no_size_answers_nothing() {
    use cim_persistence::repository::Freshness;
    let lab = Lab::start().await;
    let hour = std::time::Duration::from_secs(3600);
    for (cache_size, seen) in [(0, 2), (10, 1)] {
        let ours = lab.accounts_with(&NatsRepositoryConfig { cache_size, ..bank() }).await;
        let id = format!("with-{cache_size}");
        deposit(&ours, &id, 1).await;
        deposit(&lab.accounts().await, &id, 1).await;
        let options = LoadOptions { freshness: Freshness::Cached(hour), ..LoadOptions::default() };
        assert_eq!(ours.load(&id, options).await.unwrap().0.cents, seen, "cache of {cache_size}");
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anything_is_made() {
    let lab = Lab::alone().await;
    let connection = lab.connection().await;
    let refused = async |config: NatsRepositoryConfig| {
        Context::provision(&connection, &config).await.unwrap_err().to_string()
    };
    assert_eq!(
        refused(NatsRepositoryConfig { replicas: 2, ..bank() }).await,
        "2 replicas are not possible; choose 1, 3 or 5"
    );
    assert_eq!(
        refused(NatsRepositoryConfig::for_context("my bank")).await,
        "context name \"my bank\" holds ' '; a name may hold A-Z a-z 0-9 _ and - only"
    );
    assert_eq!(
        refused(NatsRepositoryConfig::for_context("")).await,
        "context name is empty; give it at least one character"
    );
    let same = NatsRepositoryConfig { snapshot_bucket: "cim-state-{context}".into(), ..bank() };
    assert_eq!(
        refused(same).await,
        "two buckets are called \"cim-state-bank\"; give each a name of its own"
    );
    refused(NatsRepositoryConfig { event_subject_prefix: "cim.>".into(), ..bank() }).await;
    refused(NatsRepositoryConfig { event_stream_name: "EVENTS.{context}".into(), ..bank() }).await;
    let streams: Vec<String> = lab.jetstream().await.stream_names().try_collect().await.unwrap();
    assert_eq!(streams, [""; 0]);
}

#[tokio::test]
async fn durability_that_is_required_is_required_of_a_client_of_the_services_own() {
    let made = async |server: ServerConfig, durability: Durability| {
        let server = PrivateServer::start(server).await.unwrap();
        let client = async_nats::connect(server.url()).await.unwrap();
        let config = NatsRepositoryConfig { durability, ..bank() };
        NatsRepository::<Account>::new(client, config, "account".to_owned()).await.map(drop)
    };
    made(ServerConfig::Single, Durability::Required).await.unwrap();
    made(ServerConfig::DefaultSync, Durability::Reported).await.unwrap();
    let error = made(ServerConfig::DefaultSync, Durability::Required).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "acknowledged writes are not durable: server cim-default-sync syncs every 120s; set `sync_interval: always` in \
         the server's jetstream block"
    );
}

#[tokio::test]
async fn replicas_that_the_server_cannot_hold_are_an_error() {
    let lab = Lab::alone().await;
    let connection = lab.connection().await;
    let config = NatsRepositoryConfig { replicas: 3, ..bank() };
    let error = Context::provision(&connection, &config).await.unwrap_err();
    assert!(error.to_string().contains("CIM-EVENTS-bank"), "{error}");
}
