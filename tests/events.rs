//! Messages as AWS documents them, as other stores send them, and as nobody should: what is read of each
//! stands in `tests/corpus/events/expected.json`.
//!
//! The samples have the shapes of "Event message structure" and "EventBridge event message structure" in the
//! Amazon S3 user guide and of "Amazon SNS message formats" in the SNS developer guide, with names of our own.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::LazyLock,
};

use gristmill::event::{self, Events, ObjectEvent};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

/// What is read of one message. Fields that are not named are absent.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Expected {
    objects: Vec<Object>,
    ignored: Vec<String>,
    /// A part of the reason why nothing is.
    error: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Object {
    bucket: String,
    key: String,
    size: Option<u64>,
    etag: Option<String>,
    version_id: Option<String>,
    event_time: Option<String>,
    event_name: String,
}

impl From<ObjectEvent> for Object {
    fn from(event: ObjectEvent) -> Self {
        let ObjectEvent { bucket, key, size, etag, version_id, event_time, event_name } = event;
        Self { bucket, key, size, etag, version_id, event_time, event_name }
    }
}

/// By name, without `.json`.
static CORPUS: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(|| {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files.map(|path| (name(&path), fs::read(&path).unwrap())).filter(|(name, _)| name != "expected").collect()
});

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/events")
}

#[test]
fn every_message_of_the_corpus_is_read_as_expected() {
    let expected = fs::read(folder().join("expected.json")).unwrap();
    let expected: BTreeMap<String, Expected> = serde_json::from_slice(&expected).unwrap();
    assert_eq!(expected.keys().collect::<BTreeSet<_>>(), CORPUS.keys().collect(), "an expectation for every message");
    let mut wrong = Vec::new();
    for (name, expected) in &expected {
        match (event::parse(&CORPUS[name]), &expected.error) {
            (Ok(Events { objects, ignored }), None) => {
                let read = Expected { objects: objects.into_iter().map(Object::from).collect(), ignored, error: None };
                if read != *expected {
                    wrong.push(format!("{name}: read {read:?}, expected {expected:?}"));
                }
            }
            (Err(error), Some(part)) if error.to_string().contains(part) => {}
            (other, _) => wrong.push(format!("{name}: {other:?}, expected {expected:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Bytes that the result holds on to.
fn held(read: &Result<Events, event::EventError>) -> usize {
    let event = |event: &ObjectEvent| {
        let texts = [&event.etag, &event.version_id, &event.event_time].into_iter().flatten().map(String::capacity);
        let named = [&event.bucket, &event.key, &event.event_name].map(String::capacity);
        size_of::<ObjectEvent>() + texts.sum::<usize>() + named.iter().sum::<usize>()
    };
    match read {
        Ok(events) => {
            let names = events.ignored.iter().map(|name| size_of::<String>() + name.capacity());
            events.objects.iter().map(event).sum::<usize>() + names.sum::<usize>()
        }
        Err(error) => error.to_string().len(),
    }
}

/// The most that SQS takes.
const MAX_MESSAGE: usize = 1 << 20;

#[test]
fn the_largest_messages_are_read_in_a_few_times_their_size() {
    let full = |head: &str, unit: &str, tail: &str| {
        let times = (MAX_MESSAGE - head.len() - tail.len()) / unit.len();
        format!("{head}{}{tail}", unit.repeat(times))
    };
    let record = r#"{"eventName":"ObjectCreated:","s3":{"bucket":{"name":"b"},"object":{"key":"k"}}},"#;
    let last = &record[..record.len() - 1];
    let envelope = |message: String| json!({ "Type": "Notification", "Message": message }).to_string();
    for (body, objects, ignored) in [
        (full(r#"{"Records":["#, record, &format!("{last}]}}")), 12_000, 0),
        (full(r#"{"Records":["#, r#"{"eventName":"x"},"#, r#"{"eventName":"x"}]}"#), 0, 58_000),
        (full(r#"{"Records":[{"eventName":"x","y":["#, "0,", "0]}]}"), 0, 1),
        (full(r#"{"Records":[{"eventName":"x","y":"#, "[", ""), 0, 0),
        (full(r#"{"Records":"#, "[", ""), 0, 0),
        (full("", "[", ""), 0, 0),
        (full("", r#"{"Message":"#, ""), 0, 0),
        (envelope(full(r#"{"Records":[{"eventName":"x","y":["#, "0,", "0]}]}")), 0, 1),
        (envelope("\u{1}".repeat(MAX_MESSAGE / 6)), 0, 0),
    ] {
        let read = event::parse(body.as_bytes());
        assert!(held(&read) < 5 * body.len(), "{} bytes for {}", held(&read), body.len());
        let Events { objects: read, ignored: names } = read.unwrap_or_default();
        assert!(read.len() >= objects && names.len() >= ignored, "{}, {}", read.len(), names.len());
    }
}

/// One message of the corpus.
fn sample() -> impl Strategy<Value = Vec<u8>> {
    let messages: Vec<Vec<u8>> = CORPUS.values().filter(|message| message.len() < 4_000).cloned().collect();
    prop::sample::select(messages)
}

/// Something done to a message, at a place between 0 and 1.
#[derive(Debug, Clone)]
enum Damage {
    Replace(f64, u8),
    Insert(f64, Vec<u8>),
    Remove(f64, usize),
    Repeat(f64, usize),
    Cut(f64),
}

fn damage() -> impl Strategy<Value = Damage> {
    let token = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "null",
        "true",
        "-1",
        "1e999",
        "\"\\ud800\"",
        "\"Records\":",
        "\"Type\":",
        "\"s3\":",
        "\"key\":",
        "\"detail\":",
        "\"aws.s3\"",
        "\"3.0\"",
        "%",
        "\\",
        "\u{0}",
    ]);
    prop_oneof![
        (0.0..1.0, any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (0.0..1.0, token).prop_map(|(at, token)| Damage::Insert(at, token.as_bytes().to_vec())),
        (0.0..1.0, 1_usize..100).prop_map(|(at, length)| Damage::Remove(at, length)),
        (0.0..1.0, 1_usize..300).prop_map(|(at, length)| Damage::Repeat(at, length)),
        (0.0..1.0).prop_map(Damage::Cut),
    ]
}

fn apply(message: &mut Vec<u8>, damage: Damage) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a short message")]
    let place = |at: f64, message: &Vec<u8>| (at * message.len() as f64) as usize;
    match damage {
        Damage::Replace(at, byte) => {
            let at = place(at, message);
            message.splice(at..(at + 1).min(message.len()), [byte]);
        }
        Damage::Insert(at, bytes) => {
            let at = place(at, message);
            message.splice(at..at, bytes);
        }
        Damage::Remove(at, length) => {
            let at = place(at, message);
            message.drain(at..(at + length).min(message.len()));
        }
        Damage::Repeat(at, length) => {
            let at = place(at, message);
            let again = message[at..(at + length).min(message.len())].to_vec();
            message.splice(at..at, again);
        }
        Damage::Cut(at) => message.truncate(place(at, message)),
    }
}

/// Whatever was read, it is fit to be used, and it is the same each time.
fn check(message: &[u8]) {
    let read = event::parse(message);
    assert_eq!(read, event::parse(message));
    match read {
        Ok(events) => {
            for event in events.objects {
                assert!(!event.bucket.is_empty() && !event.key.is_empty(), "{event:?}");
                let again = event::parse(&event::encode(&event)).unwrap();
                assert_eq!(again, Events { objects: vec![event], ignored: Vec::new() });
            }
            assert!(!events.ignored.iter().any(|name| name.contains(char::is_control)));
        }
        Err(error) => {
            let reason = error.to_string();
            assert!(!reason.contains(char::is_control) && reason.len() < 8_000, "{reason}");
        }
    }
}

proptest! {
    // A second or two of a debug build. `tests/fuzz` goes on for as long as one likes.
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_bytes_do_harm(message in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&message);
    }

    #[test]
    fn no_damaged_message_does_harm(mut message in sample(), damages in prop::collection::vec(damage(), 1..5)) {
        for damage in damages {
            apply(&mut message, damage);
        }
        check(&message);
    }

    #[test]
    fn two_messages_in_one_do_no_harm(first in sample(), second in sample(), at in 0.0..1.0_f64) {
        let mut message = first;
        apply(&mut message, Damage::Insert(at, second));
        check(&message);
    }

    #[test]
    fn a_message_that_cannot_be_read_cannot_be_read_in_an_envelope(message in sample()) {
        if let Ok(text) = String::from_utf8(message.clone()) {
            let carried = json!({ "Type": "Notification", "Message": text }).to_string();
            let (bare, carried) = (event::parse(&message), event::parse(carried.as_bytes()));
            // Only an envelope may be read alone and not in another.
            let is_envelope = serde_json::from_str::<serde_json::Value>(&text).is_ok_and(|json| json["Type"].is_string());
            prop_assert_eq!(carried.is_ok(), bare.is_ok() && !is_envelope);
            if let (Ok(bare), Ok(carried)) = (bare, carried) {
                prop_assert_eq!(bare, carried);
            }
        }
    }

    #[test]
    fn depth_is_no_danger(depth in 0_usize..3_000, object: bool) {
        let (open, close) = if object { (r#"{"detail":"#, "}") } else { ("[", "]") };
        let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        check(nested.as_bytes());
        check(format!(r#"{{"Records":[{{"eventName":"ObjectCreated:Put","s3":{nested}}}]}}"#).as_bytes());
        check(format!(r#"{{"source":"aws.s3","detail-type":"Object Created","detail":{nested}}}"#).as_bytes());
    }
}
