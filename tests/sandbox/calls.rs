//! What `wit/plugin.wit` promises to a plugin, and what the host makes of its answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use gristmill::{
    io::OutputMeta,
    plugin::{CallError, CreatedOutput, Verdict},
};
use serde_json::{Value, json};

use crate::{
    among_others,
    support::guests::{Calling, MemoryBody, guest, on_one_thread},
};

#[tokio::test]
async fn a_plugin_is_told_everything_of_its_object_and_its_settings() {
    let call = Calling::new("2026/cat \"photo\".tar.gz", "meow")
        .told(|object| {
            object.version_id = Some("v1".into());
            object.content_type = Some("image/jpeg".into());
            object.metadata = vec![("by".into(), "ünïcødé 猫".into())];
            object.event_time = Some("2026-11-22T09:30:00.000Z".into());
            object.attempt = 3;
        })
        .setting("probe", json!([320, 1280]))
        .setting("name", "value");
    let called = call.run(&guest("echo-info")).await;
    let expected = json!({
        "bucket": "bucket",
        "key": "uploads/2026/cat \"photo\".tar.gz",
        "name": "cat \"photo\".tar.gz",
        "stem": "cat \"photo\".tar",
        "size": 4,
        "etag": "0123456789abcdef",
        "version-id": "v1",
        "content-type": "image/jpeg",
        "metadata": [["by", "ünïcødé 猫"]],
        "event-time": "2026-11-22T09:30:00.000Z",
        "attempt": 3,
        "settings": {"probe": [320, 1280], "name": "value"},
        "setting": "[320,1280]",
    });
    assert_eq!(serde_json::from_str::<Value>(called.text()).unwrap(), expected);
    let [(created, _)] = called.outputs()[..] else { panic!("{called:?}") };
    assert_eq!(created.meta.key, "processed/2026/cat \"photo\".tar.gz.info.json");
    assert_eq!(created.meta.content_type, "application/json", "guessed from the name");
}

#[tokio::test]
async fn what_is_not_known_is_absent() {
    let called = Calling::new("cat.jpg", "").run(&guest("echo-info")).await;
    let told: Value = serde_json::from_str(called.text()).unwrap();
    for field in ["version-id", "content-type", "event-time", "setting"] {
        assert_eq!(told[field], Value::Null, "{field}");
    }
    assert_eq!((&told["metadata"], &told["settings"]), (&json!([]), &json!({})));
}

#[tokio::test]
async fn an_output_has_the_content_type_and_metadata_that_it_was_given() {
    let called = Calling::new("cat.txt", "meow").run(&guest("upper")).await;
    assert_eq!(called.text(), "MEOW");
    let meta = OutputMeta {
        key: "processed/cat.txt.upper".into(),
        content_type: "text/plain".into(),
        metadata: vec![("case".into(), "upper".into())],
    };
    let expected = CreatedOutput { meta, size: 4 };
    assert_eq!(called.report.outputs, [expected]);
    assert_eq!((called.report.bytes_read, called.report.bytes_written), (4, 4));
}

#[tokio::test]
async fn a_plugin_that_reads_nothing_causes_no_read() {
    let body = MemoryBody::new("meow");
    let longest = Arc::clone(&body.longest);
    let called = Calling::new("cat.jpg", "meow").body(body).run(&guest("nothing")).await;
    assert!(matches!(called.report.result, Ok(Verdict::Done)), "{:?}", called.report);
    assert_eq!((called.report.bytes_read, longest.load(Ordering::Relaxed)), (0, 0));
    assert_eq!(called.report.outputs, []);
}

#[test]
fn a_plugin_that_works_for_long_gives_way_and_ends_well() {
    on_one_thread(async || {
        let call = Calling::new("cat.jpg", "meow").setting("rounds", 200);
        assert_eq!(among_others(&guest("slow"), call).await.text(), "meow");
    });
}

#[tokio::test]
async fn reads_in_order_and_reads_anywhere_agree() {
    for size in [0, 1, 1_000, 1_000_003] {
        let body: Vec<u8> = (0..size).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let limits = |limits: &mut gristmill::config::Limits| limits.memory = 64 << 20;
        let called = Calling::new("cat.jpg", body).limits(limits).run(&guest("random-access")).await;
        assert!(called.text().ends_with("reads agree"), "{called:?}");
    }
}

#[tokio::test]
async fn giant_reads_are_cut_to_a_mebibyte() {
    let size = 2_500_000;
    let body = MemoryBody::new(vec![7; size]);
    let longest = Arc::clone(&body.longest);
    let call = Calling::new("cat.jpg", vec![7; size]).body(body);
    let called = call.run(&guest("giant-read")).await;
    let expected = "read-at 0 4294967295: 1048576\n\
        read-at 18446744073709551615 4294967295: 0\n\
        read-at 2500000 1: 0\n\
        read-at 0 0: 0\n\
        read 0: 1\n\
        read 4294967295: most 1048576, sum 2500000\n\
        read after the end: 0\n";
    assert_eq!(called.text(), expected);
    assert_eq!(longest.load(Ordering::Relaxed), 1 << 20, "the store is not asked for more, either");
    assert_eq!(called.report.bytes_read, (1 << 20) + size as u64);
}

#[tokio::test]
async fn output_names_and_metadata_are_checked() {
    let limits = |limits: &mut gristmill::config::Limits| limits.outputs = 50;
    let called = Calling::new("a/cat.jpg", "meow").limits(limits).run(&guest("bad-names")).await;
    let (_, text) = *called.outputs().last().unwrap();
    let outcomes: Vec<(String, String)> = str::from_utf8(text)
        .unwrap()
        .lines()
        .map(|line| line.split_once('\t').unwrap())
        .map(|(tried, outcome)| (serde_json::from_str(tried).unwrap(), outcome.to_owned()))
        .collect();
    let fine = [
        "plain.txt",
        "folder/inner.txt",
        "with space + plus % percent.txt",
        "-dash",
        "ünïcødé-\u{1f33e}.txt",
        "..twodots",
        "...",
        "metadata fine",
        "metadata Fine_2.a-b",
        "content-type text/plain; charset=utf-8",
    ];
    for (tried, outcome) in &outcomes {
        // The second time that it is tried.
        let expected = if tried == "plain.txt" && outcome != "created" {
            "duplicate-name"
        } else if fine.contains(&tried.as_str()) {
            "created"
        } else if tried.starts_with("metadata ") || tried.starts_with("content-type ") {
            "invalid-metadata: "
        } else {
            "invalid-name: "
        };
        assert!(outcome.starts_with(expected), "{tried:?}: {outcome}, expected {expected}");
        assert!(!outcome.chars().any(char::is_control), "{tried:?}: {outcome:?}");
    }
    let mut counts = BTreeMap::new();
    for (_, outcome) in &outcomes {
        *counts.entry(outcome.split(':').next().unwrap()).or_insert(0) += 1;
    }
    let expected = [("created", 10), ("duplicate-name", 1), ("invalid-metadata", 11), ("invalid-name", 16)];
    assert_eq!(counts, BTreeMap::from(expected), "{outcomes:#?}");
    // Those and the report of the guest itself, all of them in the object's own folder.
    assert_eq!(called.report.outputs.len(), 11);
    assert!(
        called.report.outputs.iter().all(|output| output.meta.key.starts_with("processed/a/")),
        "{:?}",
        called.report
    );
}

#[tokio::test]
async fn giant_strings_are_refused_with_a_short_reason() {
    for (place, refusal) in [
        ("name", "invalid-name: the key would have "),
        ("content-type", "invalid-metadata: the content type has "),
        ("metadata-key", "invalid-metadata: "),
        ("metadata-value", "invalid-metadata: the metadata has "),
    ] {
        let call = Calling::new("cat.jpg", "meow").setting("where", place).setting("bytes", 1 << 20);
        let called = call.run(&guest("giant-strings")).await;
        assert!(called.text().starts_with(refusal), "{place}: {}", called.text());
    }
    let call = Calling::new("cat.jpg", "meow").setting("where", "setting").setting("bytes", 1 << 20);
    assert_eq!(call.run(&guest("giant-strings")).await.text(), "found: false");
}

#[tokio::test]
async fn reasons_are_escaped_and_cut() {
    let reason = format!("not\nan image\u{1b}[2J\u{202e}{}", "x".repeat(5_000));
    let called = Calling::new("cat.jpg", "").setting("reason", reason).run(&guest("reject")).await;
    let Err(CallError::Reject(reason)) = called.report.result else { panic!("{called:?}") };
    assert!(reason.starts_with("not\\nan image\\u{1b}[2J\\u{202e}xxx"), "{reason}");
    assert!(reason.ends_with("x…") && reason.len() < 1_100, "{} bytes", reason.len());

    for place in ["reject", "retry", "skip"] {
        let call = Calling::new("cat.jpg", "").setting("where", place).setting("bytes", 1 << 20);
        let reason = match call.run(&guest("giant-strings")).await.report.result {
            Err(CallError::Reject(reason) | CallError::Retry { reason, .. }) | Ok(Verdict::Skipped(reason)) => reason,
            other => panic!("{place}: {other:?}"),
        };
        assert!(reason.ends_with("x…") && reason.len() < 1_100, "{place}: {} bytes", reason.len());
    }
}

#[tokio::test]
async fn a_retry_carries_the_wish_of_the_plugin_within_bounds() {
    let retry = guest("retry");
    for (after_ms, expected) in [
        (None, None),
        (Some(0), Some(Duration::ZERO)),
        (Some(1_500), Some(Duration::from_millis(1_500))),
        // The most that a visibility timeout of SQS can be.
        (Some(u32::MAX), Some(Duration::from_secs(12 * 60 * 60))),
    ] {
        let mut call = Calling::new("cat.jpg", "");
        if let Some(ms) = after_ms {
            call = call.setting("after-ms", ms);
        }
        match call.run(&retry).await.report.result {
            Err(CallError::Retry { reason, after }) => assert_eq!((reason.as_str(), after), ("not yet", expected)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_skip_carries_its_reason() {
    let called = Calling::new("cat.jpg", "").run(&guest("skip")).await;
    assert_eq!(called.report.result.unwrap(), Verdict::Skipped("nothing to do".into()));
}

#[tokio::test]
async fn the_attempt_is_what_the_plugin_is_told() {
    let flaky = guest("flaky");
    for attempt in 1..=2 {
        let call = Calling::new("cat.jpg", "meow").told(|object| object.attempt = attempt);
        let result = call.run(&flaky).await.report.result;
        let expected = format!("attempt {attempt} fails");
        assert!(matches!(&result, Err(CallError::Retry { reason, .. }) if *reason == expected), "{result:?}");
    }
    let call = Calling::new("cat.jpg", "meow").told(|object| object.attempt = 3);
    assert_eq!(call.run(&flaky).await.text(), "meow");
}
