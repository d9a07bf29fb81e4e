//! WebP. Of an animation the first frame is taken.

use std::io::Cursor;

use image_webp::WebPDecoder;

use super::{Decoded, Source, broken};
use crate::picture::{Channels, Orientation, Picture, Size};
use crate::{Reject, exif};

pub struct Webp<'a> {
    decoder: WebPDecoder<Cursor<&'a [u8]>>,
    photograph: bool,
}

impl<'a> Webp<'a> {
    pub fn open(bytes: &'a [u8]) -> Result<Source<'a>, Reject> {
        let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|error| broken("WebP", error))?;
        let (width, height) = decoder.dimensions();
        let size = Size::new(width, height);
        let photograph = decoder.is_lossy() && !decoder.has_alpha();
        let exif = decoder.exif_metadata().map_err(|error| broken("WebP", error))?;
        let orientation = exif.as_deref().map_or(Orientation::Upright, exif::orientation);
        let largest = size.max(largest_frame(bytes.get(12..).unwrap_or_default()));
        let decoder = super::Decoder::Webp(Box::new(Self { decoder, photograph }));
        Ok(Source { size, largest, orientation, decoder })
    }

    pub fn is_photograph(&self) -> bool {
        self.photograph
    }

    pub fn decode(mut self) -> Result<Decoded, Reject> {
        let (width, height) = self.decoder.dimensions();
        let length = self.decoder.output_buffer_size().ok_or_else(|| broken("WebP", "it does not fit the memory"))?;
        let mut pixels = vec![0; length];
        self.decoder.read_image(&mut pixels).map_err(|error| broken("WebP", error))?;
        let channels = if self.decoder.has_alpha() { Channels::Rgba } else { Channels::Rgb };
        let picture = Picture::new(Size::new(width, height), channels, pixels)
            .ok_or_else(|| broken("WebP", "its pixels are not as many as its header says"))?;
        let profile = self.decoder.icc_profile().map_err(|error| broken("WebP", error))?;
        Ok((picture, profile))
    }
}

/// The largest frame in the chunks of a file ("WebP Container Specification"; RFC 6386, section 9.1). The
/// decoder compares a frame with the header only after it has decoded it.
fn largest_frame(mut chunks: &[u8]) -> Size {
    /// Bytes of a frame of an animation before its own chunks.
    const ANMF_HEADER_BYTES: usize = 16;
    let mut largest = Size::new(0, 0);
    while let Some((kind, rest)) = chunks.split_first_chunk::<4>() {
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { break };
        if kind == b"ANMF" {
            // Walked into, not over: its chunks come next.
            chunks = rest.get(ANMF_HEADER_BYTES..).unwrap_or_default();
            continue;
        }
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let data = &rest[..length.min(rest.len())];
        let frame = match (kind, data) {
            (b"VP8 ", [_, _, _, 0x9d, 0x01, 0x2a, w1, w2, h1, h2, ..]) => {
                let side = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
                Size::new(side(*w1, *w2), side(*h1, *h2))
            }
            (b"VP8L", [0x2f, a, b, c, d, ..]) => {
                let bits = u32::from_le_bytes([*a, *b, *c, *d]);
                Size::new((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1)
            }
            _ => Size::new(0, 0),
        };
        largest = largest.max(frame);
        // Chunks are padded to an even length.
        chunks = rest.get(length.saturating_add(length & 1)..).unwrap_or_default();
    }
    largest
}
