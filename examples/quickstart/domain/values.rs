//! The values that flights are told in. Each can be read from the text of a report, and only if it is one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The two characters of an airline, such as `UA`.
pub(crate) type Carrier = Code<2>;

/// The three letters of an airport, such as `JFK`.
pub(crate) type Airport = Code<3>;

/// A code of so many capital letters and digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Code<const N: usize>([u8; N]);

/// A day of the calendar, kept as the number yyyymmdd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Day(u32);

/// A local time of day, kept as the number hhmm; 2400 is the midnight that ends a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Clock(u16);

impl Day {
    /// The day, if the calendar can have it.
    pub(crate) fn new(year: u16, month: u8, day: u8) -> Result<Self, String> {
        match (year, month, day) {
            (1..=9999, 1..=12, 1..=31) => {
                Ok(Self(u32::from(year) * 10_000 + u32::from(month) * 100 + u32::from(day)))
            }
            _ => Err(format!("{year}-{month}-{day} is not a day")),
        }
    }
}

impl FromStr for Clock {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(time @ 0..=2400) if time % 100 < 60 => Ok(Self(time)),
            _ => Err("not a time of day (hhmm)".to_owned()),
        }
    }
}

impl<const N: usize> FromStr for Code<N> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match <[u8; N]>::try_from(text.as_bytes()) {
            Ok(code) if code.iter().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()) => {
                Ok(Self(code))
            }
            _ => Err(format!("not a code of {N} capital letters or digits")),
        }
    }
}

impl<const N: usize> TryFrom<String> for Code<N> {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl<const N: usize> From<Code<N>> for String {
    fn from(code: Code<N>) -> Self {
        code.to_string()
    }
}

impl<const N: usize> fmt::Display for Code<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{}", char::from(*byte)))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0 / 10_000, self.0 / 100 % 100, self.0 % 100)
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 100, self.0 % 100)
    }
}
