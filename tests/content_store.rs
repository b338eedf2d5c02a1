//! Blocks in a bucket: stored once, found by their CIDs, verified before they are given back. In memory and on a server
//! alike.

#![allow(clippy::unwrap_used)]

use std::num::NonZeroUsize;
use std::sync::Arc;

use async_nats::jetstream::{self, kv};
use bytes::Bytes;
use cid::Cid;
use cim_persistence::backend::ReadFrom;
use cim_persistence::backend::nats::Connection;
use cim_persistence::clock::Timestamp;
use cim_persistence::content_store::{ContentAddressedStorage, ContentError};
use cim_persistence::event::{Envelope, Metadata, NonEmpty};
use cim_persistence::ipld::{BlockError, Chain, ChainError, Codec, Hash, IpldSerializer};
use cim_persistence::state::{
    Change, Expected, Key, KeyValue, KeyWrite, MemoryKeyValue, NatsKeyValue,
};
use cim_persistence::subject::{AggregateId, AggregateType, ContextName, EventType};
use cim_persistence::testing::faults::{Fault, Faults};
use uuid::Uuid;

use test_server::TestServer;

#[path = "support/test_server.rs"]
mod test_server;

const BUCKET: &str = "blocks";

/// Makes two tests of each promise: one on a bucket in memory, one on a bucket of a real server.
macro_rules! kept_by_every_bucket {
    ($($promise:ident)+) => {
        mod in_memory {
            $(
                #[tokio::test]
                async fn $promise() {
                    let bucket = super::MemoryKeyValue::new(super::BUCKET);
                    super::$promise(std::sync::Arc::new(bucket)).await;
                }
            )+
        }
        mod on_a_server {
            $(
                #[tokio::test]
                async fn $promise() {
                    let (_server, bucket) = super::bucket_on_a_server().await;
                    super::$promise(std::sync::Arc::new(bucket)).await;
                }
            )+
        }
    };
}

kept_by_every_bucket! {
    a_value_comes_back_from_every_format
    a_value_is_stored_once
    a_deleted_block_can_be_stored_again
    a_block_that_is_not_there_is_not_found
    a_damaged_block_is_found_on_every_way
    only_canonical_blocks_are_stored
    a_cid_of_another_kind_is_refused_before_any_io
    a_chain_is_followed_back_to_its_first_block
    a_chain_with_a_hole_or_damage_is_found
}

/// A server with a bucket that was made without this crate.
async fn bucket_on_a_server() -> (TestServer, NatsKeyValue) {
    let server = TestServer::start().await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let name = server.name(BUCKET);
    let config = kv::Config { bucket: name.clone(), ..kv::Config::default() };
    jetstream::new(client.clone()).create_key_value(config).await.unwrap();
    let bucket = NatsKeyValue::open(&Connection::from_client(client), &name).await.unwrap();
    (server, bucket)
}

fn storage(bucket: &Arc<dyn KeyValue>) -> ContentAddressedStorage {
    ContentAddressedStorage::new(bucket.clone(), IpldSerializer::default())
}

fn key(cid: &Cid) -> Key {
    Key::new(cid.to_string()).unwrap()
}

async fn set(bucket: &Arc<dyn KeyValue>, cid: &Cid, change: Change) {
    let write = KeyWrite::new(key(cid), change, Expected::Anything);
    bucket.write(NonEmpty::one(write)).await.unwrap();
}

async fn revision(bucket: &Arc<dyn KeyValue>, cid: &Cid) -> u64 {
    bucket.get(&key(cid), ReadFrom::Leader).await.unwrap().revision
}

fn history(length: u64) -> Chain {
    let mut chain = Chain::new();
    for number in 0..length {
        let envelope = Envelope {
            format: Envelope::FORMAT,
            context: ContextName::new("sales").unwrap(),
            aggregate: AggregateType::new("order").unwrap(),
            id: AggregateId::new("42").unwrap(),
            version: 0,
            event_type: EventType::new("counted").unwrap(),
            schema_version: 1,
            event_id: Uuid::now_v7(),
            occurred_at: Timestamp::now(),
            correlation_id: Uuid::now_v7(),
            causation_id: None,
            metadata: Metadata::default(),
            previous: None,
            data: &number,
        };
        IpldSerializer::default().add_to_chain(&mut chain, envelope).unwrap();
    }
    chain
}

async fn stored(bucket: &Arc<dyn KeyValue>, chain: &Chain) -> ContentAddressedStorage {
    let blocks = storage(bucket);
    for block in chain.blocks() {
        assert_eq!(blocks.store_block(block.bytes.clone()).await.unwrap(), block.cid);
    }
    blocks
}

const MANY: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

async fn a_value_comes_back_from_every_format(bucket: Arc<dyn KeyValue>) {
    for codec in [Codec::DagCbor, Codec::DagJson] {
        for hash in [Hash::Sha2, Hash::Blake3] {
            let writer = IpldSerializer::new(codec, hash);
            let writer = ContentAddressedStorage::new(bucket.clone(), writer);
            let value = ("two chairs".to_owned(), 0.5);
            let cid = writer.store(&value).await.unwrap();
            // Whoever reads need not know what it was written with.
            let reader = storage(&bucket);
            assert_eq!(reader.retrieve::<(String, f64)>(&cid).await.unwrap(), value);
            assert!(reader.exists(&cid).await.unwrap());
            let bytes = reader.retrieve_block(&cid).await.unwrap();
            assert_eq!(IpldSerializer::new(codec, hash).cid_of(&bytes), cid);
        }
    }
}

async fn a_value_is_stored_once(bucket: Arc<dyn KeyValue>) {
    let blocks = storage(&bucket);
    let cid = blocks.store("chair").await.unwrap();
    let before = revision(&bucket, &cid).await;
    assert_eq!(blocks.store("chair").await.unwrap(), cid);
    assert_eq!(blocks.store_block(b"\x65chair".as_slice()).await.unwrap(), cid);
    assert_eq!(revision(&bucket, &cid).await, before);
}

async fn a_deleted_block_can_be_stored_again(bucket: Arc<dyn KeyValue>) {
    let blocks = storage(&bucket);
    let cid = blocks.store("chair").await.unwrap();
    set(&bucket, &cid, Change::Delete).await;
    assert!(!blocks.exists(&cid).await.unwrap());
    assert_eq!(blocks.store("chair").await.unwrap(), cid);
    assert_eq!(blocks.retrieve::<String>(&cid).await.unwrap(), "chair");
}

async fn a_block_that_is_not_there_is_not_found(bucket: Arc<dyn KeyValue>) {
    let cid = IpldSerializer::default().cid_of(b"\x01");
    match storage(&bucket).retrieve::<u8>(&cid).await {
        Err(ContentError::NotFound { cid: missing, bucket: name }) => {
            assert_eq!((*missing, name.as_str()), (cid, bucket.bucket()));
        }
        other => panic!("{other:?}"),
    }
    assert!(!storage(&bucket).exists(&cid).await.unwrap());
}

async fn a_damaged_block_is_found_on_every_way(bucket: Arc<dyn KeyValue>) {
    let blocks = storage(&bucket);
    let cid = blocks.store("chair").await.unwrap();
    set(&bucket, &cid, Change::Put(Bytes::from_static(b"\x65choir"))).await;
    let actual = IpldSerializer::default().cid_of(b"\x65choir");
    let mismatch = BlockError::CidMismatch { claimed: Box::new(cid), actual: Box::new(actual) };
    let found = [
        blocks.retrieve::<String>(&cid).await.map(drop),
        blocks.retrieve_block(&cid).await.map(drop),
        blocks.store("chair").await.map(drop),
    ];
    for found in found {
        match found {
            Err(ContentError::Block { cid: which, bucket: name, source }) => {
                assert_eq!((*which, name.as_str(), &source), (cid, bucket.bucket(), &mismatch));
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn only_canonical_blocks_are_stored(bucket: Arc<dyn KeyValue>) {
    let blocks = storage(&bucket);
    for (bytes, error) in [
        (&b"\x18\x01"[..], BlockError::NonCanonical),
        (b"\x01\x02", BlockError::Malformed { reason: "more bytes at byte 1".to_owned() }),
    ] {
        match blocks.store_block(bytes).await {
            Err(ContentError::Block { source, .. }) => assert_eq!(source, error),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(blocks.store(&f64::NAN).await, Err(ContentError::Encode(_))));
    assert!(bucket.keys(">").await.unwrap().is_empty());
}

async fn a_cid_of_another_kind_is_refused_before_any_io(bucket: Arc<dyn KeyValue>) {
    let cid = Cid::new_v1(0x55, *IpldSerializer::default().cid_of(b"\x01").hash());
    let unsupported = BlockError::UnsupportedCid { cid: Box::new(cid) };
    match storage(&bucket).exists(&cid).await {
        Err(ContentError::Block { source, .. }) => assert_eq!(source, unsupported),
        other => panic!("{other:?}"),
    }
}

async fn a_chain_is_followed_back_to_its_first_block(bucket: Arc<dyn KeyValue>) {
    let chain = history(5);
    let blocks = stored(&bucket, &chain).await;
    let head = chain.head().unwrap();
    assert_eq!(blocks.get_chain(head, MANY).await.unwrap(), chain);

    let third = chain.blocks()[2].cid;
    let start = Chain::claimed(chain.blocks()[..3].to_vec(), third);
    assert_eq!(blocks.get_chain(&third, MANY).await.unwrap(), start);

    let max = NonZeroUsize::new(5).unwrap();
    assert!(blocks.get_chain(head, max).await.is_ok());
    match blocks.get_chain(head, NonZeroUsize::new(4).unwrap()).await {
        Err(ContentError::TooLong { head: which, max }) => assert_eq!((*which, max), (*head, 4)),
        other => panic!("{other:?}"),
    }
}

async fn a_chain_with_a_hole_or_damage_is_found(bucket: Arc<dyn KeyValue>) {
    let chain = history(5);
    let blocks = stored(&bucket, &chain).await;
    let head = *chain.head().unwrap();
    let second = chain.blocks()[1].cid;

    set(&bucket, &second, Change::Put(chain.blocks()[0].bytes.clone())).await;
    let actual = Box::new(chain.blocks()[0].cid);
    let source = BlockError::CidMismatch { claimed: Box::new(second), actual };
    let damaged = ChainError::Block { version: 2, source };
    expect_error(&bucket, &head, damaged).await;

    set(&bucket, &second, Change::Delete).await;
    let missing = ChainError::Missing { version: 2, cid: Box::new(second) };
    expect_error(&bucket, &head, missing).await;

    let stray = storage(&bucket).store("no event").await.unwrap();
    match blocks.get_chain(&stray, MANY).await {
        Err(ContentError::Chain { source: ChainError::Block { version: 0, source }, .. }) => {
            assert!(matches!(source, BlockError::Malformed { .. }), "{source}");
        }
        other => panic!("{other:?}"),
    }
}

async fn expect_error(bucket: &Arc<dyn KeyValue>, head: &Cid, error: ChainError) {
    match storage(bucket).get_chain(head, MANY).await {
        Err(ContentError::Chain { head: which, bucket: name, source }) => {
            assert_eq!((*which, name.as_str(), source), (*head, bucket.bucket(), error));
        }
        other => panic!("{other:?}"),
    }
}

/// A single server has no replica that could be behind, so this is for memory alone.
#[tokio::test]
async fn a_replica_that_is_behind_hides_nothing() {
    let faults = Faults::new();
    let bucket: Arc<dyn KeyValue> = Arc::new(MemoryKeyValue::new(BUCKET).with_faults(&faults));
    let blocks = storage(&bucket);
    let cid = blocks.store("chair").await.unwrap();
    let nothing_seen = || faults.plan(Fault::StaleRead(usize::MAX));
    nothing_seen();
    assert!(blocks.exists(&cid).await.unwrap());
    nothing_seen();
    assert_eq!(blocks.retrieve::<String>(&cid).await.unwrap(), "chair");
    assert_eq!(faults.met(), 2);
    assert_eq!(blocks.store("chair").await.unwrap(), cid);
}
