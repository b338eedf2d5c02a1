//! Bytes that are not exactly how a block is written are refused, each kind with its own error.

use std::collections::BTreeMap;

use cid::Cid;
use cim_persistence::event::Envelope;
use cim_persistence::ipld::{
    BlockError, Codec, Hash, IpldSerializer, MAX_DEPTH, cid_of, decode_event, encode_event,
};
use cim_persistence::subject::AggregateId;
use ipld_core::ipld::Ipld;
use multihash::Multihash;

use crate::common::{first, format, read, unhex};

fn malformed(reason: impl Into<String>) -> BlockError {
    BlockError::Malformed { reason: reason.into() }
}

/// Reads bytes whose CID is right, so that only their form can be wrong.
fn decode(codec: Codec, bytes: &[u8]) -> Result<Envelope<()>, BlockError> {
    decode_event(bytes, Some(&cid_of(codec, Hash::Sha2, bytes)))
}

fn event(codec: Codec, data: &Ipld) -> Vec<u8> {
    encode_event(format((codec, Hash::Sha2)), first(data)).unwrap().block.bytes.to_vec()
}

/// An event block in DAG-CBOR with these bytes for its data, and where they begin.
fn cbor_with(data: &[u8]) -> (Vec<u8>, usize) {
    let block = event(Codec::DagCbor, &Ipld::Null);
    let at = block.windows(5).position(|w| w == b"\x64data").unwrap() + 5;
    assert_eq!(block[at], 0xf6);
    ([&block[..at], data, &block[at + 1..]].concat(), at)
}

fn json_with(data: &str) -> Vec<u8> {
    let block = String::from_utf8(event(Codec::DagJson, &Ipld::Null)).unwrap();
    block.replacen("\"data\":null", &format!("\"data\":{data}"), 1).into_bytes()
}

#[test]
fn cbor_in_a_longer_or_looser_form_is_not_canonical() {
    let link = hex(&Cid::to_bytes(&cid_of(Codec::DagCbor, Hash::Sha2, b"")));
    for (what, data) in [
        ("1 in two bytes", "1801"),
        ("255 in three", "1900ff"),
        ("65535 in five", "1a0000ffff"),
        ("4294967295 in nine", "1b00000000ffffffff"),
        ("-2 in two", "3801"),
        ("the length of bytes", "5801aa"),
        ("the length of text", "780161"),
        ("the length of a list", "980100"),
        ("the length of a map", "b801616100"),
        ("the length of a key", "a178016100"),
        ("the number of the tag", &format!("d9002a582500{link}")),
        ("keys out of order", "a2616200616100"),
        ("a longer key before a shorter one", "a26261610061620 0".replace(' ', "").as_str()),
        ("a key twice", "a2616100616100"),
        ("a list of indefinite length", "9f00ff"),
        ("a map of indefinite length", "bf616100ff"),
        ("bytes of indefinite length", "5f41aaff"),
        ("text of indefinite length", "7f6161ff"),
        ("a float of two bytes", "f93c00"),
        ("a float of four bytes", "fa3fc00000"),
        ("minus zero", "fb8000000000000000"),
    ] {
        let (block, _) = cbor_with(&unhex(data));
        assert_eq!(decode(Codec::DagCbor, &block), Err(BlockError::NonCanonical), "{what}");
    }
}

#[test]
fn cbor_that_is_not_ipld_is_malformed() {
    let link = Cid::to_bytes(&cid_of(Codec::DagCbor, Hash::Sha2, b""));
    let longer = format!("d82a582600{}00", hex(&link));
    for (data, at, what) in [
        ("fb7ff8000000000000", 0, "a float that is not finite"),
        ("fb7ff0000000000000", 0, "a float that is not finite"),
        ("fbfff0000000000000", 0, "a float that is not finite"),
        ("c000", 0, "a tag that is not 42, a link"),
        ("c24101", 0, "a tag that is not 42, a link"),
        ("82f4d82b4100", 2, "a tag that is not 42, a link"),
        ("d82a6161", 0, "a link that is not bytes"),
        ("d82a40", 0, "a link without its leading zero"),
        ("d82a420171", 0, "a link without its leading zero"),
        ("d82a420001", 0, "a link that is not a CID"),
        (&longer, 0, "a link with more bytes than a CID"),
        ("f7", 0, "a simple value that IPLD does not have"),
        ("f820", 0, "a simple value that IPLD does not have"),
        ("ff", 0, "a simple value that IPLD does not have"),
        ("1c", 1, "a reserved head before"),
        ("a10000", 1, "something else than text"),
        ("a141aa00", 1, "something else than text"),
        ("62c328", 0, "text that is not UTF-8"),
        ("7bffffffffffffffff", 9, "the end of the bytes within a value"),
        ("5bffffffffffffffff", 9, "the end of the bytes within a value"),
    ] {
        let (block, start) = cbor_with(&unhex(data));
        let error = malformed(format!("{what} at byte {}", start + at));
        assert_eq!(decode(Codec::DagCbor, &block), Err(error), "{data}");
    }
}

#[test]
fn bytes_after_or_missing_from_a_block_are_found() {
    let block = event(Codec::DagCbor, &Ipld::Null);
    let longer = [&block[..], &[0]].concat();
    let error = malformed(format!("more bytes at byte {}", block.len()));
    assert_eq!(decode(Codec::DagCbor, &longer), Err(error));
    for length in 0..block.len() {
        match decode(Codec::DagCbor, &block[..length]) {
            Err(BlockError::Malformed { reason }) => {
                assert!(reason.starts_with("the end of the bytes within a value"), "{reason}");
            }
            other => panic!("{length}: {other:?}"),
        }
    }
}

#[test]
fn nesting_is_bounded_where_it_is_read() {
    for count in [MAX_DEPTH, 1000, 1_000_000] {
        let (block, _) = cbor_with(&[vec![0x81; count], vec![0xf6]].concat());
        assert_eq!(decode(Codec::DagCbor, &block), Err(BlockError::TooDeep), "{count}");
        let (block, _) = cbor_with(&[b"\xa1\x61a".repeat(count), vec![0xf6]].concat());
        assert_eq!(decode(Codec::DagCbor, &block), Err(BlockError::TooDeep), "{count}");
        let block = json_with(&format!("{}null{}", "[".repeat(count), "]".repeat(count)));
        assert_eq!(decode(Codec::DagJson, &block), Err(BlockError::TooDeep), "{count}");
    }
    let (block, _) = cbor_with(&[vec![0x81; MAX_DEPTH - 1], vec![0xf6]].concat());
    assert!(decode(Codec::DagCbor, &block).is_ok());
    let deep = MAX_DEPTH - 1;
    let bytes = format!("{}{{\"/\":{{\"bytes\":\"AQ\"}}}}{}", "[".repeat(deep), "]".repeat(deep));
    assert!(decode(Codec::DagJson, &json_with(&bytes)).is_ok());
}

#[test]
fn json_that_would_be_written_otherwise_is_not_canonical() {
    let spaced = String::from_utf8(json_with("1")).unwrap().replacen(':', ": ", 1);
    assert_eq!(decode(Codec::DagJson, spaced.as_bytes()), Err(BlockError::NonCanonical));
    let block = json_with("1");
    for blank in [" ", "\n"] {
        let padded = [blank.as_bytes(), &block].concat();
        assert_eq!(decode(Codec::DagJson, &padded), Err(BlockError::NonCanonical));
    }
    for (what, data) in [
        ("white space", "[1, 2]"),
        ("keys out of order", r#"{"b":1,"a":3}"#),
        ("keys in the order of DAG-CBOR", r#"{"b":1,"aa":2}"#),
        ("a key twice", r#"{"a":1,"a":2}"#),
        ("an escape without need", r#""\u0041""#),
        ("an escaped slash", r#""\/""#),
        ("an escape in upper case", r#""\u001F""#),
        ("a float with a zero too many", "1.50"),
        ("a float with an exponent it does not need", "1e2"),
        ("a float without the sign of its exponent", "1e21"),
        ("a float with more digits than it has", "0.1000000000000000055"),
        ("minus zero", "-0.0"),
        ("minus zero as an integer", "-0"),
        ("an integer beyond 64 bits", "18446744073709551616"),
        ("bytes with padding", r#"{"/":{"bytes":"AQ=="}}"#),
        ("a link in another base", r#"{"/":"zdpuAyuWqRbbr7aWYQXmjDNU2v2cVWvpEeJNKkgYmY2g1m3jK"}"#),
    ] {
        let found = decode(Codec::DagJson, &json_with(data));
        let refused = matches!(found, Err(BlockError::NonCanonical | BlockError::Malformed { .. }));
        assert!(refused, "{what}: {found:?}");
        // Three that the parser itself does not read.
        if !["==", "zdpu", "\"a\":2"].iter().any(|part| data.contains(part)) {
            assert_eq!(found, Err(BlockError::NonCanonical), "{what}");
        }
    }
}

#[test]
fn json_that_is_not_dag_json_is_malformed() {
    for data in [
        "NaN",
        "Infinity",
        "1e400",
        "01",
        "1.",
        "'a'",
        "undefined",
        "\"\\ud800\"",
        "[1,]",
        r#"{"/":1}"#,
        r#"{"/":"x"}"#,
        r#"{"/":{"bytes":1}}"#,
        r#"{"/":{"bytes":"AQ"},"b":1}"#,
    ] {
        let found = decode(Codec::DagJson, &json_with(data));
        assert!(matches!(found, Err(BlockError::Malformed { .. })), "{data}: {found:?}");
    }
    let trailing = [json_with("1"), b"x".to_vec()].concat();
    assert_eq!(decode(Codec::DagJson, &trailing), Err(malformed("trailing data")));
    assert!(matches!(decode(Codec::DagJson, b""), Err(BlockError::Malformed { .. })));
}

/// The fields of an event block, to be changed and written again.
fn fields() -> BTreeMap<String, Ipld> {
    match serde_ipld_dagcbor::from_slice(&event(Codec::DagCbor, &Ipld::Null)).unwrap() {
        Ipld::Map(fields) => fields,
        other => panic!("{other:?}"),
    }
}

fn decode_fields(codec: Codec, fields: BTreeMap<String, Ipld>) -> Result<Envelope<()>, BlockError> {
    let (bytes, cid) =
        IpldSerializer::new(codec, Hash::Sha2).serialize(&Ipld::Map(fields)).unwrap();
    decode_event(&bytes, Some(&cid))
}

#[test]
fn a_missing_field_is_named() {
    assert_eq!(fields().len(), 14);
    for codec in [Codec::DagCbor, Codec::DagJson] {
        for name in fields().keys() {
            let mut fields = fields();
            fields.remove(name);
            let error = malformed(format!("missing field `{name}`"));
            assert_eq!(decode_fields(codec, fields), Err(error));
        }
    }
}

#[test]
fn an_unknown_field_is_named() {
    for name in ["", "a", "extra", "zzzzzzzzzzzzzzzz"] {
        let mut fields = fields();
        fields.insert(name.to_owned(), Ipld::Null);
        match decode_fields(Codec::DagCbor, fields) {
            Err(BlockError::Malformed { reason }) => {
                let start = format!("unknown field `{name}`, expected one of `format`, `context`");
                assert!(reason.starts_with(&start), "{reason}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_field_of_another_kind_is_refused() {
    let text = |text: &str| Ipld::String(text.to_owned());
    let upper = "0192E4A0-7C1A-7B3E-8F00-0123456789AB";
    let uuid = |shown: &str| format!("{shown:?} is not a UUID in lower case");
    for (name, value, reason) in [
        ("event_id", text(upper), uuid(upper)),
        ("causation_id", text(upper), uuid(upper)),
        ("correlation_id", text(""), uuid("")),
        (
            "event_id",
            text("0192e4a07c1a7b3e8f000123456789ab"),
            uuid("0192e4a07c1a7b3e8f000123456789ab"),
        ),
        ("id", text(""), "id is empty; give it at least one character".to_owned()),
        ("id", text("=41"), AggregateId::from_escaped("=41").unwrap_err().to_string()),
        ("type", text(""), "event type is empty; give it at least one character".to_owned()),
        (
            "context",
            text("a.b"),
            "context name \"a.b\" holds '.'; a name may hold A-Z a-z 0-9 _ and - only".to_owned(),
        ),
    ] {
        let mut fields = fields();
        fields.insert(name.to_owned(), value);
        assert_eq!(decode_fields(Codec::DagCbor, fields), Err(malformed(reason)), "{name}");
    }
    for (name, value) in [
        ("version", Ipld::Integer(-1)),
        ("version", Ipld::Float(1.5)),
        ("schema", Ipld::Integer(1 << 32)),
        ("format", Ipld::Null),
        ("occurred_at", Ipld::Null),
        ("metadata", Ipld::Null),
        ("metadata", Ipld::Map([("a".to_owned(), Ipld::Integer(1))].into())),
        ("previous", text("bafy")),
        ("previous", Ipld::Bytes(vec![1])),
    ] {
        for codec in [Codec::DagCbor, Codec::DagJson] {
            let mut fields = fields();
            fields.insert(name.to_owned(), value.clone());
            let found = decode_fields(codec, fields);
            assert!(matches!(found, Err(BlockError::Malformed { .. })), "{name}: {found:?}");
        }
    }
}

#[test]
fn a_newer_format_is_told_before_its_fields_are() {
    for codec in [Codec::DagCbor, Codec::DagJson] {
        let mut newer = fields();
        newer.insert("format".to_owned(), Ipld::Integer(2));
        let error = Err(BlockError::UnknownFormat { found: 2 });
        assert_eq!(decode_fields(codec, newer.clone()), error);
        newer.insert("extra".to_owned(), Ipld::Null);
        newer.remove("metadata");
        assert_eq!(decode_fields(codec, newer), error);
    }
}

#[test]
fn what_is_not_a_map_is_not_an_event() {
    for value in [Ipld::Null, Ipld::List(fields().into_values().collect()), Ipld::Integer(1)] {
        for codec in [Codec::DagCbor, Codec::DagJson] {
            let (bytes, cid) = IpldSerializer::new(codec, Hash::Sha2).serialize(&value).unwrap();
            let found = decode_event(&bytes, Some(&cid));
            assert!(matches!(found, Err(BlockError::Malformed { .. })), "{found:?}");
        }
    }
}

#[test]
fn only_the_cids_of_this_crate_are_read() {
    let bytes = event(Codec::DagCbor, &Ipld::Null);
    let right = cid_of(Codec::DagCbor, Hash::Sha2, &bytes);
    let hash = *right.hash();
    for cid in [
        Cid::new_v0(hash).unwrap(),
        Cid::new_v1(0x55, hash),
        Cid::new_v1(0x70, hash),
        Cid::new_v1(0x71, Multihash::wrap(0x13, hash.digest()).unwrap()),
        Cid::new_v1(0x71, Multihash::wrap(0x00, b"identity").unwrap()),
    ] {
        let error = BlockError::UnsupportedCid { cid: Box::new(cid) };
        assert_eq!(decode_event(&bytes, Some(&cid)), Err(error));
    }
    for claimed in [
        cid_of(Codec::DagCbor, Hash::Sha2, b""),
        Cid::new_v1(0x71, Multihash::wrap(0x12, &hash.digest()[..31]).unwrap()),
    ] {
        let error = BlockError::CidMismatch { claimed: Box::new(claimed), actual: Box::new(right) };
        assert_eq!(decode_event(&bytes, Some(&claimed)), Err(error));
    }
    // The same digest under the other codec is another block, and these bytes are not that one.
    let other = cid_of(Codec::DagJson, Hash::Sha2, &bytes);
    assert!(matches!(read(&bytes, &other), Err(BlockError::Malformed { .. })));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
