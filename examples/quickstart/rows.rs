//! Reading reports of flights from a CSV file, row by row, whatever its length.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use csv::StringRecord;

use crate::domain::{Clock, Course, Day, Flight, FlightId, Moment};

/// How the file writes that a value is missing.
const MISSING: &str = "NA";

/// The columns that are read; the file may have others, in any order.
const COLUMNS: [&str; 13] = [
    "year",
    "month",
    "day",
    "dep_time",
    "sched_dep_time",
    "dep_delay",
    "arr_time",
    "arr_delay",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
];

/// One row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The aircraft, if the row names one.
    pub(crate) tailnum: Option<String>,
    pub(crate) flight: Flight,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    #[error("{} cannot be opened: {source}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("{} has no column {column:?}; its first line must name the columns of nycflights13", path.display())]
    Column { path: PathBuf, column: &'static str },
    #[error("{} cannot be read: {source}", path.display())]
    Csv { path: PathBuf, source: csv::Error },
    #[error("{} row {row} (line {line}), column {column:?}: {value:?}: {reason}", path.display())]
    Value {
        path: PathBuf,
        row: u64,
        line: u64,
        column: &'static str,
        value: String,
        reason: String,
    },
}

/// The rows of a file.
pub(crate) struct Rows {
    path: PathBuf,
    reader: csv::Reader<File>,
    columns: HashMap<&'static str, usize>,
    record: StringRecord,
}

impl Rows {
    /// Opens a file and finds its columns.
    pub(crate) fn open(path: &Path) -> Result<Self, RowError> {
        let path = path.to_owned();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) => return Err(RowError::Open { path, source }),
        };
        let mut reader = csv::Reader::from_reader(file);
        let header = match reader.headers() {
            Ok(header) => header.clone(),
            Err(source) => return Err(RowError::Csv { path, source }),
        };
        let mut columns = HashMap::new();
        for column in COLUMNS {
            let Some(index) = header.iter().position(|name| name == column) else {
                return Err(RowError::Column { path, column });
            };
            columns.insert(column, index);
        }
        Ok(Self { path, reader, columns, record: StringRecord::new() })
    }

    /// How many bytes have been read.
    pub(crate) fn bytes(&self) -> u64 {
        self.reader.position().byte()
    }

    fn parse(&self) -> Result<Row, RowError> {
        let flight = FlightId {
            day: self.day()?,
            scheduled: self.value("sched_dep_time")?,
            carrier: self.value("carrier")?,
            number: self.value("flight")?,
            origin: self.value("origin")?,
        };
        let departure = self.moment("dep_time", "dep_delay")?;
        let arrival = self.moment("arr_time", "arr_delay")?;
        let course = match (departure, arrival) {
            (None, _) => Course::Cancelled,
            (Some(departure), None) => Course::Diverted { departure },
            (Some(departure), Some(arrival)) => Course::Flown { departure, arrival },
        };
        let flight = Flight { id: flight, destination: self.value("dest")?, course };
        Ok(Row { tailnum: self.optional("tailnum")?, flight })
    }

    fn day(&self) -> Result<Day, RowError> {
        let (year, month, day) = (self.value("year")?, self.value("month")?, self.value("day")?);
        Day::new(year, month, day).map_err(|reason| self.wrong("day", reason))
    }

    fn moment(&self, time: &'static str, delay: &'static str) -> Result<Option<Moment>, RowError> {
        let Some(at) = self.optional::<Clock>(time)? else { return Ok(None) };
        Ok(Some(Moment { at, delay: self.optional(delay)? }))
    }

    fn optional<T: FromStr<Err: ToString>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, RowError> {
        match self.text(column) {
            MISSING => Ok(None),
            _ => self.value(column).map(Some),
        }
    }

    fn value<T: FromStr<Err: ToString>>(&self, column: &'static str) -> Result<T, RowError> {
        self.text(column).parse().map_err(|reason: T::Err| self.wrong(column, reason.to_string()))
    }

    fn text(&self, column: &'static str) -> &str {
        self.columns.get(column).and_then(|index| self.record.get(*index)).unwrap_or_default()
    }

    fn wrong(&self, column: &'static str, reason: String) -> RowError {
        let position = self.record.position();
        RowError::Value {
            path: self.path.clone(),
            row: position.map_or(0, csv::Position::record),
            line: position.map_or(0, csv::Position::line),
            column,
            value: self.text(column).to_owned(),
            reason,
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Row, RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.reader.read_record(&mut self.record) {
            Ok(true) => Some(self.parse()),
            Ok(false) => None,
            Err(source) => Some(Err(RowError::Csv { path: self.path.clone(), source })),
        }
    }
}
