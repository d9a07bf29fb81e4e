//! Makes the pixels of outputs.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::Reject;
use crate::geometry::Layout;
use crate::picture::{Channels, Orientation, Picture, Size};
use crate::settings::Colour;

/// How much larger a finished output must be, each way, for a smaller one to be made from it. From twice the
/// size on, the eye cannot tell that it was scaled twice.
const REUSE_FACTOR: u32 = 2;

/// A decoded picture and what was already made of it.
pub struct Renderer {
    orientation: Orientation,
    resizer: Resizer,
    /// The picture in several sizes, none of them cut and none of them turned, the largest first.
    sizes: Vec<Picture>,
}

impl Renderer {
    pub fn new(picture: Picture, orientation: Orientation) -> Self {
        Self { orientation, resizer: Resizer::new(), sizes: vec![picture] }
    }

    /// The output that `layout` describes, upright. Ask for the largest first.
    pub fn render(&mut self, layout: &Layout, background: Colour) -> Result<Picture, Reject> {
        let picture = self.scale(layout)?;
        let upright = self.orientation.apply(picture);
        Ok(if layout.canvas == layout.picture { upright } else { on_canvas(upright, layout.canvas, background) })
    }

    /// Scales before turning: there are fewer pixels to turn then.
    fn scale(&mut self, layout: &Layout) -> Result<Picture, Reject> {
        let wanted = self.orientation.applied_to(layout.picture);
        let whole = self.orientation.applied_to(layout.whole());
        let reusable = |picture: &&Picture| {
            let Size { width, height } = picture.size;
            width >= whole.width.saturating_mul(REUSE_FACTOR) && height >= whole.height.saturating_mul(REUSE_FACTOR)
        };
        let Some(source) = self.sizes.iter().rev().find(reusable).or(self.sizes.first()) else {
            return Err(Reject::new("there is no picture to scale"));
        };
        let uncut = layout.shown == (1.0, 1.0);
        if uncut && source.size == wanted {
            return Ok(source.clone());
        }
        let shown = if self.orientation.applied_to(Size::new(1, 2)) == Size::new(1, 2) {
            layout.shown
        } else {
            (layout.shown.1, layout.shown.0)
        };
        let picture = resize(&mut self.resizer, source, shown, wanted)
            .map_err(|error| Reject::new(format!("the image cannot be scaled: {error}")))?;
        if uncut {
            self.sizes.push(picture.clone());
        }
        Ok(picture)
    }
}

/// Scales the middle of a picture, of which `shown` are the shares of width and height.
fn resize(
    resizer: &mut Resizer,
    source: &Picture,
    shown: (f64, f64),
    wanted: Size,
) -> Result<Picture, Box<dyn std::error::Error>> {
    let kind = match source.channels {
        Channels::Grey => PixelType::U8,
        Channels::GreyAlpha => PixelType::U8x2,
        Channels::Rgb => PixelType::U8x3,
        Channels::Rgba => PixelType::U8x4,
    };
    let (width, height) = (f64::from(source.size.width), f64::from(source.size.height));
    let left = (width * (1.0 - shown.0) / 2.0).max(0.0);
    let top = (height * (1.0 - shown.1) / 2.0).max(0.0);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3)).crop(
        left,
        top,
        width - 2.0 * left,
        height - 2.0 * top,
    );
    let from = ImageRef::new(source.size.width, source.size.height, &source.pixels, kind)?;
    let mut to = Image::new(wanted.width, wanted.height, kind);
    resizer.resize(&from, &mut to, &options)?;
    Ok(Picture { size: wanted, channels: source.channels, pixels: to.into_vec() })
}

/// Lays a picture in the middle of a background. Where it lets something through, the background shows.
fn on_canvas(picture: Picture, canvas: Size, Colour(background): Colour) -> Picture {
    let picture = picture.into_rgba();
    let mut pixels = background.repeat(canvas.width as usize * canvas.height as usize);
    let left = (canvas.width.saturating_sub(picture.size.width) / 2) as usize;
    let top = (canvas.height.saturating_sub(picture.size.height) / 2) as usize;
    let rows = pixels.chunks_exact_mut(canvas.width as usize * 4).skip(top);
    for (row, source) in rows.zip(picture.pixels.chunks_exact(picture.size.width as usize * 4)) {
        let row = row[left * 4..].as_chunks_mut::<4>().0;
        for (pixel, &over) in row.iter_mut().zip(source.as_chunks::<4>().0) {
            *pixel = blend(over, *pixel);
        }
    }
    Picture { size: canvas, channels: Channels::Rgba, pixels }
}

/// One pixel laid over another (Porter and Duff, "over"), alpha not multiplied in.
pub fn blend(over: [u8; 4], under: [u8; 4]) -> [u8; 4] {
    match over[3] {
        255 => return over,
        0 => return under,
        _ => {}
    }
    let upper = u32::from(over[3]) * 255;
    let lower = u32::from(under[3]) * (255 - u32::from(over[3]));
    let sum = upper + lower;
    let mix = |a: u8, b: u8| ((u32::from(a) * upper + u32::from(b) * lower + sum / 2) / sum) as u8;
    [mix(over[0], under[0]), mix(over[1], under[1]), mix(over[2], under[2]), ((sum + 127) / 255) as u8]
}
