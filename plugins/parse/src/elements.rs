//! Cuts JSON documents into records without holding more than one: the elements of an array, or values
//! that follow each other.

use std::io::{self, Read};

use memchr::memchr2;

use crate::sink::RAW_BYTES;
use crate::window::Window;

/// One record, or what is wrong. `line` is where it starts, from 1.
#[derive(Debug, PartialEq, Eq)]
pub enum Element<'a> {
    /// A value whose brackets match; whether it is JSON is for the caller to find out.
    Whole { line: u64, bytes: &'a [u8] },
    /// Longer than the limit; the beginning of it.
    TooLong { line: u64, beginning: Vec<u8> },
    /// The structure is lost. Nothing comes after it.
    Broken { line: u64, reason: String, beginning: &'a [u8] },
}

/// Walks over the records of a window.
#[derive(Debug)]
pub struct Elements {
    max_bytes: usize,
    line: u64,
    place: Place,
}

/// Where in the document the walk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Outside any array.
    Top,
    /// After the `[` on that line.
    ArrayStart(u64),
    AfterComma(u64),
    AfterElement(u64),
    Lost,
}

/// How far a value was looked through.
#[derive(Debug, Default)]
struct Scan {
    at: usize,
    depth: u32,
    /// The kinds of the outer brackets, the innermost of them in the lowest bit: 1 for `{`. Deeper than that
    /// many bits, only the depth is counted; the record is refused for its depth later on.
    braces: u128,
    in_string: bool,
    newlines: u64,
}

/// What the scan of a value came to.
enum Scanned {
    End,
    NeedsMore,
    Mismatch,
}

impl Elements {
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, line: 1, place: Place::Top }
    }

    /// The next record.
    pub fn next<'w, R: Read>(&mut self, window: &'w mut Window<R>) -> io::Result<Option<Element<'w>>> {
        loop {
            if self.place == Place::Lost {
                return Ok(None);
            }
            self.skip_blanks(window)?;
            let Some(&byte) = window.bytes().first() else {
                return match self.place {
                    Place::Top | Place::Lost => Ok(None),
                    Place::ArrayStart(line) | Place::AfterComma(line) | Place::AfterElement(line) => {
                        self.broken(window, format!("the input ends inside the array that starts on line {line}"))
                    }
                };
            };
            self.place = match (self.place, byte) {
                (Place::Top, b'[') => Place::ArrayStart(self.line),
                (Place::AfterElement(line), b',') => Place::AfterComma(line),
                (Place::ArrayStart(_) | Place::AfterElement(_), b']') => Place::Top,
                (Place::AfterElement(_), _) => return self.broken(window, "a comma or `]` is missing here".to_owned()),
                (_, b',' | b']' | b'}' | b':') => {
                    return self.broken(window, format!("a value is missing before `{}`", char::from(byte)));
                }
                (place, _) => {
                    if let Place::ArrayStart(line) | Place::AfterComma(line) = place {
                        self.place = Place::AfterElement(line);
                    }
                    return self.value(window);
                }
            };
            window.take(1);
        }
    }

    fn value<'w, R: Read>(&mut self, window: &'w mut Window<R>) -> io::Result<Option<Element<'w>>> {
        let line = self.line;
        let mut scan = Scan::default();
        // The beginning of a value that turned out too long; the rest is passed over without keeping it.
        let mut beginning: Option<Vec<u8>> = None;
        let broken = loop {
            match scan.advance(window.bytes()) {
                Scanned::End => break None,
                Scanned::Mismatch => break Some("brackets do not match in this value"),
                Scanned::NeedsMore => {}
            }
            if beginning.is_some() || scan.at > self.max_bytes.max(RAW_BYTES) {
                beginning.get_or_insert_with(|| window.bytes()[..RAW_BYTES].to_vec());
                window.take(scan.at);
                scan.at = 0;
            }
            if !window.more()? {
                let whole = scan.depth == 0 && !scan.in_string;
                break (!whole).then_some("the input ends inside this value");
            }
        };
        if beginning.is_none() && scan.at <= self.max_bytes {
            if let Some(reason) = broken {
                return self.broken(window, reason.to_owned());
            }
            self.line += scan.newlines;
            return Ok(Some(Element::Whole { line, bytes: window.take(scan.at) }));
        }
        // A broken value that is too long as well is called too long: its beginning shows no more than that.
        if broken.is_some() {
            self.place = Place::Lost;
        }
        self.line += scan.newlines;
        let rest = window.take(scan.at);
        let beginning = beginning.unwrap_or_else(|| rest[..RAW_BYTES.min(rest.len())].to_vec());
        Ok(Some(Element::TooLong { line, beginning }))
    }

    fn broken<'w, R: Read>(&mut self, window: &'w mut Window<R>, reason: String) -> io::Result<Option<Element<'w>>> {
        self.place = Place::Lost;
        window.fill(RAW_BYTES)?;
        let beginning = window.take(RAW_BYTES);
        Ok(Some(Element::Broken { line: self.line, reason, beginning }))
    }

    /// Whether the structure of the document was lost, so that there may be records that nobody saw.
    pub fn lost(&self) -> bool {
        self.place == Place::Lost
    }

    fn skip_blanks<R: Read>(&mut self, window: &mut Window<R>) -> io::Result<()> {
        loop {
            let bytes = window.bytes();
            let count = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
            let found = count < bytes.len();
            self.line += window.take(count).iter().filter(|&&byte| byte == b'\n').count() as u64;
            if found || !window.more()? {
                return Ok(());
            }
        }
    }
}

impl Scan {
    /// Goes on looking for the end of the value that `bytes` starts with.
    fn advance(&mut self, bytes: &[u8]) -> Scanned {
        while let Some(&byte) = bytes.get(self.at) {
            if self.in_string {
                let Some(offset) = memchr2(b'"', b'\\', &bytes[self.at..]) else {
                    self.at = bytes.len();
                    break;
                };
                self.at += offset;
                if bytes[self.at] == b'\\' {
                    if self.at + 1 == bytes.len() {
                        break;
                    }
                    self.at += 2;
                    continue;
                }
                self.in_string = false;
                self.at += 1;
                if self.depth == 0 {
                    return Scanned::End;
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    if self.depth < u128::BITS {
                        self.braces = self.braces << 1 | u128::from(byte == b'{');
                    }
                    self.depth += 1;
                }
                b'}' | b']' if self.depth == 0 => return Scanned::End,
                b'}' | b']' => {
                    let tracked = self.depth <= u128::BITS;
                    if tracked && (self.braces & 1 == 1) != (byte == b'}') {
                        return Scanned::Mismatch;
                    }
                    if tracked {
                        self.braces >>= 1;
                    }
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.at += 1;
                        return Scanned::End;
                    }
                }
                b'\n' if self.depth > 0 => self.newlines += 1,
                b',' | b' ' | b'\t' | b'\r' | b'\n' if self.depth == 0 => return Scanned::End,
                _ => {}
            }
            self.at += 1;
        }
        Scanned::NeedsMore
    }
}
