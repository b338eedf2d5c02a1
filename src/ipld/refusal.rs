//! Why a value was refused: looked for only after the codec has refused it, which it does without saying where.

use ipld_core::ipld::Ipld;
use serde::Serialize;

/// The reason, with the place in the value; the codec's own words where nothing better is found.
pub(super) fn explain<T: Serialize + ?Sized>(value: &T, codec: impl ToString) -> String {
    let error = match ipld_core::serde::to_ipld(value) {
        Ok(value) => return find(&value, &mut Vec::new()).unwrap_or_else(|| codec.to_string()),
        Err(error) => error.to_string(),
    };
    match error.trim_start_matches("serde error: ") {
        // The codec writes units, so it was something else that it refused.
        unit if unit.starts_with("Unit") => codec.to_string(),
        reason => reason.to_owned(),
    }
}

fn find(value: &Ipld, path: &mut Vec<String>) -> Option<String> {
    let reason = match value {
        Ipld::Float(number) if !number.is_finite() => {
            format!("is {number}, which is not a finite number")
        }
        Ipld::Integer(number) if !fits(*number) => {
            format!("is {number}, which is beyond 64 bits")
        }
        Ipld::Map(map) => {
            return map.iter().find_map(|(key, inner)| within(key.clone(), inner, path));
        }
        Ipld::List(list) => {
            return list
                .iter()
                .enumerate()
                .find_map(|(i, inner)| within(i.to_string(), inner, path));
        }
        _ => return None,
    };
    Some(if path.is_empty() {
        format!("it {reason}")
    } else {
        format!("{} {reason}", path.join("."))
    })
}

fn within(step: String, value: &Ipld, path: &mut Vec<String>) -> Option<String> {
    path.push(step);
    let found = find(value, path);
    path.pop();
    found
}

fn fits(number: i128) -> bool {
    (-1 - i128::from(u64::MAX)..=i128::from(u64::MAX)).contains(&number)
}
