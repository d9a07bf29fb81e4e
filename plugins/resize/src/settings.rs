//! The settings of one use of the plugin.

use std::fmt;
use std::ops::RangeInclusive;

use serde::Deserialize;

use crate::Reject;

/// The sizes by default: a thumbnail and a picture for a page.
const DEFAULT_SIDES: [u32; 2] = [320, 1280];
/// Sizes that one object may be made into; each is an output and a pass over the pixels.
const MAX_SIZES: usize = 32;
/// The range for a side in pixels. No format goes further than WebP's 14 bits without trouble somewhere.
const SIDE: RangeInclusive<u32> = 1..=16_383;
/// The quality of JPEG by default, as in sharp and libvips.
const DEFAULT_QUALITY: u8 = 80;
const QUALITY: RangeInclusive<u8> = 1..=100;
/// Pixels that are decoded by default, the same as in imgproxy: whatever the format, they fit the memory that
/// a call has by default, so that a bomb is a rejection and no trap.
const DEFAULT_MAX_PIXELS: u64 = 50_000_000;
/// The range for `max_pixels`: with four bytes for each, more does not fit the memory of an instance.
pub const MAX_PIXELS: RangeInclusive<u64> = 1..=400_000_000;
/// Bytes that are read by default.
const DEFAULT_MAX_BYTES: u64 = 100 << 20;
/// The range for `max_bytes`: the object is held in memory beside its pixels.
const MAX_BYTES: RangeInclusive<u64> = 1..=1 << 30;
/// The longest name of a size, for keys have 1,024 bytes in all.
const MAX_NAME_BYTES: usize = 64;

/// Checked settings.
#[derive(Debug, Clone)]
pub struct Settings {
    pub sizes: Vec<NamedSize>,
    pub fit: Fit,
    pub format: FormatSetting,
    pub quality: u8,
    pub enlarge: bool,
    pub background: Colour,
    pub max_pixels: u64,
    pub max_bytes: u64,
}

/// A size to make and what the output has behind the stem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedSize {
    pub label: String,
    pub bounds: Bounds,
}

/// What a picture is fitted to. A side that is not given follows from the picture's proportions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub width: Option<u32>,
    pub height: Option<u32>,
}

/// How a picture is fitted to a size with both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// As large as fits, nothing cut off: one side may stay smaller.
    Inside,
    /// As small as covers it, what sticks out is cut off evenly.
    Cover,
    /// As `inside`, on a background of the whole size.
    Contain,
    /// Stretched to it.
    Fill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FormatSetting {
    Auto,
    Jpeg,
    Png,
    Webp,
}

/// Red, green, blue and alpha.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Colour(pub [u8; 4]);

impl TryFrom<String> for Colour {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no colour; it takes \"#rrggbb\", \"#rrggbbaa\" or \"transparent\"");
        if text == "transparent" {
            return Ok(Self([255, 255, 255, 0]));
        }
        let digits = text.strip_prefix('#').filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let digits = digits.filter(|digits| matches!(digits.len(), 6 | 8)).ok_or_else(wrong)?;
        let mut channels = [255; 4];
        for (channel, place) in channels.iter_mut().zip((0..digits.len()).step_by(2)) {
            *channel = u8::from_str_radix(&digits[place..place + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(channels))
    }
}

/// The settings as the route has them.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    sizes: Vec<GivenSize>,
    fit: Fit,
    format: FormatSetting,
    quality: u8,
    enlarge: bool,
    background: Colour,
    max_pixels: u64,
    max_bytes: u64,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a size is a whole number of pixels, or {\"width\": .., \"height\": .., \"name\": ..} with at least one side"
)]
enum GivenSize {
    Side(u32),
    Box(GivenBox),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenBox {
    width: Option<u32>,
    height: Option<u32>,
    name: Option<String>,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            sizes: DEFAULT_SIDES.map(GivenSize::Side).into(),
            fit: Fit::Inside,
            format: FormatSetting::Auto,
            quality: DEFAULT_QUALITY,
            enlarge: false,
            background: Colour([255; 4]),
            max_pixels: DEFAULT_MAX_PIXELS,
            max_bytes: DEFAULT_MAX_BYTES,
        }
    }
}

impl Settings {
    /// Reads the JSON object that the host passes on.
    pub fn parse(json: &str) -> Result<Self, Reject> {
        let given: Given =
            serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(json)).map_err(|error| {
                let problem = error.inner().to_string();
                // Where in the host's JSON it was says nothing to the one who wrote the route.
                let problem = problem.rsplit_once(" at line ").map_or(problem.as_str(), |(text, _)| text);
                match error.path().to_string().as_str() {
                    "." => Reject::new(format!("settings: {problem}")),
                    path => Reject::new(format!("setting `{path}`: {problem}")),
                }
            })?;
        check("quality", given.quality, QUALITY)?;
        check("max_pixels", given.max_pixels, MAX_PIXELS)?;
        check("max_bytes", given.max_bytes, MAX_BYTES)?;
        let count = given.sizes.len();
        if !(1..=MAX_SIZES).contains(&count) {
            return Err(Reject::new(format!("setting `sizes` has {count} entries; it takes 1 to {MAX_SIZES}")));
        }
        let sizes = given.sizes.into_iter().map(NamedSize::new).collect::<Result<Vec<_>, _>>()?;
        for (place, size) in sizes.iter().enumerate() {
            if sizes[..place].iter().any(|earlier| earlier.label == size.label) {
                return Err(Reject::new(format!(
                    "setting `sizes` has `{}` twice; give one of them another `name`",
                    size.label
                )));
            }
        }
        Ok(Self {
            sizes,
            fit: given.fit,
            format: given.format,
            quality: given.quality,
            enlarge: given.enlarge,
            background: given.background,
            max_pixels: given.max_pixels,
            max_bytes: given.max_bytes,
        })
    }
}

impl NamedSize {
    fn new(given: GivenSize) -> Result<Self, Reject> {
        let (bounds, name) = match given {
            GivenSize::Side(side) => (Bounds { width: Some(side), height: Some(side) }, Some(side.to_string())),
            GivenSize::Box(GivenBox { width, height, name }) => (Bounds { width, height }, name),
        };
        for side in bounds.width.iter().chain(&bounds.height) {
            check("sizes", *side, SIDE)?;
        }
        let label = match (name, bounds.width, bounds.height) {
            (_, None, None) => {
                return Err(Reject::new(
                    "setting `sizes` has an entry without `width` and `height`; it takes one or both",
                ));
            }
            (Some(name), ..) => name,
            (None, Some(width), Some(height)) => format!("{width}x{height}"),
            (None, Some(width), None) => format!("{width}w"),
            (None, None, Some(height)) => format!("{height}h"),
        };
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !plain || !(1..=MAX_NAME_BYTES).contains(&label.len()) {
            return Err(Reject::new(format!(
                "setting `sizes` has the name {label:?}; it takes 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_` and `.`"
            )));
        }
        Ok(Self { label, bounds })
    }
}

fn check<T: PartialOrd + fmt::Display>(name: &str, value: T, allowed: RangeInclusive<T>) -> Result<(), Reject> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(Reject::new(format!("setting `{name}` is {value}; it takes {} to {}", allowed.start(), allowed.end())))
}
