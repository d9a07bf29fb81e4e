//! The way of a signed plugin, with the real binary: a key, a signature, and a host that wants one.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod support {
    pub mod host;
}

use std::{fs, os::unix::fs::PermissionsExt as _};

use support::host::{Bucket, gristmill, guest_file, sha256};

/// A pair of keys in the bucket's folder, and the line for the configuration.
fn keygen(bucket: &Bucket, name: &str) -> String {
    let name = bucket.path(name);
    let made = gristmill(&["plugin", "keygen", "--no-password", "-o", name.to_str().unwrap()]).expect(0);
    made.out.into_iter().find(|line| line.starts_with("plugins_signed_by = [\"RW")).unwrap()
}

#[test]
fn a_signed_plugin_runs_and_another_one_does_not() {
    let bucket = Bucket::with(&["upper"], "");
    let line = keygen(&bucket, "mill");
    bucket.write(
        "gristmill.toml",
        format!("{line}\n[retry]\nmax_attempts = 1\n[[route]]\nplugins = [\"upper\"]").as_bytes(),
    );
    bucket.write("uploads/a.txt", b"grist");
    let unsigned = bucket.run_until_idle();
    assert!(unsigned.log().contains("is not signed: put its `upper.wasm.sig` beside it"), "{}", unsigned.log());
    assert!(unsigned.record("uploads/a.txt")["reason"].as_str().unwrap().contains("no plugin `upper` is loaded"));
    assert!(bucket.exists("uploads/a.txt"));

    let plugin = bucket.path("plugins/upper.wasm");
    let [key, public] = ["mill.key", "mill.pub"].map(|name| bucket.path(name).to_str().unwrap().to_owned());
    let plugin = plugin.to_str().unwrap();
    let checked = gristmill(&["plugin", "verify", plugin, "-p", &public]).expect(1);
    assert!(checked.out[0].contains("NOT SIGNED"), "{:?}", checked.out);
    gristmill(&["plugin", "sign", plugin, "--key", &key]).expect(0);
    let checked = gristmill(&["plugin", "verify", plugin, "-p", &public]).expect(0);
    assert!(checked.out[0].contains(": signed, timestamp:"), "{:?}", checked.out);

    bucket.write("uploads/b.txt", b"grist");
    bucket.run_until_idle().expect_counts(&[("processed", 1)]);
    assert_eq!(bucket.read("processed/b.txt.upper").unwrap(), b"GRIST");
}

#[test]
fn keys_are_private_and_never_overwritten() {
    let bucket = Bucket::new();
    keygen(&bucket, "mill");
    let mode = |name: &str| fs::metadata(bucket.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("mill.key"), mode("mill.pub")), (0o600, 0o644));
    let before = bucket.read("mill.key");
    let again = || gristmill(&["plugin", "keygen", "--no-password", "-o", bucket.path("mill").to_str().unwrap()]);
    assert!(again().expect(1).log().contains("mill.key is already there; name another one with -o"));
    assert_eq!(bucket.read("mill.key"), before);
    // Half of a pair is no reason to overwrite the other half.
    fs::remove_file(bucket.path("mill.key")).unwrap();
    assert!(again().expect(1).log().contains("mill.pub is already there"));
    assert!(!bucket.exists("mill.key"));
}

#[test]
fn what_cannot_be_signed_or_checked_says_why() {
    let bucket = Bucket::new();
    keygen(&bucket, "mill");
    let guest = guest_file("nothing");
    let [key, missing] = ["mill.pub", "missing.key"].map(|name| bucket.path(name).to_str().unwrap().to_owned());
    let guest = guest.to_str().unwrap();
    assert!(gristmill(&["plugin", "sign", guest, "--key", &missing]).expect(1).log().contains("cannot read"));
    assert!(gristmill(&["plugin", "sign", guest, "--key", &key]).expect(1).log().contains("cannot sign"));
    let wrong = gristmill(&["plugin", "verify", guest, "-p", guest]).expect(1).log();
    assert!(wrong.contains("cannot read") || wrong.contains("is no public key of minisign"), "{wrong}");
}

#[test]
fn a_pin_holds_for_built_in_plugins_too() {
    let bucket = Bucket::new();
    let pinned = |digest: &str| format!("[plugin.passthrough]\nsha256 = \"{digest}\"");
    bucket.write("gristmill.toml", pinned(&sha256(b"another")).as_bytes());
    let refused = bucket.run_until_idle().expect(1);
    let says = "built-in plugin `passthrough` has the SHA-256";
    assert!(refused.log().contains(says), "{}", refused.log());
    let file = support::host::built_in_file("passthrough");
    bucket.write("gristmill.toml", pinned(&sha256(&fs::read(file).unwrap()).to_uppercase()).as_bytes());
    bucket.run_until_idle().expect(0);
}
