//! What a size means.

use super::samples::{BLUE, GREEN, quadrants};
use super::*;

fn sizes(from: (u32, u32), settings: Value) -> Vec<(u32, u32)> {
    let bytes = samples::png(&quadrants(Size::new(from.0, from.1)));
    resize(settings, &bytes).values().map(|file| file.size).collect()
}

#[test]
fn fits_follow_sharp() {
    let boxed = json!([{"width": 60, "height": 20}]);
    for (fit, expected) in [("inside", (40, 20)), ("cover", (60, 20)), ("contain", (60, 20)), ("fill", (60, 20))] {
        assert_eq!(sizes((100, 50), json!({"sizes": boxed, "fit": fit})), [expected], "{fit}");
    }
    assert_eq!(sizes((1000, 3), json!({"sizes": [100]})), [(100, 1)], "no side gets lost");
    for fit in ["inside", "cover", "contain", "fill"] {
        let files = sizes((100, 50), json!({"sizes": [{"width": 20}, {"height": 20}], "fit": fit}));
        assert_eq!(files, [(40, 20), (20, 10)], "{fit}: a side that is not given follows");
    }
}

#[test]
fn small_pictures_are_enlarged_only_on_demand() {
    let boxed = json!([{"width": 200, "height": 100}]);
    for (fit, kept, enlarged) in [
        ("inside", (40, 30), (133, 100)),
        ("cover", (40, 20), (200, 100)),
        ("contain", (200, 100), (200, 100)),
        ("fill", (40, 30), (200, 100)),
    ] {
        assert_eq!(sizes((40, 30), json!({"sizes": boxed, "fit": fit})), [kept], "{fit}");
        assert_eq!(sizes((40, 30), json!({"sizes": boxed, "fit": fit, "enlarge": true})), [enlarged], "{fit}");
    }
}

#[test]
fn cover_cuts_evenly_and_contain_fills_up() {
    let bytes = samples::png(&quadrants(Size::new(200, 100)));
    let (cut, _) = decode(&resize(json!({"sizes": [50], "fit": "cover"}), &bytes)["cat-50.png"]);
    assert_close(pixel(&cut, 40, 10), &GREEN[..3]);
    assert_close(pixel(&cut, 20, 40), &BLUE[..3]);
    let lone = |background: &str, format: &str| {
        let settings = json!({"sizes": [40], "fit": "contain", "background": background, "format": format});
        decode(resize(settings, &bytes).first_key_value().unwrap().1).0
    };
    let filled = lone("#102030", "png");
    assert_eq!((filled.size, pixel(&filled, 20, 2)), (Size::new(40, 40), &[0x10, 0x20, 0x30][..]));
    assert_close(pixel(&filled, 30, 15), &GREEN[..3]);
    assert_eq!(pixel(&lone("transparent", "png"), 20, 2)[3], 0);
    assert_close(pixel(&lone("transparent", "jpeg"), 20, 2), &[255; 3]);
    assert_eq!(pixel(&lone("#10203080", "webp"), 20, 2), [0x10, 0x20, 0x30, 0x80]);
}

#[test]
fn several_sizes_come_out_as_one_would() {
    let picture = quadrants(Size::new(640, 480));
    let bytes = samples::png(&picture);
    for fit in ["inside", "cover", "contain", "fill"] {
        let all = resize(json!({"sizes": [16, 100, 300, 40], "fit": fit}), &bytes);
        for (name, file) in &all {
            let side: u32 = name["cat-".len()..name.len() - ".png".len()].parse().unwrap();
            let alone = resize(json!({"sizes": [side], "fit": fit}), &bytes);
            let (a, b) = (decode(file).0, decode(&alone[name]).0);
            assert_eq!(a.size, b.size);
            let difference: u64 = a.pixels.iter().zip(&b.pixels).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
            assert!(difference <= a.pixels.len() as u64, "{fit} {name} differs by {difference}");
        }
    }
}
