//! What a size means for a picture.

use crate::picture::Size;
use crate::settings::{Bounds, Fit};

/// How an upright picture becomes an output: its middle part is scaled to `picture`, which lies in the
/// middle of `canvas`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layout {
    /// The share of the width and height that is shown, 1 unless something is cut off.
    pub shown: (f64, f64),
    /// What the part that is shown is scaled to.
    pub picture: Size,
    /// The size of the output, larger than `picture` only with [`Fit::Contain`].
    pub canvas: Size,
}

impl Layout {
    /// Without `enlarge` no pixel is made larger than it was: `inside` and `fill` stop at the picture's own
    /// size, `cover` shrinks the box with its proportions until the picture covers it, and `contain` keeps
    /// its canvas and shows more of the background.
    pub fn new(source: Size, bounds: Bounds, fit: Fit, enlarge: bool) -> Self {
        let (width, height) = (f64::from(source.width), f64::from(source.height));
        // A side that was not given follows from the other one.
        let (box_width, box_height) = match (bounds.width.map(f64::from), bounds.height.map(f64::from)) {
            (Some(w), Some(h)) => (w, h),
            (Some(w), None) => (w, height * w / width),
            (None, Some(h)) => (width * h / height, h),
            (None, None) => (width, height),
        };
        let (across, down) = (box_width / width, box_height / height);
        let limit = if enlarge { f64::INFINITY } else { 1.0 };
        let whole = |scale: f64| rounded(width * scale, height * scale);
        match fit {
            Fit::Inside => Self::uncut(whole(across.min(down).min(limit))),
            Fit::Fill => Self::uncut(rounded(width * across.min(limit), height * down.min(limit))),
            Fit::Contain => {
                Self { canvas: rounded(box_width, box_height), ..Self::uncut(whole(across.min(down).min(limit))) }
            }
            Fit::Cover => {
                let scale = across.max(down);
                let shrink = (limit / scale).min(1.0);
                let shown = (across / scale, down / scale);
                Self { shown, ..Self::uncut(rounded(box_width * shrink, box_height * shrink)) }
            }
        }
    }

    fn uncut(picture: Size) -> Self {
        Self { shown: (1.0, 1.0), picture, canvas: picture }
    }

    /// What the whole picture would be scaled to, with what is cut off.
    pub fn whole(&self) -> Size {
        rounded(f64::from(self.picture.width) / self.shown.0, f64::from(self.picture.height) / self.shown.1)
    }
}

/// At least a pixel each way; a cast keeps within the range of its type.
fn rounded(width: f64, height: f64) -> Size {
    Size::new((width.round() as u32).max(1), (height.round() as u32).max(1))
}
