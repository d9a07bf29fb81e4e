//! What a value is, and how text becomes JSON.

use serde::Serialize;

/// The type of a value, and of a column whose values agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Nothing but nulls so far.
    Null,
    /// A whole number that fits 64 bits with sign.
    Integer,
    /// A decimal number that survives a trip through a double.
    Number,
    Boolean,
    /// `2026-11-22`.
    Date,
    /// `2026-11-22T09:30:00Z`, with a space for the `T`, fractions or an offset as well.
    Timestamp,
    String,
    Object,
    Array,
    /// JSON values of several types.
    Mixed,
}

impl Kind {
    /// The type of a column that holds values of both; `otherwise` when there is none but that.
    pub fn join(self, other: Self, otherwise: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::Null, kind) | (kind, Self::Null) => kind,
            (Self::Integer | Self::Number, Self::Integer | Self::Number) => Self::Number,
            (Self::Date | Self::Timestamp, Self::Date | Self::Timestamp) => Self::Timestamp,
            _ => otherwise,
        }
    }

    /// Whether it is written without quotes in JSON, given that the column is typed so.
    pub fn is_numeric(self) -> bool {
        matches!(self, Self::Integer | Self::Number)
    }
}

/// Digits that every decimal keeps on its way through a double and back (`f64::DIGITS`).
const EXACT_DIGITS: usize = 15;
/// Longer text is a string without a closer look. The longest timestamp has 35 bytes.
const LONGEST_TYPED: usize = 40;

/// What a piece of text stands for. Leading zeros, blanks and a `+` are part of identifiers, telephone
/// numbers and the like, so such text stays text.
pub fn classify(text: &[u8]) -> Kind {
    if text.len() > LONGEST_TYPED {
        return Kind::String;
    }
    match text {
        [] => Kind::Null,
        b"true" | b"false" | b"True" | b"False" | b"TRUE" | b"FALSE" => Kind::Boolean,
        [b'0'..=b'9', ..] if text.get(4) == Some(&b'-') => classify_date(text),
        [b'-' | b'0'..=b'9', ..] => classify_number(text),
        _ => Kind::String,
    }
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// JSON's grammar for numbers (RFC 8259, section 6), less what would lose something.
fn classify_number(text: &[u8]) -> Kind {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(unsigned);
    if whole == 0 || (whole > 1 && unsigned[0] == b'0') {
        return Kind::String;
    }
    if whole == unsigned.len() {
        let fits = text != b"-0" && std::str::from_utf8(text).is_ok_and(|text| text.parse::<i64>().is_ok());
        return if fits { Kind::Integer } else { Kind::String };
    }
    let mut rest = &unsigned[whole..];
    let mut significant = whole;
    if let [b'.', fraction @ ..] = rest {
        let count = digits(fraction);
        if count == 0 {
            return Kind::String;
        }
        significant += count;
        rest = &fraction[count..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"-").or(exponent.strip_prefix(b"+")).unwrap_or(exponent);
        let count = digits(exponent);
        if count == 0 {
            return Kind::String;
        }
        rest = &exponent[count..];
    }
    let mut mantissa = text.iter().take_while(|byte| !matches!(byte, b'e' | b'E'));
    let zero = !mantissa.any(|byte| matches!(byte, b'1'..=b'9'));
    // Above the normal doubles lies infinity, and those below have fewer digits.
    let exact = rest.is_empty()
        && significant <= EXACT_DIGITS
        && std::str::from_utf8(text)
            .is_ok_and(|text| text.parse::<f64>().is_ok_and(|number| zero || number.is_normal()));
    if exact { Kind::Number } else { Kind::String }
}

/// Dates and timestamps as in RFC 3339, the offset left open.
fn classify_date(text: &[u8]) -> Kind {
    let number = |part: &[u8]| -> Option<u32> {
        part.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
    };
    let Some((date, time)) = text.split_at_checked(10) else { return Kind::String };
    let (Some(year), Some(month), Some(day)) = (number(&date[..4]), number(&date[5..7]), number(&date[8..])) else {
        return Kind::String;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if date[7] != b'-' || !(1..=12).contains(&month) || !(1..=last).contains(&day) {
        return Kind::String;
    }
    let [b'T' | b't' | b' ', clock @ ..] = time else {
        return if time.is_empty() { Kind::Date } else { Kind::String };
    };
    let below = |part: &[u8], limit: u32| number(part).is_some_and(|value| value < limit);
    let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = clock else { return Kind::String };
    // 60 is a leap second.
    if !below(&[*h1, *h2], 24) || !below(&[*m1, *m2], 60) || !below(&[*s1, *s2], 61) {
        return Kind::String;
    }
    let zone = match rest {
        [b'.', fraction @ ..] if digits(fraction) > 0 => &fraction[digits(fraction)..],
        _ => rest,
    };
    match zone {
        [] | [b'Z' | b'z'] => Kind::Timestamp,
        [b'+' | b'-', h1, h2, b':', m1, m2] if below(&[*h1, *h2], 24) && below(&[*m1, *m2], 60) => Kind::Timestamp,
        _ => Kind::String,
    }
}

/// The type of a JSON value that is known to be well-formed.
pub fn classify_json(value: &str) -> Kind {
    match value.as_bytes() {
        [b'n', ..] => Kind::Null,
        [b't' | b'f', ..] => Kind::Boolean,
        [b'{', ..] => Kind::Object,
        [b'[', ..] => Kind::Array,
        [b'"', text @ .., b'"'] => match classify(text) {
            kind @ (Kind::Date | Kind::Timestamp) => kind,
            _ => Kind::String,
        },
        number if number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) => Kind::Number,
        _ if value.parse::<i64>().is_ok() => Kind::Integer,
        _ => Kind::Number,
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";
/// How many bytes are looked at together when searching for one to escape: a vector register full.
const STRIDE: usize = 16;

const fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Appends text, which is UTF-8, as a JSON string.
pub fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let mut clean = 0;
    let mut at = 0;
    while at < text.len() {
        // Without branches inside, this becomes a few vector instructions.
        if let Some(stride) = text.get(at..at + STRIDE)
            && !stride.iter().fold(false, |any, &byte| any | needs_escape(byte))
        {
            at += STRIDE;
            continue;
        }
        let stop = text.len().min(at + STRIDE);
        for place in at..stop {
            let byte = text[place];
            if needs_escape(byte) {
                out.extend_from_slice(&text[clean..place]);
                clean = place + 1;
                push_escape(out, byte);
            }
        }
        at = stop;
    }
    out.extend_from_slice(&text[clean..]);
    out.push(b'"');
}

fn push_escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let hex = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            out.extend_from_slice(b"\\u00");
            return out.extend_from_slice(&hex);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}
