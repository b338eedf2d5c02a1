//! DAG-JSON, as another writing of what DAG-CBOR says: a block goes from one to the other and means the same.
//!
//! Canonical: keys sorted by their UTF-8 bytes, no white space, numbers with the fewest digits that give them back,
//! written the way ECMAScript writes them, floats always with a point or an exponent.

use std::io::{self, Write};

use ipld_core::ipld::Ipld;
use serde::Serialize;

use super::BlockError;
use super::canonical::MAX_DEPTH;

/// A link or bytes are written as maps of their own, up to two within each other.
const MAX_JSON_DEPTH: usize = MAX_DEPTH + 2;

/// Writes what canonical DAG-CBOR bytes say.
pub(super) fn from_cbor(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let value: Ipld = serde_ipld_dagcbor::from_slice(bytes).map_err(|error| error.to_string())?;
    write(&value)
}

/// Reads bytes that are canonical, and writes them as DAG-CBOR.
pub(super) fn to_cbor(bytes: &[u8]) -> Result<Vec<u8>, BlockError> {
    if nesting(bytes) > MAX_JSON_DEPTH {
        return Err(BlockError::TooDeep);
    }
    let value: Ipld = serde_ipld_dagjson::from_slice(bytes).map_err(BlockError::malformed)?;
    if write(&value).as_deref() != Ok(bytes) {
        return Err(BlockError::NonCanonical);
    }
    serde_ipld_dagcbor::to_vec(&value).map_err(BlockError::malformed)
}

/// How many objects and arrays lie within each other at the deepest place of a JSON text.
pub(super) fn nesting(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn write(value: &Ipld) -> Result<Vec<u8>, String> {
    readable(value)?;
    let mut out = Vec::with_capacity(1024);
    let mut json = serde_json::Serializer::with_formatter(&mut out, Numbers);
    value
        .serialize(serde_ipld_dagjson::Serializer::new(&mut json))
        .map_err(|error| error.to_string())?;
    Ok(out)
}

/// Refuses what would be written as something that is read as something else.
fn readable(value: &Ipld) -> Result<(), String> {
    match value {
        Ipld::Map(map) if map.contains_key("/") => {
            Err("DAG-JSON keeps the map key \"/\" for links and bytes; name it otherwise"
                .to_owned())
        }
        Ipld::Map(map) => map.values().try_for_each(readable),
        Ipld::List(list) => list.iter().try_for_each(readable),
        Ipld::Integer(number) if *number < i128::from(i64::MIN) => {
            Err(format!("{number} is below the least integer of DAG-JSON, {}", i64::MIN))
        }
        _ => Ok(()),
    }
}

struct Numbers;

impl serde_json::ser::Formatter for Numbers {
    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(float(value).as_bytes())
    }
}

fn float(value: f64) -> String {
    if value == 0.0 {
        return "0.0".to_owned();
    }
    let scientific = format!("{:e}", value.abs());
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    // Where the point stands, counted from the first digit.
    let point = exponent.parse::<i32>().unwrap_or(0) + 1;
    let count = digits.len();
    let text = match usize::try_from(point) {
        Ok(before @ 1..=21) if before >= count => {
            format!("{digits}{}.0", "0".repeat(before - count))
        }
        Ok(before @ 1..=21) => format!("{}.{}", &digits[..before], &digits[before..]),
        _ if (-5..=0).contains(&point) => {
            format!("0.{}{digits}", "0".repeat(point.unsigned_abs() as usize))
        }
        _ => format!("{mantissa}e{:+}", point - 1),
    };
    if value < 0.0 { format!("-{text}") } else { text }
}
