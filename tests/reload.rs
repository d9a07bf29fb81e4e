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
    iter,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, RenameFlags, Timespec, Timestamps};
use serde_json::Value;
use support::{
    auditor::{Auditor, Content, Object, Output, destination},
    host::{Bucket, Host, gristmill, guest_file, sha256},
};

/// Of the mixture, each so many times.
const ROUNDS: usize = 100;

/// Changes of the directory or of a release in one round.
const CHANGES_A_ROUND: usize = 10;

/// After so many rounds everything that the host keeps has been there once, caches of the database included, which grow
/// for long. A leak would show in the other half just as well.
const WARM_UP: usize = ROUNDS / 2;

/// Dropped around each change.
const OBJECTS_A_CHANGE: usize = 2;

/// So many that a canary's trial comes to its end.
const OBJECTS_A_TRIAL: usize = 60;

/// Of each of the two plugins.
const VARIANTS: usize = 10;

const DELETIONS: usize = 14;

/// Dropped around each deletion.
const OBJECTS_A_DELETION: usize = 8;

/// Objects may wait for the one plugin there is, but nothing may use their attempts up.
const CONFIGURATION: &str = r#"
[retry]
max_attempts = 1000
base = "5ms"
max = "20ms"

[[route]]
plugins = ["versioned"]

[plugin.versioned.canary]
share = "50%"
after = 10
latency_margin = "1000%"
"#;

/// The two plugins, and what each says.
const VERSIONS: [(&str, &str); 2] = [("digest-a", "a"), ("digest-b", "b")];

/// One version of the plugin.
struct Version {
    digest: String,
    bytes: Vec<u8>,
    says: &'static str,
}

impl Version {
    /// The guest with a custom section of its own, which changes nothing but the digest.
    fn new(guest: &str, says: &'static str, variant: usize) -> Self {
        let mut bytes = fs::read(guest_file(guest)).unwrap();
        bytes.extend([0, 9, 7]);
        bytes.extend(b"variant");
        bytes.push(u8::try_from(variant).unwrap());
        Self { digest: sha256(&bytes), bytes, says }
    }
}

/// A directory with one plugin, and objects that it has to mark with its version.
struct Reloading {
    bucket: Bucket,
    /// In the order in which they are used, over and over.
    versions: Vec<Version>,
    used: usize,
    keys: Vec<String>,
}

impl Reloading {
    fn new() -> Self {
        let bucket = Bucket::with(&[], CONFIGURATION);
        let variants = (0..VARIANTS).flat_map(|variant| VERSIONS.map(|it| Version::new(it.0, it.1, variant)));
        let reloading = Self { bucket, versions: variants.collect(), used: 0, keys: Vec::new() };
        let first = &reloading.versions[0];
        reloading.bucket.write("plugins/versioned.wasm", &first.bytes);
        reloading
    }

    /// The next version's digest and bytes.
    fn next(&mut self) -> (String, Vec<u8>) {
        self.used += 1;
        let next = &self.versions[self.used % self.versions.len()];
        (next.digest[..12].to_owned(), next.bytes.clone())
    }

    fn drop_objects(&mut self, number: usize) {
        for _ in 0..number {
            let key = format!("uploads/{}", self.keys.len());
            self.bucket.write(&key, key.as_bytes());
            self.keys.push(key);
        }
    }

    fn check(&self) {
        let by_version = || self.versions.iter().map(|it| (it.digest.clone(), sha256(it.says.as_bytes()))).collect();
        let object = |key: &String| {
            let output = Output {
                key: format!("{}.version", destination(key)),
                plugin: "versioned".to_owned(),
                content: Content::ByVersion(by_version()),
            };
            Object::processed(key, key.as_bytes(), &["versioned"], vec![output])
        };
        let manifest: Vec<Object> = self.keys.iter().map(object).collect();
        let mut auditor = Auditor::new(self.bucket.root(), &manifest);
        let digests = self.versions.iter().map(|it| it.digest.clone()).collect::<BTreeSet<_>>();
        auditor.versions = BTreeMap::from([("versioned".to_owned(), digests)]);
        auditor.check();
    }

    /// `gristmill plugin promote` or `rollback`.
    fn by_hand(&self, verb: &str) {
        gristmill(&["plugin", verb, "versioned", "-d", self.bucket.root().to_str().unwrap()]).expect(0);
    }

    /// Something that looks as if it had been finished long ago: for what was just written the host would wait.
    fn prepare(&self, make: impl FnOnce(&Path)) -> PathBuf {
        let next = self.bucket.path("next");
        make(&next);
        let long_ago = Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
        let times = Timestamps { last_access: long_ago, last_modification: long_ago };
        rustix::fs::utimensat(CWD, &next, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        next
    }

    /// Puts what `make` makes where the plugin is, in one step.
    fn swap_in(&self, make: impl FnOnce(&Path)) {
        let next = self.prepare(make);
        rustix::fs::renameat_with(CWD, &next, CWD, self.plugin_file(), RenameFlags::EXCHANGE).unwrap();
        match next.is_dir() && !next.is_symlink() {
            true => fs::remove_dir(next).unwrap(),
            false => fs::remove_file(next).unwrap(),
        }
    }

    fn put_canary(&self, bytes: &[u8]) {
        fs::rename(self.prepare(|path| fs::write(path, bytes).unwrap()), self.canary_file()).unwrap();
    }

    fn canary_file(&self) -> PathBuf {
        self.bucket.path("plugins/versioned@canary.wasm")
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

/// A running host, and what is done to it.
struct Round<'a> {
    reloading: &'a mut Reloading,
    host: &'a Host,
}

impl Round<'_> {
    /// Does something under load, and waits for the log line that tells of it.
    fn change(&mut self, message: &str, text: &str, change: impl FnOnce(&Reloading)) {
        let seen = self.host.log_length();
        self.reloading.drop_objects(OBJECTS_A_CHANGE / 2);
        change(self.reloading);
        self.reloading.drop_objects(OBJECTS_A_CHANGE / 2);
        self.wait(seen, message, text);
    }

    fn wait(&self, seen: usize, message: &str, text: &str) {
        self.host.wait_for_log(&format!("{message}, {text}"), |lines| logged(lines, seen, message, text).then_some(()));
    }

    fn all_done(&self) {
        self.host.wait_for_objects(self.reloading.keys.len());
    }

    /// A canary by another version, after which the objects of a trial may come.
    fn canary(&mut self, bytes: &[u8]) {
        // So few are on their way then that the trial does not end by itself.
        self.all_done();
        self.change("canary begins", "versioned", |reloading| reloading.put_canary(bytes));
    }

    fn play(&mut self, number: usize, bad: &[(&str, Make)], broken: &[u8]) {
        for _ in 0..2 {
            let (reason, make) = &bad[number % bad.len()];
            self.change("plugin refused", reason, |reloading| reloading.swap_in(make));
            let (digest, bytes) = self.reloading.next();
            self.change("plugin loaded", &digest, |reloading| {
                match number.is_multiple_of(5) && reloading.is_regular() {
                    true => reloading.copy_over(&bytes),
                    false => reloading.swap_in(|path| fs::write(path, &bytes).unwrap()),
                }
            });
        }
        let (_, bytes) = self.reloading.next();
        self.canary(&bytes);
        self.change("another version was made the stable one by hand", "", |reloading| reloading.by_hand("promote"));
        self.change("another version was made the stable one by hand", "", |reloading| reloading.by_hand("rollback"));

        // One canary is promoted, one is rolled back, and of the others somebody thinks better.
        let (_, bytes) = self.reloading.next();
        let (bytes, message) = match number % 5 {
            0 => (&bytes[..], "canary promoted"),
            1 => (broken, "canary rolled back"),
            _ => (&bytes[..], "the canary was rolled back by hand"),
        };
        self.canary(bytes);
        if number % 5 < 2 {
            let seen = self.host.log_length();
            self.reloading.drop_objects(OBJECTS_A_TRIAL);
            self.wait(seen, message, "");
        } else {
            self.change(message, "", |reloading| reloading.by_hand("rollback"));
        }
        self.change("plugin unloaded", "versioned@canary", |reloading| {
            fs::remove_file(reloading.canary_file()).unwrap();
        });
    }
}

/// Bytes in memory, and open files.
fn footprint(host: &Host) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{}/status", host.id())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (kilobytes << 10, fs::read_dir(format!("/proc/{}/fd", host.id())).unwrap().count())
}

#[test]
fn a_thousand_changes_under_load_fail_no_object_and_leak_nothing() {
    let mut reloading = Reloading::new();
    let host = Host::dev(&reloading.bucket, &["--json"]);
    host.wait_for_log("the first plugin", |lines| logged(lines, 0, "plugin loaded", "").then_some(()));
    let bad = bad_files(&reloading.versions[0].bytes);
    // Each time another one, as what was rolled back is not tried again.
    let mut broken = iter::successors(Some(0), |number| Some(number + 1)).map(|n| Version::new("reject", "", n));
    let mut warm = (0, 0);
    for number in 0..ROUNDS {
        let broken = broken.next().unwrap();
        let mut round = Round { reloading: &mut reloading, host: &host };
        round.play(number, &bad, &broken.bytes);
        if number + 1 == WARM_UP {
            round.all_done();
            warm = footprint(&host);
        }
    }
    host.wait_for_objects(reloading.keys.len());
    let end = footprint(&host);
    host.terminate();
    let finished = host.finish().expect(0);
    let (objects, changes) = (reloading.keys.len(), ROUNDS * CHANGES_A_ROUND);
    println!("{changes} changes under {objects} objects: {}; {warm:?} -> {end:?}", finished.summary());
    finished.expect_counts(&[("processed", objects as u64)]);
    reloading.check();
    let is_flat = |before: f64, after: f64| after <= before * 1.1;
    assert!(is_flat(warm.0 as f64, end.0 as f64), "bytes in memory: {} -> {}", warm.0, end.0);
    assert!(is_flat(warm.1 as f64, end.1 as f64), "open files: {} -> {}", warm.1, end.1);
}

/// A deletion may delay objects, for the time in which there is no plugin, but it fails none.
#[test]
fn deletions_under_load_fail_no_object() {
    let mut reloading = Reloading::new();
    let host = Host::dev(&reloading.bucket, &["--json"]);
    host.wait_for_log("the first plugin", |lines| logged(lines, 0, "plugin loaded", "").then_some(()));
    for deletion in 0..DELETIONS {
        let seen = host.log_length();
        reloading.drop_objects(OBJECTS_A_DELETION / 2);
        fs::remove_file(reloading.plugin_file()).unwrap();
        if deletion % 2 == 0 {
            host.wait_for_log("the deletion", |lines| logged(lines, seen, "plugin unloaded", "").then_some(()));
        }
        reloading.drop_objects(OBJECTS_A_DELETION / 2);
        let (digest, bytes) = reloading.next();
        reloading.copy_over(&bytes);
        host.wait_for_log("the other version", |lines| logged(lines, seen, "plugin loaded", &digest).then_some(()));
    }
    let objects = reloading.keys.len();
    host.wait_for_objects(objects);
    host.terminate();
    let finished = host.finish().expect(0);
    let retried = finished.summary()["retried"].as_u64().unwrap();
    assert!(retried > 0, "no object met the gap: {}", finished.summary());
    finished.expect_counts(&[("processed", objects as u64), ("retried", retried)]);
    reloading.check();
}
