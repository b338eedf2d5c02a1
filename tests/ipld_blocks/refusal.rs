//! What cannot be a block is refused when it is written, with the place and the reason.

use std::collections::BTreeMap;

use cim_persistence::ipld::{BlockFormat, Codec, Hash, IpldSerializer, MAX_DEPTH, encode_event};
use ipld_core::ipld::Ipld;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::common::{first, format, formats};

const EVENT: &str = "event placed of order/42 cannot be encoded: ";
const ADVICE: &str = "; change the value, nothing was stored";

fn all_formats() -> impl Iterator<Item = BlockFormat> {
    formats().map(format).chain([BlockFormat::PlainJson])
}

fn refused<D: Serialize>(format: BlockFormat, data: &D) -> String {
    let text = match encode_event(format, first(data)) {
        Ok(encoded) => panic!("{format:?}: {:?}", String::from_utf8_lossy(&encoded.block.bytes)),
        Err(error) => error.to_string(),
    };
    let reason = text.strip_prefix(EVENT).and_then(|reason| reason.strip_suffix(ADVICE));
    reason.unwrap_or_else(|| panic!("{format:?}: {text}")).to_owned()
}

#[derive(Serialize)]
enum Event<T> {
    Placed { price: T, lines: Vec<Line<T>> },
    Cancelled(()),
}

#[derive(Serialize)]
struct Line<T> {
    price: T,
}

#[test]
fn a_number_that_is_not_finite_is_named_with_its_place() {
    for format in all_formats() {
        let event = Event::Placed { price: f64::NAN, lines: vec![] };
        let text = "data.Placed.price is NaN, which is not a finite number";
        assert_eq!(refused(format, &event), text, "{format:?}");

        let line = |price| Line { price };
        let event = Event::Placed { price: 1.5, lines: vec![line(0.5), line(f64::NEG_INFINITY)] };
        let text = "data.Placed.lines.1.price is -inf, which is not a finite number";
        assert_eq!(refused(format, &event), text, "{format:?}");
        assert_eq!(refused(format, &f32::INFINITY), "data is inf, which is not a finite number");
    }
}

#[test]
fn a_map_key_must_be_text() {
    let counts = BTreeMap::from([(7_u32, "seven")]);
    for format in formats().map(format) {
        assert_eq!(refused(format, &counts), "Map keys must be strings", "{format:?}");
    }
}

#[test]
fn an_integer_beyond_64_bits_is_named_with_its_place() {
    for format in formats().map(format) {
        let text = "data.1 is 18446744073709551616, which is beyond 64 bits";
        assert_eq!(refused(format, &[1_i128, 1 << 64]), text, "{format:?}");
        let text = "data is -18446744073709551617, which is beyond 64 bits";
        assert_eq!(refused(format, &(-1 - (1_i128 << 64))), text, "{format:?}");
    }
}

#[test]
fn dag_json_refuses_what_it_would_read_as_something_else() {
    let format = BlockFormat::Ipld(Codec::DagJson, Hash::Sha2);
    let text = "DAG-JSON keeps the map key \"/\" for links and bytes; name it otherwise";
    assert_eq!(refused(format, &[BTreeMap::from([("/", "home")])]), text);
    let least = i128::from(i64::MIN);
    let text =
        format!("{} is below the least integer of DAG-JSON, -9223372036854775808", least - 1);
    assert_eq!(refused(format, &(least - 1)), text);
    assert!(encode_event(format, first(&least)).is_ok());
}

#[test]
fn nesting_is_bounded_where_it_is_written() {
    let lists = |count| (0..count).fold(Ipld::Null, |inner, _| Ipld::List(vec![inner]));
    for format in all_formats() {
        // The block is a map itself.
        assert!(encode_event(format, first(&lists(MAX_DEPTH - 1))).is_ok(), "{format:?}");
        let text = "the block nests maps and lists more than 64 deep";
        assert_eq!(refused(format, &lists(MAX_DEPTH)), text, "{format:?}");
    }
}

#[test]
fn a_key_that_is_written_twice_is_refused() {
    struct Twice;
    impl Serialize for Twice {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(2))?;
            map.serialize_entry("a", &1)?;
            map.serialize_entry("a", &2)?;
            map.end()
        }
    }
    for format in formats().map(format) {
        assert_eq!(refused(format, &Twice), "the block is not in canonical form", "{format:?}");
    }
}

#[test]
fn units_are_written_as_null_in_every_format() {
    for format in all_formats() {
        assert!(encode_event(format, first(&Event::<u8>::Cancelled(()))).is_ok(), "{format:?}");
    }
}

#[test]
fn a_refused_value_is_named_by_its_type() {
    let error = IpldSerializer::default().serialize(&f64::NAN).unwrap_err();
    let text = "a f64 cannot be encoded: it is NaN, which is not a finite number";
    assert_eq!(error.to_string(), format!("{text}{ADVICE}"));
}
