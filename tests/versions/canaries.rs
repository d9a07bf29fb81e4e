//! Canaries that decide by themselves.

use crate::{Releasing, VERSIONED, has_logged, is, support::host::Host, wait_for};

#[test]
fn a_good_canary_is_promoted_and_stays_so() {
    let mut releasing = Releasing::new(VERSIONED);
    let digest = releasing.bucket.plugin("digest-b", "versioned@canary");
    let host = Host::dev(&releasing.bucket, &["--json"]);
    wait_for(&host, 0, "canary begins");
    let answers = releasing.answers(&host, 100);
    let promoted = wait_for(&host, 0, "canary promoted");
    assert_eq!((promoted["plugin"].as_str(), promoted["canary"].as_str()), (Some("versioned"), Some(&digest[..12])));
    assert_eq!((promoted["canary_failed"].as_u64(), promoted["worse"].as_u64()), (Some(0), Some(0)));
    assert!(promoted["canary_calls"].as_u64() >= Some(20), "{promoted}");
    assert!(promoted["stable_calls"].as_u64() >= Some(20) && promoted["stable_ms"].is_number(), "{promoted}");
    let old = answers.iter().filter(|answer| *answer == "a").count();
    assert!((20..=80).contains(&old), "{old} of 100 objects went through the stable version");
    assert!(is(&releasing.answers(&host, 20), "b"));
    host.terminate();
    host.finish().expect(0);

    // Neither the process nor the file is needed for it to stay.
    releasing.remove("versioned@canary");
    let host = Host::dev(&releasing.bucket, &["--json"]);
    assert!(is(&releasing.answers(&host, 20), "b"));
    // The directory is the operator's: another file is another version.
    let seen = host.log_length();
    releasing.bucket.plugin("digest-b", "versioned");
    wait_for(&host, seen, "plugin loaded");
    let seen = host.log_length();
    releasing.bucket.plugin("digest-a", "versioned");
    wait_for(&host, seen, "plugin loaded");
    assert!(is(&releasing.answers(&host, 20), "a"));
    host.terminate();
    let finished = host.finish().expect(0);
    assert!(!has_logged(&finished, "canary begins"));
}

#[test]
fn a_failing_canary_costs_no_object_and_is_not_tried_again() {
    let mut releasing = Releasing::new(VERSIONED);
    releasing.bucket.plugin("reject", "versioned@canary");
    let host = Host::dev(&releasing.bucket, &["--json"]);
    wait_for(&host, 0, "canary begins");
    assert!(is(&releasing.answers(&host, 100), "a"));
    let rolled_back = wait_for(&host, 0, "canary rolled back");
    assert_eq!((rolled_back["reason"].as_str(), rolled_back["worse"].as_u64()), (Some("failures"), Some(2)));
    host.terminate();
    // No object has even been tried twice.
    host.finish().expect(0).expect_counts(&[("processed", 100)]);

    let host = Host::dev(&releasing.bucket, &["--json"]);
    assert!(is(&releasing.answers(&host, 50), "a"));
    let seen = host.log_length();
    releasing.bucket.plugin("digest-b", "versioned@canary");
    wait_for(&host, seen, "canary begins");
    releasing.answers(&host, 100);
    wait_for(&host, seen, "canary promoted");
    assert!(is(&releasing.answers(&host, 10), "b"));
    host.terminate();
    let finished = host.finish().expect(0).expect_counts(&[("processed", 160)]);
    assert!(!has_logged(&finished, "canary rolled back"));
}

/// They wait for the trial's end, so that it does not matter which objects came first.
#[test]
fn a_slow_canary_is_rolled_back() {
    let configuration = VERSIONED.replace(
        "[[route]]\nplugins = [\"versioned\"]",
        "[[route]]\n[[route.use]]\nplugin = \"versioned\"\nsettings = { rounds = \"200\" }",
    );
    let releasing = Releasing::new(&configuration);
    releasing.bucket.plugin("copy", "versioned");
    releasing.bucket.plugin("slow", "versioned@canary");
    let host = Host::dev(&releasing.bucket, &["--json"]);
    wait_for(&host, 0, "canary begins");
    for name in 0..100 {
        releasing.bucket.write(&format!("uploads/{name}"), b"");
    }
    host.wait_for_objects(100);
    let rolled_back = wait_for(&host, 0, "canary rolled back");
    assert!(rolled_back["reason"] == "latency" && rolled_back["canary_calls"].as_u64() >= Some(20), "{rolled_back}");
    assert!(rolled_back["canary_ms"].as_f64() > rolled_back["stable_ms"].as_f64(), "{rolled_back}");
    host.terminate();
    host.finish().expect(0).expect_counts(&[("processed", 100)]);
}

/// What is bad for both is the object's fault: it decides nothing, and ends as it would have without a canary.
#[test]
fn objects_that_are_bad_for_both_decide_nothing() {
    let releasing = Releasing::new(VERSIONED);
    releasing.bucket.plugin("reject", "versioned");
    releasing.bucket.plugin("panic", "versioned@canary");
    let host = Host::dev(&releasing.bucket, &["--json"]);
    wait_for(&host, 0, "canary begins");
    for name in 0..50 {
        releasing.bucket.write(&format!("uploads/{name}"), b"x");
    }
    host.wait_for_objects(50);
    host.terminate();
    let finished = host.finish().expect(1).expect_counts(&[("rejected", 50)]);
    assert!(has_logged(&finished, "canary failed, the stable version took the object"));
    assert!(!has_logged(&finished, "canary rolled back") && !has_logged(&finished, "canary promoted"));
}
