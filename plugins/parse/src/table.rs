//! CSV and its relatives.

use std::collections::HashSet;
use std::io::Read;

use crate::detect::{self, Sample};
use crate::rows::{Dialect, Row, Rows, split};
use crate::settings::Settings;
use crate::sink::{BadRow, Sink};
use crate::summary::{MAX_COLUMNS, Summary};
use crate::value::{Kind, classify, push_string};
use crate::window::Window;
use crate::{Object, Outputs, Reject};

/// What was found out before the first record is written.
///
/// The types of the columns are settled by the sample, since a column that is a number here and text there
/// is of no use to anyone: a postal code of `01234` anywhere in the sample keeps them all text. What does
/// not fit later on is written as text as well, so nothing is ever lost.
#[derive(Debug)]
pub struct Plan {
    dialect: Dialect,
    delimiter: u8,
    header: bool,
    kinds: Vec<Kind>,
}

impl Plan {
    pub fn new(object: Object<'_>, sample: &Sample, settings: &Settings) -> Result<Self, Reject> {
        let delimiter = detect::delimiter(object, sample, settings)?;
        let header = detect::header(sample, delimiter, settings)?;
        let mut kinds: Vec<Kind> = Vec::new();
        if settings.types {
            let mut names = header;
            let mut width = None;
            sample.for_each_row(delimiter, |fields| {
                let expected = *width.get_or_insert(fields.len());
                if std::mem::take(&mut names) || fields.len() != expected {
                    return true;
                }
                kinds.resize(expected, Kind::Null);
                for (kind, field) in kinds.iter_mut().zip(fields) {
                    *kind = kind.join(classify(field), Kind::String);
                }
                true
            })?;
        }
        let dialect = Dialect { newline: sample.newline(), delimiter: Some(delimiter) };
        Ok(Self { dialect, delimiter, header, kinds })
    }
}

/// A column while the table is read.
struct Column {
    name: String,
    /// What stands before its value in a record: `{"id":` or `,"name":`.
    prefix: Vec<u8>,
    /// The type that its values are written with.
    written: Kind,
    seen: Kind,
    filled: u64,
}

impl Column {
    fn push(&mut self, out: &mut Vec<u8>, field: &[u8]) {
        out.extend_from_slice(&self.prefix);
        if field.is_empty() {
            return out.extend_from_slice(b"null");
        }
        self.filled += 1;
        if self.seen == Kind::String && self.written == Kind::String {
            return push_string(out, field);
        }
        let kind = classify(field);
        self.seen = self.seen.join(kind, Kind::String);
        match kind {
            Kind::Integer | Kind::Number if self.written.is_numeric() => out.extend_from_slice(field),
            Kind::Boolean if self.written == Kind::Boolean => {
                out.extend_from_slice(if field.eq_ignore_ascii_case(b"true") { b"true" } else { b"false" });
            }
            _ => push_string(out, field),
        }
    }
}

/// Reads the table to its end.
pub fn run<R: Read, O: Outputs>(
    plan: Plan,
    settings: &Settings,
    window: &mut Window<R>,
    sink: &mut Sink<'_, O>,
) -> Result<Summary, Reject> {
    let mut rows = Rows::new(plan.dialect, settings.max_record_bytes);
    let mut summary = Summary::of_table(plan.delimiter, plan.header);
    let mut columns: Option<Vec<Column>> = None;
    let (mut scratch, mut spans) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next(window)? {
        let (line, bytes, quoted) = match row {
            Row::Whole { line, bytes, quoted, .. } => (line, bytes, quoted),
            bad => {
                sink.error(&bad_row(bad, settings.max_record_bytes), &mut summary)?;
                continue;
            }
        };
        if let Err(error) = std::str::from_utf8(bytes) {
            let reason = format!("not UTF-8 at byte {} of the row; convert the file to UTF-8", error.valid_up_to());
            sink.error(&BadRow { line, reason, raw: bytes }, &mut summary)?;
            continue;
        }
        let text = split(bytes, plan.delimiter, quoted, &mut scratch, &mut spans);
        let fields = spans.iter().map(|&(start, end)| &text[start..end]);
        let columns = match &mut columns {
            Some(columns) => columns,
            none if plan.header => {
                *none = Some(make_columns(unique_names(fields)?, &plan.kinds));
                continue;
            }
            none => none.insert(make_columns(numbered_names(spans.len())?, &plan.kinds)),
        };
        if spans.len() != columns.len() {
            let source = if plan.header { "the header" } else { "the first row" };
            let reason = format!("{} where {source} has {}", counted(spans.len()), columns.len());
            sink.error(&BadRow { line, reason, raw: bytes }, &mut summary)?;
            continue;
        }
        let out = sink.records();
        for (column, field) in columns.iter_mut().zip(fields) {
            column.push(out, field);
        }
        out.extend_from_slice(b"}\n");
        summary.records += 1;
        sink.flush_full()?;
    }
    for column in columns.iter().flatten() {
        if let Some(place) = summary.column(&column.name) {
            summary.columns[place].kind = column.seen;
            summary.columns[place].filled = column.filled;
        }
    }
    Ok(summary)
}

fn counted(fields: usize) -> String {
    if fields == 1 { "1 field".to_owned() } else { format!("{fields} fields") }
}

/// What to say of a row that could not be cut out. Lines of NDJSON share it.
pub fn bad_row(row: Row<'_>, max_bytes: usize) -> BadRow<'_> {
    match row {
        Row::Whole { line, bytes, .. } => BadRow { line, reason: "not a record".to_owned(), raw: bytes },
        Row::TooLong { line, beginning } => {
            let reason = format!("longer than {max_bytes} bytes; the setting `max_record_bytes` allows no more");
            BadRow { line, reason, raw: beginning }
        }
        Row::OpenQuote { line, bytes } => {
            let reason = "a quote opens and does not close as it should; inside quotes, a quote is written twice";
            BadRow { line, reason: reason.to_owned(), raw: bytes }
        }
    }
}

fn make_columns(names: Vec<String>, kinds: &[Kind]) -> Vec<Column> {
    let column = |(place, name): (usize, String)| {
        let mut prefix = vec![if place == 0 { b'{' } else { b',' }];
        push_string(&mut prefix, name.as_bytes());
        prefix.push(b':');
        let written = kinds.get(place).copied().unwrap_or(Kind::String);
        // A column that is empty in all of the sample gives no ground for numbers.
        let written = if written == Kind::Null { Kind::String } else { written };
        Column { name, prefix, written, seen: Kind::Null, filled: 0 }
    };
    names.into_iter().enumerate().map(column).collect()
}

fn check_count(count: usize) -> Result<(), Reject> {
    if count > MAX_COLUMNS {
        return Err(Reject::new(format!(
            "the table has {count} columns and no more than {MAX_COLUMNS} are read; is the delimiter right? \
             The setting `delimiter` sets it"
        )));
    }
    Ok(())
}

fn numbered_names(count: usize) -> Result<Vec<String>, Reject> {
    check_count(count)?;
    Ok((1..=count).map(|number| format!("column_{number}")).collect())
}

/// The names in a header, trimmed; empty ones become `column_3` by their place, repeated ones `name_2`.
fn unique_names<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Result<Vec<String>, Reject> {
    let wanted: Vec<String> = fields
        .enumerate()
        .map(|(place, field)| match String::from_utf8_lossy(field).trim() {
            "" => format!("column_{}", place + 1),
            name => name.to_owned(),
        })
        .collect();
    check_count(wanted.len())?;
    let mut taken: HashSet<String> = wanted.iter().cloned().collect();
    let mut given = HashSet::new();
    // Where counting goes on for a name, so that a thousand equal names take a thousand steps.
    let mut next = std::collections::HashMap::new();
    let unique = |name: String| {
        if given.insert(name.clone()) {
            return name;
        }
        let number = next.entry(name.clone()).or_insert(2_usize);
        loop {
            let other = format!("{name}_{number}");
            *number += 1;
            if taken.insert(other.clone()) {
                return other;
            }
        }
    };
    Ok(wanted.into_iter().map(unique).collect())
}
