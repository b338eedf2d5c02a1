//! Cursors: where a page ended, as text that can be handed to a client and come back.
//!
//! What pages are made of is in `select.rs`.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use multihash_codetable::{Code, MultihashDigest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::SpecificationError;
use super::options::SearchOptions;
use super::spec::Specification;

const FINGERPRINT_BYTES: usize = 12;

/// Where a page ended. Given with the same query again, it leads to the next page.
///
/// - its text is of `A-Z a-z 0-9 - _` and can stand in a URL;
/// - it holds the values by which the last document was ordered and its id, readable by whoever decodes it;
/// - it stays valid while documents change: one that still lies behind it is neither given twice nor left out, whatever
///   becomes of those before it.
///
/// Any text makes one; whether it is a cursor of the query it is used with is checked there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Cursor(String);

impl Cursor {
    /// The cursor with this text, as a client sent it back.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text to hand to a client.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn at(place: &Place) -> Self {
        // Values, texts and lists of them have only text for keys, which is all that can fail.
        let json = serde_json::to_vec(place).expect("values of JSON can be written as JSON");
        Self(URL_SAFE_NO_PAD.encode(json))
    }

    /// Where it points, when it belongs to the query with this fingerprint.
    pub(super) fn place(
        &self,
        fingerprint: &str,
        keys: usize,
    ) -> Result<Place, SpecificationError> {
        let damaged = |reason| SpecificationError::InvalidCursor { reason };
        let json = URL_SAFE_NO_PAD.decode(&self.0).map_err(|_| damaged("it is no base64url"))?;
        let place: Place = serde_json::from_slice(&json)
            .map_err(|_| damaged("it does not hold what a cursor holds"))?;
        if place.query != fingerprint {
            return Err(SpecificationError::CursorOfAnotherQuery);
        }
        if place.keys.len() != keys {
            return Err(damaged("it has another number of values than the order has fields"));
        }
        Ok(place)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The place of a document in the order of a query.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    /// The fingerprint of the query.
    #[serde(rename = "q")]
    pub(super) query: String,
    /// The values that the document is ordered by.
    #[serde(rename = "k")]
    pub(super) keys: Vec<Value>,
    /// The document's id.
    #[serde(rename = "i")]
    pub(super) id: String,
}

/// What tells queries apart whose pages do not fit together. Limit and offset are not in it.
pub(super) fn fingerprint(
    specification: &Specification,
    options: &SearchOptions,
    scope: &str,
) -> String {
    let mut text = format!("{} {scope} {specification}", scope.len());
    for order in &options.order_by {
        text.push_str(&format!(" , {order}"));
    }
    if options.distinct {
        text.push_str(" DISTINCT");
        for field in &options.fields {
            text.push_str(&format!(" , {field}"));
        }
    }
    let hash = Code::Sha2_256.digest(text.as_bytes());
    URL_SAFE_NO_PAD.encode(&hash.digest()[..FINGERPRINT_BYTES])
}
