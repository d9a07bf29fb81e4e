//! Writes the outputs.

use std::io::{self, Write};

use crate::summary::{Report, SHOWN_ERRORS, ShownError, Summary};
use crate::value::push_string;
use crate::{Outputs, Reject};

/// What is gathered before it is written: a call to the host costs more than the copy.
const FLUSH_BYTES: usize = 128 * 1024;
/// How much of a bad row is shown. Enough to recognise it; the line number leads to the rest.
pub const RAW_BYTES: usize = 1024;

const NDJSON: &str = "application/x-ndjson";

/// The outputs of one object.
pub struct Sink<'a, O: Outputs> {
    outputs: &'a mut O,
    name: &'a str,
    records: Buffered<O::Output>,
    /// Made with the first error, since most inputs have none.
    errors: Option<Buffered<O::Output>>,
}

/// A row that could not be read.
#[derive(Debug)]
pub struct BadRow<'a> {
    pub line: u64,
    pub reason: String,
    /// The row or its beginning.
    pub raw: &'a [u8],
}

impl<'a, O: Outputs> Sink<'a, O> {
    pub fn create(name: &'a str, outputs: &'a mut O) -> Result<Self, Reject> {
        let records = Buffered::create(outputs, &format!("{name}.ndjson"), NDJSON)?;
        Ok(Self { outputs, name, records, errors: None })
    }

    /// Where the next record goes, to be ended with [`Sink::flush_full`].
    pub fn records(&mut self) -> &mut Vec<u8> {
        &mut self.records.bytes
    }

    /// Passes on what was gathered once there is enough.
    pub fn flush_full(&mut self) -> io::Result<()> {
        self.records.flush_full()
    }

    pub fn error(&mut self, bad: &BadRow<'_>, summary: &mut Summary) -> Result<(), Reject> {
        let errors = match &mut self.errors {
            Some(errors) => errors,
            None => {
                let name = format!("{}.errors.ndjson", self.name);
                self.errors.insert(Buffered::create(self.outputs, &name, NDJSON)?)
            }
        };
        let out = &mut errors.bytes;
        out.extend_from_slice(format!("{{\"line\":{},\"reason\":", bad.line).as_bytes());
        push_string(out, bad.reason.as_bytes());
        out.extend_from_slice(b",\"raw\":");
        let (raw, cut) = excerpt(bad.raw);
        push_string(out, String::from_utf8_lossy(raw).as_bytes());
        out.extend_from_slice(if cut { b",\"cut\":true}\n" } else { b"}\n" });
        errors.flush_full()?;
        summary.errors += 1;
        if summary.first_errors.len() < SHOWN_ERRORS {
            summary.first_errors.push(ShownError { line: bad.line, reason: bad.reason.clone() });
        }
        Ok(())
    }

    pub fn finish(mut self, report: &Report<'_>) -> Result<(), Reject> {
        self.records.flush()?;
        if let Some(errors) = &mut self.errors {
            errors.flush()?;
        }
        let mut summary = Buffered::create(self.outputs, &format!("{}.summary.json", self.name), "application/json")?;
        serde_json::to_writer_pretty(&mut summary.bytes, report).map_err(io::Error::from)?;
        summary.bytes.push(b'\n');
        Ok(summary.flush()?)
    }
}

/// The beginning of a row, not cut inside a character.
fn excerpt(raw: &[u8]) -> (&[u8], bool) {
    let Some(head) = raw.get(..RAW_BYTES).filter(|_| raw.len() > RAW_BYTES) else { return (raw, false) };
    match std::str::from_utf8(head) {
        Err(error) if error.error_len().is_none() => (&head[..error.valid_up_to()], true),
        _ => (head, true),
    }
}

struct Buffered<W> {
    bytes: Vec<u8>,
    output: W,
}

impl<W: Write> Buffered<W> {
    fn create<O: Outputs<Output = W>>(outputs: &mut O, name: &str, content_type: &str) -> Result<Self, Reject> {
        let output = outputs
            .create(name, content_type)
            .map_err(|reason| Reject::new(format!("the output {name:?} cannot be made: {reason}")))?;
        Ok(Self { bytes: Vec::new(), output })
    }

    fn flush_full(&mut self) -> io::Result<()> {
        if self.bytes.len() >= FLUSH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.write_all(&self.bytes)?;
        self.bytes.clear();
        self.output.flush()
    }
}
