//! `gristmill replay`: an object through a chosen version.

use serde_json::Value;

use crate::{
    Releasing, VERSIONED, snapshot,
    support::host::{Finished, Host, gristmill, guest_file, sha256},
    wait_for,
};

fn replay(releasing: &Releasing, key: &str, plugin: &str, more: &[&str]) -> Finished {
    let directory = releasing.bucket.root().to_str().unwrap();
    gristmill(&[&["replay", key, "--plugin", plugin, "-d", directory], more].concat())
}

fn record(finished: Finished) -> Value {
    let finished = finished.expect(0);
    serde_json::from_str(&finished.out[0]).unwrap()
}

#[test]
fn an_object_is_run_again_through_any_version() {
    let mut releasing = Releasing::new(VERSIONED);
    let host = Host::dev(&releasing.bucket, &["--json"]);
    let first = releasing.bucket.plugin("digest-a", "versioned");
    releasing.answers(&host, 1);
    let seen = host.log_length();
    releasing.bucket.plugin("digest-b", "versioned");
    wait_for(&host, seen, "plugin loaded");

    // The object has been moved, and the first version's file is gone. The host goes on meanwhile.
    let before = snapshot(&releasing.bucket.path("processed"));
    let version = format!("versioned@{}", &first[..8]);
    let made = record(replay(&releasing, "processed/00000", &version, &["--json"]));
    assert_eq!((made["plugin"]["digest"].as_str(), made["made"]["verdict"].as_str()), (Some(&*first), Some("done")));
    let output = &made["made"]["outputs"][0];
    assert_eq!(output["key"], "processed/00000.version");
    assert_eq!((output["bytes"].as_u64(), output["sha256"].as_str()), (Some(1), Some(&*sha256(b"a"))));

    let file = guest_file("upper");
    let made = record(replay(&releasing, "processed/00000", file.to_str().unwrap(), &["--json"]));
    assert_eq!(made["made"]["outputs"][0]["key"], "processed/00000.upper");
    let shown = replay(&releasing, "processed/00000", file.to_str().unwrap(), &[]).expect(0).out;
    assert!(shown[0].starts_with("done  processed/00000  versioned@") && shown[1].contains(".upper"), "{shown:?}");
    assert_eq!(snapshot(&releasing.bucket.path("processed")), before, "nothing is written");
    host.terminate();
    host.finish().expect(0).expect_counts(&[("processed", 1)]);
}

#[test]
fn a_dead_object_is_processed_with_a_better_version() {
    let releasing = Releasing::new(VERSIONED);
    releasing.bucket.plugin("reject", "versioned");
    releasing.bucket.write("uploads/x", b"hello");
    releasing.bucket.run_until_idle().expect(1).expect_counts(&[("rejected", 1)]);

    let reject = guest_file("reject");
    let shown = replay(&releasing, "uploads/x", reject.to_str().unwrap(), &[]).expect(1).out;
    assert!(shown[0].starts_with("reject  uploads/x  versioned@"), "{shown:?}");
    let better = guest_file("upper");
    replay(&releasing, "uploads/x", better.to_str().unwrap(), &[]).expect(0);
    assert!(releasing.bucket.exists("uploads/x") && !releasing.bucket.exists("processed/x.upper"));

    let done = record(replay(&releasing, "uploads/x", better.to_str().unwrap(), &["--commit", "--json"]));
    assert_eq!((done["outcome"].as_str(), done["destination"].as_str()), (Some("processed"), Some("processed/x")));
    assert_eq!(releasing.bucket.read_text("processed/x.upper"), "HELLO");
    assert!(!releasing.bucket.exists("uploads/x"));
    // Whatever still is about it finds it done.
    releasing.bucket.run_until_idle().expect(0).expect_counts(&[]);
}

#[test]
fn what_cannot_be_run_says_why() {
    let releasing = Releasing::new(VERSIONED);
    releasing.bucket.write("uploads/x", b"hello");
    let host = Host::dev(&releasing.bucket, &["--json"]);
    host.wait_for_objects(1);
    let copy = guest_file("copy");
    let copy = copy.to_str().unwrap();
    let wrong: [(&str, &str, &[&str], &str); 6] = [
        ("uploads/gone", copy, &[], "does not exist"),
        ("elsewhere/x", copy, &[], "does not exist"),
        ("uploads/../gristmill.toml", copy, &[], "`..`"),
        ("processed/x", "versioned@ffff", &[], "no version of `versioned` whose digest begins with `ffff` is kept"),
        ("processed/x", "/nowhere/x.wasm", &[], "/nowhere/x.wasm: cannot be read"),
        ("processed/x", copy, &["--commit"], "another gristmill"),
    ];
    for (key, plugin, more, expected) in wrong {
        let said = replay(&releasing, key, plugin, more).expect(1).log();
        assert!(said.contains(expected), "{key}: {said}");
    }
    host.terminate();
    host.finish().expect(0);
    let done = replay(&releasing, "processed/x", copy, &["--commit"]).expect(1).log();
    assert!(done.contains("so there is nothing to commit"), "{done}");
}
