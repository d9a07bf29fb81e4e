//! The settings of one use of the plugin.

use std::fmt;

use serde::Deserialize;

use crate::Reject;

/// The longest record by default. Ordinary rows are a thousandth of it, and a stray quote is found out
/// after this many bytes.
const DEFAULT_RECORD_BYTES: usize = 1 << 20;
/// The range for `max_record_bytes`: a record is held in memory, so the upper end bounds that.
const RECORD_BYTES: std::ops::RangeInclusive<usize> = 64..=64 << 20;
/// How deep a JSON record may nest by default. People write ten levels; parsers of what comes next often
/// stop at a hundred.
const DEFAULT_NESTING: u32 = 64;
/// The range for `max_nesting`. The open brackets of a record are kept as bits of one `u128`.
const NESTING: std::ops::RangeInclusive<u32> = 1..=128;

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub format: FormatSetting,
    /// One ASCII character; found out when absent.
    pub delimiter: Option<char>,
    pub header: Header,
    /// Whether CSV values that look like numbers and booleans become such.
    pub types: bool,
    pub max_record_bytes: usize,
    pub max_nesting: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FormatSetting {
    Auto,
    Csv,
    Json,
    Ndjson,
}

/// Whether the first row of a table names its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(from = "HeaderWords")]
pub enum Header {
    Auto,
    Fixed(bool),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "it takes \"auto\", true or false")]
enum HeaderWords {
    Flag(bool),
    Word(AutoWord),
}

#[derive(Deserialize)]
enum AutoWord {
    #[serde(rename = "auto")]
    Auto,
}

impl From<HeaderWords> for Header {
    fn from(words: HeaderWords) -> Self {
        match words {
            HeaderWords::Flag(flag) => Self::Fixed(flag),
            HeaderWords::Word(AutoWord::Auto) => Self::Auto,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            format: FormatSetting::Auto,
            delimiter: None,
            header: Header::Auto,
            types: true,
            max_record_bytes: DEFAULT_RECORD_BYTES,
            max_nesting: DEFAULT_NESTING,
        }
    }
}

impl Settings {
    /// Reads the JSON object that the host passes on.
    pub fn parse(json: &str) -> Result<Self, Reject> {
        let settings: Self =
            serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(json)).map_err(|error| {
                let problem = error.inner().to_string();
                // Where in the host's JSON it was says nothing to the one who wrote the route.
                let problem = problem.rsplit_once(" at line ").map_or(problem.as_str(), |(text, _)| text);
                match error.path().to_string().as_str() {
                    "." => Reject::new(format!("settings: {problem}")),
                    path => Reject::new(format!("setting `{path}`: {problem}")),
                }
            })?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), Reject> {
        if let Some(delimiter) = self.delimiter
            && (!delimiter.is_ascii() || delimiter.is_alphanumeric() || "\"\r\n\0.-".contains(delimiter))
        {
            return Err(wrong(
                "delimiter",
                format!("{delimiter:?}"),
                "one ASCII character that is no letter, digit, quote, dot, dash or line break, as \",\" or \"\\t\"",
            ));
        }
        if !RECORD_BYTES.contains(&self.max_record_bytes) {
            let allowed = format!("{} to {}", RECORD_BYTES.start(), RECORD_BYTES.end());
            return Err(wrong("max_record_bytes", self.max_record_bytes, &allowed));
        }
        if !NESTING.contains(&self.max_nesting) {
            let allowed = format!("{} to {}", NESTING.start(), NESTING.end());
            return Err(wrong("max_nesting", self.max_nesting, &allowed));
        }
        Ok(())
    }
}

fn wrong(name: &str, value: impl fmt::Display, allowed: &str) -> Reject {
    Reject::new(format!("setting `{name}` is {value}; it takes {allowed}"))
}
