//! Plugins that have to be signed, and plugins that are pinned.

use std::{collections::BTreeMap, fs, os::unix::fs::symlink};

use gristmill::{
    config::Trust,
    plugin::{Compiler, Digest},
    signing::{self, PublicKey},
};

use super::directory::{Fixture, version};
use crate::support::guests::bytes;

/// Somebody who signs.
struct Signer {
    secret: String,
    public: PublicKey,
}

impl Signer {
    fn new() -> Self {
        let (secret, public) = signing::generate(None).unwrap();
        Self { secret, public: PublicKey::parse(&public).unwrap() }
    }

    fn sign(&self, bytes: &[u8]) -> String {
        signing::sign(&self.secret, || panic!("no password is needed"), "version.wasm", bytes).unwrap()
    }
}

fn signed_by<'s>(signers: impl IntoIterator<Item = &'s Signer>) -> Trust {
    Trust { signed_by: signers.into_iter().map(|signer| signer.public.clone()).collect(), ..Trust::default() }
}

fn follow(trust: &Trust, files: &[(&str, &[u8])]) -> Fixture {
    Fixture::trusting(trust, Compiler::in_process(), files)
}

const SIG: &str = "version.wasm.sig";

#[tokio::test]
async fn only_what_one_of_the_keys_has_signed_is_loaded() {
    let (old, new, stranger) = (Signer::new(), Signer::new(), Signer::new());
    let (a, b) = (bytes("digest-a"), bytes("digest-b"));
    let mut fixture = follow(&signed_by([&old, &new]), &[("version.wasm", &a)]);
    let (catalog, refusal) = fixture.until_refused("version").await;
    assert!(catalog.get("version").is_none());
    let expected = "is not signed: put its `version.wasm.sig` beside it, as `gristmill plugin sign` makes it";
    assert_eq!(refusal.reason, expected);
    assert_eq!(refusal.digest, Some(Digest::of(&a)));

    for (signature, reason) in [
        (stranger.sign(&a), "was made with another key"),
        (old.sign(&b), "is not of this file"),
        (old.sign(&a).replace("version.wasm", "another.wasm"), "is not of this file"),
        (String::new(), "is no signature of minisign"),
        ("\0\u{1b}[2J".repeat(500), "is no signature of minisign"),
    ] {
        fixture.put(SIG, signature.as_bytes());
        let says = format!("is not signed: its `version.wasm.sig` {reason}, of those in `plugins_signed_by`");
        let refused = |entry: Option<&gristmill::registry::Entry>| {
            entry.is_some_and(|entry| entry.refused.as_ref().is_some_and(|refused| refused.reason == says))
        };
        let catalog = fixture.until("version", refused).await;
        assert!(catalog.get("version").is_none(), "{reason}");
    }

    // Either key will do, so that one can take the place of the other.
    for signer in [&old, &new] {
        fixture.put(SIG, b"nothing");
        fixture.until_refused("version").await;
        fixture.put(SIG, signer.sign(&a).as_bytes());
        let catalog = fixture.until_loaded("version", &a).await;
        assert_eq!(version(&catalog).await, "a");
    }
}

#[tokio::test]
async fn a_signature_that_changes_while_the_host_runs_is_looked_at_again() {
    let signer = Signer::new();
    let (a, b) = (bytes("digest-a"), bytes("digest-b"));
    let files = [("version.wasm", a.as_slice()), (SIG, &signer.sign(&a).into_bytes())];
    let mut fixture = follow(&signed_by([&signer]), &files);
    assert_eq!(version(&fixture.until_loaded("version", &a).await.clone()).await, "a");

    // Taken away, the file is refused, and what was loaded before stays.
    fs::remove_file(fixture.path(SIG)).unwrap();
    let (catalog, _) = fixture.until_refused("version").await;
    assert_eq!(version(&catalog).await, "a");
    fixture.put(SIG, signer.sign(&a).as_bytes());
    fixture.until_loaded("version", &a).await;

    // A new version comes with its own, before or after it.
    fixture.put("version.wasm", &b);
    let (catalog, refusal) = fixture.until_refused("version").await;
    assert!(refusal.reason.contains("is not of this file"), "{refusal:?}");
    assert_eq!(version(&catalog).await, "a");
    fixture.put(SIG, signer.sign(&b).as_bytes());
    let catalog = fixture.until_loaded("version", &b).await;
    assert_eq!(version(&catalog).await, "b");

    fixture.put(SIG, signer.sign(&a).as_bytes());
    fixture.until_refused("version").await;
    fixture.put("version.wasm", &a);
    fixture.until_loaded("version", &a).await;
}

#[tokio::test]
async fn a_signature_is_a_file_like_the_plugin() {
    let signer = Signer::new();
    let a = bytes("digest-a");
    let mut fixture = follow(&signed_by([&signer]), &[("version.wasm", &a), ("elsewhere", signer.sign(&a).as_bytes())]);
    symlink(fixture.path("elsewhere"), fixture.path(SIG)).unwrap();
    let is = |text: &'static str| {
        move |entry: Option<&gristmill::registry::Entry>| {
            entry.is_some_and(|entry| entry.refused.as_ref().is_some_and(|refused| refused.reason.contains(text)))
        }
    };
    fixture.until("version", is("its `version.wasm.sig` is not a regular file")).await;
    fs::remove_file(fixture.path(SIG)).unwrap();
    fs::File::create(fixture.path(SIG)).unwrap().set_len(1 << 40).unwrap();
    fixture.until("version", is("its `version.wasm.sig` has 1099511627776 bytes, more than the")).await;
    fs::remove_file(fixture.path(SIG)).unwrap();
    fs::rename(fixture.path("elsewhere"), fixture.path(SIG)).unwrap();
    fixture.until_loaded("version", &a).await;
}

#[tokio::test]
async fn a_pinned_plugin_is_one_of_its_files_or_none() {
    let [a, b] = ["digest-a", "digest-b"].map(bytes);
    let pins =
        BTreeMap::from([("version".to_owned(), vec![Digest::of(b"gone").to_string(), Digest::of(&a).to_string()])]);
    let mut fixture = follow(&Trust { pins, ..Trust::default() }, &[("version.wasm", &b), ("free.wasm", &b)]);
    let (catalog, refusal) = fixture.until_refused("version").await;
    assert!(catalog.get("version").is_none() && catalog.get("free").is_some());
    let expected = format!("has the SHA-256 {}, which is not among those of `plugin.version.sha256`", Digest::of(&b));
    assert_eq!(refusal.reason, expected);
    fixture.put("version.wasm", &a);
    fixture.until_loaded("version", &a).await;
    fixture.put("version.wasm", &b);
    let (catalog, _) = fixture.until_refused("version").await;
    assert_eq!(version(&catalog).await, "a");
}
