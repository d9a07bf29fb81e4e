//! The parse plugin: CSV, JSON and NDJSON in; records as NDJSON, a summary, and the rows that could not
//! be read out.
//!
//! For `orders.csv` it makes `orders.csv.ndjson`, `orders.csv.summary.json` and, if anything was wrong,
//! `orders.csv.errors.ndjson`. The whole name stays in front, since `orders.csv` and `orders.json` may lie
//! side by side.
//!
//! Everything is one pass in memory that does not grow with the input: [`window`] holds the bytes at hand,
//! [`rows`] and [`elements`] cut them into records, [`table`] and [`document`] turn records into output,
//! [`sink`] writes it and [`summary`] keeps the counts. [`guest`] is the only part that knows the host.

mod detect;
mod document;
mod elements;
mod rows;
mod settings;
mod sink;
mod summary;
mod table;
mod value;
mod window;

#[cfg(target_arch = "wasm32")]
mod guest;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Read, Write};

use crate::detect::Format;
use crate::settings::Settings;
use crate::sink::Sink;
use crate::window::Window;

/// What the plugin needs to know of the object.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    /// The last segment of its key; outputs are named from it.
    pub name: &'a str,
    /// As stored with the object; a hint only.
    pub content_type: Option<&'a str>,
}

/// Where outputs are made.
pub trait Outputs {
    /// One output being written.
    type Output: Write;

    /// Starts an output.
    ///
    /// # Errors
    /// The host's reason for refusing the name.
    fn create(&mut self, name: &str, content_type: &str) -> Result<Self::Output, String>;
}

/// How an object that could be processed ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The outputs are complete.
    Done,
    /// There was nothing to do, with the reason.
    Skipped(String),
}

/// Why an object can never be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject(pub String);

impl Reject {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Only readers and writers outside the host can fail: the host ends the call itself instead.
impl From<io::Error> for Reject {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Parses one object. `settings` is the JSON object that the route gives.
///
/// # Errors
/// A [`Reject`] when a setting is wrong or the object is neither a table nor JSON.
pub fn run<O: Outputs>(
    object: Object<'_>,
    settings: &str,
    input: impl Read,
    outputs: &mut O,
) -> Result<Verdict, Reject> {
    let settings = Settings::parse(settings)?;
    let mut window = Window::new(input);
    let sample = detect::sample(&mut window)?;
    if sample.is_blank() {
        return Ok(Verdict::Skipped("empty".to_owned()));
    }
    let format = detect::format(object, &sample, &settings)?;
    let plan = match format {
        Format::Csv => Some(table::Plan::new(object, &sample, &settings)?),
        Format::Json | Format::Ndjson => None,
    };
    drop(sample);
    let mut sink = Sink::create(object.name, outputs)?;
    let summary = match plan {
        Some(plan) => table::run(plan, &settings, &mut window, &mut sink)?,
        None => document::run(format, &settings, &mut window, &mut sink)?,
    };
    if let Some(reason) = summary.hopeless() {
        return Err(Reject(reason));
    }
    let report = summary.finish(object.name, format, window.position());
    sink.finish(&report)?;
    Ok(Verdict::Done)
}
