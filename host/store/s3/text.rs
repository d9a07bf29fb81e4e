//! Text in requests: percent-encoding, and metadata that is not ASCII.

use std::fmt::Write as _;

/// Characters of one encoded word: RFC 2047, section 2, allows 75 with its frame.
const WORD_BYTES: usize = 45;

const FRAME: (&str, &str) = ("=?UTF-8?B?", "?=");

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Everything but unreserved characters (RFC 3986, section 2.3) and slashes becomes `%XX`.
pub(super) fn encode_percent(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => encoded.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => _ = write!(encoded, "%{byte:02X}"),
        }
    }
    encoded
}

/// The reverse of [`encode_percent`]; nothing when it did not come from there.
pub(super) fn decode_percent(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' { hex(rest.next()?)? << 4 | hex(rest.next()?)? } else { byte });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// The source of a copy, as the header `x-amz-copy-source` has it. The SDK sends it as it is.
pub(super) fn copy_source(bucket: &str, key: &str, version_id: Option<&str>) -> String {
    let source = format!("{}/{}", encode_percent(bucket), encode_percent(key));
    match version_id {
        Some(version) => format!("{source}?versionId={}", encode_percent(version)),
        None => source,
    }
}

/// Tags, as the header `x-amz-tagging` has them.
pub(super) fn tagging<'a>(tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    // Slashes need not be encoded in a query (RFC 3986, section 3.4).
    let pairs = tags.into_iter().map(|(key, value)| format!("{}={}", encode_percent(key), encode_percent(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// A value of user metadata as a header can carry it. S3 decodes the words of RFC 2047 before it stores them,
/// and encodes them before it answers ("Working with object metadata" in the user guide).
pub(super) fn encode_words(value: &str) -> String {
    let is_plain = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if is_plain && value.trim() == value && !value.contains("=?") {
        return value.to_owned();
    }
    let mut words = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let mut end = rest.len().min(WORD_BYTES);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (word, after) = rest.split_at(end);
        words.push(format!("{}{}{}", FRAME.0, encode_base64(word.as_bytes()), FRAME.1));
        rest = after;
    }
    words.join(" ")
}

/// The reverse of [`encode_words`], for words of either encoding. What cannot be decoded stays as it is.
pub(super) fn decode_words(value: &str) -> String {
    let mut decoded = String::with_capacity(value.len());
    // Of words that follow each other, as a character may begin in one and end in the next.
    let mut bytes: Vec<u8> = Vec::new();
    let mut rest = value;
    while let Some(start) = rest.find("=?") {
        let (before, from) = rest.split_at(start);
        let Some((word, after)) = next_word(from) else {
            flush(&mut decoded, &mut bytes);
            decoded.push_str(before);
            decoded.push_str("=?");
            rest = &from[2..];
            continue;
        };
        // Space between two words belongs to neither.
        if bytes.is_empty() || !before.trim().is_empty() {
            flush(&mut decoded, &mut bytes);
            decoded.push_str(before);
        }
        bytes.extend(word);
        rest = after;
    }
    flush(&mut decoded, &mut bytes);
    decoded.push_str(rest);
    decoded
}

fn flush(decoded: &mut String, bytes: &mut Vec<u8>) {
    decoded.push_str(&String::from_utf8_lossy(bytes));
    bytes.clear();
}

/// The bytes of the encoded word that `text` begins with, and what comes after it.
fn next_word(text: &str) -> Option<(Vec<u8>, &str)> {
    let (charset, rest) = text.strip_prefix("=?")?.split_once('?')?;
    let (encoding, rest) = rest.split_once('?')?;
    let (content, after) = rest.split_once("?=")?;
    if !charset.eq_ignore_ascii_case("utf-8") || content.contains(' ') {
        return None;
    }
    let bytes = match encoding {
        "B" | "b" => decode_base64(content)?,
        "Q" | "q" => decode_quoted(content)?,
        _ => return None,
    };
    Some((bytes, after))
}

fn decode_quoted(content: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(content.len());
    let mut rest = content.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'_' => b' ',
            b'=' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            other => other,
        });
    }
    Some(bytes)
}

fn encode_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_u32, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= group.len() { char::from(BASE64[value]) } else { '=' });
        }
    }
    text
}

fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        let value = BASE64.iter().position(|known| *known == digit)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xFF).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{copy_source, decode_percent, decode_words, encode_percent, encode_words, tagging};

    #[test]
    fn the_source_of_a_copy_is_encoded() {
        assert_eq!(copy_source("b", "a/b c+ü?.txt", None), "b/a/b%20c%2B%C3%BC%3F.txt");
        assert_eq!(copy_source("b", "a%2F", Some("v=1&")), "b/a%252F?versionId=v%3D1%26");
    }

    #[test]
    fn tags_are_a_query() {
        assert_eq!(tagging([("team", "a b"), ("ä", "x&y=z/1")]), "team=a%20b&%C3%A4=x%26y%3Dz/1");
        assert_eq!(tagging([]), "");
    }

    #[test]
    fn words_of_other_programs_are_read() {
        assert_eq!(decode_words("=?UTF-8?B?w4PChE1Qdg==?="), "Ã\u{84}MPv");
        assert_eq!(decode_words("a =?utf-8?q?=C3=BC_x?= b"), "a ü x b");
        assert_eq!(decode_words("=?UTF-8?B?w7w=?= =?UTF-8?B?w7w=?="), "üü");
        assert_eq!(decode_words("=?UTF-8?Q?=C3?= =?UTF-8?Q?=BC?="), "ü");
        for plain in ["a=?b", "=?latin1?Q?x?=", "=?UTF-8?B?*?=", "=?UTF-8?Q?=C", "=?"] {
            assert_eq!(decode_words(plain), plain);
        }
    }

    proptest! {
        #[test]
        fn percent_encoding_is_reversible(text in ".{0,60}") {
            let encoded = encode_percent(&text);
            prop_assert!(encoded.is_ascii());
            prop_assert_eq!(decode_percent(&encoded), Some(text));
        }

        #[test]
        fn any_value_fits_a_header(text in ".{0,120}") {
            let encoded = encode_words(&text);
            prop_assert!(encoded.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
            prop_assert!(encoded.trim() == encoded && encoded.split(' ').all(|word| word.len() <= 120));
            prop_assert_eq!(decode_words(&encoded), text);
        }
    }
}
