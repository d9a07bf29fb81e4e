//! JPEG.

use jpeg_decoder::{CodingProcess, Decoder, PixelFormat};

use super::{Decoded, Source, broken};
use crate::picture::{Channels, Orientation, Picture, Size};
use crate::{Reject, exif};

/// How much larger than needed the decoder's own scaling may leave the picture. That scaling is a plain
/// average, so the last step is left to the better filter; libvips leaves 2, which costs twice the time
/// at the usual sizes. Halved colour planes come out at three quarters of what is needed then; JPEG halves
/// them again, so that its outputs are as close to the original as with libjpeg's own scaling.
const LEFT_TO_SCALE: f64 = 1.5;
/// Passes over the picture that a progressive file may make. Encoders make 10, a few 20; a hostile file
/// makes thousands of empty ones, each of which costs a walk over all pixels.
const MAX_SCANS: usize = 100;
/// Below that many pixels a side, scaled sizes of neighbouring steps can be equal. Such strips are decoded
/// in full.
const MIN_SCALED_SIDE: u32 = 16;

pub struct Jpeg<'a> {
    decoder: Decoder<&'a [u8]>,
    /// Adobe's programs store ink inverted, and say that they wrote the file.
    adobe: bool,
}

impl<'a> Jpeg<'a> {
    pub fn open(bytes: &'a [u8]) -> Result<Source<'a>, Reject> {
        let survey = Survey::of(bytes);
        if survey.scans > MAX_SCANS {
            return Err(Reject::new(format!("the JPEG image has {} scans, more than {MAX_SCANS}", survey.scans)));
        }
        let mut decoder = Decoder::new(bytes);
        decoder.read_info().map_err(|error| broken("JPEG", error))?;
        let info = decoder.info().ok_or_else(|| broken("JPEG", "it has no frame"))?;
        if info.coding_process == CodingProcess::Lossless {
            return Err(Reject::new("lossless JPEG is not supported; convert it to PNG first"));
        }
        let size = Size::new(info.width.into(), info.height.into());
        let orientation = decoder.exif_data().map_or(Orientation::Upright, exif::orientation);
        let decoder = super::Decoder::Jpeg(Box::new(Self { decoder, adobe: survey.adobe }));
        Ok(Source { size, largest: size, orientation, decoder })
    }

    pub fn decode(mut self, size: Size, needed: Size) -> Result<Decoded, Reject> {
        let (width, height) = scale_request(size, needed);
        self.decoder.scale(width, height).map_err(|error| broken("JPEG", error))?;
        let pixels = self.decoder.decode().map_err(|error| broken("JPEG", error))?;
        let info = self.decoder.info().ok_or_else(|| broken("JPEG", "it has no frame"))?;
        let size = Size::new(info.width.into(), info.height.into());
        let picture = match info.pixel_format {
            PixelFormat::L8 => Picture::new(size, Channels::Grey, pixels),
            PixelFormat::RGB24 => Picture::new(size, Channels::Rgb, pixels),
            // Four bytes as well, though of ink.
            PixelFormat::CMYK32 => Picture::new(size, Channels::Rgba, pixels).map(|ink| self.ink_to_light(ink)),
            PixelFormat::L16 => None,
        };
        let picture = picture.ok_or_else(|| broken("JPEG", "its pixels are not as many as its header says"))?;
        Ok((picture, self.decoder.icc_profile()))
    }

    fn ink_to_light(&self, ink: Picture) -> Picture {
        // The decoder takes every file for one of Adobe's.
        let inverted = if self.adobe { 0 } else { 255 };
        ink.map(Channels::Rgb, |pixel: [u8; 4]| {
            let [c, m, y, k] = pixel.map(|value| 255 - u32::from(value ^ inverted));
            [c, m, y].map(|light| ((light * k + 127) / 255) as u8)
        })
    }
}

/// The size to ask the decoder for. It scales to eighths and takes the smallest that is large enough in
/// *one* direction, so it is asked for a size that it can give exactly.
fn scale_request(size: Size, needed: Size) -> (u16, u16) {
    let enough = |side: u32, needed: u32| f64::from(side) >= f64::from(needed) * LEFT_TO_SCALE;
    let scaled = |eighths: u32| Size::new((size.width * eighths).div_ceil(8), (size.height * eighths).div_ceil(8));
    if size.width.min(size.height) < MIN_SCALED_SIDE {
        return (u16::MAX, u16::MAX);
    }
    let chosen = [1, 2, 4]
        .into_iter()
        .map(scaled)
        .find(|scaled| enough(scaled.width, needed.width) && enough(scaled.height, needed.height))
        .unwrap_or(size);
    (u16::try_from(chosen.width).unwrap_or(u16::MAX), u16::try_from(chosen.height).unwrap_or(u16::MAX))
}

/// What the segments of a file tell without decoding.
#[derive(Debug, Default)]
struct Survey {
    scans: usize,
    adobe: bool,
}

impl Survey {
    /// Walks from marker to marker (ITU-T T.81, annex B). It stops where there is none; the decoder will say
    /// what is wrong there.
    fn of(bytes: &[u8]) -> Self {
        const STANDALONE: std::ops::RangeInclusive<u8> = 0xd0..=0xd8;
        const START_OF_SCAN: u8 = 0xda;
        const APP14: u8 = 0xee;
        let mut survey = Self::default();
        let mut rest = bytes;
        loop {
            // Between segments, and inside a scan, everything up to the next marker is passed over; 0xff00
            // is a byte of the scan and no marker.
            let next = rest.array_windows().position(|&[first, second]| first == 0xff && !matches!(second, 0 | 0xff));
            let Some(at) = next else { return survey };
            let marker = rest[at + 1];
            rest = &rest[at + 2..];
            if STANDALONE.contains(&marker) {
                continue;
            }
            let Some((length, _)) = rest.split_first_chunk::<2>() else { return survey };
            let Some((segment, after)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))) else {
                return survey;
            };
            survey.scans += usize::from(marker == START_OF_SCAN);
            survey.adobe |= marker == APP14 && segment.get(2..7) == Some(b"Adobe");
            rest = after;
        }
    }
}
