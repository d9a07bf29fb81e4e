//! Plugins that are replaced while objects flow: no object fails because of it, and each result names the
//! version that made it.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod support {
    pub mod auditor;
    pub mod host;
    pub mod samples;
}

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, RenameFlags, Timespec, Timestamps};
use serde_json::Value;
use support::{
    auditor::{Auditor, Content, Object, Output, destination},
    host::{Bucket, Host, guest_file, sha256},
};

const SWAPS: usize = 306;

/// Dropped around each swap.
const OBJECTS_A_SWAP: usize = 4;

const DELETIONS: usize = 14;

/// Objects may wait for the one plugin there is, but nothing may use their attempts up.
const CONFIGURATION: &str = r#"
[retry]
max_attempts = 1000
base = "5ms"
max = "20ms"

[[route]]
plugins = ["versioned"]
"#;

/// The two versions, and what each says.
const VERSIONS: [(&str, &str); 2] = [("digest-a", "a"), ("digest-b", "b")];

/// A directory with one plugin, and objects that it has to mark with its version.
struct Reloading {
    bucket: Bucket,
    /// Digest and bytes.
    versions: [(String, Vec<u8>); 2],
    manifest: Vec<Object>,
}

impl Reloading {
    fn new() -> Self {
        let bucket = Bucket::with(&[], CONFIGURATION);
        bucket.plugin(VERSIONS[0].0, "versioned");
        let versions = VERSIONS.map(|(guest, _)| {
            let bytes = fs::read(guest_file(guest)).unwrap();
            (sha256(&bytes), bytes)
        });
        Self { bucket, versions, manifest: Vec::new() }
    }

    fn drop_objects(&mut self, number: usize) {
        for _ in 0..number {
            let key = format!("uploads/{}", self.manifest.len());
            self.bucket.write(&key, key.as_bytes());
            let by_version = self
                .versions
                .iter()
                .zip(VERSIONS)
                .map(|((digest, _), (_, says))| (digest.clone(), sha256(says.as_bytes())));
            let content = Content::ByVersion(by_version.collect());
            let output =
                Output { key: format!("{}.version", destination(&key)), plugin: "versioned".to_owned(), content };
            self.manifest.push(Object::processed(&key, key.as_bytes(), &["versioned"], vec![output]));
        }
    }

    fn check(&self) {
        let mut auditor = Auditor::new(self.bucket.root(), &self.manifest);
        let digests = self.versions.iter().map(|(digest, _)| digest.clone()).collect::<BTreeSet<_>>();
        auditor.versions = BTreeMap::from([("versioned".to_owned(), digests)]);
        auditor.check();
    }

    /// Puts what `make` makes where the plugin is, in one step.
    fn swap_in(&self, make: impl FnOnce(&Path)) {
        let next = self.bucket.path("next");
        make(&next);
        // Not just written: the host would wait for the rest.
        let long_ago = Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
        let times = Timestamps { last_access: long_ago, last_modification: long_ago };
        rustix::fs::utimensat(CWD, &next, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        rustix::fs::renameat_with(CWD, &next, CWD, self.plugin_file(), RenameFlags::EXCHANGE).unwrap();
        match next.is_dir() && !next.is_symlink() {
            true => fs::remove_dir(next).unwrap(),
            false => fs::remove_file(next).unwrap(),
        }
    }

    /// Writes over the file that is there, as `cp` does. Whoever reads now may find a part.
    fn copy_over(&self, bytes: &[u8]) {
        let mut file = File::create(self.plugin_file()).unwrap();
        bytes.chunks(10_000).for_each(|chunk| file.write_all(chunk).unwrap());
    }

    fn is_regular(&self) -> bool {
        self.plugin_file().symlink_metadata().unwrap().is_file()
    }

    fn plugin_file(&self) -> PathBuf {
        self.bucket.path("plugins/versioned.wasm")
    }
}

/// A new log line from `start` on that has this message and this text.
fn logged(lines: &[String], start: usize, message: &str, text: &str) -> bool {
    lines[start..].iter().any(|line| {
        let json: Value = serde_json::from_str(line).unwrap();
        json["message"] == message && line.contains(text)
    })
}

/// Makes something at a path.
type Make = Box<dyn Fn(&Path)>;

/// What else people put there, and what the refusal says of it.
fn bad_files(good: &[u8]) -> Vec<(&'static str, Make)> {
    let file = |bytes: Vec<u8>| move |path: &Path| fs::write(path, &bytes).unwrap();
    vec![
        ("is a core module", Box::new(file(good[..good.len() / 2].to_vec()))),
        ("the file is empty", Box::new(file(Vec::new()))),
        ("is not WebAssembly", Box::new(file(b"this is no plugin at all\n".to_vec()))),
        ("more than the", Box::new(|path| File::create(path).unwrap().set_len(8 << 30).unwrap())),
        ("is not a regular file", Box::new(|path| symlink(guest_file("digest-a"), path).unwrap())),
        ("is already compiled code", Box::new(file(compiled_code()))),
        ("is not a regular file", Box::new(|path| fs::create_dir(path).unwrap())),
    ]
}

/// The head of what `wasmtime compile` writes for a component: an ELF file of its own kind.
fn compiled_code() -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01\xc8".to_vec();
    elf.resize(64, 0);
    // e_flags and e_ehsize.
    elf[48] = 2;
    elf[52] = 64;
    elf
}

#[test]
fn swaps_under_load_fail_no_object() {
    let mut reloading = Reloading::new();
    let host = Host::dev(&reloading.bucket, &["--json"]);
    host.wait_for_log("the first plugin", |lines| logged(lines, 0, "plugin loaded", "").then_some(()));
    let good = reloading.versions[0].1.clone();
    let bad = bad_files(&good);
    let mut copied_over = 0;
    for swap in 0..SWAPS {
        let seen = host.log_length();
        reloading.drop_objects(OBJECTS_A_SWAP / 2);
        let (message, text) = if swap % 2 == 0 {
            let (reason, make) = &bad[swap / 2 % bad.len()];
            reloading.swap_in(make);
            ("plugin refused", (*reason).to_owned())
        } else {
            let (digest, bytes) = &reloading.versions[(swap / 2 + 1) % 2];
            if swap % 5 == 0 && reloading.is_regular() {
                copied_over += 1;
                reloading.copy_over(bytes);
            } else {
                reloading.swap_in(|path| fs::write(path, bytes).unwrap());
            }
            ("plugin loaded", digest[..12].to_owned())
        };
        reloading.drop_objects(OBJECTS_A_SWAP / 2);
        host.wait_for_log(&format!("swap {swap}: {message}, {text}"), |lines| {
            logged(lines, seen, message, &text).then_some(())
        });
    }
    assert!(copied_over > 10, "{copied_over}");
    host.wait_for_objects(reloading.manifest.len());
    host.terminate();
    let finished = host.finish().expect(0);
    let objects = reloading.manifest.len();
    println!("{SWAPS} swaps under {objects} objects: {}", finished.summary());
    finished.expect_counts(&[("processed", objects as u64)]);
    reloading.check();
}

/// A deletion may delay objects, for the time in which there is no plugin, but it fails none.
#[test]
fn deletions_under_load_fail_no_object() {
    let mut reloading = Reloading::new();
    let host = Host::dev(&reloading.bucket, &["--json"]);
    host.wait_for_log("the first plugin", |lines| logged(lines, 0, "plugin loaded", "").then_some(()));
    for deletion in 0..DELETIONS {
        let seen = host.log_length();
        reloading.drop_objects(OBJECTS_A_SWAP);
        fs::remove_file(reloading.plugin_file()).unwrap();
        if deletion % 2 == 0 {
            host.wait_for_log("the deletion", |lines| logged(lines, seen, "plugin unloaded", "").then_some(()));
        }
        reloading.drop_objects(OBJECTS_A_SWAP);
        let (digest, bytes) = &reloading.versions[(deletion + 1) % 2];
        reloading.copy_over(bytes);
        let digest = digest[..12].to_owned();
        host.wait_for_log("the other version", |lines| logged(lines, seen, "plugin loaded", &digest).then_some(()));
    }
    let objects = reloading.manifest.len();
    host.wait_for_objects(objects);
    host.terminate();
    let finished = host.finish().expect(0);
    let retried = finished.summary()["retried"].as_u64().unwrap();
    assert!(retried > 0, "no object met the gap: {}", finished.summary());
    finished.expect_counts(&[("processed", objects as u64), ("retried", retried)]);
    reloading.check();
}
