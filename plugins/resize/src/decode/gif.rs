//! GIF. Of an animation the first frame is taken.

use gif::{ColorOutput, DecodeOptions, Decoder, MemoryLimit};

use super::{Decoded, Source, broken};
use crate::Reject;
use crate::picture::{Channels, Orientation, Picture, Size};

pub struct Gif<'a> {
    decoder: Decoder<&'a [u8]>,
    /// Where the first frame lies on the screen.
    left: usize,
    top: usize,
    frame: Size,
    screen: Size,
}

impl<'a> Gif<'a> {
    pub fn open(bytes: &'a [u8]) -> Result<Source<'a>, Reject> {
        let mut options = DecodeOptions::new();
        options.set_color_output(ColorOutput::RGBA);
        // Sizes are checked by the caller, before anything is decoded.
        options.set_memory_limit(MemoryLimit::Unlimited);
        let mut decoder = options.read_info(bytes).map_err(|error| broken("GIF", error))?;
        let screen = Size::new(decoder.width().into(), decoder.height().into());
        let frame = decoder.next_frame_info().map_err(|error| broken("GIF", error))?;
        let frame = frame.ok_or_else(|| broken("GIF", "it has no frame"))?;
        let (left, top) = (usize::from(frame.left), usize::from(frame.top));
        let frame = Size::new(frame.width.into(), frame.height.into());
        if screen.pixels() == 0 || frame.pixels() == 0 {
            return Err(broken("GIF", "it has no pixels"));
        }
        let decoder = super::Decoder::Gif(Box::new(Self { decoder, left, top, frame, screen }));
        Ok(Source { size: screen, largest: screen.max(frame), orientation: Orientation::Upright, decoder })
    }

    pub fn decode(mut self) -> Result<Decoded, Reject> {
        let mut pixels = vec![0; self.decoder.buffer_size()];
        self.decoder.read_into_buffer(&mut pixels).map_err(|error| broken("GIF", error))?;
        if (self.left, self.top, self.frame) != (0, 0, self.screen) {
            pixels = self.on_screen(&pixels);
        }
        let picture = Picture::new(self.screen, Channels::Rgba, pixels)
            .ok_or_else(|| broken("GIF", "its pixels are not as many as its header says"))?;
        Ok((picture, None))
    }

    /// The screen, transparent where the frame does not cover it; what sticks out of it is cut off.
    fn on_screen(&self, frame: &[u8]) -> Vec<u8> {
        let (width, height) = (self.screen.width as usize, self.screen.height as usize);
        let mut pixels = vec![0; width * height * 4];
        let shown = (self.frame.width as usize).min(width.saturating_sub(self.left)) * 4;
        if shown > 0 {
            let rows = pixels.chunks_exact_mut(width * 4).skip(self.top);
            for (row, source) in rows.zip(frame.chunks_exact(self.frame.width as usize * 4)) {
                row[self.left * 4..][..shown].copy_from_slice(&source[..shown]);
            }
        }
        pixels
    }
}
