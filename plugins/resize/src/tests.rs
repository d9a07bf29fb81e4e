#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::rc::Rc;

use serde_json::{Value, json};

use crate::decode::Source;
use crate::picture::{Channels, Orientation, Picture, Size};
use crate::{Object, Outputs, run};

mod formats;
mod hostile;
mod samples;
mod sizes;

/// An output and what was said of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct File {
    bytes: Vec<u8>,
    content_type: String,
    size: (u32, u32),
}

type Files = BTreeMap<String, File>;

#[derive(Default)]
struct Kept(Rc<RefCell<Files>>);

struct KeptOutput(Rc<RefCell<Files>>, String);

impl Outputs for Kept {
    type Output = KeptOutput;

    fn create(&mut self, name: &str, content_type: &str, width: u32, height: u32) -> Result<KeptOutput, String> {
        if name.starts_with('/') {
            return Err("a leading `/`".to_owned());
        }
        let file = File { bytes: Vec::new(), content_type: content_type.to_owned(), size: (width, height) };
        assert_eq!(self.0.borrow_mut().insert(name.to_owned(), file), None, "{name} was made twice");
        Ok(KeptOutput(self.0.clone(), name.to_owned()))
    }
}

impl Write for KeptOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().get_mut(&self.1).unwrap().bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn try_resize(stem: &str, settings: &Value, bytes: &[u8]) -> Result<Files, String> {
    let files = Kept::default();
    let kept = files.0.clone();
    run(Object { stem, size: bytes.len() as u64 }, &settings.to_string(), bytes, &mut { files }).map_err(|e| e.0)?;
    Ok(kept.take())
}

fn resize(settings: Value, bytes: &[u8]) -> Files {
    try_resize("cat", &settings, bytes).unwrap()
}

fn rejection(settings: Value, bytes: &[u8]) -> String {
    try_resize("cat", &settings, bytes).unwrap_err()
}

/// Decodes an output in full and checks it against what was said of it.
fn decode(file: &File) -> (Picture, Option<Vec<u8>>) {
    let source = Source::open(&file.bytes).unwrap();
    assert_eq!(source.orientation, Orientation::Upright, "a stale orientation is left");
    assert_eq!((source.size.width, source.size.height), file.size);
    let size = source.size;
    source.decode(size).unwrap()
}

fn pixel(picture: &Picture, x: u32, y: u32) -> &[u8] {
    let count = picture.channels.count();
    &picture.pixels[(y * picture.size.width + x) as usize * count..][..count]
}

#[track_caller]
fn assert_close(found: &[u8], expected: &[u8]) {
    let close = found.len() == expected.len() && found.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 12);
    assert!(close, "{found:?} is not about {expected:?}");
}

#[test]
fn wrong_settings_are_named() {
    let image = samples::png(&samples::quadrants(Size::new(8, 8)));
    for (settings, expected) in [
        (json!({"size": [1]}), "unknown field `size`, expected one of `sizes`, `fit`"),
        (json!({"fit": "outside"}), "setting `fit`: unknown variant `outside`, expected one of `inside`, `cover`"),
        (json!({"format": "avif"}), "setting `format`: unknown variant `avif`"),
        (json!({"quality": 101}), "setting `quality` is 101; it takes 1 to 100"),
        (json!({"quality": "high"}), "setting `quality`: invalid type: string \"high\""),
        (json!({"sizes": []}), "setting `sizes` has 0 entries; it takes 1 to 32"),
        (json!({"sizes": [0]}), "setting `sizes` is 0; it takes 1 to 16383"),
        (json!({"sizes": [320, "big"]}), "setting `sizes[1]`: a size is a whole number of pixels, or"),
        (json!({"sizes": [{"name": "a"}]}), "without `width` and `height`"),
        (json!({"sizes": [{"width": 8, "name": "a/b"}]}), "the name \"a/b\"; it takes 1 to 64 letters"),
        (json!({"sizes": [8, {"width": 9, "name": "8"}]}), "setting `sizes` has `8` twice"),
        (json!({"background": "red"}), "setting `background`: \"red\" is no colour; it takes \"#rrggbb\""),
        (json!({"max_pixels": 0}), "setting `max_pixels` is 0"),
        (json!({"enlarge": 1}), "setting `enlarge`: invalid type: integer `1`, expected a boolean"),
    ] {
        let reason = rejection(settings.clone(), &image);
        assert!(reason.contains(expected), "{settings}: {reason}");
    }
}

#[test]
fn names_types_and_sizes_are_told() {
    let image = samples::jpeg(&samples::quadrants(Size::new(400, 200)), 90);
    let sizes = json!([100, {"width": 50, "height": 60}, {"width": 80}, {"height": 90, "name": "thumb"}]);
    let files = resize(json!({"sizes": sizes}), &image);
    let told: Vec<_> =
        files.iter().map(|(name, file)| (name.as_str(), file.content_type.as_str(), file.size)).collect();
    assert_eq!(
        told,
        [
            ("cat-100.jpg", "image/jpeg", (100, 50)),
            ("cat-50x60.jpg", "image/jpeg", (50, 25)),
            ("cat-80w.jpg", "image/jpeg", (80, 40)),
            ("cat-thumb.jpg", "image/jpeg", (180, 90)),
        ]
    );
    let refused = try_resize("/cat", &json!({}), &image).unwrap_err();
    assert_eq!(refused, "the output \"/cat-1280.jpg\" cannot be made: a leading `/`");
}
