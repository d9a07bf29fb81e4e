//! `gristmill plugin promote`, `rollback` and `list`, beside a host and without one.

use crate::{
    Releasing, VERSIONED, has_logged, is,
    support::host::{Host, gristmill},
    wait_for,
};

#[test]
fn a_canary_is_promoted_and_rolled_back_beside_a_host() {
    let mut releasing = Releasing::new(VERSIONED);
    let digest = releasing.bucket.plugin("digest-b", "versioned@canary");
    let host = Host::dev(&releasing.bucket, &["--json"]);
    wait_for(&host, 0, "canary begins");
    let list = releasing.plugin("list", &[]).expect(0).out.join("\n");
    assert!(list.contains("canary, being tried") && list.contains("stable"), "{list}");

    let seen = host.log_length();
    let promoted = releasing.plugin("promote", &["versioned"]).expect(0);
    assert_eq!(promoted.out, [format!("versioned: the stable version is {}", &digest[..12])]);
    wait_for(&host, seen, "another version was made the stable one by hand");
    assert!(is(&releasing.answers(&host, 20), "b"));

    let seen = host.log_length();
    releasing.plugin("rollback", &["versioned"]).expect(0);
    wait_for(&host, seen, "another version was made the stable one by hand");
    assert!(is(&releasing.answers(&host, 20), "a"));
    let list = releasing.plugin("list", &[]).expect(0).out.join("\n");
    assert!(list.contains("canary, not tried any more"), "{list}");

    let again = releasing.plugin("rollback", &["versioned"]).expect(1).log();
    assert!(again.contains("no version of `versioned` before the current one is known"), "{again}");
    host.terminate();
    let finished = host.finish().expect(0).expect_counts(&[("processed", 40)]);
    assert!(!has_logged(&finished, "canary promoted"));
}

#[test]
fn a_rollback_needs_no_file_and_no_host() {
    let mut releasing = Releasing::new(VERSIONED);
    let host = Host::dev(&releasing.bucket, &["--json"]);
    assert!(is(&releasing.answers(&host, 5), "a"));
    let seen = host.log_length();
    releasing.bucket.plugin("digest-b", "versioned");
    wait_for(&host, seen, "plugin loaded");
    assert!(is(&releasing.answers(&host, 5), "b"));
    host.terminate();
    host.finish().expect(0);

    releasing.plugin("rollback", &["versioned"]).expect(0);
    let list = releasing.plugin("list", &["--json"]).expect(0).out.join("\n");
    assert!(list.contains("\"role\":\"replaced\"") && list.contains("\"role\":\"stable\""), "{list}");
    let host = Host::dev(&releasing.bucket, &["--json"]);
    assert!(is(&releasing.answers(&host, 20), "a"));
    host.terminate();
    host.finish().expect(0);
}

#[test]
fn what_cannot_be_done_says_why() {
    let releasing = Releasing::new(VERSIONED);
    let unknown = releasing.plugin("rollback", &["versioned"]).expect(1).log();
    assert!(unknown.contains("no host has loaded it"), "{unknown}");
    assert!(!releasing.bucket.exists(".gristmill"), "looking makes nothing");
    releasing.bucket.run_until_idle().expect(0);
    let none = releasing.plugin("promote", &["versioned"]).expect(1).log();
    assert!(none.contains("no canary of `versioned` is being tried"), "{none}");
    let wrong = releasing.plugin("promote", &["../versioned"]).expect(64).log();
    assert!(wrong.contains("is not a plugin's name"), "{wrong}");
}

/// Two versions that a host has seen, the later one in the directory, and a rollback to the earlier one. Then what
/// `change` makes of the configuration, given the digest of the later one.
fn rolled_back(change: impl FnOnce(&Releasing, &str) -> String) -> (Releasing, Host) {
    let mut releasing = Releasing::new(VERSIONED);
    let host = Host::dev(&releasing.bucket, &["--json"]);
    assert!(is(&releasing.answers(&host, 1), "a"));
    let seen = host.log_length();
    let digest = releasing.bucket.plugin("digest-b", "versioned");
    wait_for(&host, seen, "plugin loaded");
    host.terminate();
    host.finish().expect(0);
    releasing.plugin("rollback", &["versioned"]).expect(0);
    let configuration = change(&releasing, &digest);
    releasing.bucket.write("gristmill.toml", configuration.as_bytes());
    let host = Host::dev(&releasing.bucket, &["--json"]);
    (releasing, host)
}

#[test]
fn an_earlier_version_that_is_not_pinned_is_not_called() {
    let (mut releasing, host) =
        rolled_back(|_, digest| format!("{VERSIONED}\n[plugin.versioned]\nsha256 = '{digest}'"));
    let refused = wait_for(&host, 0, "a version of a plugin cannot be used, what was in use stays in use");
    assert!(refused["problem"].as_str().unwrap().contains("`plugin.versioned.sha256`"), "{refused}");
    assert!(is(&releasing.answers(&host, 5), "b"));
    host.terminate();
    host.finish().expect(0);
}

#[test]
fn an_earlier_version_that_was_not_signed_is_not_called_where_signatures_are_wanted() {
    let (mut releasing, host) = rolled_back(|releasing, _| {
        let path = |key: &str| releasing.bucket.path(key).to_str().unwrap().to_owned();
        let made = gristmill(&["plugin", "keygen", "--no-password", "-o", &path("mill")]).expect(0);
        let keys = made.out.iter().find(|line| line.starts_with("plugins_signed_by")).unwrap();
        gristmill(&["plugin", "sign", &path("plugins/versioned.wasm"), "--key", &path("mill.key")]).expect(0);
        format!("{keys}\n{VERSIONED}")
    });
    let refused = wait_for(&host, 0, "a version of a plugin cannot be used, what was in use stays in use");
    assert!(refused["problem"].as_str().unwrap().contains("was not signed when it was kept"), "{refused}");
    assert!(is(&releasing.answers(&host, 5), "b"));
    host.terminate();
    host.finish().expect(0);
}

#[test]
fn an_earlier_version_keeps_its_signature() {
    let mut releasing = Releasing::new(VERSIONED);
    let path = |releasing: &Releasing, key: &str| releasing.bucket.path(key).to_str().unwrap().to_owned();
    let made = gristmill(&["plugin", "keygen", "--no-password", "-o", &path(&releasing, "mill")]).expect(0);
    let keys = made.out.iter().find(|line| line.starts_with("plugins_signed_by")).unwrap();
    releasing.bucket.write("gristmill.toml", format!("{keys}\n{VERSIONED}").as_bytes());
    let sign = |releasing: &Releasing| {
        let (plugin, key) = (path(releasing, "plugins/versioned.wasm"), path(releasing, "mill.key"));
        gristmill(&["plugin", "sign", &plugin, "--key", &key]).expect(0);
    };
    sign(&releasing);
    let host = Host::dev(&releasing.bucket, &["--json"]);
    assert!(is(&releasing.answers(&host, 1), "a"));
    let seen = host.log_length();
    releasing.bucket.plugin("digest-b", "versioned");
    sign(&releasing);
    wait_for(&host, seen, "plugin loaded");
    host.terminate();
    host.finish().expect(0);
    releasing.plugin("rollback", &["versioned"]).expect(0);
    let host = Host::dev(&releasing.bucket, &["--json"]);
    assert!(is(&releasing.answers(&host, 5), "a"));
    host.terminate();
    host.finish().expect(0);
}
