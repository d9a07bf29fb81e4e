//! What is no image, damaged, or larger than it looks.

use super::samples::quadrants;
use super::*;

/// All kinds of files that are decoded.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let mut picture = quadrants(Size::new(90, 70));
    for (place, byte) in picture.pixels.iter_mut().enumerate() {
        // Noise, so that the bytes of the file matter.
        *byte = byte.wrapping_add((place.wrapping_mul(2_654_435_761) >> 27) as u8);
    }
    vec![
        ("JPEG", samples::jpeg(&picture, 90)),
        ("JPEG", samples::jpeg_with(&picture, |encoder| encoder.set_progressive(true))),
        ("JPEG", samples::cmyk_jpeg(&picture)),
        ("PNG", samples::png(&picture)),
        ("WebP", samples::webp(&picture, None)),
        ("WebP", samples::webp(&picture, Some(samples::exif(6, true)))),
        ("GIF", samples::gif(&picture, (90, 70), (0, 0))),
    ]
}

#[test]
fn what_is_no_image_is_shown() {
    let reason = rejection(json!({}), b"%PDF-1.7\n%\xe2\xe3 and so on");
    assert_eq!(
        reason,
        "not an image that is supported: it begins with \"%PDF-1.7\\n%\\xe2\\xe3\"; JPEG, PNG, WebP and GIF are"
    );
    assert!(rejection(json!({}), b"").starts_with("the object is empty"));
}

#[test]
fn files_that_are_cut_off_are_rejected() {
    for (name, bytes) in files() {
        // Checksums and chunks behind the pixels are not missed, nor is the second frame of an animation.
        let end = match name {
            "GIF" => bytes.len() / 2,
            "PNG" => bytes.len() - 40,
            _ => bytes.len() - 3,
        };
        for length in (20..end).step_by(end / 40).chain([end]) {
            let reason = rejection(json!({"sizes": [20]}), &bytes[..length]);
            let expected = format!("the {name} image is damaged or cut off: ");
            assert!(reason.starts_with(&expected), "{length} of {} bytes: {reason}", bytes.len());
        }
    }
}

#[test]
fn damaged_files_never_panic() {
    let mut random = 1_u32;
    let mut next = |limit: usize| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) as usize % limit
    };
    for (_, bytes) in files() {
        for _ in 0..300 {
            let mut damaged = bytes.clone();
            for _ in 0..=next(8) {
                // Half of the damage goes where the headers are.
                let reach = if next(2) == 0 { 200.min(damaged.len()) } else { damaged.len() };
                let place = next(reach);
                damaged[place] = next(256) as u8;
            }
            // Either is fine; a panic would be a trap, and tried again.
            let _ = try_resize("cat", &json!({"sizes": [20], "max_pixels": 100_000}), &damaged);
        }
    }
}

#[test]
fn bombs_are_found_by_their_header() {
    let mut png = samples::png(&quadrants(Size::new(4, 4)));
    png[16..20].copy_from_slice(&50_000_u32.to_be_bytes());
    png[20..24].copy_from_slice(&50_000_u32.to_be_bytes());
    let checksum = png_checksum(&png[12..29]);
    png[29..33].copy_from_slice(&checksum.to_be_bytes());

    let mut jpeg = samples::jpeg(&quadrants(Size::new(16, 16)), 90);
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xff);

    let mut gif = samples::gif(&quadrants(Size::new(4, 4)), (4, 4), (0, 0));
    gif[6..10].fill(0xff);
    let mut gif_frame = samples::gif(&quadrants(Size::new(4, 4)), (4, 4), (0, 0));
    let descriptor = gif_frame.windows(9).position(|w| w == [0x2c, 0, 0, 0, 0, 4, 0, 4, 0]).unwrap();
    gif_frame[descriptor + 5..descriptor + 9].fill(0xff);

    let mut webp = samples::webp(&quadrants(Size::new(4, 4)), None);
    webp[21..25].copy_from_slice(&[0xff, 0xff, 0xff, 0x0f]);
    let mut webp_frame = samples::webp(&quadrants(Size::new(4, 4)), Some(samples::exif(1, true)));
    let frame = webp_frame.windows(4).position(|kind| kind == b"VP8L").unwrap();
    webp_frame[frame + 9..frame + 13].copy_from_slice(&[0xff, 0xff, 0xff, 0x0f]);

    for (name, bytes, size) in [
        ("png", png, "50000 x 50000, 2500000000"),
        ("jpeg", jpeg, "65535 x 65535, 4294836225"),
        ("gif", gif, "65535 x 65535, 4294836225"),
        ("gif frame", gif_frame, "65535 x 65535, 4294836225"),
        ("webp", webp, "16384 x 16384, 268435456"),
        ("webp frame", webp_frame, "16384 x 16384, 268435456"),
    ] {
        let reason = rejection(json!({}), &bytes);
        // What no address of the sandbox reaches is refused before the settings are asked.
        let limit = if name == "png" { 400_000_000 } else { 50_000_000 };
        assert_eq!(reason, format!("the image is {size} pixels; the setting `max_pixels` allows {limit}"), "{name}");
    }
}

/// CRC-32 as PNG has it (annex D), slowly.
fn png_checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
    })
}

#[test]
fn limits_are_those_of_the_settings() {
    let bytes = samples::png(&quadrants(Size::new(100, 100)));
    let large = rejection(json!({"max_bytes": 50}), &bytes);
    assert_eq!(large, format!("the object has {} bytes; the setting `max_bytes` allows 50", bytes.len()));
    let many = rejection(json!({"max_pixels": 9_999}), &bytes);
    assert_eq!(many, "the image is 100 x 100, 10000 pixels; the setting `max_pixels` allows 9999");
    let out = rejection(json!({"max_pixels": 10_000, "sizes": [200], "enlarge": true}), &bytes);
    assert_eq!(out, "the output `200` is 200 x 200, 40000 pixels; the setting `max_pixels` allows 10000");
}

#[test]
fn endless_scans_are_rejected() {
    let bytes = samples::jpeg_with(&quadrants(Size::new(64, 64)), |encoder| encoder.set_progressive(true));
    let scan = (0..bytes.len()).rfind(|&at| bytes[at..].starts_with(&[0xff, 0xda])).unwrap();
    let end = bytes.len() - 2;
    let mut bomb = bytes[..end].to_vec();
    for _ in 0..200 {
        bomb.extend_from_slice(&bytes[scan..end]);
    }
    bomb.extend_from_slice(&bytes[end..]);
    let reason = rejection(json!({}), &bomb);
    assert!(reason.starts_with("the JPEG image has 2") && reason.ends_with("scans, more than 100"), "{reason}");
}
