//! Cuts text into rows: lines, or CSV records whose quoted fields may hold line breaks.

use std::io::{self, Read};

use memchr::{memchr, memchr_iter, memchr2};

use crate::window::Window;

const QUOTE: u8 = b'"';

/// What separates what.
#[derive(Debug, Clone, Copy)]
pub struct Dialect {
    /// `\n`, before which a `\r` is dropped; or `\r` for files that know no other.
    pub newline: u8,
    /// The field separator where quotes count, as in CSV; `None` for plain lines.
    pub delimiter: Option<u8>,
}

/// One row, or what is wrong with it. `line` is where it starts, from 1.
#[derive(Debug, PartialEq, Eq)]
pub enum Row<'a> {
    /// A whole row without its line break. `quoted` when it has a quote anywhere, `last` when the input and
    /// no line break ended it.
    Whole { line: u64, bytes: &'a [u8], quoted: bool, last: bool },
    /// Longer than the limit; the beginning of it.
    TooLong { line: u64, beginning: &'a [u8] },
    /// A quote that does not close before the limit or the end of the input, or closes on a later line in
    /// the middle of a field. The row is taken to be its first line, so that one stray quote does not
    /// swallow what follows.
    OpenQuote { line: u64, bytes: &'a [u8] },
}

/// Walks over the rows of a window.
#[derive(Debug)]
pub struct Rows {
    dialect: Dialect,
    max_bytes: usize,
    line: u64,
    /// The rest of a row that was too long is still to be passed over.
    skipping: bool,
}

/// How far a row was looked through, so that no byte is looked at twice when more of it arrives.
#[derive(Debug, Default)]
struct Progress {
    at: usize,
    quoted: bool,
    inside_quotes: bool,
    inside_field: bool,
    /// Where the quoted field at hand starts.
    field_start: usize,
    /// A quote closed where none should.
    stray: bool,
}

impl Rows {
    pub fn new(dialect: Dialect, max_bytes: usize) -> Self {
        Self { dialect, max_bytes, line: 1, skipping: false }
    }

    /// The next row; blank lines are passed over.
    pub fn next<'w, R: Read>(&mut self, window: &'w mut Window<R>) -> io::Result<Option<Row<'w>>> {
        if self.skipping {
            self.skip_line(window)?;
        }
        self.skip_blank_lines(window)?;
        let mut progress = Progress::default();
        let end = loop {
            // One byte more than allowed tells a row that just fits from one that does not.
            let bytes = window.bytes();
            let bytes = &bytes[..bytes.len().min(self.max_bytes + 1)];
            let cut = bytes.len() > self.max_bytes;
            if let Some(end) = self.find_end(bytes, &mut progress, window.ended() && !cut) {
                break Some(end);
            }
            if cut || progress.stray || (!window.more()? && progress.at >= window.bytes().len()) {
                break None;
            }
        };
        let line = self.line;
        if let Some(end) = end {
            let bytes = window.take(end + 1);
            self.line += memchr_iter(self.dialect.newline, bytes).count() as u64;
            return Ok(Some(Row::Whole {
                line,
                bytes: self.without_break(bytes),
                quoted: progress.quoted,
                last: false,
            }));
        }
        let length = window.bytes().len();
        let cut = length > self.max_bytes;
        if progress.inside_quotes || progress.stray {
            let head = &window.bytes()[..length.min(self.max_bytes + 1)];
            let first = memchr(self.dialect.newline, head);
            if first.is_some() || !cut {
                self.line += 1;
                let bytes = window.take(first.map_or(length, |end| end + 1));
                return Ok(Some(Row::OpenQuote { line, bytes: self.without_break(bytes) }));
            }
        }
        if cut {
            self.skipping = true;
            let beginning = window.take(self.max_bytes);
            self.line += memchr_iter(self.dialect.newline, beginning).count() as u64;
            return Ok(Some(Row::TooLong { line, beginning }));
        }
        if length == 0 {
            return Ok(None);
        }
        let bytes = window.take(length);
        self.line += memchr_iter(self.dialect.newline, bytes).count() as u64;
        Ok(Some(Row::Whole { line, bytes: self.without_break(bytes), quoted: progress.quoted, last: true }))
    }

    /// Where the line break after the row is. `last` when no more bytes will come.
    fn find_end(&self, bytes: &[u8], progress: &mut Progress, last: bool) -> Option<usize> {
        let newline = self.dialect.newline;
        let Some(delimiter) = self.dialect.delimiter else {
            let found = memchr(newline, &bytes[progress.at..]).map(|offset| progress.at + offset);
            progress.at = bytes.len();
            return found;
        };
        if !progress.quoted {
            // Most rows have no quote, and finding that out is one fast sweep.
            let end = memchr(newline, &bytes[progress.at..]).map(|offset| progress.at + offset);
            let stretch = &bytes[progress.at..end.unwrap_or(bytes.len())];
            if memchr(QUOTE, stretch).is_none() {
                progress.at = end.unwrap_or(bytes.len());
                return end;
            }
            *progress = Progress { quoted: true, ..Progress::default() };
        }
        while progress.at < bytes.len() {
            let rest = &bytes[progress.at..];
            if progress.inside_quotes {
                match memchr(QUOTE, rest) {
                    None => progress.at = bytes.len(),
                    Some(offset) => match rest.get(offset + 1) {
                        Some(&QUOTE) => progress.at += offset + 2,
                        None if !last => {
                            // Whether this quote is doubled shows with the next byte.
                            progress.at += offset;
                            return None;
                        }
                        next => {
                            let closed = progress.at + offset;
                            let ends = next.is_none_or(|&byte| byte == delimiter || byte == newline || byte == b'\r');
                            if !ends && memchr(newline, &bytes[progress.field_start..closed]).is_some() {
                                progress.stray = true;
                                return None;
                            }
                            progress.inside_quotes = false;
                            progress.at = closed + 1;
                        }
                    },
                }
            } else if !progress.inside_field && rest[0] == QUOTE {
                progress.inside_quotes = true;
                progress.inside_field = true;
                progress.field_start = progress.at;
                progress.at += 1;
            } else {
                match memchr2(delimiter, newline, rest) {
                    None => {
                        progress.inside_field = true;
                        progress.at = bytes.len();
                    }
                    Some(offset) if rest[offset] == newline => {
                        progress.at += offset;
                        return Some(progress.at);
                    }
                    Some(offset) => {
                        progress.inside_field = false;
                        progress.at += offset + 1;
                    }
                }
            }
        }
        None
    }

    fn without_break<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let bytes = bytes.strip_suffix(&[self.dialect.newline]).unwrap_or(bytes);
        bytes.strip_suffix(b"\r").unwrap_or(bytes)
    }

    fn skip_line<R: Read>(&mut self, window: &mut Window<R>) -> io::Result<()> {
        loop {
            let found = memchr(self.dialect.newline, window.bytes());
            window.take(found.map_or(window.bytes().len(), |end| end + 1));
            if found.is_some() || !window.more()? {
                break;
            }
        }
        self.skipping = false;
        self.line += 1;
        Ok(())
    }

    fn skip_blank_lines<R: Read>(&mut self, window: &mut Window<R>) -> io::Result<()> {
        loop {
            match *window.bytes() {
                [byte, ..] if byte == self.dialect.newline => {
                    window.take(1);
                    self.line += 1;
                }
                [b'\r', byte, ..] if byte == self.dialect.newline => {
                    window.take(2);
                    self.line += 1;
                }
                // Too little to tell a blank line from a row.
                [] | [b'\r'] => {
                    if !window.more()? {
                        let rest = window.bytes().len();
                        window.take(rest);
                        return Ok(());
                    }
                }
                _ => return Ok(()),
            }
        }
    }
}

/// Splits a row without line break into fields. `spans` are places in the returned text, which is the row
/// itself or, where quotes had to be taken off, `scratch`.
pub fn split<'a>(
    row: &'a [u8],
    delimiter: u8,
    quoted: bool,
    scratch: &'a mut Vec<u8>,
    spans: &mut Vec<(usize, usize)>,
) -> &'a [u8] {
    spans.clear();
    if !quoted {
        let mut start = 0;
        for end in memchr_iter(delimiter, row) {
            spans.push((start, end));
            start = end + 1;
        }
        spans.push((start, row.len()));
        return row;
    }
    scratch.clear();
    let mut rest = row;
    loop {
        let start = scratch.len();
        if let [QUOTE, after @ ..] = rest {
            rest = after;
            while let Some(quote) = memchr(QUOTE, rest) {
                let doubled = rest.get(quote + 1) == Some(&QUOTE);
                scratch.extend_from_slice(&rest[..quote + usize::from(doubled)]);
                rest = &rest[quote + 1 + usize::from(doubled)..];
                if !doubled {
                    break;
                }
            }
        }
        let end = memchr(delimiter, rest);
        scratch.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
        spans.push((start, scratch.len()));
        match end {
            Some(end) => rest = &rest[end + 1..],
            None => return scratch,
        }
    }
}
