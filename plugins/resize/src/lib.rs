//! The resize plugin: JPEG, PNG, WebP and GIF in, smaller versions out.
//!
//! For `cat.jpg` and the sizes 320 and 1280 it makes `cat-320.jpg` and `cat-1280.jpg`. Colours keep their
//! profile, pictures are turned upright, all other metadata is dropped.
//!
//! An object is read whole, looked at by its header, decoded once and then scaled to each size, the largest
//! first. [`decode`] knows the formats, [`geometry`] what a size means for a picture, [`render`] makes the
//! pixels and [`encode`] writes them. [`guest`] is the only part that knows the host.

mod decode;
mod encode;
mod exif;
mod geometry;
mod picture;
mod render;
mod settings;

#[cfg(target_arch = "wasm32")]
mod guest;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, BufWriter, Read, Write};

use crate::decode::Source;
use crate::encode::Target;
use crate::geometry::Layout;
use crate::render::Renderer;
use crate::settings::Settings;

/// What is gathered of an output before it is written: a call to the host costs more than the copy.
const WRITE_BYTES: usize = 64 * 1024;

/// What the plugin needs to know of the object.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    /// The last segment of its key without extension; outputs are named from it.
    pub stem: &'a str,
    /// Bytes in the object.
    pub size: u64,
}

/// Where outputs are made.
pub trait Outputs {
    /// One output being written.
    type Output: Write;

    /// Starts an output that shows a picture of this size.
    ///
    /// # Errors
    /// The host's reason for refusing the name.
    fn create(&mut self, name: &str, content_type: &str, width: u32, height: u32) -> Result<Self::Output, String>;
}

/// Why an object can never be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject(pub String);

impl Reject {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Only readers and writers outside the host can fail: the host ends the call itself instead.
impl From<io::Error> for Reject {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Makes the sizes of one object. `settings` is the JSON object that the route gives.
///
/// # Errors
/// A [`Reject`] when a setting is wrong, or the object is no image or larger than the settings allow.
pub fn run<O: Outputs>(object: Object<'_>, settings: &str, input: impl Read, outputs: &mut O) -> Result<(), Reject> {
    let settings = Settings::parse(settings)?;
    let bytes = read(object, &settings, input)?;
    let source = Source::open(&bytes)?;
    let upright = source.orientation.applied_to(source.size);
    check_pixels("the image", source.largest, settings.max_pixels)?;

    let mut layouts = Vec::with_capacity(settings.sizes.len());
    for size in &settings.sizes {
        let layout = Layout::new(upright, size.bounds, settings.fit, settings.enlarge);
        check_pixels(&format!("the output `{}`", size.label), layout.canvas, settings.max_pixels)?;
        layouts.push((size, layout));
    }
    // The largest first, so that smaller ones can be made from it.
    layouts.sort_by_key(|(_, layout)| std::cmp::Reverse(layout.picture.pixels()));

    let target = Target::choose(settings.format, &source);
    let needed =
        layouts.iter().map(|(_, layout)| source.orientation.applied_to(layout.whole())).reduce(|a, b| a.max(b));
    let orientation = source.orientation;
    let (picture, profile) = source.decode(needed.unwrap_or(upright))?;

    let mut renderer = Renderer::new(picture, orientation);
    for (size, layout) in layouts {
        let picture = encode::prepare(renderer.render(&layout, settings.background)?, target, settings.background);
        let name = format!("{}-{}.{}", object.stem, size.label, target.extension());
        let (width, height) = (picture.size.width, picture.size.height);
        let output = outputs
            .create(&name, target.content_type(), width, height)
            .map_err(|reason| Reject::new(format!("the output {name:?} cannot be made: {reason}")))?;
        let mut writer = BufWriter::with_capacity(WRITE_BYTES, output);
        encode::write(&picture, profile.as_deref(), target, settings.quality, &mut writer)
            .map_err(|reason| Reject::new(format!("the output {name:?} cannot be written: {reason}")))?;
        writer.flush()?;
    }
    Ok(())
}

/// The whole object, if it is not larger than allowed.
fn read(object: Object<'_>, settings: &Settings, input: impl Read) -> Result<Vec<u8>, Reject> {
    if object.size > settings.max_bytes {
        return Err(Reject::new(format!(
            "the object has {} bytes; the setting `max_bytes` allows {}",
            object.size, settings.max_bytes
        )));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(object.size).unwrap_or_default());
    input.take(object.size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check_pixels(what: &str, size: picture::Size, max_pixels: u64) -> Result<(), Reject> {
    if size.pixels() > max_pixels {
        return Err(Reject::new(format!(
            "{what} is {} x {}, {} pixels; the setting `max_pixels` allows {max_pixels}",
            size.width,
            size.height,
            size.pixels(),
        )));
    }
    Ok(())
}
