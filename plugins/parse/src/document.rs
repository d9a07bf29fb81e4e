//! JSON documents and NDJSON.

use std::fmt;
use std::io::Read;

use memchr::memchr2;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::detect::Format;
use crate::elements::{Element, Elements};
use crate::rows::{Dialect, Row, Rows};
use crate::settings::Settings;
use crate::sink::{BadRow, Sink};
use crate::summary::Summary;
use crate::table::bad_row;
use crate::value::{Kind, classify_json};
use crate::window::Window;
use crate::{Outputs, Reject};

/// Reads the documents or lines to their end.
pub fn run<R: Read, O: Outputs>(
    format: Format,
    settings: &Settings,
    window: &mut Window<R>,
    sink: &mut Sink<'_, O>,
) -> Result<Summary, Reject> {
    let mut records = Records { max_nesting: settings.max_nesting, summary: Summary::default(), seen: Vec::new() };
    if format == Format::Ndjson {
        let mut rows = Rows::new(Dialect { newline: b'\n', delimiter: None }, settings.max_record_bytes);
        while let Some(row) = rows.next(window)? {
            match row {
                Row::Whole { line, bytes, .. } if !bytes.trim_ascii().is_empty() => {
                    records.add(line, bytes.trim_ascii(), sink)?;
                }
                Row::Whole { .. } => {}
                bad => sink.error(&bad_row(bad, settings.max_record_bytes), &mut records.summary)?,
            }
        }
        return Ok(records.summary);
    }
    let mut elements = Elements::new(settings.max_record_bytes);
    while let Some(element) = elements.next(window)? {
        match element {
            Element::Whole { line, bytes } => records.add(line, bytes, sink)?,
            Element::TooLong { line, beginning } => {
                let bad = bad_row(Row::TooLong { line, beginning: &beginning }, settings.max_record_bytes);
                sink.error(&bad, &mut records.summary)?;
            }
            Element::Broken { line, reason, .. } if records.summary.records + records.summary.errors == 0 => {
                return Err(Reject::new(format!("not valid JSON at line {line}: {reason}")));
            }
            Element::Broken { line, reason, beginning } => {
                let reason = format!("{reason}; the rest of the input was not read");
                sink.error(&BadRow { line, reason, raw: beginning }, &mut records.summary)?;
            }
        }
    }
    records.summary.truncated = elements.lost();
    Ok(records.summary)
}

struct Records {
    max_nesting: u32,
    summary: Summary,
    /// Columns and types of the record at hand, counted only once all of it is known to be good.
    seen: Vec<(Option<usize>, Kind)>,
}

impl Records {
    fn add<O: Outputs>(&mut self, line: u64, bytes: &[u8], sink: &mut Sink<'_, O>) -> Result<(), Reject> {
        let known = self.summary.columns.len();
        let out = sink.records();
        let start = out.len();
        match self.convert(line, bytes, out) {
            Ok(()) => {
                for (column, kind) in self.seen.drain(..).filter(|(_, kind)| *kind != Kind::Null) {
                    if let Some(column) = column.and_then(|place| self.summary.columns.get_mut(place)) {
                        column.kind = column.kind.join(kind, Kind::Mixed);
                        column.filled += 1;
                    }
                }
                self.summary.records += 1;
                Ok(sink.flush_full()?)
            }
            Err(reason) => {
                out.truncate(start);
                self.summary.forget_columns(known);
                sink.error(&BadRow { line, reason, raw: bytes }, &mut self.summary)
            }
        }
    }

    fn convert(&mut self, line: u64, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            format!("not UTF-8 at byte {} of the record; convert the file to UTF-8", error.valid_up_to())
        })?;
        if !text.starts_with('{') {
            // Said only of what is JSON at all; for the rest the parser knows better.
            let value: &RawValue = serde_json::from_str(text).map_err(|error| json_reason(&error, line))?;
            return Err(format!("a record is an object, this is {}", described(classify_json(value.get()))));
        }
        self.seen.clear();
        let mut parser = serde_json::Deserializer::from_str(text);
        Observer { summary: &mut self.summary, seen: &mut self.seen }
            .deserialize(&mut parser)
            .and_then(|()| parser.end())
            .map_err(|error| json_reason(&error, line))?;
        let depth = push_compact(out, bytes);
        if depth > self.max_nesting {
            return Err(format!("nested {depth} levels deep; the setting `max_nesting` allows {}", self.max_nesting));
        }
        out.push(b'\n');
        Ok(())
    }
}

fn described(kind: Kind) -> &'static str {
    match kind {
        Kind::Null => "null",
        Kind::Boolean => "a boolean",
        Kind::Integer | Kind::Number => "a number",
        Kind::Array => "an array",
        _ => "a string",
    }
}

/// The parser's reason, with the place counted in the file and not in the record.
fn json_reason(error: &serde_json::Error, line: u64) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    match error.line() {
        0 | 1 => format!("not valid JSON at byte {} of the record: {text}", error.column()),
        below => format!("not valid JSON at line {}, byte {}: {text}", line + below as u64 - 1, error.column()),
    }
}

/// Looks at the members of an object without building anything of them. All of it is checked to be JSON.
struct Observer<'a> {
    summary: &'a mut Summary,
    seen: &'a mut Vec<(Option<usize>, Kind)>,
}

impl<'de> DeserializeSeed<'de> for Observer<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Observer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(column) = members.next_key_seed(ColumnOf(&mut *self.summary))? {
            let value: &RawValue = members.next_value()?;
            self.seen.push((column, classify_json(value.get())));
        }
        Ok(())
    }
}

/// Turns a key into the place of its column, most often without allocating.
struct ColumnOf<'a>(&'a mut Summary);

impl<'de> DeserializeSeed<'de> for ColumnOf<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for ColumnOf<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.column(key))
    }
}

/// Appends well-formed JSON without the blanks between its parts, byte for byte the same otherwise, so
/// numbers keep every digit. Returns how deep it nests.
fn push_compact(out: &mut Vec<u8>, json: &[u8]) -> u32 {
    let (mut depth, mut deepest) = (0_u32, 0);
    let (mut kept, mut at) = (0, 0);
    while let Some(&byte) = json.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while let Some(offset) = memchr2(b'"', b'\\', json.get(at..).unwrap_or_default()) {
                    at += offset;
                    if json[at] == b'"' {
                        break;
                    }
                    at += 2;
                }
            }
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b' ' | b'\t' | b'\r' | b'\n' => {
                out.extend_from_slice(&json[kept..at]);
                kept = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    out.extend_from_slice(&json[kept.min(json.len())..]);
    deepest
}
