//! Pictures: a landscape with the weight of a camera's photograph, and a badge with a transparent ground.

use jpeg_encoder::{ColorType, Encoder, EncodingError, SamplingFactor};

use crate::table::hash;

/// What the camera's sensor saw: it was held upright, so the picture lies on its side in the file.
const STORED: (u16, u16) = (4000, 3000);

/// How it is meant to be looked at.
const UPRIGHT: (f32, f32) = (STORED.1 as f32, STORED.0 as f32);

/// An EXIF block with one entry: orientation 6, "turn a quarter to the right to look at it".
const EXIF: &[u8] = &[
    b'M', b'M', 0, 42, 0, 0, 0, 8, // big-endian TIFF, the first directory follows
    0, 1, // one entry
    0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, // orientation, a short, once: 6
    0, 0, 0, 0, // no other directory
];

/// A JPEG of twelve megapixels and about four megabytes: evening light over hills and a field of wheat.
pub fn photograph() -> Result<Vec<u8>, EncodingError> {
    let (width, height) = STORED;
    let ridges = Ridges::new();
    let mut pixels = Vec::with_capacity(usize::from(width) * usize::from(height) * 3);
    for y in 0..height {
        for x in 0..width {
            let colour = landscape(&ridges, height - 1 - y, x);
            // Grain, as every sensor has it; it is also what makes the file as heavy as a real one.
            let grain = (hash(u32::from(y) * u32::from(width) + u32::from(x)) % 33) as f32 - 16.0;
            pixels.extend(colour.map(|c| (c + grain).clamp(0.0, 255.0) as u8));
        }
    }
    let mut jpeg = Vec::new();
    let mut encoder = Encoder::new(&mut jpeg, 85);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.add_exif_metadata(EXIF)?;
    encoder.encode(&pixels, width, height, ColorType::Rgb)?;
    Ok(jpeg)
}

/// A PNG of 800 by 800 pixels: a millstone with soft edges on a transparent ground.
pub fn badge() -> Result<Vec<u8>, png::EncodingError> {
    const SIDE: u16 = 800;
    let centre = f32::from(SIDE) / 2.0;
    let mut pixels = Vec::with_capacity(usize::from(SIDE) * usize::from(SIDE) * 4);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (dx, dy) = (f32::from(x) - centre, f32::from(y) - centre);
            let distance = dx.hypot(dy);
            // Twelve furrows, turned a little on their way out.
            let furrow = (dy.atan2(dx) * 12.0 + distance / 60.0).sin() > 0.8;
            let shade = if furrow { 90 } else { 170 + (noise(f32::from(x) / 9.0, f32::from(y) / 9.0) * 40.0) as u8 };
            let inside = (centre - 20.0 - distance).clamp(0.0, 1.0) * (distance - 70.0).clamp(0.0, 1.0);
            pixels.extend([shade, shade - 10, shade - 30, (inside * 255.0) as u8]);
        }
    }
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, u32::from(SIDE), u32::from(SIDE));
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(file)
}

type Colour = [f32; 3];

/// The skyline of three ranges of hills, and the edge of the field: heights for each column.
struct Ridges([Vec<f32>; 4]);

impl Ridges {
    fn new() -> Self {
        let ridge = |level: f32, rough: f32, scale: f32, row: f32| {
            let height = |x: u16| level + rough * (layered(f32::from(x) / scale, row, 6) - 0.5);
            (0..STORED.1).map(height).collect()
        };
        Self([
            ridge(1750.0, 900.0, 700.0, 3.5),
            ridge(2050.0, 600.0, 450.0, 17.5),
            ridge(2350.0, 350.0, 300.0, 31.5),
            ridge(2650.0, 60.0, 200.0, 47.5),
        ])
    }
}

/// The colour at column `x`, row `y` of the upright picture.
fn landscape(ridges: &Ridges, x: u16, y: u16) -> Colour {
    let hills: [Colour; 3] = [[150.0, 130.0, 160.0], [105.0, 100.0, 125.0], [62.0, 78.0, 80.0]];
    let (column, x, y) = (usize::from(x), f32::from(x), f32::from(y));
    if y >= ridges.0[3][column] {
        return wheat(x, y);
    }
    for (ridge, colour) in ridges.0.iter().zip(hills).take(3).rev() {
        if y >= ridge[column] {
            let woods = noise(x / 14.0, y / 10.0) * 22.0;
            return colour.map(|c| c + woods);
        }
    }
    sky(x, y)
}

fn sky(x: f32, y: f32) -> Colour {
    let sun = (x - 2100.0).hypot(y - 1250.0);
    if sun < 150.0 {
        return [255.0, 244.0, 214.0];
    }
    let depth = y / 1800.0;
    let clouds = ((layered(x / 600.0, y / 180.0, 4) - 0.5) * 2.5).clamp(0.0, 1.0);
    let glow = (1.0 - sun / 1500.0).max(0.0);
    let clear = [70.0 + 150.0 * depth, 110.0 + 70.0 * depth, 180.0 - 30.0 * depth];
    let lit = [250.0, 214.0, 190.0];
    let mut colour = mix(clear, lit, clouds * 0.7);
    for (channel, warm) in colour.iter_mut().zip([90.0, 60.0, 10.0]) {
        *channel += warm * glow * glow;
    }
    colour
}

/// Stalks: noise that is much longer than it is wide, and coarser towards the viewer.
fn wheat(x: f32, y: f32) -> Colour {
    let near = (y - 2600.0) / (UPRIGHT.1 - 2600.0);
    let stalk = noise(x / (3.0 + 9.0 * near), y / (20.0 + 90.0 * near));
    let ear = noise(x / (5.0 + 8.0 * near), y / (6.0 + 10.0 * near));
    let shade = mix([92.0, 66.0, 22.0], [226.0, 184.0, 92.0], 0.6 * stalk + 0.4 * ear);
    let aside = (x / UPRIGHT.0 - 0.5).abs();
    shade.map(|c| c * (1.05 - 0.3 * near * aside))
}

fn mix(from: Colour, to: Colour, share: f32) -> Colour {
    [0, 1, 2].map(|i| from[i] + (to[i] - from[i]) * share)
}

/// Noise of several sizes laid over one another, 0 to 1.
fn layered(x: f32, y: f32, layers: u32) -> f32 {
    let (mut sum, mut weight, mut scale) = (0.0, 0.5, 1.0);
    for _ in 0..layers {
        sum += weight * noise(x * scale, y * scale);
        weight *= 0.5;
        scale *= 2.0;
    }
    sum
}

/// Value noise, 0 to 1: random numbers on a grid, and smooth steps between them. Arguments are not negative.
fn noise(x: f32, y: f32) -> f32 {
    let (column, row) = (x as u32, y as u32);
    let (fx, fy) = (smooth(x - column as f32), smooth(y - row as f32));
    let at = |dx: u32, dy: u32| {
        hash((column + dx).wrapping_add((row + dy).wrapping_mul(0x9e37_79b1))) as f32 / u32::MAX as f32
    };
    let (top, bottom) = (at(0, 0) * (1.0 - fx) + at(1, 0) * fx, at(0, 1) * (1.0 - fx) + at(1, 1) * fx);
    top * (1.0 - fy) + bottom * fy
}

fn smooth(t: f32) -> f32 {
    t * t * (3.0 - 2.0 * t)
}
