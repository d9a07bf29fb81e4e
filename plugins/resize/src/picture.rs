//! Pixels in memory.

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

impl Size {
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    pub fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    pub fn swapped(self) -> Self {
        Self::new(self.height, self.width)
    }

    /// The smallest size that neither sticks out of.
    pub fn max(self, other: Self) -> Self {
        Self::new(self.width.max(other.width), self.height.max(other.height))
    }
}

/// What the bytes of a pixel are, one byte a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    Grey,
    GreyAlpha,
    Rgb,
    Rgba,
}

impl Channels {
    pub fn count(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::GreyAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }

    pub fn has_alpha(self) -> bool {
        matches!(self, Self::GreyAlpha | Self::Rgba)
    }

    pub fn is_grey(self) -> bool {
        matches!(self, Self::Grey | Self::GreyAlpha)
    }
}

/// A picture, row after row without gaps, alpha not multiplied in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub size: Size,
    pub channels: Channels,
    pub pixels: Vec<u8>,
}

impl Picture {
    /// `None` when the number of bytes is not that of the pixels.
    pub fn new(size: Size, channels: Channels, pixels: Vec<u8>) -> Option<Self> {
        let expected = size.pixels().checked_mul(channels.count() as u64)?;
        (pixels.len() as u64 == expected && expected > 0).then_some(Self { size, channels, pixels })
    }

    /// The same picture with each pixel made anew. `N` and `M` are the bytes before and after.
    pub fn map<const N: usize, const M: usize>(self, channels: Channels, each: impl Fn([u8; N]) -> [u8; M]) -> Self {
        debug_assert_eq!((N, M), (self.channels.count(), channels.count()));
        let pixels = self.pixels.as_chunks::<N>().0.iter().flat_map(|&pixel| each(pixel)).collect();
        Self { size: self.size, channels, pixels }
    }

    /// The same picture with red, green, blue and alpha.
    pub fn into_rgba(self) -> Self {
        match self.channels {
            Channels::Grey => self.map(Channels::Rgba, |[v]: [u8; 1]| [v, v, v, 255]),
            Channels::GreyAlpha => self.map(Channels::Rgba, |[v, a]: [u8; 2]| [v, v, v, a]),
            Channels::Rgb => self.map(Channels::Rgba, |[r, g, b]: [u8; 3]| [r, g, b, 255]),
            Channels::Rgba => self,
        }
    }

    /// The same picture without alpha, if nothing shows through it.
    pub fn without_idle_alpha(self) -> Self {
        let opaque = |count: usize| self.pixels.iter().skip(count - 1).step_by(count).all(|&alpha| alpha == 255);
        match self.channels {
            Channels::GreyAlpha if opaque(2) => self.map(Channels::Grey, |[v, _]: [u8; 2]| [v]),
            Channels::Rgba if opaque(4) => self.map(Channels::Rgb, |[r, g, b, _]: [u8; 4]| [r, g, b]),
            _ => self,
        }
    }
}

/// How a camera was held (TIFF 6.0 and EXIF, tag 274): what to do to see the picture upright.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Orientation {
    #[default]
    Upright,
    FlipHorizontal,
    Rotate180,
    FlipVertical,
    /// Mirrored along the diagonal from the top left.
    Transpose,
    /// Clockwise.
    Rotate90,
    /// Mirrored along the diagonal from the top right.
    Transverse,
    /// Clockwise.
    Rotate270,
}

impl Orientation {
    /// From the value of the tag; upright for one that does not exist.
    pub fn from_tag(tag: u16) -> Self {
        match tag {
            2 => Self::FlipHorizontal,
            3 => Self::Rotate180,
            4 => Self::FlipVertical,
            5 => Self::Transpose,
            6 => Self::Rotate90,
            7 => Self::Transverse,
            8 => Self::Rotate270,
            _ => Self::Upright,
        }
    }

    fn swaps(self) -> bool {
        matches!(self, Self::Transpose | Self::Rotate90 | Self::Transverse | Self::Rotate270)
    }

    /// The size of a picture once it is upright, and back again.
    pub fn applied_to(self, size: Size) -> Size {
        if self.swaps() { size.swapped() } else { size }
    }

    /// Turns a picture upright.
    pub fn apply(self, picture: Picture) -> Picture {
        if self == Self::Upright {
            return picture;
        }
        let pixels = match picture.channels {
            Channels::Grey => self.turn::<1>(&picture),
            Channels::GreyAlpha => self.turn::<2>(&picture),
            Channels::Rgb => self.turn::<3>(&picture),
            Channels::Rgba => self.turn::<4>(&picture),
        };
        Picture { size: self.applied_to(picture.size), channels: picture.channels, pixels }
    }

    fn turn<const N: usize>(self, picture: &Picture) -> Vec<u8> {
        let source = picture.pixels.as_chunks::<N>().0;
        let (width, height) = (picture.size.width as usize, picture.size.height as usize);
        let upright = self.applied_to(picture.size);
        let mut pixels = Vec::with_capacity(picture.pixels.len());
        for y in 0..upright.height as usize {
            for x in 0..upright.width as usize {
                let (column, row) = match self {
                    Self::Upright => (x, y),
                    Self::FlipHorizontal => (width - 1 - x, y),
                    Self::Rotate180 => (width - 1 - x, height - 1 - y),
                    Self::FlipVertical => (x, height - 1 - y),
                    Self::Transpose => (y, x),
                    Self::Rotate90 => (y, height - 1 - x),
                    Self::Transverse => (width - 1 - y, height - 1 - x),
                    Self::Rotate270 => (width - 1 - y, x),
                };
                pixels.extend_from_slice(&source[row * width + column]);
            }
        }
        pixels
    }
}
