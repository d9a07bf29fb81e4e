//! PNG. Of an animation the default picture is taken.

use std::io::Cursor;

use png::{ColorType, Decoder, Reader, Transformations};

use super::{Decoded, Source, broken};
use crate::picture::{Channels, Orientation, Picture, Size};
use crate::settings::MAX_PIXELS;
use crate::{Reject, check_pixels, exif};

pub struct Png<'a> {
    reader: Reader<Cursor<&'a [u8]>>,
}

impl<'a> Png<'a> {
    pub fn open(bytes: &'a [u8]) -> Result<Source<'a>, Reject> {
        let mut decoder = Decoder::new(Cursor::new(bytes));
        // Palettes and fewer than eight bits become bytes, sixteen bits become eight.
        decoder.set_transformations(Transformations::normalize_to_color8());
        decoder.set_ignore_text_chunk(true);
        let header = decoder.read_header_info().map_err(|error| broken("PNG", error))?;
        let size = Size::new(header.width, header.height);
        // With 32-bit addresses the decoder would refuse it next, without a word about its size.
        check_pixels("the image", size, *MAX_PIXELS.end())?;
        let reader = decoder.read_info().map_err(|error| broken("PNG", error))?;
        let info = reader.info();
        let orientation = info.exif_metadata.as_deref().map_or(Orientation::Upright, exif::orientation);
        Ok(Source { size, largest: size, orientation, decoder: super::Decoder::Png(Box::new(Self { reader })) })
    }

    pub fn decode(mut self) -> Result<Decoded, Reject> {
        let length = self.reader.output_buffer_size().ok_or_else(|| broken("PNG", "it does not fit the memory"))?;
        let mut pixels = vec![0; length];
        let frame = self.reader.next_frame(&mut pixels).map_err(|error| broken("PNG", error))?;
        pixels.truncate(frame.buffer_size());
        let channels = match frame.color_type {
            ColorType::Grayscale => Channels::Grey,
            ColorType::GrayscaleAlpha => Channels::GreyAlpha,
            ColorType::Rgb => Channels::Rgb,
            ColorType::Rgba => Channels::Rgba,
            ColorType::Indexed => return Err(broken("PNG", "its palette was not resolved")),
        };
        let picture = Picture::new(Size::new(frame.width, frame.height), channels, pixels)
            .ok_or_else(|| broken("PNG", "its pixels are not as many as its header says"))?;
        let profile = self.reader.info().icc_profile.as_deref().map(<[u8]>::to_vec);
        Ok((picture, profile))
    }
}
