//! The same event is the same block, with the same CID, as another implementation's.

use cim_persistence::event::{Envelope, Metadata};
use cim_persistence::ipld::{Codec, Hash, IpldSerializer, encode_event};
use ipld_core::ipld::Ipld;
use serde::Deserialize;
use uuid::uuid;

use crate::common::{CODECS, HASHES, first, format, read, unhex, with_data};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vector {
    name: String,
    dag_cbor: Written,
    dag_json: Written,
}

#[derive(Deserialize)]
struct Written {
    bytes: String,
    cids: Cids,
}

#[derive(Deserialize)]
struct Cids {
    sha2: String,
    blake3: String,
}

impl Vector {
    fn bytes(&self, codec: Codec) -> Vec<u8> {
        match codec {
            Codec::DagCbor => unhex(&self.dag_cbor.bytes),
            Codec::DagJson => self.dag_json.bytes.clone().into_bytes(),
        }
    }

    fn cid(&self, codec: Codec, hash: Hash) -> &str {
        let written = match codec {
            Codec::DagCbor => &self.dag_cbor,
            Codec::DagJson => &self.dag_json,
        };
        match hash {
            Hash::Sha2 => &written.cids.sha2,
            Hash::Blake3 => &written.cids.blake3,
        }
    }
}

fn vectors() -> Vec<Vector> {
    let vectors: Vec<Vector> =
        serde_json::from_str(include_str!("../vectors/events.json")).unwrap();
    assert_eq!(vectors.len(), 9);
    vectors
}

#[test]
fn every_vector_is_read_and_written_again_with_the_same_bytes_and_cid() {
    for vector in vectors() {
        for (codec, hash) in CODECS.into_iter().flat_map(|c| HASHES.map(|h| (c, h))) {
            let name = format!("{}, {codec:?}, {hash:?}", vector.name);
            let bytes = vector.bytes(codec);
            let cid = IpldSerializer::new(codec, hash).cid_of(&bytes);
            assert_eq!(cid.to_string(), vector.cid(codec, hash), "{name}");

            let event = read(&bytes, &cid).unwrap_or_else(|error| panic!("{name}: {error}"));
            let data = event.data.clone();
            let written = encode_event(format((codec, hash)), with_data(event, &data)).unwrap();
            assert_eq!(
                String::from_utf8_lossy(&written.block.bytes),
                String::from_utf8_lossy(&bytes),
                "{name}"
            );
            assert_eq!(written.block.bytes, bytes, "{name}");
            assert_eq!(written.block.cid, Some(cid), "{name}");
        }
    }
}

#[test]
fn both_codecs_say_the_same() {
    for vector in vectors() {
        let [cbor, json] = CODECS.map(|codec| {
            let bytes = vector.bytes(codec);
            read(&bytes, &IpldSerializer::new(codec, Hash::Sha2).cid_of(&bytes)).unwrap()
        });
        assert_eq!(cbor, json, "{}", vector.name);
    }
}

#[test]
fn an_event_made_here_is_the_block_made_there() {
    #[derive(serde::Serialize)]
    enum Event {
        Placed { lines: u32 },
    }
    let link = "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua".parse().unwrap();
    let metadata = [("user", "kim"), ("tenant", "acme"), ("a longer name", ""), ("b", "é")];
    let metadata = Metadata::new(metadata.into_iter().chain([("aa", "1"), ("Z", "2")])).unwrap();
    let data = Event::Placed { lines: 2 };
    let event = Envelope {
        version: 2,
        previous: Some(link),
        causation_id: Some(uuid!("0192e4a0-7c19-7000-8000-ffffffffffff")),
        metadata,
        ..first(&data)
    };
    let there = vectors().remove(1);
    for (codec, hash) in CODECS.into_iter().flat_map(|c| HASHES.map(|h| (c, h))) {
        let here = encode_event(format((codec, hash)), event.clone()).unwrap().block;
        assert_eq!(here.bytes, there.bytes(codec));
        assert_eq!(here.cid.unwrap().to_string(), there.cid(codec, hash));
    }
}

#[test]
fn keys_of_dag_json_are_sorted_by_their_bytes() {
    // By UTF-16, as JavaScript compares, the two would stand the other way round.
    let data = Ipld::Map(
        [("\u{1f600}", 1), ("\u{fffd}", 2)].map(|(k, v)| (k.to_owned(), Ipld::Integer(v))).into(),
    );
    let (bytes, _) = IpldSerializer::new(Codec::DagJson, Hash::Sha2).serialize(&data).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes), "{\"\u{fffd}\":2,\"\u{1f600}\":1}");
}

#[test]
fn a_whole_float_stays_a_float() {
    for codec in CODECS {
        let ipld = IpldSerializer::new(codec, Hash::Sha2);
        let (bytes, cid) = ipld.serialize(&[1.0, 0.0, -0.0, 1e20, 1e21]).unwrap();
        let read: Ipld = ipld.deserialize(&bytes, &cid).unwrap();
        assert_eq!(read, Ipld::List([1.0, 0.0, 0.0, 1e20, 1e21].map(Ipld::Float).to_vec()));
        if codec == Codec::DagJson {
            assert_eq!(&*bytes, b"[1.0,0.0,0.0,100000000000000000000.0,1e+21]");
        }
    }
}
