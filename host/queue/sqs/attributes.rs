//! A dead letter as the attributes of a message, so that consoles and filters of AWS can read it too.
//!
//! | attribute | type | |
//! | --- | --- | --- |
//! | `gristmill-attempts` | Number | deliveries, the last one included |
//! | `gristmill-class` | String | what kind of failure it was |
//! | `gristmill-time` | String | when, as RFC 3339 has it |
//! | `gristmill-key` | String | the object's key, when the message could be read |
//! | `gristmill-plugin` | String | the plugin, when one had to do with it |
//! | `gristmill-digest` | String | its SHA-256 |
//! | `gristmill-reason` | String | what went wrong, for people |
//! | `gristmill-backtrace` | String | the guest's call stack at a trap |
//!
//! They are set in this order as far as there is room beside the body. SQS allows ten of them, none of them
//! empty, of XML's characters.

use std::time::SystemTime;

use super::super::{DeadLetter, MOVED_BY_QUEUE};

const ATTEMPTS: &str = "gristmill-attempts";
const CLASS: &str = "gristmill-class";
const TIME: &str = "gristmill-time";
const KEY: &str = "gristmill-key";
const PLUGIN: &str = "gristmill-plugin";
const DIGEST: &str = "gristmill-digest";
const REASON: &str = "gristmill-reason";
const BACKTRACE: &str = "gristmill-backtrace";

/// The longest value in bytes. What the host knows by name is far shorter, a key has at most 1,024. Of reason
/// and backtrace this is as much as anybody reads.
const MAX_VALUE: usize = 8 << 10;

/// What stands at the end of a value that was cut.
const CUT: char = '…';

/// One attribute of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attribute {
    pub(super) name: &'static str,
    /// `String` or `Number`.
    pub(super) kind: &'static str,
    pub(super) value: String,
}

/// The attributes of a letter, in at most `room` bytes as SQS counts them.
pub(super) fn write(letter: &DeadLetter, died: SystemTime, room: usize) -> Vec<Attribute> {
    let plugin = letter.plugin.as_ref();
    let time = humantime::format_rfc3339_millis(died).to_string();
    let fields = [
        (ATTEMPTS, "Number", Some(letter.attempts.to_string())),
        (CLASS, "String", Some(letter.class.clone())),
        (TIME, "String", Some(time)),
        (KEY, "String", letter.key.clone()),
        (PLUGIN, "String", plugin.map(|(name, _)| name.clone())),
        (DIGEST, "String", plugin.map(|(_, digest)| digest.clone())),
        (REASON, "String", Some(letter.reason.clone())),
        (BACKTRACE, "String", letter.backtrace.clone()),
    ];
    let mut left = room;
    let mut attributes = Vec::with_capacity(fields.len());
    for (name, kind, value) in fields {
        let overhead = name.len() + kind.len();
        let value = valid(&value.unwrap_or_default(), left.saturating_sub(overhead).min(MAX_VALUE));
        // Half a number is none.
        let is_whole = kind != "Number" || !value.ends_with(CUT);
        if is_whole && !value.is_empty() {
            left -= overhead + value.len();
            attributes.push(Attribute { name, kind, value });
        }
    }
    attributes
}

/// Of the characters that SQS allows, in at most `max` bytes. Others become U+FFFD.
fn valid(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    // Where to cut if the rest does not fit.
    let mut cut = 0;
    for c in text.chars() {
        let c = if is_allowed(c) { c } else { char::REPLACEMENT_CHARACTER };
        if out.len() + c.len_utf8() > max {
            out.truncate(cut);
            if out.len() + CUT.len_utf8() <= max {
                out.push(CUT);
            }
            return out;
        }
        out.push(c);
        if out.len() + CUT.len_utf8() <= max {
            cut = out.len();
        }
    }
    out
}

/// See "SendMessage" in the API reference of SQS, which refers to the W3C's "Extensible Markup Language (XML)
/// 1.0", section 2.2.
fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

/// Reads a letter back, and when the message died. Without one the queue's own redrive policy has moved the
/// message, after `max_receives` deliveries if that is known.
pub(super) fn read(get: impl Fn(&str) -> Option<String>, max_receives: u32) -> (DeadLetter, Option<SystemTime>) {
    let Some(attempts) = get(ATTEMPTS).and_then(|value| value.parse().ok()) else {
        let reason = "the queue's redrive policy moved it: it was received and never settled, as when a host crashes or \
                      is killed, or its visibility timeout is too short";
        let letter = DeadLetter {
            reason: reason.to_owned(),
            class: MOVED_BY_QUEUE.to_owned(),
            plugin: None,
            attempts: max_receives,
            key: None,
            backtrace: None,
        };
        return (letter, None);
    };
    let letter = DeadLetter {
        reason: get(REASON).unwrap_or_default(),
        class: get(CLASS).unwrap_or_default(),
        plugin: get(PLUGIN).map(|name| (name, get(DIGEST).unwrap_or_default())),
        attempts,
        key: get(KEY),
        backtrace: get(BACKTRACE),
    };
    (letter, get(TIME).and_then(|time| humantime::parse_rfc3339(&time).ok()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const ROOM: usize = 256 << 10;

    fn letter() -> DeadLetter {
        DeadLetter {
            reason: "line 3 is \"broken\": ü\n猫".to_owned(),
            class: "reject".to_owned(),
            plugin: Some(("parse".to_owned(), "0123".to_owned())),
            attempts: 4,
            key: Some("uploads/a b.csv".to_owned()),
            backtrace: Some("here\nthere".to_owned()),
        }
    }

    fn died() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)
    }

    fn back(attributes: &[Attribute]) -> (DeadLetter, Option<SystemTime>) {
        read(|name| attributes.iter().find(|attribute| attribute.name == name).map(|found| found.value.clone()), 7)
    }

    #[test]
    fn a_letter_is_read_back() {
        let bare = DeadLetter { plugin: None, key: None, backtrace: None, ..letter() };
        for letter in [letter(), bare] {
            assert_eq!(back(&write(&letter, died(), ROOM)), (letter, Some(died())));
        }
    }

    #[test]
    fn without_attributes_the_queue_moved_it() {
        let (letter, died) = back(&[]);
        assert_eq!((&*letter.class, letter.attempts, died), (MOVED_BY_QUEUE, 7, None));
    }

    #[test]
    fn awkward_characters_are_replaced_and_empty_values_left_out() {
        let awkward = DeadLetter {
            reason: "a\0b\u{1b}[31m\u{ffff}\u{fffe}\u{1f600}\r\n\t".to_owned(),
            key: Some(String::new()),
            backtrace: Some(String::new()),
            ..letter()
        };
        let attributes = write(&awkward, died(), ROOM);
        let (read, _) = back(&attributes);
        assert_eq!(read.reason, "a\u{fffd}b\u{fffd}[31m\u{fffd}\u{fffd}\u{1f600}\r\n\t");
        assert_eq!((read.key, read.backtrace), (None, None));
    }

    #[test]
    fn long_values_are_cut_with_a_mark() {
        assert_eq!(valid("猫猫猫", 9), "猫猫猫");
        assert_eq!(valid("猫猫猫", 8), "猫…");
        assert_eq!(valid("猫猫猫", 6), "猫…");
        assert_eq!(valid("abc", 2), "");
        let long = DeadLetter { reason: "x".repeat(1 << 20), ..letter() };
        let (read, _) = back(&write(&long, died(), ROOM));
        assert_eq!((read.reason.len(), read.reason.ends_with(CUT)), (MAX_VALUE, true));
    }

    #[test]
    fn without_much_room_the_backtrace_goes_first() {
        let attributes = write(&letter(), died(), 255);
        let names: Vec<_> = attributes.iter().map(|attribute| attribute.name).collect();
        assert_eq!(names, [ATTEMPTS, CLASS, TIME, KEY, PLUGIN, DIGEST, REASON]);
        assert_eq!(write(&letter(), died(), 0), []);
    }

    proptest! {
        #[test]
        fn sqs_takes_whatever_comes(
            reason: String, class: String, key: Option<String>, backtrace: Option<String>,
            plugin: Option<(String, String)>, attempts: u32, room in 0..2_000_usize,
        ) {
            let letter = DeadLetter { reason, class, plugin, attempts, key, backtrace };
            let attributes = write(&letter, died(), room);
            let size = |it: &Attribute| it.name.len() + it.kind.len() + it.value.len();
            prop_assert!(attributes.iter().map(size).sum::<usize>() <= room);
            prop_assert!(attributes.len() <= 10);
            prop_assert!(attributes.iter().all(|it| !it.value.is_empty() && it.value.chars().all(is_allowed)));
        }
    }
}
