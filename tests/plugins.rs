//! The built-in plugins as the components that users get. What they do with which input is tested natively,
//! beside their sources.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{fs, path::Path, sync::Arc};

use gristmill::plugin::{CallError, Plugin, Verdict};
use serde_json::json;

#[expect(dead_code, reason = "other tests need the rest")]
#[path = "support/guests.rs"]
mod guests;
#[expect(dead_code, reason = "other tests need the rest")]
#[path = "support/samples.rs"]
mod samples;

use guests::Calling;

fn plugin(name: &str) -> Arc<Plugin> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/plugins").join(name).with_extension("wasm");
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run `make plugins`", path.display()));
    Arc::new(guests::load(guests::engine(), name, &bytes))
}

/// Of a PNG, from its header.
fn dimensions(png: &[u8]) -> (u32, u32) {
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[tokio::test]
async fn passthrough_reads_and_writes_nothing() {
    let called = Calling::new("film.mp4", vec![7; 1000]).run(&plugin("passthrough")).await;
    assert_eq!(called.report.result.unwrap(), Verdict::Done);
    assert_eq!((called.report.bytes_read, called.report.outputs.len()), (0, 0));
}

#[tokio::test]
async fn resize_makes_every_size_upright_and_named() {
    let called = Calling::new("cat.png", samples::png(400, 200, 90))
        .setting("sizes", json!([100, { "width": 60, "height": 60, "name": "icon" }]))
        .setting("fit", "cover")
        .setting("format", "png")
        .limits(|limits| limits.memory = 64 << 20)
        .run(&plugin("resize"))
        .await;
    assert_eq!(called.report.result.as_ref().unwrap(), &Verdict::Done);
    let made: Vec<_> =
        called.outputs().iter().map(|(output, bytes)| (output.meta.key.clone(), dimensions(bytes))).collect();
    assert_eq!(
        made,
        [("processed/cat-100.png".to_owned(), (100, 100)), ("processed/cat-icon.png".to_owned(), (60, 60))]
    );
    assert!(called.outputs().iter().all(|(output, _)| output.meta.content_type == "image/png"));
}

#[tokio::test]
async fn a_bomb_is_rejected_before_it_needs_memory() {
    let mut bomb = samples::png(1, 1, 0);
    // The header alone says 50,000 × 50,000; its checksum (RFC 2083, section 3.4) follows.
    bomb[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
    let checksum = samples::crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&checksum.to_be_bytes());
    let called = Calling::new("bomb.png", bomb).run(&plugin("resize")).await;
    let Err(CallError::Reject(reason)) = called.report.result else { panic!("{:?}", called.report.result) };
    assert!(reason.contains("max_pixels") && reason.contains("2500000000"), "{reason}");
}

#[tokio::test]
async fn resize_says_which_setting_is_wrong() {
    let called = Calling::new("cat.png", samples::png(4, 4, 0)).setting("qualty", 80).run(&plugin("resize")).await;
    let Err(CallError::Reject(reason)) = called.report.result else { panic!("{:?}", called.report.result) };
    assert!(reason.contains("qualty"), "{reason}");
}

#[tokio::test]
async fn parse_reports_rows_and_columns_and_keeps_what_is_malformed() {
    let called = Calling::new("t.csv", "id;name\n1;\"a\nb\"\n2\n3;\n4;c\n5;d\n").run(&plugin("parse")).await;
    assert_eq!(called.report.result.as_ref().unwrap(), &Verdict::Done);
    let outputs = called.outputs();
    let text = |name: &str| {
        let (_, bytes) = outputs.iter().find(|(output, _)| output.meta.key == format!("processed/{name}")).unwrap();
        str::from_utf8(bytes).unwrap()
    };
    assert_eq!(
        text("t.csv.ndjson"),
        "{\"id\":1,\"name\":\"a\\nb\"}\n{\"id\":3,\"name\":null}\n{\"id\":4,\"name\":\"c\"}\n{\"id\":5,\"name\":\"d\"}\n"
    );
    let error: serde_json::Value = serde_json::from_str(text("t.csv.errors.ndjson")).unwrap();
    assert_eq!((&error["line"], &error["raw"]), (&json!(4), &json!("2")));
    let summary: serde_json::Value = serde_json::from_str(text("t.csv.summary.json")).unwrap();
    assert_eq!((&summary["records"], &summary["errors"]), (&json!(4), &json!(1)));
}

#[tokio::test]
async fn the_memory_of_parse_does_not_grow_with_its_input() {
    for (name, line) in [("t.csv", "1,some words,3.25\n"), ("t.ndjson", "{\"a\":1,\"b\":\"some words\"}\n")] {
        let lines = (32 << 20) / line.len();
        let called = Calling::new(name, line.repeat(lines))
            .limits(|limits| (limits.memory, limits.output_bytes) = (4 << 20, 1 << 30))
            .run(&plugin("parse"))
            .await;
        assert_eq!(called.report.result.unwrap(), Verdict::Done, "{name}");
        assert_eq!(called.report.bytes_read, (lines * line.len()) as u64);
    }
}
