//! Images made on the spot.

use super::*;

pub const RED: [u8; 4] = [220, 30, 30, 255];
pub const GREEN: [u8; 4] = [30, 200, 40, 255];
pub const BLUE: [u8; 4] = [30, 40, 210, 255];
pub const WHITE: [u8; 4] = [240, 240, 240, 255];

/// Red and green above blue and white: no turn of it looks like another.
pub fn quadrants(size: Size) -> Picture {
    let colour = |x: u32, y: u32| match (x < size.width / 2, y < size.height / 2) {
        (true, true) => RED,
        (false, true) => GREEN,
        (true, false) => BLUE,
        (false, false) => WHITE,
    };
    let pixels = (0..size.height).flat_map(|y| (0..size.width).flat_map(move |x| colour(x, y))).collect();
    Picture::new(size, Channels::Rgba, pixels).unwrap()
}

pub fn rgb(picture: &Picture) -> Picture {
    picture.clone().map(Channels::Rgb, |[r, g, b, _]: [u8; 4]| [r, g, b])
}

fn sides(picture: &Picture) -> (u16, u16) {
    (picture.size.width.try_into().unwrap(), picture.size.height.try_into().unwrap())
}

pub fn jpeg_with(picture: &Picture, change: impl FnOnce(&mut jpeg_encoder::Encoder<&mut Vec<u8>>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 90);
    change(&mut encoder);
    let (width, height) = sides(picture);
    let (colour, pixels) = match picture.channels {
        Channels::Grey => (jpeg_encoder::ColorType::Luma, picture.pixels.clone()),
        _ => (jpeg_encoder::ColorType::Rgb, rgb(picture).pixels),
    };
    encoder.encode(&pixels, width, height, colour).unwrap();
    bytes
}

pub fn jpeg(picture: &Picture, quality: u8) -> Vec<u8> {
    jpeg_with(picture, |encoder| encoder.set_quality(quality))
}

/// Ink instead of light, as Adobe's programs write it.
pub fn cmyk_jpeg(picture: &Picture) -> Vec<u8> {
    let ink = picture.clone().map(Channels::Rgba, |[r, g, b, _]: [u8; 4]| {
        let black = r.max(g).max(b);
        let part = |light: u8| 255 - (u32::from(light) * 255 / u32::from(black.max(1))) as u8;
        [part(r), part(g), part(b), 255 - black]
    });
    let mut bytes = Vec::new();
    let (width, height) = sides(picture);
    let encoder = jpeg_encoder::Encoder::new(&mut bytes, 95);
    encoder.encode(&ink.pixels, width, height, jpeg_encoder::ColorType::CmykAsYcck).unwrap();
    bytes
}

pub fn png_with(picture: &Picture, info: png::Info<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = png::Encoder::with_info(&mut bytes, info).unwrap().write_header().unwrap();
    writer.write_image_data(&picture.pixels).unwrap();
    writer.finish().unwrap();
    bytes
}

pub fn png_info(picture: &Picture) -> png::Info<'static> {
    let mut info = png::Info::with_size(picture.size.width, picture.size.height);
    info.bit_depth = png::BitDepth::Eight;
    info.color_type = match picture.channels {
        Channels::Grey => png::ColorType::Grayscale,
        Channels::GreyAlpha => png::ColorType::GrayscaleAlpha,
        Channels::Rgb => png::ColorType::Rgb,
        Channels::Rgba => png::ColorType::Rgba,
    };
    info
}

pub fn png(picture: &Picture) -> Vec<u8> {
    png_with(picture, png_info(picture))
}

pub fn webp(picture: &Picture, exif: Option<Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = image_webp::WebPEncoder::new(&mut bytes);
    encoder.set_exif_metadata(exif.unwrap_or_default());
    let Size { width, height } = picture.size;
    encoder.encode(&picture.pixels, width, height, image_webp::ColorType::Rgba8).unwrap();
    bytes
}

/// A first frame with the picture at an offset on a screen, and a second one in another colour. Colours
/// beyond the 255 that a palette holds become any of those.
pub fn gif(picture: &Picture, screen: (u16, u16), offset: (u16, u16)) -> Vec<u8> {
    const CLEAR: u8 = 255;
    let mut palette: Vec<[u8; 3]> = Vec::new();
    let mut index = |&[r, g, b, a]: &[u8; 4]| {
        if a == 0 {
            return CLEAR;
        }
        let known = palette.iter().position(|colour| *colour == [r, g, b]);
        let place = known.unwrap_or_else(|| {
            palette.truncate(254);
            palette.push([r, g, b]);
            palette.len() - 1
        });
        place as u8
    };
    let pixels: Vec<u8> = picture.pixels.as_chunks::<4>().0.iter().map(&mut index).collect();
    palette.resize(256, [0; 3]);
    let (width, height) = sides(picture);
    let frame = |pixels: Vec<u8>| gif::Frame::from_palette_pixels(width, height, pixels, palette.concat(), Some(CLEAR));
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, screen.0, screen.1, &[]).unwrap();
    let second = frame(vec![254; pixels.len()]);
    let mut first = frame(pixels);
    (first.left, first.top) = offset;
    encoder.write_frame(&first).unwrap();
    encoder.write_frame(&second).unwrap();
    drop(encoder);
    bytes
}

/// EXIF with nothing but an orientation.
pub fn exif(orientation: u16, little: bool) -> Vec<u8> {
    let short = |value: u16| if little { value.to_le_bytes() } else { value.to_be_bytes() };
    let long = |value: u32| if little { value.to_le_bytes() } else { value.to_be_bytes() };
    let mut bytes = if little { b"II*\0".to_vec() } else { b"MM\0*".to_vec() };
    bytes.extend(long(8));
    bytes.extend(short(1));
    bytes.extend(short(0x0112));
    bytes.extend(short(3));
    bytes.extend(long(1));
    bytes.extend(short(orientation));
    bytes.extend([0; 6]);
    bytes
}

/// The picture as a camera that was held so stores it.
pub fn held(upright: &Picture, tag: u16) -> Picture {
    // Each turn undoes itself but the two by a quarter, which undo each other.
    let undo = match tag {
        6 => 8,
        8 => 6,
        other => other,
    };
    Orientation::from_tag(undo).apply(upright.clone())
}

/// A profile that is one by its header.
pub fn profile(space: &[u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0; 200];
    bytes[16..20].copy_from_slice(space);
    bytes[36..40].copy_from_slice(b"acsp");
    bytes
}
