//! Text to checked values. Every error repeats the value and says how to write it.

use std::{fmt::Display, ops::RangeInclusive, path::PathBuf, str::FromStr, time::Duration};

use bytesize::ByteSize;

use super::error::shown;
use crate::signing::PublicKey;

/// The longest prefix, bytes. Keys have 1,024: this leaves most of one to the path below the prefix.
const MAX_PREFIX: usize = 512;

/// The longest plugin name, characters. It becomes a file name, a metric label and object metadata.
const MAX_PLUGIN_NAME: usize = 64;

/// A duration within `range`, as `30s`, `1m 30s` or `500ms`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        let value = humantime::parse_duration(text)
            .map_err(|_| format!("`{}` is not a duration; write it like `30s` or `2m`", shown(text)))?;
        within(text, value, &range, |bound| humantime::format_duration(bound).to_string())
    }
}

/// A number of bytes within `range`, as `64MiB`, `1.5GB` or a plain number.
pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<u64, String> {
    move |text| {
        let ByteSize(value) =
            text.parse().map_err(|_| format!("`{}` is not a size; write it like `64MiB` or `1.5GB`", shown(text)))?;
        within(text, value, &range, |bound| ByteSize(bound).to_string())
    }
}

/// A part of something within `range`, where 1 is all of it, as `10%` or `0.5%`.
pub(super) fn percentage(range: RangeInclusive<f64>) -> impl Fn(&str) -> Result<f64, String> {
    move |text| {
        let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
        let value = number.filter(|number| number.is_finite());
        let value = value.ok_or_else(|| format!("`{}` is not a percentage; write it like `10%`", shown(text)))?;
        within(text, value / 100.0, &range, |bound| format!("{}%", bound * 100.0))
    }
}

/// `true` or `false`.
pub(super) fn flag(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("`{}` is neither `true` nor `false`", shown(text)))
}

/// A whole number within `range`.
pub(super) fn count<N: FromStr + PartialOrd + Display>(range: RangeInclusive<N>) -> impl Fn(&str) -> Result<N, String> {
    move |text| match text.parse() {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => Err(format!("`{}` is not a whole number from {} to {}", shown(text), range.start(), range.end())),
    }
}

fn within<T: PartialOrd + Copy>(
    text: &str,
    value: T,
    range: &RangeInclusive<T>,
    show: impl Fn(T) -> String,
) -> Result<T, String> {
    if value < *range.start() {
        Err(format!("`{}` is too little; write at least `{}`", shown(text), show(*range.start())))
    } else if value > *range.end() {
        Err(format!("`{}` is too much; write at most `{}`", shown(text), show(*range.end())))
    } else {
        Ok(value)
    }
}

/// A path that is not empty.
pub(super) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("the path is empty; write `.` for the folder itself".to_owned());
    }
    if text.contains('\0') {
        return Err(format!("`{}` is not a path: it contains a NUL character", shown(text)));
    }
    Ok(PathBuf::from(text))
}

/// A key prefix, made to end with `/`.
pub(super) fn prefix(text: &str) -> Result<String, String> {
    let problem = |what: &str| Err(format!("`{}` {what}", shown(text)));
    let path = text.strip_suffix('/').unwrap_or(text);
    if text.is_empty() {
        return Err("the prefix is empty: results would land where uploads are looked for and be processed again, \
                    without end; name a folder, as in `uploads/`"
            .to_owned());
    }
    if text.starts_with('/') {
        return problem("begins with `/`, which keys don't; leave it out");
    }
    if path.split('/').any(str::is_empty) {
        return problem("has an empty segment; write one `/` between two segments");
    }
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return problem("has a `.` or `..` segment; write the folder's own path");
    }
    if text.chars().any(char::is_control) {
        return problem("contains a control character; leave it out");
    }
    if text.len() > MAX_PREFIX {
        return problem(&format!("is longer than {MAX_PREFIX} bytes; shorten it"));
    }
    Ok(format!("{path}/"))
}

/// Whether a plugin can be called so: lower-case letters, digits, `_` and `-`, beginning with a letter or
/// digit, at most 64.
pub fn is_plugin_name(text: &str) -> bool {
    let ordinary = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= MAX_PLUGIN_NAME
        && text.starts_with(ordinary)
        && text.chars().all(|c| ordinary(c) || c == '_' || c == '-')
}

/// The name of a plugin, as in `NAME.wasm`.
pub(super) fn plugin_name(text: &str) -> Result<String, String> {
    if is_plugin_name(text) {
        return Ok(text.to_owned());
    }
    match text.strip_suffix(".wasm") {
        Some(stem) => Err(format!("`{}` is a file's name; write the plugin's, `{}`", shown(text), shown(stem))),
        None => Err(format!(
            "`{}` is not a plugin's name: up to {MAX_PLUGIN_NAME} of `a-z`, `0-9`, `_` and `-`, beginning with a \
             letter or digit",
            shown(text)
        )),
    }
}

/// The bare name of a bucket. Looser than today's rule for new buckets, since old ones still exist.
pub(super) fn bucket(text: &str) -> Result<String, String> {
    let fits = (3..=255).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("`{}` is not a bucket's name; write the bare name, without `s3://`, ARN or path", shown(text)))
    }
}

/// An AWS region.
pub(super) fn region(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("`{}` is not a region; write it like `eu-west-1`", shown(text)))
    }
}

/// The URL of an SQS queue.
pub(super) fn queue_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let fits = rest.is_some_and(|rest| {
        rest.contains('/') && !rest.starts_with('/') && !rest.contains(|c: char| c.is_whitespace() || c.is_control())
    });
    if fits {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{}` is not a queue's URL; write it like `https://sqs.eu-west-1.amazonaws.com/123456789012/uploads`",
        shown(text)
    ))
}

/// `type/subtype` or `type/*`, lowered.
pub(super) fn content_type(text: &str) -> Result<String, String> {
    // RFC 9110, section 5.6.2: the characters of a token.
    let token = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&b))
    };
    match text.split_once('/') {
        Some((kind, subtype)) if token(kind) && (subtype == "*" || token(subtype)) => Ok(text.to_ascii_lowercase()),
        _ => Err(format!("`{}` is not a content type; write it like `image/png` or `image/*`", shown(text))),
    }
}

/// A key that plugins may be signed with.
pub(super) fn public_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::parse(text).map_err(|why| format!("`{}` {why}", shown(text)))
}

/// A SHA-256 in hexadecimal, as `sha256sum` prints it, in lower case.
pub(super) fn sha256(text: &str) -> Result<String, String> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("`{}` is no SHA-256: 64 hexadecimal digits, as `gristmill plugin inspect` prints it", shown(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_bounds() {
        let parse = duration(Duration::from_secs(1)..=Duration::from_secs(43_200));
        assert_eq!(parse("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("12h"), Ok(Duration::from_secs(43_200)));
        assert_eq!(parse("30").unwrap_err(), "`30` is not a duration; write it like `30s` or `2m`");
        assert_eq!(parse("10ms").unwrap_err(), "`10ms` is too little; write at least `1s`");
        assert_eq!(parse("13h").unwrap_err(), "`13h` is too much; write at most `12h`");
        assert!(parse("99999999999999999999s").is_err());
    }

    #[test]
    fn sizes_have_units_and_bounds() {
        let parse = size(1..=1 << 30);
        assert_eq!(parse("64MiB"), Ok(64 << 20));
        assert_eq!(parse("1 kB"), Ok(1_000));
        assert_eq!(parse("4096"), Ok(4_096));
        assert_eq!(parse("much").unwrap_err(), "`much` is not a size; write it like `64MiB` or `1.5GB`");
        assert_eq!(parse("2GiB").unwrap_err(), "`2GiB` is too much; write at most `1.0 GiB`");
        assert!(parse("0").is_err() && parse("-1").is_err());
    }

    #[test]
    fn counts_are_whole() {
        let parse = count(1..=1_000_u32);
        assert_eq!(parse("8"), Ok(8));
        for wrong in ["0", "1001", "-1", "1.5", "many", ""] {
            assert!(parse(wrong).unwrap_err().ends_with("is not a whole number from 1 to 1000"));
        }
    }

    #[test]
    fn prefixes_are_folders() {
        assert_eq!(prefix("uploads"), Ok("uploads/".to_owned()));
        assert_eq!(prefix("a/b c/"), Ok("a/b c/".to_owned()));
        for wrong in ["", "/", "/a", "a//b", "a//", "a/../b", "..", "./a", "a\nb", &"x".repeat(600)] {
            assert!(prefix(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_of_plugins_are_file_names() {
        for right in ["a", "0", "resize", "my_plugin-2", &"x".repeat(64)] {
            assert_eq!(plugin_name(right).as_deref(), Ok(right));
        }
        for wrong in ["", "-a", "_a", "A", "a.b", "a/b", "é", &"x".repeat(65)] {
            assert!(plugin_name(wrong).is_err(), "{wrong}");
        }
        assert_eq!(plugin_name("a.wasm").unwrap_err(), "`a.wasm` is a file's name; write the plugin's, `a`");
    }

    #[test]
    fn names_of_aws_things() {
        assert!(bucket("my-bucket.example").is_ok());
        assert!(bucket("s3://my-bucket").is_err());
        assert!(region("eu-west-1").is_ok());
        assert!(region("Ireland").is_err());
        assert!(queue_url("https://sqs.eu-west-1.amazonaws.com/123456789012/uploads").is_ok());
        assert!(queue_url("http://127.0.0.1:4566/000000000000/q").is_ok());
        for wrong in ["", "uploads", "https://", "https://host", "arn:aws:sqs:eu-west-1:1:q", "https:// /q"] {
            assert!(queue_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn content_types_are_lowered() {
        assert_eq!(content_type("Image/PNG"), Ok("image/png".to_owned()));
        assert_eq!(content_type("image/*"), Ok("image/*".to_owned()));
        assert!(content_type("application/vnd.ms-excel+xml").is_ok());
        for wrong in ["", "image", "image/", "/png", "*/*", "a/b/c", "text/csv; charset=utf-8"] {
            assert!(content_type(wrong).is_err(), "{wrong}");
        }
    }
}
