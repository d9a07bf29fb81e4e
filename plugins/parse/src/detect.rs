//! Finds out what the input is from its beginning.

use std::io::Read;

use memchr::memchr;
use serde::Serialize;

use crate::rows::{Dialect, Row, Rows, split};
use crate::settings::{FormatSetting, Header, Settings};
use crate::value::{Kind, classify};
use crate::window::Window;
use crate::{Object, Reject};

/// What everything is found out from: enough rows to trust, little enough to hold.
const SAMPLE_BYTES: usize = 256 * 1024;
/// The field separators that are tried, the likelier first.
const DELIMITERS: [u8; 4] = [b',', b'\t', b';', b'|'];
/// Rows that a separator is judged by. More do not change the verdict.
const JUDGED_ROWS: usize = 64;
/// The share of rows that must have as many fields as the first one, in percent, so that prose with commas
/// does not pass for a table.
const AGREEING_PERCENT: usize = 80;

const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Csv,
    Json,
    Ndjson,
}

/// The beginning of the input, without byte order mark.
pub struct Sample {
    bytes: Vec<u8>,
    /// Whether that is all of it.
    whole: bool,
}

/// Takes the sample; the input stays in the window, less a byte order mark.
pub fn sample<R: Read>(window: &mut Window<R>) -> Result<Sample, Reject> {
    window.fill(UTF8_BOM.len())?;
    if window.bytes().starts_with(UTF8_BOM) {
        window.take(UTF8_BOM.len());
    }
    // One byte more tells whether the sample is all there is, however the bytes arrive.
    window.fill(SAMPLE_BYTES + 1)?;
    let bytes = window.bytes();
    let whole = bytes.len() <= SAMPLE_BYTES;
    let bytes = bytes[..bytes.len().min(SAMPLE_BYTES)].to_vec();
    if let [0xff, 0xfe, ..] | [0xfe, 0xff, ..] = bytes[..] {
        return Err(Reject::new("the text is UTF-16; convert it to UTF-8 first"));
    }
    if let Some(offset) = memchr(0, &bytes) {
        return Err(Reject::new(format!("not text: byte {offset} is zero; CSV, JSON or NDJSON is needed")));
    }
    Ok(Sample { bytes, whole })
}

impl Sample {
    /// Whether the input has nothing in it.
    pub fn is_blank(&self) -> bool {
        self.whole && self.bytes.trim_ascii().is_empty()
    }

    /// `\n`, unless there is none and there are lone `\r`.
    pub fn newline(&self) -> u8 {
        let only_returns = memchr(b'\n', &self.bytes).is_none() && memchr(b'\r', &self.bytes).is_some();
        if only_returns { b'\r' } else { b'\n' }
    }

    /// Hands the fields of each row that is whole to `visit`, until that returns `false`.
    pub fn for_each_row(&self, delimiter: u8, mut visit: impl FnMut(&[&[u8]]) -> bool) -> Result<(), Reject> {
        let mut window = Window::new(self.bytes.as_slice());
        let mut rows = Rows::new(Dialect { newline: self.newline(), delimiter: Some(delimiter) }, SAMPLE_BYTES);
        let (mut scratch, mut spans) = (Vec::new(), Vec::new());
        while let Some(row) = rows.next(&mut window)? {
            let (bytes, quoted, last) = match row {
                Row::Whole { bytes, quoted, last, .. } => (bytes, quoted, last),
                Row::TooLong { .. } => continue,
                // In a cut sample the quote may close later on; what follows would be guesswork.
                Row::OpenQuote { .. } if !self.whole => break,
                Row::OpenQuote { .. } => continue,
            };
            // The last row of a sample may be cut.
            if last && !self.whole {
                break;
            }
            let text = split(bytes, delimiter, quoted, &mut scratch, &mut spans);
            let fields: Vec<&[u8]> = spans.iter().map(|&(start, end)| &text[start..end]).collect();
            if !visit(&fields) {
                break;
            }
        }
        Ok(())
    }
}

/// Which format the input has: the setting, else the first bytes, else the name, else a separator.
pub fn format(object: Object<'_>, sample: &Sample, settings: &Settings) -> Result<Format, Reject> {
    match settings.format {
        FormatSetting::Csv => return Ok(Format::Csv),
        FormatSetting::Json => return Ok(Format::Json),
        FormatSetting::Ndjson => return Ok(Format::Ndjson),
        FormatSetting::Auto => {}
    }
    let hint = hint(object);
    let text = sample.bytes.trim_ascii_start();
    if hint == Some(Format::Csv) {
        return Ok(Format::Csv);
    }
    match text.first() {
        Some(b'[') if hint != Some(Format::Ndjson) => return Ok(Format::Json),
        Some(b'{') if hint != Some(Format::Ndjson) => {
            let line = memchr(b'\n', text).map(|end| &text[..end]);
            let complete = line.is_some_and(|line| serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok());
            return Ok(if complete { Format::Ndjson } else { Format::Json });
        }
        _ => {}
    }
    if let Some(format) = hint {
        return Ok(format);
    }
    if best_delimiter(sample)?.is_some() {
        return Ok(Format::Csv);
    }
    let beginning = String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned();
    Err(Reject::new(format!(
        "neither JSON nor a table: no separator was found, it begins with {beginning:?}; \
         if it is a table of one column, use the setting `format` = \"csv\""
    )))
}

/// What the name or the content type say.
fn hint(object: Object<'_>) -> Option<Format> {
    let extension = object.name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    let by_name = match extension.as_deref() {
        Some("csv" | "tsv" | "tab" | "psv") => Some(Format::Csv),
        Some("json") => Some(Format::Json),
        Some("ndjson" | "jsonl") => Some(Format::Ndjson),
        _ => None,
    };
    by_name.or_else(|| {
        let kind = object.content_type?.split(';').next()?.trim().to_ascii_lowercase();
        match kind.as_str() {
            "text/csv" | "text/tab-separated-values" => Some(Format::Csv),
            "application/json" => Some(Format::Json),
            "application/x-ndjson" | "application/jsonl" => Some(Format::Ndjson),
            _ => None,
        }
    })
}

/// The separator of a table: the setting, else the best by content, else a tab for `.tsv` and a comma.
pub fn delimiter(object: Object<'_>, sample: &Sample, settings: &Settings) -> Result<u8, Reject> {
    // Settings were checked: the character is ASCII.
    if let Some(byte) = settings.delimiter.and_then(|delimiter| u8::try_from(delimiter).ok()) {
        return Ok(byte);
    }
    let tabs = object.name.to_ascii_lowercase().ends_with(".tsv");
    Ok(best_delimiter(sample)?.unwrap_or(if tabs { b'\t' } else { b',' }))
}

/// The separator that gives the most rows the same number of fields, more than one; among equals the one
/// that gives more fields.
fn best_delimiter(sample: &Sample) -> Result<Option<u8>, Reject> {
    let mut best = None;
    for delimiter in DELIMITERS {
        let (mut width, mut rows, mut agreeing) = (0, 0, 0);
        sample.for_each_row(delimiter, |fields| {
            if rows == 0 {
                width = fields.len();
            }
            rows += 1;
            agreeing += usize::from(fields.len() == width);
            rows < JUDGED_ROWS
        })?;
        if width < 2 || agreeing * 100 < rows * AGREEING_PERCENT {
            continue;
        }
        let score = (agreeing * 100 / rows, width);
        if best.is_none_or(|(other, _)| score > other) {
            best = Some((score, delimiter));
        }
    }
    Ok(best.map(|(_, delimiter)| delimiter))
}

/// Whether the first row names the columns: it does when a typed column starts with text, or when nothing
/// in the row is typed and no name comes twice. All-text tables without header cannot be told from those
/// with one; that is what the setting is for.
pub fn header(sample: &Sample, delimiter: u8, settings: &Settings) -> Result<bool, Reject> {
    if let Header::Fixed(header) = settings.header {
        return Ok(header);
    }
    let mut first: Option<Vec<(Vec<u8>, Kind)>> = None;
    let mut below: Vec<Kind> = Vec::new();
    sample.for_each_row(delimiter, |fields| {
        match &first {
            None => {
                first = Some(fields.iter().map(|field| (field.to_vec(), classify(field))).collect());
                below = vec![Kind::Null; fields.len()];
            }
            Some(names) if names.len() == fields.len() => {
                for (kind, field) in below.iter_mut().zip(fields) {
                    *kind = kind.join(classify(field), Kind::String);
                }
            }
            Some(_) => {}
        }
        true
    })?;
    let first = first.unwrap_or_default();
    let text_on_top = first
        .iter()
        .zip(&below)
        .any(|((_, top), below)| *top == Kind::String && !matches!(below, Kind::String | Kind::Null));
    let named = first.iter().any(|(_, kind)| *kind == Kind::String)
        && first.iter().all(|(_, kind)| matches!(kind, Kind::String | Kind::Null));
    let mut names: Vec<&[u8]> = first.iter().map(|(name, _)| name.as_slice()).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    let unique = names.windows(2).all(|pair| pair[0] != pair[1]);
    Ok(text_on_top || (named && unique))
}
