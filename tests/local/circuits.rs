//! A plugin that fails on everything costs nobody an object.

use crate::{
    all_to,
    support::{
        auditor::{Auditor, Object, Output},
        host::{Bucket, Host},
        samples::text,
    },
};

/// Enough for a circuit to open, and for most of them to be spared the plugin.
const OBJECTS: usize = 30;

/// Each of them has found its circuit open more often than it has attempts.
const WAITS: usize = OBJECTS * 4;

#[test]
fn objects_of_a_broken_plugin_wait_until_it_is_replaced() {
    // Three attempts of a second and more, so that none uses them up before the circuit opens.
    let configuration = "[retry]\nmax_attempts = 3\nbase = \"2s\"\nmax = \"5s\"\nprobe_interval = \"50ms\"\n\n[[route]]\nplugins = [\"broken\"]\n";
    let bucket = Bucket::with(&[], configuration);
    bucket.plugin("panic", "broken");
    let key = |n: usize| format!("uploads/{n}");
    let contents: Vec<Vec<u8>> = (0..OBJECTS).map(|n| text(n as u64, 500)).collect();
    for (n, content) in (0..).zip(&contents) {
        bucket.write(&key(n), content);
    }

    // Without `--json` there is a row for each delivery.
    let host = Host::dev(&bucket, &[]);
    let count = |lines: &[String], of: &str| lines.iter().filter(|line| line.contains(of)).count();
    host.wait_for_output("objects that wait for their plugin", |lines| {
        (count(lines, "plugin `broken` fails on most objects") >= WAITS).then_some(())
    });
    bucket.plugin("copy", "broken");
    host.wait_for_output("the objects", |lines| (count(lines, "processed  uploads/") >= OBJECTS).then_some(()));
    host.terminate();
    let finished = host.finish().expect(0);
    for once in ["circuit opened", "circuit closed, the plugin was replaced"] {
        assert_eq!(count(&finished.err, once), 1, "{once}\n{}", finished.log());
    }
    let manifest: Vec<Object> = (0..)
        .zip(&contents)
        .map(|(n, content)| {
            let output = Output::exactly(format!("processed/{n}.copy"), "broken", content);
            Object::processed(&key(n), content, &["broken"], vec![output])
        })
        .collect();
    Auditor::new(bucket.root(), &manifest).check();
}

#[test]
fn a_run_until_idle_ends_all_the_same() {
    let bucket = Bucket::with(&["panic"], &all_to(2, r#"plugins = ["panic"]"#));
    for n in 0..OBJECTS {
        bucket.write(&format!("uploads/{n}"), b"x");
    }
    bucket.run_until_idle().expect(1).expect_counts(&[("dead", OBJECTS as u64), ("retried", OBJECTS as u64)]);
}
