//! What holds for every event and for every run of bytes.

use cid::Cid;
use cim_persistence::clock::Timestamp;
use cim_persistence::event::{Envelope, Headers, Metadata, names};
use cim_persistence::ipld::{
    BlockError, Codec, Hash, IpldSerializer, cid_of, decode_event, encode_event,
};
use cim_persistence::subject::{AggregateId, AggregateType, ContextName, EventType};
use ipld_core::ipld::Ipld;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;

use crate::common::{Any, CODECS, first, format, formats, read, with_data};

fn float() -> impl Strategy<Value = f64> {
    let bits = any::<u64>().prop_map(f64::from_bits);
    prop_oneof![any::<f64>(), bits, (-1e9..1e9), (-1_000_i32..1000).prop_map(f64::from)]
        .prop_filter("finite", |float| float.is_finite())
        // There is one zero only.
        .prop_map(|float| if float == 0.0 { 0.0 } else { float })
}

fn integer() -> impl Strategy<Value = i128> {
    prop_oneof![
        any::<u64>().prop_map(i128::from),
        any::<i64>().prop_map(i128::from),
        -300_i128..300
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[a-c]{0,3}", "\\PC{0,40}"]
}

fn link() -> impl Strategy<Value = Cid> {
    (any::<[u8; 4]>(), 0..4_usize).prop_map(|(bytes, which)| {
        let (codec, hash) = formats().nth(which).unwrap();
        cid_of(codec, hash, &bytes)
    })
}

fn data() -> impl Strategy<Value = Ipld> {
    let leaf = prop_oneof![
        Just(Ipld::Null),
        any::<bool>().prop_map(Ipld::Bool),
        integer().prop_map(Ipld::Integer),
        float().prop_map(Ipld::Float),
        text().prop_map(Ipld::String),
        vec(any::<u8>(), 0..40).prop_map(Ipld::Bytes),
        link().prop_map(Ipld::Link),
    ];
    leaf.prop_recursive(6, 60, 8, move |inner| {
        // DAG-JSON keeps one key for itself.
        let key = text().prop_filter("free in both codecs", |key| key != "/");
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Ipld::List),
            btree_map(key, inner, 0..8).prop_map(Ipld::Map),
        ]
    })
}

fn metadata() -> impl Strategy<Value = Metadata> {
    // Traces must be visible ASCII, and DAG-JSON keeps one name for itself.
    let free = |name: &String| !["traceparent", "tracestate", "/"].contains(&name.as_str());
    let name = text().prop_filter("a name", move |name| {
        free(name) && Metadata::new([(name.clone(), "")]).is_ok()
    });
    btree_map(name, text(), 0..6).prop_map(|entries| Metadata::new(entries).unwrap())
}

prop_compose! {
    fn event()(
        names in ("[a-zA-Z0-9_-]{1,64}", "[a-z]{1,9}", "[a-z_]{1,9}"),
        id in "[^\\p{Cc}]{1,30}",
        (version, schema_version, occurred_at) in (any::<u64>(), any::<u32>(), any::<u64>()),
        (event_id, correlation_id, causation_id) in (any::<u128>(), any::<u128>(), option::of(any::<u128>())),
        metadata in metadata(),
        previous in option::of(link()),
        data in data(),
    ) -> Envelope<Any> {
        Envelope {
            format: Envelope::FORMAT,
            context: ContextName::new(names.0).unwrap(),
            aggregate: AggregateType::new(names.1).unwrap(),
            id: AggregateId::new(id).unwrap(),
            version,
            event_type: EventType::new(names.2).unwrap(),
            schema_version,
            event_id: Uuid::from_u128(event_id),
            occurred_at: Timestamp::from_micros(occurred_at),
            correlation_id: Uuid::from_u128(correlation_id),
            causation_id: causation_id.map(Uuid::from_u128),
            metadata,
            previous,
            data: Any(data),
        }
    }
}

/// If the bytes are an event, they are exactly what writing that event gives.
fn canonical_or_refused(codec: Codec, bytes: &[u8]) {
    let cid = cid_of(codec, Hash::Sha2, bytes);
    let event = read(bytes, &cid);
    if let Ok(event) = event {
        let data = event.data.clone();
        let again = encode_event(format((codec, Hash::Sha2)), with_data(event, &data)).unwrap();
        assert_eq!(again.block.bytes, bytes);
    }
    let ipld = IpldSerializer::new(codec, Hash::Sha2);
    if let Ok(value) = ipld.deserialize::<Ipld>(bytes, &cid) {
        assert_eq!(ipld.serialize(&value).unwrap().0, bytes);
    }
}

proptest! {
    #[test]
    fn every_event_comes_back_from_every_format(event in event()) {
        for chosen in formats() {
            let data = event.data.clone();
            let encoded = encode_event(format(chosen), with_data(event.clone(), &data)).unwrap();
            let cid = encoded.block.cid.unwrap();
            prop_assert_eq!(&read(&encoded.block.bytes, &cid).unwrap(), &event);
            prop_assert_eq!(&encoded.envelope, &with_data(event.clone(), ()));
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_derived_form(event in event()) {
        let derived = serde_ipld_dagcbor::to_vec(&event).unwrap();
        let data = event.data.clone();
        for codec in CODECS {
            let format = format((codec, Hash::Sha2));
            let written = encode_event(format, with_data(event.clone(), &data)).unwrap().block;
            let generic = IpldSerializer::new(codec, Hash::Sha2).serialize(&event).unwrap();
            prop_assert_eq!((&written.bytes, written.cid), (&generic.0, Some(generic.1)));
            if codec == Codec::DagCbor {
                prop_assert_eq!(&written.bytes, &derived);
            }
        }
        let read: Envelope<Any> = serde_ipld_dagcbor::from_slice(&derived).unwrap();
        prop_assert_eq!(read, event);
    }

    #[test]
    fn arbitrary_bytes_are_read_only_if_they_are_canonical(bytes in vec(any::<u8>(), 0..200)) {
        for codec in CODECS {
            canonical_or_refused(codec, &bytes);
        }
    }

    #[test]
    fn values_with_changed_bytes_are_read_only_if_they_are_canonical(
        data in data(),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        for codec in CODECS {
            let (bytes, _) = IpldSerializer::new(codec, Hash::Sha2).serialize(&data).unwrap();
            canonical_or_refused(codec, &changed(bytes.to_vec(), &changes));
        }
    }

    #[test]
    fn events_with_changed_bytes_are_read_only_if_they_are_canonical(
        event in event(),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        for codec in CODECS {
            let data = event.data.clone();
            let encoded = encode_event(format((codec, Hash::Sha2)), with_data(event.clone(), &data));
            canonical_or_refused(codec, &changed(encoded.unwrap().block.bytes.to_vec(), &changes));
        }
    }

    #[test]
    fn headers_say_what_the_block_says(event in event()) {
        prop_assume!(event.correlation_id != event.event_id);
        let data = event.data.clone();
        let encoded = encode_event(format((Codec::DagCbor, Hash::Sha2)), with_data(event, &data)).unwrap();
        let (envelope, cid) = (encoded.envelope, encoded.block.cid.unwrap());
        let headers = Headers::of_event(&envelope, Some(&cid));
        for (name, value) in [
            (names::EVENT_ID, Some(envelope.event_id.to_string())),
            (names::EVENT_TYPE, Some(envelope.event_type.to_string())),
            (names::SCHEMA_VERSION, Some(envelope.schema_version.to_string())),
            (names::VERSION, Some(envelope.version.to_string())),
            (names::CID, Some(cid.to_string())),
            (names::CORRELATION_ID, Some(envelope.correlation_id.to_string())),
            (names::CAUSATION_ID, envelope.causation_id.map(|id| id.to_string())),
        ] {
            prop_assert_eq!(headers.get(name), value.as_deref(), "{}", name);
        }
        prop_assert_eq!(headers.check(&envelope, Some(&cid)), Ok(()));
    }
}

fn changed(mut bytes: Vec<u8>, changes: &[(Index, u8)]) -> Vec<u8> {
    for (at, byte) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *byte;
    }
    bytes
}

#[test]
fn every_flipped_bit_is_found() {
    let event = Envelope {
        previous: Some(cid_of(Codec::DagCbor, Hash::Sha2, b"")),
        metadata: Metadata::new([("user", "kim")]).unwrap(),
        ..first(&("two chairs", 2, 0.5))
    };
    for chosen in formats() {
        let block = encode_event(format(chosen), event.clone()).unwrap().block;
        let claimed = block.cid.unwrap();
        for bit in 0..block.bytes.len() * 8 {
            let mut bytes = block.bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let actual = Box::new(cid_of(chosen.0, chosen.1, &bytes));
            let error = BlockError::CidMismatch { claimed: Box::new(claimed), actual };
            assert_eq!(decode_event(&bytes, Some(&claimed)), Err(error), "bit {bit}");
        }
    }
}

#[test]
fn every_header_that_says_something_else_is_named() {
    let event = Envelope {
        correlation_id: Uuid::from_u128(6),
        causation_id: Some(Uuid::from_u128(7)),
        ..first(())
    };
    let cid = cid_of(Codec::DagCbor, Hash::Sha2, b"x");
    let headers = Headers::of_event(&event, Some(&cid));
    let all: Vec<(String, String)> =
        headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(all.len(), 7);
    for (name, value) in &all {
        let with = |other: Option<&str>| -> Headers {
            all.iter()
                .filter_map(|(n, v)| {
                    let v = if n == name { other } else { Some(v.as_str()) };
                    v.map(|v| (n.clone(), v.to_owned()))
                })
                .collect()
        };
        for other in
            [None, Some(""), Some("0"), Some(&*format!("{value} ")), Some(&*format!("0{value}"))]
        {
            let error = with(other).check(&event, Some(&cid)).unwrap_err();
            assert_eq!(error.name, name);
            assert_eq!(error.header.as_deref(), other);
            assert_eq!(error.block.as_deref(), Some(value.as_str()));
        }
    }
    let extra = Headers::of_event(&event, Some(&cid));
    let error = extra.check(&first(()), Some(&cid)).unwrap_err();
    assert_eq!((error.name, error.block), (names::CORRELATION_ID, None));
}
