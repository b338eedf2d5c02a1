//! What is asked of JSON documents: predicates, order, pages, and the text a person writes them in.
//!
//! Pure: no I/O, no async. Documents come one at a time from whoever has them, states of aggregates as well as read
//! models; typed ones as [`document_of`] makes them, so that both kinds are asked in the same way. Which documents are
//! fetched, and how, is not decided here; a query text only names their [subject pattern](crate::subject::Pattern).
//!
//! ```
//! use cim_persistence::specification::{SearchOptions, SpecificationError, field, select};
//! use serde_json::json;
//!
//! let late = field("delay").gt(30).and(field("carrier").is_in(["B6", "UA"])).compile()?;
//! let options = SearchOptions::default().order_by("-delay")?.limit(1);
//! let boards = [
//!     ("JFK.B6.1", json!({"carrier": "B6", "delay": 45})),
//!     ("JFK.B6.2", json!({"carrier": "B6", "delay": 90})),
//!     ("JFK.DL.3", json!({"carrier": "DL", "delay": 200})),
//! ];
//! let page = select(boards, late, &options, "board.JFK.*.*")?;
//! assert_eq!((page.items[0].id.as_str(), page.total), ("JFK.B6.2", 2));
//! assert!(page.next.is_some());
//! # Ok::<(), SpecificationError>(())
//! ```

mod error;
mod field;
mod spec;
mod order;
mod pattern;
mod compiled;
mod fields;
mod options;
mod cursor;
mod select;
mod text;

pub use compiled::{Compiled, MAX_CONDITIONS, MAX_DEPTH};
pub use cursor::Cursor;
pub use error::SpecificationError;
pub use field::{Field, field};
pub use fields::{document_of, fields_of};
pub use options::{Page, ReadModelList, SearchOptions};
pub use order::{Direction, OrderBy, compare};
pub use pattern::{MAX_PATTERN_BYTES, MAX_PATTERNS, MAX_REGEX_SIZE};
pub use select::{Found, Selection, select};
pub use spec::{Comparison, Specification};
pub use text::{InvalidText, MAX_TEXT_BYTES, ParsedQuery, TextProblem};

#[cfg(test)]
mod tests;
