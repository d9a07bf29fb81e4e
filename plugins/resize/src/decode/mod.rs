//! Reads pictures in the formats of objects.

mod gif;
mod jpeg;
mod png;
mod webp;

use std::fmt;

use crate::Reject;
use crate::picture::{Orientation, Picture, Size};

/// How many first bytes are shown of what is no image.
const SHOWN_BYTES: usize = 12;

/// An image of which only the header was read.
pub struct Source<'a> {
    /// As stored, not yet upright.
    pub size: Size,
    /// The largest picture that decoding makes on its way; hostile files hide one inside a small frame.
    pub largest: Size,
    pub orientation: Orientation,
    decoder: Decoder<'a>,
}

enum Decoder<'a> {
    Jpeg(Box<jpeg::Jpeg<'a>>),
    Png(Box<png::Png<'a>>),
    Gif(Box<gif::Gif<'a>>),
    Webp(Box<webp::Webp<'a>>),
}

/// A decoded picture and its colour profile (ICC).
pub type Decoded = (Picture, Option<Vec<u8>>);

impl<'a> Source<'a> {
    /// Reads the header. Which format it is shows in the content; names lie.
    pub fn open(bytes: &'a [u8]) -> Result<Self, Reject> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => jpeg::Jpeg::open(bytes),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => png::Png::open(bytes),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => gif::Gif::open(bytes),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => webp::Webp::open(bytes),
            [] => Err(Reject::new("the object is empty; JPEG, PNG, WebP and GIF are supported")),
            _ => Err(Reject::new(format!(
                "not an image that is supported: it begins with \"{}\"; JPEG, PNG, WebP and GIF are",
                bytes[..bytes.len().min(SHOWN_BYTES)].escape_ascii()
            ))),
        }
    }

    /// Whether it is stored with losses and nothing shows through it.
    pub fn is_photograph(&self) -> bool {
        match &self.decoder {
            Decoder::Jpeg(_) => true,
            Decoder::Webp(webp) => webp.is_photograph(),
            Decoder::Png(_) | Decoder::Gif(_) => false,
        }
    }

    /// Decodes the picture. It may come out smaller than it is, but not smaller than `needed` where that is
    /// smaller.
    pub fn decode(self, needed: Size) -> Result<Decoded, Reject> {
        match self.decoder {
            Decoder::Jpeg(jpeg) => jpeg.decode(self.size, needed),
            Decoder::Png(png) => png.decode(),
            Decoder::Gif(gif) => gif.decode(),
            Decoder::Webp(webp) => webp.decode(),
        }
    }
}

/// What to say when an image breaks off or makes no sense.
fn broken(format: &str, error: impl fmt::Display) -> Reject {
    Reject::new(format!("the {format} image is damaged or cut off: {error}"))
}
