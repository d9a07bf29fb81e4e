//! The one tag of EXIF that matters here.

use crate::picture::Orientation;

/// The tag `Orientation` (TIFF 6.0, page 36).
const ORIENTATION: u16 = 0x0112;
/// The type of a value of two bytes.
const SHORT: u16 = 3;
/// Bytes of an entry of a directory.
const ENTRY_BYTES: usize = 12;
/// What JPEG puts in front of the TIFF header; some writers of WebP and PNG do it as well.
const PREFIX: &[u8] = b"Exif\0\0";

/// The orientation in EXIF data, a TIFF file in small. Upright when there is none, or nonsense: a camera's
/// bad metadata is no reason to refuse its picture.
pub fn orientation(exif: &[u8]) -> Orientation {
    find(exif.strip_prefix(PREFIX).unwrap_or(exif)).map(Orientation::from_tag).unwrap_or_default()
}

fn find(tiff: &[u8]) -> Option<u16> {
    let little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| -> Option<u16> {
        let bytes = tiff.get(at..)?.first_chunk::<2>()?;
        Some(if little { u16::from_le_bytes(*bytes) } else { u16::from_be_bytes(*bytes) })
    };
    let long = |at: usize| -> Option<u32> {
        let bytes = tiff.get(at..)?.first_chunk::<4>()?;
        Some(if little { u32::from_le_bytes(*bytes) } else { u32::from_be_bytes(*bytes) })
    };
    let directory = usize::try_from(long(4)?).ok()?;
    let entries = directory.checked_add(2)?;
    (0..usize::from(short(directory)?))
        .map_while(|index| entries.checked_add(index * ENTRY_BYTES))
        .find(|&entry| short(entry) == Some(ORIENTATION) && short(entry + 2) == Some(SHORT))
        .and_then(|entry| short(entry.checked_add(8)?))
}
