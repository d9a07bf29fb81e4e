//! Versions that are only watched.

use serde_json::Value;

use crate::{Releasing, VERSIONED, is, support::host::Host, wait_for};

/// Lets the host see the shadow's file go, and answers what it then says of it.
fn end(releasing: &Releasing, host: &Host) -> Value {
    let seen = host.log_length();
    releasing.remove("versioned@shadow");
    wait_for(host, seen, "shadow ended")
}

#[test]
fn a_shadow_is_compared_and_makes_nothing() {
    let mut releasing = Releasing::new(VERSIONED);
    releasing.bucket.plugin("digest-b", "versioned@shadow");
    let host = Host::dev(&releasing.bucket, &["--json"]);
    wait_for(&host, 0, "shadow begins");
    for number in 1..=5 {
        // One by one, as a busy host leaves objects out.
        assert!(is(&releasing.answers(&host, 1), "a"));
        host.wait_for_log("the comparison", |lines| {
            (lines.iter().filter(|line| line.contains("shadow differs")).count() == number).then_some(())
        });
    }
    let told = wait_for(&host, 0, "shadow differs");
    assert_eq!(told["differences"], "processed/00000.version: other bytes, as many");
    assert!(told["key"] == "uploads/00000" && told["stable_ms"].is_number() && told["shadow_ms"].is_number());
    let ended = end(&releasing, &host);
    assert_eq!((ended["compared"].as_u64(), ended["differing"].as_u64()), (Some(5), Some(5)));
    host.terminate();
    host.finish().expect(0).expect_counts(&[("processed", 5)]);
    assert!(!releasing.bucket.exists("processed/00000.copy"));
}

#[test]
fn equal_results_are_no_difference_and_other_verdicts_are() {
    let mut releasing = Releasing::new(VERSIONED);
    // Another digest, the same results.
    let mut same = std::fs::read(crate::support::host::guest_file("digest-a")).unwrap();
    same.extend([0, 2, 1, b'x']);
    releasing.bucket.write("plugins/versioned@shadow.wasm", &same);
    let host = Host::dev(&releasing.bucket, &["--json"]);
    wait_for(&host, 0, "shadow begins");
    releasing.answers(&host, 1);
    // The next one can only be told of after it.
    let seen = host.log_length();
    releasing.bucket.plugin("reject", "versioned@shadow");
    let ended = wait_for(&host, seen, "shadow ended");
    assert_eq!((ended["compared"].as_u64(), ended["differing"].as_u64()), (Some(1), Some(0)));
    releasing.answers(&host, 1);
    let told = wait_for(&host, 0, "shadow differs");
    assert_eq!(told["differences"], "verdict done -> reject");
    host.terminate();
    host.finish().expect(0).expect_counts(&[("processed", 2)]);
}

/// A shadow that never ends takes the places of all shadows, and nothing else.
#[test]
fn a_shadow_holds_up_nobody() {
    let mut releasing = Releasing::new(VERSIONED);
    releasing.bucket.plugin("spin", "versioned@shadow");
    let host = Host::dev(&releasing.bucket, &["--json"]);
    wait_for(&host, 0, "shadow begins");
    assert!(is(&releasing.answers(&host, 50), "a"));
    wait_for(&host, 0, "the host is busy, objects are left out for the shadow");
    host.terminate();
    let finished = host.finish().expect(0).expect_counts(&[("processed", 50)]);
    assert!(finished.err.iter().any(|line| line.contains("shadow ended")), "{}", finished.log());
}
