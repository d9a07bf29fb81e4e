#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::rc::Rc;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{Object, Outputs, Reject, Verdict, run};

mod csv;
mod json;
mod properties;

type Files = BTreeMap<String, Vec<u8>>;

/// Outputs that are kept in memory.
#[derive(Default)]
struct Kept(Rc<RefCell<Files>>);

struct KeptOutput(Rc<RefCell<Files>>, String);

impl Outputs for Kept {
    type Output = KeptOutput;

    fn create(&mut self, name: &str, _content_type: &str) -> Result<KeptOutput, String> {
        let earlier = self.0.borrow_mut().insert(name.to_owned(), Vec::new());
        if earlier.is_some() { Err("made twice".to_owned()) } else { Ok(KeptOutput(self.0.clone(), name.to_owned())) }
    }
}

impl Write for KeptOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().get_mut(&self.1).unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives out its bytes in pieces of a few.
struct Trickle<'a>(&'a [u8], usize);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(self.0.len()).min(buffer.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fn run_pieces(name: &str, settings: &str, input: &[u8], piece: usize) -> Result<(Verdict, Files), Reject> {
    let files = Kept::default();
    let kept = files.0.clone();
    let verdict = run(Object { name, content_type: None }, settings, Trickle(input, piece), &mut { files })?;
    let files = kept.take();
    Ok((verdict, files))
}

/// What came of an input.
struct Outcome {
    records: Vec<Value>,
    errors: Vec<Value>,
    summary: Value,
    files: Files,
}

fn lines(files: &Files, name: &str) -> Vec<Value> {
    let text = files.get(name).map(Vec::as_slice).unwrap_or_default();
    text.split_inclusive(|&byte| byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect()
}

fn parse_with(name: &str, settings: Value, input: impl AsRef<[u8]>) -> Outcome {
    let (verdict, files) = run_pieces(name, &settings.to_string(), input.as_ref(), usize::MAX).unwrap();
    assert_eq!(verdict, Verdict::Done);
    outcome(name, files)
}

fn outcome(name: &str, files: Files) -> Outcome {
    Outcome {
        records: lines(&files, &format!("{name}.ndjson")),
        errors: lines(&files, &format!("{name}.errors.ndjson")),
        summary: serde_json::from_slice(&files[&format!("{name}.summary.json")]).unwrap(),
        files,
    }
}

fn parse(name: &str, input: impl AsRef<[u8]>) -> Outcome {
    parse_with(name, json!({}), input)
}

fn rejection(name: &str, settings: &str, input: impl AsRef<[u8]>) -> String {
    run_pieces(name, settings, input.as_ref(), usize::MAX).unwrap_err().0
}

#[test]
fn nothing_is_skipped() {
    for input in ["", "\u{feff}", " \n\r\n"] {
        let (verdict, files) = run_pieces("a.csv", "{}", input.as_bytes(), 1).unwrap();
        assert_eq!((verdict, files.len()), (Verdict::Skipped("empty".to_owned()), 0), "{input:?}");
    }
}

#[test]
fn what_is_no_text_is_rejected() {
    assert!(rejection("a.csv", "{}", b"PK\x03\x04\x00\x00").starts_with("not text: byte 4 is zero"));
    assert!(rejection("a.csv", "{}", b"\xff\xfea\x00").contains("UTF-16"));
    let prose = rejection("a.txt", "{}", "Once upon a time\nthere was a mill.\n");
    assert!(prose.contains("no separator was found, it begins with \"Once upon"), "{prose}");
    assert!(rejection("a.json", "{}", "}").starts_with("not valid JSON at line 1"));
}

#[test]
fn wrong_settings_are_named() {
    for (settings, expected) in [
        (r#"{"formatt":"csv"}"#, "unknown field `formatt`, expected one of `format`"),
        (r#"{"format":"xml"}"#, "setting `format`: unknown variant `xml`, expected one of `auto`, `csv`"),
        (r#"{"header":"maybe"}"#, "setting `header`: it takes \"auto\", true or false"),
        (r#"{"delimiter":"ab"}"#, "setting `delimiter`"),
        (r#"{"delimiter":"\""}"#, "setting `delimiter` is '\"'; it takes one ASCII character"),
        (r#"{"max_record_bytes":1}"#, "setting `max_record_bytes` is 1; it takes 64 to 67108864"),
        (r#"{"max_nesting":1000}"#, "setting `max_nesting` is 1000; it takes 1 to 128"),
        (r#"{"types":"yes"}"#, "setting `types`: invalid type: string \"yes\", expected a boolean"),
    ] {
        let reason = rejection("a.csv", settings, "a,b\n1,2\n");
        assert!(reason.contains(expected), "{settings}: {reason}");
    }
}
