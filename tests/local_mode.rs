//! The main job on one machine, by the real binary: drop a file, find the results and the moved original.

#[allow(dead_code, reason = "each test uses a part of it")]
mod support {
    pub mod auditor;
    pub mod host;
    pub mod samples;
}
mod local {
    mod arrivals;
    mod circuits;
    mod conflicts;
    mod failures;
    mod mixed;
}

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::Value;
use support::{
    auditor::{Auditor, Object},
    host::{Bucket, Host, command},
    samples::text,
};

/// Everything to the guest `copy`, and failures tried again soon.
const COPY: &str = r#"
[retry]
max_attempts = 3
base = "5ms"
max = "20ms"

[[route]]
plugins = ["copy"]
"#;

/// Everything to these plugins, and failures tried again soon.
fn all_to(attempts: u32, plugins: &str) -> String {
    format!("[retry]\nmax_attempts = {attempts}\nbase = \"5ms\"\nmax = \"20ms\"\n\n[[route]]\n{plugins}\n")
}

/// Uploads with what has to become of them.
struct Uploads {
    bucket: Bucket,
    manifest: Vec<Object>,
    contents: BTreeMap<String, Vec<u8>>,
}

impl Uploads {
    fn to(bucket: Bucket) -> Self {
        Self { bucket, manifest: Vec::new(), contents: BTreeMap::new() }
    }

    fn add(&mut self, content: Vec<u8>, object: Object) {
        self.bucket.write(&object.key, &content);
        self.contents.insert(object.key.clone(), content);
        self.manifest.push(object);
    }
}

#[test]
fn nothing_wrong_is_exit_code_zero() {
    let mut uploads = Uploads::to(Bucket::with(&["copy"], COPY));
    for n in 0..20 {
        let (key, content) = (format!("uploads/{n}/file.txt"), text(n, n as usize * 1_000));
        let object = Object::copied(&key, &content);
        uploads.add(content, object);
    }
    uploads.bucket.run_until_idle().expect(0).expect_counts(&[("processed", 20)]);
    Auditor::new(uploads.bucket.root(), &uploads.manifest).check();
}

#[test]
fn a_new_directory_is_made_with_all_that_belongs_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut host = command(&["dev", "new/-my photos", "--until-idle", "--json"]);
    let finished = Host::spawn(host.current_dir(folder.path())).finish().expect(0).expect_counts(&[]);
    assert_eq!(finished.records(), [Value::Null; 0]);
    let made = fs::read_dir(folder.path().join("new/-my photos")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(made.collect::<BTreeSet<_>>(), [".gristmill", "processed", "uploads"].map(Into::into).into());
}

#[test]
fn two_plugins_make_both_of_their_outputs() {
    let bucket = Bucket::with(&["copy", "upper"], &all_to(3, r#"plugins = ["copy", "upper"]"#));
    let large = text(1, (2 << 20) + 17);
    bucket.write("uploads/a b.txt", b"some text");
    bucket.write("uploads/empty", b"");
    bucket.write("uploads/large", &large);
    let finished = bucket.run_until_idle().expect(0).expect_counts(&[("processed", 3)]);

    let manifest = [("a b.txt", &b"some text"[..]), ("empty", b""), ("large", &large)]
        .map(|(name, content)| Object::copied_and_upper(&format!("uploads/{name}"), content));
    Auditor::new(bucket.root(), &manifest).check();
    assert_eq!(bucket.read_text("processed/a b.txt.upper"), "SOME TEXT");
    let record = finished.record("uploads/a b.txt");
    assert_eq!(record["outputs"].as_array().unwrap().len(), 2, "{record}");
    assert_eq!(record["bytes_out"], 18, "{record}");
}

#[test]
fn all_plugins_must_succeed_before_anything_is_visible() {
    let bucket = Bucket::with(&["copy", "reject"], &all_to(3, r#"plugins = ["copy", "reject"]"#));
    bucket.write("uploads/a", b"x");
    let finished = bucket.run_until_idle().expect(1).expect_counts(&[("rejected", 1)]);
    assert_eq!(finished.record("uploads/a")["reason"], "always");
    Auditor::new(bucket.root(), &[Object::dead("uploads/a", b"x", "reject")]).check();
}

#[test]
fn plugins_that_make_the_same_output_are_a_conflict() {
    let bucket = Bucket::with(&["copy"], &all_to(3, r#"plugins = ["copy", "twin"]"#));
    bucket.plugin("copy", "twin");
    bucket.write("uploads/a", b"x");
    let finished = bucket.run_until_idle().expect(1).expect_counts(&[("rejected", 1)]);
    let reason = finished.record("uploads/a")["reason"].to_string();
    assert!(reason.contains("`copy` and `twin` both made `processed/a.copy`"), "{reason}");
    Auditor::new(bucket.root(), &[Object::dead("uploads/a", b"x", "conflict")]).check();
}

#[test]
fn a_skipped_object_is_moved_without_outputs() {
    let bucket = Bucket::with(&["skip"], &all_to(3, r#"plugins = ["skip"]"#));
    bucket.write("uploads/a", b"x");
    let finished = bucket.run_until_idle().expect(0).expect_counts(&[("skipped", 1)]);
    let record = finished.record("uploads/a");
    assert_eq!((&record["outcome"], &record["reason"]), (&"skipped".into(), &"nothing to do".into()));
    Auditor::new(bucket.root(), &[Object::processed("uploads/a", b"x", &["skip"], Vec::new())]).check();
}

#[test]
fn without_json_a_table_says_what_happened() {
    let bucket = Bucket::with(
        &["copy", "reject"],
        &all_to(3, "match = \"bad\"\nplugins = [\"reject\"]\n[[route]]\nplugins = [\"copy\"]"),
    );
    bucket.write("uploads/good", b"content");
    bucket.write("uploads/bad", b"x");
    let finished = Host::dev(&bucket, &["--until-idle"]).finish().expect(1);
    let table = finished.out.join("\n");
    for expected in ["processed  uploads/good", "-> processed/good.copy (7 B)", "rejected   uploads/bad", "always"] {
        assert!(table.contains(expected), "{expected}: {table}");
    }
    let last = finished.out.last().unwrap();
    assert!(last.starts_with("1 processed, 1 rejected in "), "{last}");
}
