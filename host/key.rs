//! Keys and names, pure: how notifications write keys, where objects go, what outputs may be called.

use std::fmt::Write;

use crate::text::printable;

/// The longest key in S3, bytes of UTF-8. Local mode keeps to it, too, so that nothing works there alone.
pub const MAX_KEY: usize = 1_024;

/// User metadata of one output, bytes of all keys and values together.
pub const MAX_METADATA: usize = 1 << 10;

/// The longest content type, bytes: the limit that RFC 6838, section 4.2, sets to each half.
const MAX_CONTENT_TYPE: usize = 255;

/// Metadata keys that begin so are the host's own.
const RESERVED: &str = "gristmill-";

/// Why a key in a notification cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A `%` without two hexadecimal digits after it.
    #[error("the key `{}` has a `%` without two hexadecimal digits after it", printable(.0, MAX_KEY))]
    Escape(String),
    /// The decoded bytes are no text.
    #[error("the key `{}` is not UTF-8 once it is decoded", printable(.0, MAX_KEY))]
    NotUtf8(String),
}

/// Why an object cannot be stored under a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("the name is empty")]
    Empty,
    /// It would be a path from the top.
    #[error("the name `{0}` begins with `/`; names are relative to the object's folder")]
    Absolute(String),
    /// `a//b` or `a/`.
    #[error("the name `{0}` has an empty segment; write one `/` between two segments, and none at the end")]
    EmptySegment(String),
    /// `.` or `..`, which some programs would resolve to another folder.
    #[error("the name `{0}` has a `.` or `..` segment; write the path without it")]
    DotSegment(String),
    /// A NUL, a newline and the like.
    #[error("the name `{}` contains a control character; leave it out", printable(.0, MAX_KEY))]
    Control(String),
    /// The original goes there.
    #[error("`{0}` is the object's own name; choose another, as in `{{stem}}-1.txt`")]
    Own(String),
    /// The original would have to be a folder.
    #[error("`{0}` is below the object's own name, which is a file's; choose another, as in `{{stem}}/1.txt`")]
    BelowOwn(String),
    /// Longer than a key may be.
    #[error("the key would have {0} bytes, and {MAX_KEY} is the most; shorten the name")]
    TooLong(usize),
}

/// Why metadata or a content type cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// All of it together.
    #[error("the metadata has {0} bytes, and {MAX_METADATA} is the most for all keys and values together")]
    TooLong(usize),
    /// Not a header's name.
    #[error("the metadata key `{}` is not made of letters, digits, `-`, `_` and `.`", printable(.0, MAX_KEY))]
    Key(String),
    /// The host's own.
    #[error("the metadata key `{0}` begins with `{RESERVED}`, which is the host's; choose another")]
    Reserved(String),
    /// Twice, perhaps in another case.
    #[error("the metadata key `{0}` is there twice; case does not count")]
    Duplicate(String),
    /// Not a header's value.
    #[error("the value of the metadata key `{0}` contains a control character; leave it out")]
    Value(String),
    /// Not `type/subtype`.
    #[error("the content type `{}` is not like `text/plain; charset=utf-8`", printable(.0, MAX_KEY))]
    ContentType(String),
    /// Not a header's value, and not worth repeating.
    #[error("the content type has {0} bytes, and {MAX_CONTENT_TYPE} is the most")]
    ContentTypeTooLong(usize),
}

/// Reads a key as S3 notifications write it: like a form, with `+` for a space and `%XX` for bytes.
pub fn decode(form: &str) -> Result<String, DecodeError> {
    let mut bytes = Vec::with_capacity(form.len());
    let mut rest = form.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = rest.next().and_then(hex_digit).zip(rest.next().and_then(hex_digit));
                let (high, low) = digits.ok_or_else(|| DecodeError::Escape(form.to_owned()))?;
                high << 4 | low
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8(form.to_owned()))
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Writes a key as S3 notifications do: slashes stay, a space becomes `+`.
pub fn encode(key: &str) -> String {
    let mut form = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b' ' => form.push('+'),
            b'/' | b'-' | b'_' | b'.' | b'*' => form.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => form.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => _ = write!(form, "%{byte:02X}"),
        }
    }
    form
}

/// Whether a key is what consoles make to show an empty folder.
pub fn is_folder_marker(key: &str) -> bool {
    key.ends_with('/')
}

/// The last segment of a key.
pub fn name(key: &str) -> &str {
    key.rsplit_once('/').map_or(key, |(_, name)| name)
}

/// A name without its last extension. One with no extension, or with nothing but dots before it
/// (`.env`), is its own stem.
pub fn stem(name: &str) -> &str {
    split_extension(name).map_or(name, |(stem, _)| stem)
}

/// The last extension of a name, without its dot.
pub fn extension(name: &str) -> Option<&str> {
    split_extension(name).map(|(_, extension)| extension)
}

fn split_extension(name: &str) -> Option<(&str, &str)> {
    let (stem, extension) = name.rsplit_once('.')?;
    let real = !extension.is_empty() && stem.contains(|c| c != '.');
    real.then_some((stem, extension))
}

/// Where an original goes: its whole path below the source prefix, under the destination prefix. A key
/// outside the source prefix keeps all of its path.
///
/// Empty segments stay as they are: S3 has keys like `a//b`. `.` and `..` are refused, since what
/// stands between the host and the bucket (SDKs, proxies, file systems) may resolve them to other keys.
pub fn destination_key(source_prefix: &str, destination_prefix: &str, key: &str) -> Result<String, NameError> {
    let below = key.strip_prefix(source_prefix).unwrap_or(key);
    let destination = format!("{destination_prefix}{below}");
    if destination.len() > MAX_KEY {
        return Err(NameError::TooLong(destination.len()));
    }
    if below.is_empty() {
        return Err(NameError::Empty);
    }
    if below.split('/').any(is_dots) {
        return Err(NameError::DotSegment(below.to_owned()));
    }
    Ok(destination)
}

/// Where an output goes: `name` relative to the folder of the original's own destination.
pub fn output_key(destination: &str, name: &str) -> Result<String, NameError> {
    let (folder, own) = destination.split_at(destination.rfind('/').map_or(0, |slash| slash + 1));
    let length = folder.len().saturating_add(name.len());
    // First, because the other errors repeat the name.
    if length > MAX_KEY {
        return Err(NameError::TooLong(length));
    }
    let refused = || name.to_owned();
    match name {
        "" => Err(NameError::Empty),
        _ if name.chars().any(char::is_control) => Err(NameError::Control(refused())),
        _ if name.starts_with('/') => Err(NameError::Absolute(refused())),
        _ if name.split('/').any(str::is_empty) => Err(NameError::EmptySegment(refused())),
        _ if name.split('/').any(is_dots) => Err(NameError::DotSegment(refused())),
        _ if name == own => Err(NameError::Own(refused())),
        _ if name.strip_prefix(own).is_some_and(|rest| rest.starts_with('/')) => Err(NameError::BelowOwn(refused())),
        _ => Ok(format!("{folder}{name}")),
    }
}

fn is_dots(segment: &str) -> bool {
    segment == "." || segment == ".."
}

/// Checks that an output's metadata can be stored, and returns it with its keys in lower case, as stores
/// keep them.
pub fn metadata(pairs: Vec<(String, String)>) -> Result<Vec<(String, String)>, AttributeError> {
    // First, because the other errors repeat a key.
    let bytes = pairs.iter().map(|(key, value)| key.len().saturating_add(value.len()));
    let length = bytes.fold(0, usize::saturating_add);
    if length > MAX_METADATA {
        return Err(AttributeError::TooLong(length));
    }
    let mut checked: Vec<(String, String)> = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let ordinary = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if key.is_empty() || !key.bytes().all(ordinary) {
            return Err(AttributeError::Key(key));
        }
        let key = key.to_ascii_lowercase();
        if key.starts_with(RESERVED) {
            return Err(AttributeError::Reserved(key));
        }
        if checked.iter().any(|(other, _)| *other == key) {
            return Err(AttributeError::Duplicate(key));
        }
        if value.chars().any(char::is_control) {
            return Err(AttributeError::Value(key));
        }
        checked.push((key, value));
    }
    Ok(checked)
}

/// Checks that an output's content type can be stored: `type/subtype`, perhaps with parameters, in the
/// characters of a header.
pub fn content_type(text: &str) -> Result<(), AttributeError> {
    if text.len() > MAX_CONTENT_TYPE {
        return Err(AttributeError::ContentTypeTooLong(text.len()));
    }
    let essence = text.split(';').next().unwrap_or_default().trim_end();
    // RFC 9110, section 5.6.2: the characters of a token.
    let token = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
    };
    let is_type = essence.split_once('/').is_some_and(|(kind, subtype)| token(kind) && token(subtype));
    if is_type && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        Ok(())
    } else {
        Err(AttributeError::ContentType(text.to_owned()))
    }
}

/// What a key's extension says about the content, if it says anything.
pub fn guess_content_type(key: &str) -> Option<&'static str> {
    mime_guess::from_path(name(key)).first_raw()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_written_like_a_form() {
        for (key, form) in [
            ("uploads/cat.jpg", "uploads/cat.jpg"),
            ("uploads/a b+c%.txt", "uploads/a+b%2Bc%25.txt"),
            ("-été/猫\n", "-%C3%A9t%C3%A9/%E7%8C%AB%0A"),
            ("a&b=c?d#e~", "a%26b%3Dc%3Fd%23e%7E"),
            ("", ""),
        ] {
            assert_eq!(encode(key), form);
            assert_eq!(decode(form).as_deref(), Ok(key));
        }
        assert_eq!(decode("a%2fb%2Fc").as_deref(), Ok("a/b/c"), "some stand-ins escape slashes");
        assert_eq!(decode("été").as_deref(), Ok("été"));
    }

    #[test]
    fn damaged_escapes_are_refused() {
        for wrong in ["%", "a%2", "a%zz", "%+1", "%%20", "%2é"] {
            assert_eq!(decode(wrong), Err(DecodeError::Escape(wrong.to_owned())));
        }
        assert_eq!(decode("%FF"), Err(DecodeError::NotUtf8("%FF".to_owned())));
    }

    #[test]
    fn stems_are_as_the_interface_says() {
        for (name, expected, ext) in [
            ("cat photo.jpg", "cat photo", Some("jpg")),
            ("a.tar.gz", "a.tar", Some("gz")),
            (".env", ".env", None),
            (".env.local", ".env", Some("local")),
            ("..jpg", "..jpg", None),
            ("README", "README", None),
            ("dot.", "dot.", None),
            ("...", "...", None),
            ("", "", None),
        ] {
            assert_eq!((stem(name), extension(name)), (expected, ext), "{name}");
        }
        assert_eq!((name("a/b/c.d"), name("c"), name("a/")), ("c.d", "c", ""));
        assert!(is_folder_marker("a/b/") && !is_folder_marker("a/b"));
    }

    #[test]
    fn originals_keep_their_path() {
        let to = |key| destination_key("uploads/", "processed/", key);
        assert_eq!(to("uploads/2026/cat photo.jpg").as_deref(), Ok("processed/2026/cat photo.jpg"));
        assert_eq!(to("uploads/a//b").as_deref(), Ok("processed/a//b"));
        assert_eq!(to("uploads/.../..a").as_deref(), Ok("processed/.../..a"));
        assert_eq!(to("uploads/uploads/x").as_deref(), Ok("processed/uploads/x"));
        assert_eq!(to("uploads/"), Err(NameError::Empty));
        assert_eq!(to("uploads/a/../b"), Err(NameError::DotSegment("a/../b".to_owned())));
        let longest = format!("uploads/{}", "x".repeat(MAX_KEY - "processed/".len()));
        assert_eq!(to(&longest).map(|key| key.len()), Ok(MAX_KEY));
        assert_eq!(to(&format!("{longest}x")), Err(NameError::TooLong(MAX_KEY + 1)));
    }

    #[test]
    fn outputs_stay_beside_their_original() {
        let to = |name| output_key("processed/a/cat.jpg", name);
        assert_eq!(to("cat-320.jpg").as_deref(), Ok("processed/a/cat-320.jpg"));
        assert_eq!(to("cat/page 1.txt").as_deref(), Ok("processed/a/cat/page 1.txt"));
        assert_eq!(to("cat/cat.jpg").as_deref(), Ok("processed/a/cat/cat.jpg"));
        assert_eq!(to("..."), Ok("processed/a/...".to_owned()));
        assert_eq!(to(""), Err(NameError::Empty));
        assert_eq!(to("/etc/passwd"), Err(NameError::Absolute("/etc/passwd".to_owned())));
        assert_eq!(to("cat.jpg"), Err(NameError::Own("cat.jpg".to_owned())));
        for name in ["a//b", "a/"] {
            assert_eq!(to(name), Err(NameError::EmptySegment(name.to_owned())));
        }
        for name in [".", "..", "../x", "a/../../b", "a/.", "./cat.jpg"] {
            assert_eq!(to(name), Err(NameError::DotSegment(name.to_owned())));
        }
        for name in ["a\0", "a\nb", "\u{7f}", "\u{85}"] {
            assert_eq!(to(name), Err(NameError::Control(name.to_owned())));
        }
        let longest = "x".repeat(MAX_KEY - "processed/a/".len());
        assert_eq!(to(&longest).map(|key| key.len()), Ok(MAX_KEY));
        assert_eq!(to(&format!("{longest}x")), Err(NameError::TooLong(MAX_KEY + 1)));
        assert_eq!(output_key("cat.jpg", "dog.jpg").as_deref(), Ok("dog.jpg"));
    }

    #[test]
    fn an_output_cannot_make_a_folder_of_the_original() {
        let refused = NameError::BelowOwn("cat.jpg/1.txt".to_owned());
        assert_eq!(output_key("processed/cat.jpg", "cat.jpg/1.txt"), Err(refused));
        assert_eq!(output_key("processed/cat.jpg", "cat.jpg.txt").as_deref(), Ok("processed/cat.jpg.txt"));
    }

    #[test]
    fn messages_to_authors_are_one_line_with_a_way_out() {
        assert_eq!(
            output_key("p/cat.jpg", "cat.jpg").unwrap_err().to_string(),
            "`cat.jpg` is the object's own name; choose another, as in `{stem}-1.txt`"
        );
        assert_eq!(
            output_key("p/cat.jpg", "a\nb").unwrap_err().to_string(),
            "the name `a\\nb` contains a control character; leave it out"
        );
    }

    #[test]
    fn metadata_fits_into_headers() {
        let one = |key: &str, value: &str| metadata(vec![(key.to_owned(), value.to_owned())]);
        assert_eq!(one("Width_px.v-1", "320 é"), Ok(vec![("width_px.v-1".to_owned(), "320 é".to_owned())]));
        assert_eq!(one("", "x"), Err(AttributeError::Key(String::new())));
        assert_eq!(one("a b", "x"), Err(AttributeError::Key("a b".to_owned())));
        assert_eq!(one("Gristmill-Source", "x"), Err(AttributeError::Reserved("gristmill-source".to_owned())));
        assert_eq!(one("a", "x\r\ny"), Err(AttributeError::Value("a".to_owned())));
        assert!(one("a", &"x".repeat(MAX_METADATA - 1)).is_ok());
        assert_eq!(one("a", &"x".repeat(MAX_METADATA)), Err(AttributeError::TooLong(MAX_METADATA + 1)));
        let twice = ["a", "A"].map(|key| (key.to_owned(), String::new()));
        assert_eq!(metadata(twice.to_vec()), Err(AttributeError::Duplicate("a".to_owned())));
    }

    #[test]
    fn content_types_fit_into_headers() {
        for right in ["image/png", "text/csv; charset=utf-8", "application/vnd.ms-excel", "Text/Plain ;x=\"y z\""] {
            assert_eq!(content_type(right), Ok(()));
        }
        for wrong in ["", "png", "image/", "/png", "a/b\r\nc: d", "a/é", "image /png", ";a/b", "a/b/c"] {
            assert_eq!(content_type(wrong), Err(AttributeError::ContentType(wrong.to_owned())));
        }
        assert_eq!(content_type(&"x".repeat(256)), Err(AttributeError::ContentTypeTooLong(256)));
    }

    #[test]
    fn a_name_tells_the_content_type() {
        assert_eq!(guess_content_type("a/b.JSON"), Some("application/json"));
        assert_eq!(guess_content_type("b.jpg"), Some("image/jpeg"));
        assert_eq!(guess_content_type("c.jpg/b"), None);
    }

    /// Names made of what is awkward: separators, dots, escapes, spaces, controls, several scripts.
    fn awkward() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("/".to_owned()),
            Just(".".to_owned()),
            Just("..".to_owned()),
            Just("%2e".to_owned()),
            Just("+".to_owned()),
            Just("%".to_owned()),
            Just("\\".to_owned()),
            Just("\0".to_owned()),
            Just("-".to_owned()),
            Just("é".to_owned()),
            Just("e\u{301}".to_owned()),
            ".",
            "[a-z]{1,3}",
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    /// What a file system would make of a key.
    fn resolved(key: &str) -> Option<Vec<&str>> {
        let mut path = Vec::new();
        for segment in key.split('/') {
            match segment {
                "" | "." => {}
                ".." => drop(path.pop()?),
                _ => path.push(segment),
            }
        }
        Some(path)
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(key in prop_oneof![awkward(), any::<String>()]) {
            let form = encode(&key);
            prop_assert!(form.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(decode(&form), Ok(key));
        }

        #[test]
        fn no_form_panics(form in prop_oneof![awkward(), any::<String>(), "[%+0-9a-f]*"]) {
            let _ = decode(&form);
        }

        #[test]
        fn no_output_leaves_the_folder_of_its_original(key in awkward(), name in awkward()) {
            let Ok(original) = destination_key("uploads/", "processed/", &format!("uploads/{key}")) else { return Ok(()) };
            prop_assert_eq!(original.strip_prefix("processed/"), Some(key.as_str()));
            let path = resolved(&original).unwrap();
            prop_assert_eq!(path[0], "processed");
            let Ok(output) = output_key(&original, &name) else { return Ok(()) };
            prop_assert!(output.len() <= MAX_KEY);
            prop_assert_ne!(&output, &original);
            let mut folder = resolved(&original[..original.rfind('/').unwrap()]).unwrap();
            folder.extend(name.split('/'));
            prop_assert_eq!(resolved(&output).unwrap(), folder);
        }

        #[test]
        fn a_stem_and_its_extension_make_the_name(text in awkward()) {
            let name = name(&text);
            match extension(name) {
                Some(extension) => prop_assert_eq!(format!("{}.{extension}", stem(name)), name),
                None => prop_assert_eq!(stem(name), name),
            }
        }

        #[test]
        fn checked_metadata_stays_valid(pairs in prop::collection::vec((".{0,6}", ".{0,6}"), 0..4)) {
            if let Ok(checked) = metadata(pairs) {
                prop_assert_eq!(metadata(checked.clone()), Ok(checked));
            }
        }
    }
}
