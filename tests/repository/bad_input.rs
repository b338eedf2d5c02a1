//! Bad input and damaged data: each has its own error, none leaves half a commit behind.

use async_nats::HeaderMap;
use cid::Cid;
use cim_persistence::event::{DomainEvent, InvalidMetadata, Metadata, Tag};
use cim_persistence::ipld::{BlockError, ChainError, Codec, Hash, cid_of};
use cim_persistence::prelude::Aggregate;
use cim_persistence::repository::{LoadOptions, Repository, RepositoryError, SaveOptions};
use cim_persistence::server::{PrivateServer, ServerConfig};
use cim_persistence::store::{Context, ExpectedVersion, IntegrityError, StoreError};
use ipld_core::ipld::Ipld;
use serde::{Deserialize, Serialize};

use crate::domain::{
    Account, Lab, Withdraw, account, bank, bare_bank, deposit, deposit_times, deposited, opened,
};

#[tokio::test]
async fn ids_that_cannot_be_are_refused_without_the_server() {
    let mut server = PrivateServer::start(ServerConfig::Single).await.unwrap();
    let bank = Context::connect(server.url(), "bank").await.unwrap();
    let accounts = Repository::<Account>::of(&bank).unwrap();
    server.kill();
    let too_long = "x".repeat(129);
    for (id, wanted) in [
        ("", "id is empty; give it at least one character"),
        (too_long.as_str(), "id has 129 bytes, more than the 128 that are allowed; shorten it"),
        ("a\nb", "id holds the control character '\\n'; remove it"),
        ("\0", "id holds the control character '\\0'; remove it"),
    ] {
        let id = id.to_owned();
        let saved = accounts.save(&account(&id), vec![opened("Ada")], ExpectedVersion::Any).await;
        assert_eq!(saved.unwrap_err().to_string(), wanted);
        let loaded = accounts.load(&id, LoadOptions::default()).await;
        assert_eq!(loaded.unwrap_err().to_string(), wanted);
        assert_eq!(accounts.exists(&id).await.unwrap_err().to_string(), wanted);
        let deleted = accounts.delete(&id, SaveOptions::default()).await;
        assert_eq!(deleted.unwrap_err().to_string(), wanted);
        let history = accounts.get_history(&id, None, None).await;
        assert_eq!(history.unwrap_err().to_string(), wanted);
        let done = accounts.execute_command(&id, &Withdraw(1)).await;
        assert_eq!(done.unwrap_err().to_string(), wanted);
        assert_eq!(accounts.create_snapshot(&id).await.unwrap_err().to_string(), wanted);
    }
}

#[tokio::test]
async fn ids_of_any_other_text_come_back_unchanged_and_do_not_meet() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    let longest = "ö".repeat(64);
    let ids = [
        "a.b",
        "a=2Eb",
        "a b",
        "a=20b",
        "*",
        ">",
        "a.>",
        "a.*",
        "\"quoted\"",
        "it's",
        "=",
        "==",
        "=3D",
        "A",
        "a",
        "Ärger",
        "日本語",
        "🦀",
        "שלום",
        "a/b",
        "a\\b",
        "$KV",
        ".",
        "..",
        "-",
        "_",
        "a.",
        ".a",
        "a:b",
        "%2E",
        &longest,
    ];
    for (cents, id) in (1..).zip(ids) {
        let events = vec![opened(id), deposited(cents)];
        accounts.save(&account(id), events, SaveOptions::default()).await.unwrap();
    }
    accounts.context().flush().await;
    // Once from the kept state, once from the events.
    for accounts in [lab.accounts().await, lab.accounts_with(&bare_bank()).await] {
        for (cents, id) in (1..).zip(ids) {
            let (loaded, known) =
                accounts.load(&id.to_owned(), LoadOptions::default()).await.unwrap();
            assert_eq!((loaded.id.as_str(), loaded.owner.as_str(), loaded.cents), (id, id, cents));
            assert_eq!((known.aggregate_id.to_string().as_str(), known.version), (id, 2));
            accounts.create_snapshot(&id.to_owned()).await.unwrap();
            assert_eq!(accounts.get_at_version(&id.to_owned(), 2).await.unwrap().0.cents, cents);
        }
    }
}

#[tokio::test]
async fn payload_over_the_servers_limit_is_refused_with_both_sizes() {
    let lab = Lab::alone().await;
    let accounts = lab.accounts().await;
    let large = || opened(&"x".repeat(1024 * 1024));
    // In a message of its own, and as the last of a batch.
    for events in [vec![large()], vec![opened("Ada"), deposited(1), large()]] {
        let error = accounts.save(&account("a"), events, SaveOptions::default()).await.unwrap_err();
        let RepositoryError::Store(StoreError::TooLarge { actual, limit }) = error else {
            panic!("{error}")
        };
        assert_eq!(limit, 1024 * 1024);
        assert!((limit + 100..limit + 2000).contains(&actual), "{actual}");
        assert_eq!(
            error.to_string(),
            format!(
                "a block of {actual} bytes, headers included, is over the server's limit of {limit}; nothing was sent; keep \
                 what is large elsewhere, or raise max_payload"
            )
        );
    }
    assert_eq!(lab.stored().await, 0);
    assert!(!accounts.exists(&"a".into()).await.unwrap());
}

#[tokio::test]
async fn commit_of_more_events_than_a_batch_holds_is_refused_whole() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    let events = |count| vec![deposited(1); count];
    let error =
        accounts.save(&account("a"), events(1001), SaveOptions::default()).await.unwrap_err();
    assert!(
        matches!(error, RepositoryError::Store(StoreError::TooMany { actual: 1001, limit: 1000 })),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        "1001 events are more than the 1000 that one commit may hold; nothing was sent; split the command"
    );
    assert_eq!(lab.stored().await, 0);
    let most = accounts.save(&account("a"), events(1000), SaveOptions::default()).await.unwrap();
    assert_eq!((most.version, lab.stored().await), (1000, 1000));
    assert_eq!(
        lab.accounts_with(&bare_bank()).await.verify(&"a".into()).await.unwrap().version,
        1000
    );
}

/// What a mistaken domain might do.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Odd(String);

#[derive(Debug, Serialize, Deserialize)]
enum OddEvent {
    Measured(f64),
    Tombstone,
    Reserved,
    TwoWords,
}

impl DomainEvent for OddEvent {
    fn event_type(&self) -> &'static str {
        match self {
            Self::Measured(_) => "measured",
            Self::Tombstone => "cim-tombstone",
            Self::Reserved => "cim-anything",
            Self::TwoWords => "two words",
        }
    }
}

impl Aggregate for Odd {
    const TYPE: &'static str = "odd";
    type Id = String;
    type Event = OddEvent;
    fn new(id: &String) -> Self {
        Self(id.clone())
    }
    fn id(&self) -> &String {
        &self.0
    }
    fn apply(&mut self, _: &OddEvent) {}
}

#[tokio::test]
async fn events_that_cannot_be_written_leave_nothing_behind() {
    let lab = Lab::start().await;
    let odd = Repository::<Odd>::of(&lab.process(&bank()).await).unwrap();
    let save = async |event| {
        let events = vec![OddEvent::Measured(1.5), event];
        odd.save(&Odd("a".into()), events, SaveOptions::default()).await.unwrap_err()
    };
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = save(OddEvent::Measured(number)).await;
        assert!(matches!(error, RepositoryError::Store(StoreError::Encode(_))), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!(
                "event measured of odd/a cannot be encoded: data.Measured is {number:?}, which is not a finite number; change the \
                 value, nothing was stored"
            )
        );
    }
    for (event, reserved) in
        [(OddEvent::Tombstone, "cim-tombstone"), (OddEvent::Reserved, "cim-anything")]
    {
        let error = save(event).await;
        assert_eq!(
            error.to_string(),
            format!("event type {reserved:?} is reserved; name the event otherwise")
        );
        assert!(matches!(error, RepositoryError::Store(StoreError::ReservedType { .. })));
    }
    assert_eq!(
        save(OddEvent::TwoWords).await.to_string(),
        "event type \"two words\" holds ' '; a name may hold A-Z a-z 0-9 _ and - only"
    );
    assert_eq!(lab.stored().await, 0);
}

#[test]
fn reserved_metadata_is_refused_by_its_type() {
    for name in ["Nats-Msg-Id", "nats-expected-last-sequence", "CIM-CID", "cim-version", "tags"] {
        let error = Metadata::new([(name, "x")]).unwrap_err();
        assert!(matches!(&error, InvalidMetadata::Reserved { name: found } if found == name));
    }
    // A service that reads metadata from a request gets no further.
    let read = serde_json::from_str::<Metadata>(r#"{"tags": "vip"}"#).unwrap_err();
    assert!(read.to_string().starts_with("metadata name \"tags\" is reserved"), "{read}");
}

#[test]
fn metadata_that_is_refused_says_what_to_do() {
    for (name, value, wanted) in [
        (
            "Nats-Rollup",
            "all",
            "metadata name \"Nats-Rollup\" is reserved; names starting with nats- or cim- and the name tags are not \
             yours; choose another one",
        ),
        ("", "x", "metadata name \"\" is empty or holds a control character; choose another one"),
        (
            "a\r\nb",
            "x",
            "metadata name \"a\\r\\nb\" is empty or holds a control character; choose another one",
        ),
        (
            "traceparent",
            "x\r\ny",
            "traceparent is copied into a header, so it may hold visible ASCII characters and spaces only; pass it on as \
             it was received",
        ),
    ] {
        assert_eq!(Metadata::new([(name, value)]).unwrap_err().to_string(), wanted);
    }
    assert_eq!(
        Tag::new("a,b").unwrap_err().to_string(),
        "tag \"a,b\" is not 1 to 64 characters of A-Z a-z 0-9 _ - . :; choose another one"
    );
}

#[tokio::test]
async fn tags_count_among_the_bytes_of_metadata() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    let tag = |n| Tag::new(format!("{n:064}")).unwrap();
    // "tags" and what it holds are 4 + 65 n - 1 bytes, "note" and its value 4 + 136.
    let options = |tags| SaveOptions {
        metadata: Metadata::new([("note", "x".repeat(136))]).unwrap(),
        tags: (0..tags).map(tag).collect(),
        ..SaveOptions::default()
    };
    let error = accounts.save(&account("a"), vec![opened("Ada")], options(250)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "metadata has 16393 bytes, more than the 16384 that are allowed; keep what is large in the event"
    );
    assert_eq!(lab.stored().await, 0);
    let saved = accounts.save(&account("a"), vec![opened("Ada")], options(249)).await.unwrap();
    assert_eq!(saved.tags.len(), 249);
}

#[tokio::test]
async fn metadata_of_any_text_never_becomes_a_header() {
    let lab = Lab::start().await;
    let accounts = lab.accounts().await;
    let value = "first\r\nNats-Rollup: all\r\n\u{0}🦀";
    let options = SaveOptions {
        metadata: Metadata::new([("note", value)]).unwrap(),
        ..SaveOptions::default()
    };
    accounts.save(&account("a"), vec![opened("Ada")], options).await.unwrap();
    let history = accounts.get_history(&"a".into(), None, None).await.unwrap();
    assert_eq!(history[0].metadata().get("note"), Some(value));
    let message = lab.events().await.get_raw_message(1).await.unwrap();
    assert!(message.headers.iter().all(|(name, _)| name.as_ref() as &str != "note"));
}

#[tokio::test]
async fn event_of_another_shape_names_its_type_and_place() {
    let lab = Lab::start().await;
    let odd = Repository::<Odd>::named(&lab.process(&bank()).await, "account").unwrap();
    odd.save(&Odd("a".into()), vec![OddEvent::Measured(1.5)], SaveOptions::default())
        .await
        .unwrap();
    let error = lab.accounts().await.load(&"a".into(), LoadOptions::default()).await.unwrap_err();
    let RepositoryError::Store(StoreError::Shape { event_type, schema_version, position, .. }) =
        &error
    else {
        panic!("{error}")
    };
    assert_eq!((event_type.as_str(), *schema_version, *position), ("measured", 1, 1));
}

/// Puts a message on the bank's stream as somebody might who has no idea.
async fn forge(lab: &Lab, subject: &str, headers: HeaderMap, payload: bytes::Bytes) {
    let jetstream = lab.jetstream().await;
    let ack = jetstream.publish_with_headers(subject.to_owned(), headers, payload).await.unwrap();
    assert!(!ack.await.unwrap().duplicate);
}

/// The first message of a bank on another server, where an account of this id has two events of its own.
async fn message_of_elsewhere(id: &str, sequence: u64) -> (HeaderMap, bytes::Bytes) {
    let elsewhere = Lab::alone().await;
    deposit_times(&elsewhere.accounts().await, id, 2).await;
    let message = elsewhere.events().await.get_raw_message(sequence).await.unwrap();
    // Stored with the message, the expectation of there would be one of here.
    let guard = "Nats-Expected-Last-Subject-Sequence";
    (headers_without(&message.headers, guard), message.payload)
}

fn headers_without(headers: &HeaderMap, name: &str) -> HeaderMap {
    let kept = headers.iter().filter(|(kept, _)| (kept.as_ref() as &str) != name);
    kept.flat_map(|(name, values)| values.iter().map(|v| (name.clone(), v.clone()))).collect()
}

/// What loading and verifying say of an account of two events that a third message follows.
async fn found(headers: HeaderMap, payload: bytes::Bytes) -> IntegrityError {
    let lab = Lab::alone().await;
    deposit_times(&lab.accounts().await, "a", 2).await;
    forge(&lab, "cim.events.bank.account.a", headers, payload).await;
    let fresh = lab.accounts().await;
    fresh.verify(&"a".into()).await.unwrap_err();
    fresh.save(&account("a"), vec![deposited(1)], ExpectedVersion::Any).await.unwrap_err();
    fresh.execute_command(&"a".into(), &Withdraw(1)).await.unwrap_err();
    assert_eq!(lab.stored().await, 3, "nothing is written onto what cannot be trusted");
    assert_eq!(fresh.get_at_version(&"a".into(), 2).await.unwrap().0.cents, 2);
    let error = fresh.load(&"a".into(), LoadOptions::default()).await.unwrap_err();
    match error {
        RepositoryError::Store(StoreError::Integrity { position: 3, source, .. }) => source,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn damaged_and_foreign_messages_are_found_and_nothing_of_them_is_used() {
    let (headers, payload) = message_of_elsewhere("a", 2).await;
    let error = found(headers_without(&headers, "Cim-Cid"), payload.clone()).await;
    assert!(matches!(error, IntegrityError::Block(BlockError::NoCid)), "{error}");

    let mut damaged = payload.to_vec();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    let error = found(headers.clone(), damaged.into()).await;
    assert!(matches!(error, IntegrityError::Block(BlockError::CidMismatch { .. })), "{error}");

    let mut lying = headers.clone();
    lying.insert("Cim-Version", "3");
    let error = found(lying, payload.clone()).await;
    assert_eq!(
        error.to_string(),
        "header Cim-Version is Some(\"3\") but the block says Some(\"2\")"
    );
    assert!(matches!(error, IntegrityError::Header(_)));

    let error = found(headers, payload).await;
    let chain =
        matches!(error, IntegrityError::Chain(ChainError::Version { expected: 3, found: 2 }));
    assert!(chain, "a true event of another history: {error}");

    let (headers, payload) = message_of_elsewhere("b", 1).await;
    let error = found(headers, payload).await;
    assert_eq!(error.to_string(), "the block belongs to bank/account/b");
    assert!(matches!(error, IntegrityError::Foreign { .. }));

    let mut headers = HeaderMap::new();
    headers.insert("Cim-Cid", "no cid");
    let error = found(headers, "{}".into()).await;
    assert!(matches!(error, IntegrityError::Block(BlockError::NotACid { .. })), "{error}");
}

#[tokio::test]
async fn an_event_of_another_codec_or_wire_format_says_what_reads_it() {
    // Code 0x55 is raw bytes, which any block store holds and no event is written in.
    let raw = Cid::new_v1(0x55, *cid_of(Codec::DagCbor, Hash::Sha2, b"{}").hash());
    let mut newer =
        serde_ipld_dagcbor::from_slice::<Ipld>(&message_of_elsewhere("a", 1).await.1).unwrap();
    let Ipld::Map(fields) = &mut newer else { panic!("{newer:?}") };
    fields.insert("format".to_owned(), Ipld::Integer(2));
    let newer = serde_ipld_dagcbor::to_vec(&newer).unwrap();
    for (cid, payload, wanted) in [
        (
            raw,
            b"{}".to_vec(),
            format!(
                "event at position 1 on cim.events.bank.account.a: CID {raw} is not version 1 with DAG-CBOR or DAG-JSON and \
                 SHA2-256 or BLAKE3-256; another program wrote it, or a newer version of this crate; upgrade, or read it \
                 with the program that wrote it"
            ),
        ),
        (
            cid_of(Codec::DagCbor, Hash::Sha2, &newer),
            newer,
            "event at position 1 on cim.events.bank.account.a: the block has wire format 2, this version reads format 1; \
             upgrade"
                .to_owned(),
        ),
    ] {
        let lab = Lab::alone().await;
        let accounts = lab.accounts().await;
        let mut headers = HeaderMap::new();
        headers.insert("Cim-Cid", cid.to_string());
        forge(&lab, "cim.events.bank.account.a", headers, payload.into()).await;
        let error = accounts.load(&"a".into(), LoadOptions::default()).await.unwrap_err();
        assert_eq!(error.to_string(), wanted);
    }
}

#[tokio::test]
async fn replaced_history_is_found_by_its_links() {
    let lab = Lab::alone().await;
    deposit(&lab.accounts().await, "a", 1).await;
    // The second event of another history, whose first event is another one.
    let (headers, payload) = message_of_elsewhere("a", 2).await;
    forge(&lab, "cim.events.bank.account.a", headers, payload).await;
    let fresh: Repository<Account> = lab.accounts().await;
    for error in [
        fresh.verify(&"a".into()).await.map(|_| ()).unwrap_err(),
        fresh.get_history(&"a".into(), None, None).await.map(|_| ()).unwrap_err(),
        fresh.load(&"a".into(), LoadOptions::default()).await.map(|_| ()).unwrap_err(),
    ] {
        let RepositoryError::Store(StoreError::Integrity { position: 2, source, .. }) = error
        else {
            panic!("{error}")
        };
        assert!(
            matches!(source, IntegrityError::Chain(ChainError::Link { version: 2, .. })),
            "{source}"
        );
    }
}
