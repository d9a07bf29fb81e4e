//! What goes in and what comes out.

use super::samples::{BLUE, GREEN, RED, WHITE, quadrants};
use super::*;

#[track_caller]
fn assert_quadrants(picture: &Picture) {
    let Size { width, height } = picture.size;
    for (x, y, colour) in [(1, 1, RED), (3, 1, GREEN), (1, 3, BLUE), (3, 3, WHITE)] {
        assert_close(pixel(picture, width * x / 4, height * y / 4), &colour[..picture.channels.count()]);
    }
}

#[test]
fn every_format_goes_into_every_format() {
    let picture = quadrants(Size::new(200, 100));
    let progressive = samples::jpeg_with(&picture, |encoder| encoder.set_progressive(true));
    let sources = [
        ("jpeg", samples::jpeg(&picture, 95), "jpg"),
        ("progressive jpeg", progressive, "jpg"),
        ("png", samples::png(&picture), "png"),
        ("rgb png", samples::png(&samples::rgb(&picture)), "png"),
        ("webp", samples::webp(&picture, None), "png"),
        ("gif", samples::gif(&picture, (200, 100), (0, 0)), "png"),
    ];
    for (name, bytes, auto) in sources {
        for (format, extension) in [("auto", auto), ("jpeg", "jpg"), ("png", "png"), ("webp", "webp")] {
            let files = resize(json!({"sizes": [80], "format": format}), &bytes);
            let (output, file) = files.first_key_value().unwrap();
            assert_eq!(output, &format!("cat-80.{extension}"), "{name} to {format}");
            let (picture, _) = decode(file);
            assert_eq!(picture.size, Size::new(80, 40));
            assert!(!picture.channels.has_alpha(), "{name} to {format} has alpha for nothing");
            assert_quadrants(&picture);
        }
    }
}

#[test]
fn a_large_jpeg_is_scaled_while_it_is_decoded() {
    let picture = quadrants(Size::new(2000, 1000));
    for progressive in [false, true] {
        let bytes = samples::jpeg_with(&picture, |encoder| encoder.set_progressive(progressive));
        let source = Source::open(&bytes).unwrap();
        let (decoded, _) = source.decode(Size::new(160, 80)).unwrap();
        assert_eq!(decoded.size, Size::new(250, 125));
        assert_quadrants(&decoded);
        let files = resize(json!({"sizes": [160, 640]}), &bytes);
        assert_quadrants(&decode(&files["cat-160.jpg"]).0);
        assert_eq!(decode(&files["cat-640.jpg"]).0.size, Size::new(640, 320));
    }
}

#[test]
fn pictures_are_turned_upright() {
    let upright = quadrants(Size::new(240, 120));
    for tag in 1..=8 {
        let held = samples::held(&upright, tag);
        let jpeg = samples::jpeg_with(&held, |encoder| encoder.add_exif_metadata(&samples::exif(tag, true)).unwrap());
        let mut info = samples::png_info(&held);
        info.exif_metadata = Some(samples::exif(tag, false).into());
        let png = samples::png_with(&held, info);
        let webp = samples::webp(&held, Some(samples::exif(tag, tag % 2 == 0)));
        for (name, bytes) in [("jpeg", jpeg), ("png", png), ("webp", webp)] {
            for (fit, size) in [("inside", (60, 30)), ("cover", (60, 60)), ("contain", (60, 60)), ("fill", (60, 60))] {
                let files = resize(json!({"sizes": [60], "fit": fit}), &bytes);
                let (_, file) = files.first_key_value().unwrap();
                assert_eq!(file.size, size, "{name} {fit} held as {tag}");
                let (picture, _) = decode(file);
                if fit != "contain" {
                    assert_quadrants(&picture);
                }
            }
        }
    }
    assert_eq!(crate::exif::orientation(b"Exif\0\0II*\0\xff\xff\xff\xff"), Orientation::Upright);
}

#[test]
fn alpha_is_kept_or_laid_on_the_background() {
    let mut picture = quadrants(Size::new(64, 64));
    for pixel in picture.pixels.as_chunks_mut::<4>().0.iter_mut().take(64 * 32) {
        pixel[3] = 0;
    }
    for bytes in [samples::png(&picture), samples::webp(&picture, None), samples::gif(&picture, (64, 64), (0, 0))] {
        for format in ["auto", "png", "webp"] {
            let files = resize(json!({"sizes": [16], "format": format}), &bytes);
            let (kept, _) = decode(files.first_key_value().unwrap().1);
            assert_eq!(kept.channels, Channels::Rgba);
            assert_eq!(pixel(&kept, 3, 3)[3], 0);
            assert_close(pixel(&kept, 3, 12), &BLUE);
        }
        let files = resize(json!({"sizes": [16], "format": "jpeg", "background": "#204060"}), &bytes);
        let (flat, _) = decode(&files["cat-16.jpg"]);
        assert_close(pixel(&flat, 3, 3), &[0x20, 0x40, 0x60]);
        assert_close(pixel(&flat, 3, 12), &BLUE[..3]);
    }
}

#[test]
fn grey_stays_grey() {
    let grey = quadrants(Size::new(64, 64)).map(Channels::Grey, |[r, ..]: [u8; 4]| [r]);
    for (bytes, format, name) in [
        (samples::jpeg(&grey, 90), "auto", "cat-16.jpg"),
        (samples::png(&grey), "auto", "cat-16.png"),
        (samples::png(&grey), "jpeg", "cat-16.jpg"),
    ] {
        let files = resize(json!({"sizes": [16], "format": format}), &bytes);
        let (picture, _) = decode(&files[name]);
        assert_eq!(picture.channels, Channels::Grey);
        assert_close(pixel(&picture, 3, 3), &RED[..1]);
    }
    let bytes = samples::png(&grey.map(Channels::GreyAlpha, |[v]: [u8; 1]| [v, 100]));
    let (picture, _) = decode(&resize(json!({"sizes": [16]}), &bytes)["cat-16.png"]);
    assert_eq!((picture.channels, pixel(&picture, 3, 3)[1]), (Channels::GreyAlpha, 100));
}

#[test]
fn ink_becomes_light() {
    let bytes = samples::cmyk_jpeg(&quadrants(Size::new(128, 128)));
    assert_quadrants(&decode(&resize(json!({"sizes": [32]}), &bytes)["cat-32.jpg"]).0);
}

#[test]
fn of_an_animation_the_first_frame_is_taken_where_it_lies() {
    let picture = quadrants(Size::new(40, 40));
    let bytes = samples::gif(&picture, (80, 80), (20, 20));
    let (shown, _) = decode(&resize(json!({"sizes": [80]}), &bytes)["cat-80.png"]);
    assert_eq!(shown.size, Size::new(80, 80));
    assert_eq!(pixel(&shown, 10, 10)[3], 0);
    assert_close(pixel(&shown, 30, 30), &RED);
    assert_close(pixel(&shown, 50, 50), &WHITE);
    let outside = samples::gif(&picture, (30, 30), (20, 40));
    assert_eq!(decode(&resize(json!({"sizes": [30]}), &outside)["cat-30.png"]).0.size, Size::new(30, 30));
}

#[test]
fn colour_profiles_are_passed_on_where_they_fit() {
    let picture = quadrants(Size::new(64, 64));
    for space in [b"RGB ", b"CMYK"] {
        let profile = samples::profile(space);
        let jpeg = samples::jpeg_with(&picture, |encoder| encoder.add_icc_profile(&profile).unwrap());
        let mut info = samples::png_info(&picture);
        info.icc_profile = Some(profile.clone().into());
        for bytes in [jpeg, samples::png_with(&picture, info)] {
            for format in ["jpeg", "png", "webp"] {
                let files = resize(json!({"sizes": [16], "format": format}), &bytes);
                let (_, found) = decode(files.first_key_value().unwrap().1);
                assert_eq!(found, (space == b"RGB ").then(|| profile.clone()), "{format}");
            }
        }
    }
}
