//! Writes pictures in the formats of outputs.

use std::error::Error;
use std::io::Write;

use crate::decode::Source;
use crate::picture::{Channels, Picture};
use crate::render::blend;
use crate::settings::{Colour, FormatSetting};

/// The format of outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Jpeg,
    Png,
    /// Lossless: there is no lossy encoder in Rust yet that is worth its time.
    Webp,
}

impl Target {
    /// What `auto` means: photographs stay JPEG, and everything that was kept exact or lets something
    /// through stays so as PNG.
    pub fn choose(setting: FormatSetting, source: &Source<'_>) -> Self {
        match setting {
            FormatSetting::Jpeg => Self::Jpeg,
            FormatSetting::Png => Self::Png,
            FormatSetting::Webp => Self::Webp,
            FormatSetting::Auto if source.is_photograph() => Self::Jpeg,
            FormatSetting::Auto => Self::Png,
        }
    }

    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::Webp => "webp",
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
        }
    }
}

/// Takes away what the format cannot hold or would waste bytes on.
pub fn prepare(picture: Picture, target: Target, Colour([r, g, b, _]): Colour) -> Picture {
    let picture = picture.without_idle_alpha();
    if target == Target::Jpeg && picture.channels.has_alpha() {
        return picture.into_rgba().map(Channels::Rgb, |pixel: [u8; 4]| {
            let [r, g, b, _] = blend(pixel, [r, g, b, 255]);
            [r, g, b]
        });
    }
    picture
}

/// Writes a picture that was prepared for the format, with the colour profile that goes with it.
pub fn write(
    picture: &Picture,
    profile: Option<&[u8]>,
    target: Target,
    quality: u8,
    writer: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let profile = profile.filter(|profile| fits(profile, picture.channels));
    let (width, height) = (picture.size.width, picture.size.height);
    match target {
        Target::Jpeg => {
            let side = |value: u32| u16::try_from(value).map_err(|_| format!("JPEG has no sides of {value} pixels"));
            let (width, height) = (side(width)?, side(height)?);
            let colour =
                if picture.channels.is_grey() { jpeg_encoder::ColorType::Luma } else { jpeg_encoder::ColorType::Rgb };
            let mut encoder = jpeg_encoder::Encoder::new(writer, quality);
            if let Some(profile) = profile {
                encoder.add_icc_profile(profile)?;
            }
            encoder.encode(&picture.pixels, width, height, colour)?;
        }
        Target::Png => {
            let mut info = png::Info::with_size(width, height);
            info.color_type = match picture.channels {
                Channels::Grey => png::ColorType::Grayscale,
                Channels::GreyAlpha => png::ColorType::GrayscaleAlpha,
                Channels::Rgb => png::ColorType::Rgb,
                Channels::Rgba => png::ColorType::Rgba,
            };
            info.bit_depth = png::BitDepth::Eight;
            info.icc_profile = profile.map(Into::into);
            let mut encoder = png::Encoder::with_info(writer, info)?.write_header()?;
            encoder.write_image_data(&picture.pixels)?;
            encoder.finish()?;
        }
        Target::Webp => {
            // The encoder panics above what the format can hold.
            if width.max(height) > WEBP_MAX_SIDE {
                return Err(format!("WebP has no sides of {} pixels", width.max(height)).into());
            }
            let colour = match picture.channels {
                Channels::Grey => image_webp::ColorType::L8,
                Channels::GreyAlpha => image_webp::ColorType::La8,
                Channels::Rgb => image_webp::ColorType::Rgb8,
                Channels::Rgba => image_webp::ColorType::Rgba8,
            };
            let mut encoder = image_webp::WebPEncoder::new(writer);
            if let Some(profile) = profile {
                encoder.set_icc_profile(profile.to_vec());
            }
            encoder.encode(&picture.pixels, width, height, colour)?;
        }
    }
    Ok(())
}

/// The longest side of WebP: 14 bits ("WebP Lossless Bitstream Specification", section 3).
const WEBP_MAX_SIDE: u32 = 1 << 14;
/// The largest colour profile that is passed on. Those of cameras and screens have 0.5 to 4 KiB; some of
/// printers have megabytes, more than the picture.
const MAX_PROFILE_BYTES: usize = 512 << 10;

/// Whether a profile is one, and is meant for these channels: that of a CMYK picture says nothing about its
/// RGB version (ICC.1:2022, section 7.2).
fn fits(profile: &[u8], channels: Channels) -> bool {
    let space: &[u8] = if channels.is_grey() { b"GRAY" } else { b"RGB " };
    profile.len() <= MAX_PROFILE_BYTES && profile.get(16..20) == Some(space) && profile.get(36..40) == Some(b"acsp")
}
