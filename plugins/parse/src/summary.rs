//! What is known of an input at its end.

use std::collections::HashMap;

use serde::Serialize;

use crate::detect::Format;
use crate::value::Kind;

/// Distinct columns that are kept. Spreadsheets end there too (16,384), and JSON that uses identifiers as
/// keys must not fill the memory.
pub const MAX_COLUMNS: usize = 16_384;
/// Bytes of column names that are kept in all, for the same reason.
const MAX_NAME_BYTES: usize = 1 << 20;
/// Errors shown in the summary; all of them are in the output for errors.
pub const SHOWN_ERRORS: usize = 10;

#[derive(Debug, Clone, Serialize)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Records in which it is null, empty or absent.
    pub nulls: u64,
    #[serde(skip)]
    pub filled: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct ShownError {
    pub line: u64,
    pub reason: String,
}

/// The counts as they grow.
#[derive(Debug, Default)]
pub struct Summary {
    pub records: u64,
    pub errors: u64,
    pub delimiter: Option<char>,
    pub header: Option<bool>,
    /// The input broke off or could not be followed any further.
    pub truncated: bool,
    /// There were more columns than are kept.
    pub columns_left_out: bool,
    pub columns: Vec<Column>,
    pub first_errors: Vec<ShownError>,
    places: HashMap<Box<str>, usize>,
    name_bytes: usize,
}

/// The summary as it is written.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    source: &'a str,
    format: Format,
    #[serde(skip_serializing_if = "Option::is_none")]
    delimiter: Option<char>,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<bool>,
    bytes: u64,
    records: u64,
    errors: u64,
    truncated: bool,
    columns: Vec<Column>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    columns_left_out: bool,
    first_errors: Vec<ShownError>,
}

impl Summary {
    pub fn of_table(delimiter: u8, header: bool) -> Self {
        Self { delimiter: Some(delimiter.into()), header: Some(header), ..Self::default() }
    }

    /// Why nothing came of the input, if rows were there and none could be read.
    pub fn hopeless(&self) -> Option<String> {
        let first = self.first_errors.first().filter(|_| self.records == 0)?;
        let count = self.errors;
        Some(format!("no record could be read, errors: {count}, the first on line {}: {}", first.line, first.reason))
    }

    /// The place of a column, which is added when it is new; `None` when there are too many.
    pub fn column(&mut self, name: &str) -> Option<usize> {
        if let Some(&place) = self.places.get(name) {
            return Some(place);
        }
        let place = self.columns.len();
        if place >= MAX_COLUMNS || self.name_bytes + name.len() > MAX_NAME_BYTES {
            self.columns_left_out = true;
            return None;
        }
        self.name_bytes += name.len();
        self.columns.push(Column { name: name.to_owned(), kind: Kind::Null, nulls: 0, filled: 0 });
        self.places.insert(name.into(), place);
        Some(place)
    }

    /// Forgets the columns from `count` on: the record that brought them was none.
    pub fn forget_columns(&mut self, count: usize) {
        for column in self.columns.drain(count..) {
            self.name_bytes -= column.name.len();
            self.places.remove(column.name.as_str());
        }
    }

    pub fn finish(mut self, source: &str, format: Format, bytes: u64) -> Report<'_> {
        for column in &mut self.columns {
            // A key that comes twice in one record is counted twice.
            column.nulls = self.records.saturating_sub(column.filled);
        }
        Report {
            source,
            format,
            delimiter: self.delimiter,
            header: self.header,
            bytes,
            records: self.records,
            errors: self.errors,
            truncated: self.truncated,
            columns: self.columns,
            columns_left_out: self.columns_left_out,
            first_errors: self.first_errors,
        }
    }
}
