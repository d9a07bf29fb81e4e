//! Logs: constant messages with fields, on standard error.

use std::io::{self, Write};

use indicatif::ProgressBar;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. `filter` is in the syntax of tracing-subscriber's `EnvFilter`
/// (`warn,gristmill=debug`); plugins log under the target `plugin`. Lines are written around `bar`, in
/// `colour` or without.
///
/// # Errors
/// When the filter cannot be parsed, with the reason.
pub fn init(format: Format, filter: &str, colour: bool, bar: ProgressBar) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("log filter `{filter}`: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Around(bar)).with_ansi(colour);
    let started = match format {
        Format::Text => builder.with_target(false).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| error.to_string())
}

/// Takes the progress line away while a log line is written.
struct Around(ProgressBar);

struct Line<'a>(&'a ProgressBar);

impl<'a> MakeWriter<'a> for Around {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(&self.0)
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
