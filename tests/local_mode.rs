//! The main job on one machine, by the real binary: drop a file, find the results and the moved original.

#[allow(dead_code, reason = "each test uses a part of it")]
mod support {
    pub mod auditor;
    pub mod host;
    pub mod samples;
}

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File},
    io::Write as _,
    os::unix::{ffi::OsStrExt as _, fs::symlink},
    thread,
    time::Duration,
};

use serde_json::Value;
use support::{
    auditor::{Auditor, Fate, Object, Output, destination, in_flight},
    host::{Bucket, Finished, Host, built_in_file, eventually, sha256},
    samples::{is_whole_image, jpeg, png, text},
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

    fn moved(&mut self, name: &str, plugin: &str, content: Vec<u8>) {
        let key = format!("uploads/{name}");
        let object = Object::processed(&key, &content, &[plugin], Vec::new());
        self.add(content, object);
    }

    fn dead(&mut self, name: &str, class: &str, content: Vec<u8>) {
        let object = Object::dead(&format!("uploads/{name}"), &content, class);
        self.add(content, object);
    }

    fn image(&mut self, stem: &str, extension: &str, content: Vec<u8>) {
        let key = format!("uploads/{stem}.{extension}");
        let made = if extension == "jpg" { "jpg" } else { "png" };
        let output = |size| Output::like(format!("processed/{stem}-{size}.{made}"), "resize", is_whole_image);
        let object = Object::processed(&key, &content, &["resize"], vec![output(320), output(1280)]);
        self.add(content, object);
    }

    /// A table or JSON of `records` records, which come out as `lines`.
    fn table(&mut self, name: &str, content: String, records: u64, lines: &str) {
        let key = format!("uploads/{name}");
        let to = destination(&key);
        let source = name.rsplit('/').next().unwrap().to_owned();
        let summary = move |bytes: &[u8]| {
            serde_json::from_slice(bytes)
                .is_ok_and(|json: Value| json["source"] == source.as_str() && json["records"] == records)
        };
        let outputs = vec![
            Output::exactly(format!("{to}.ndjson"), "parse", lines.as_bytes()),
            Output::like(format!("{to}.summary.json"), "parse", summary),
        ];
        let object = Object::processed(&key, content.as_bytes(), &["parse"], outputs);
        self.add(content.into_bytes(), object);
    }
}

/// A path of so many bytes, in folders.
fn long_path(length: usize, extension: &str) -> String {
    let mut path = "deep/".to_owned();
    while path.len() + 100 < length - extension.len() {
        path.push_str(&"d".repeat(89));
        path.push('/');
    }
    path.push_str(&"f".repeat(length - extension.len() - path.len()));
    path + extension
}

/// What people and programs call files. None of them is special to this host.
const ODD_NAMES: &[&str] = &[
    "with spaces and  two.bin",
    " leading and trailing .bin ",
    "plus+plus.bin",
    "percent%41.bin",
    "100%.bin",
    "%",
    "+",
    "a%2Fb+c d.bin",
    "naïve-é.bin",
    "nai\u{308}ve-e\u{301}.bin",
    "猫/写真 2026/原本.bin",
    "emoji-🦀👩‍👩‍👧.bin",
    "שלום.bin",
    "-",
    "--help",
    "-rf/-v",
    ".env",
    ".hidden/.inside.bin",
    "...",
    "..a",
    "a..",
    "quote\"s'and`ticks.bin",
    "back\\slash.bin",
    "star*?[x]{y}.bin",
    "semi;colon|pipe&and>more<less$HOME.bin",
    "tab\tand\nnewline.bin",
    "bell\u{7}.bin",
    "CON",
    "no-extension",
    "dot.",
    "UPPER.bin",
    "upper.bin",
    "uploads/uploads",
    "processed/inside",
    ".gristmill/inside",
    "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p.bin",
    "c:\\windows\\path.bin",
    "\u{202e}gpj.exe",
    "zero\u{200b}width.bin",
    "~",
];

fn two_hundred() -> Uploads {
    let mut uploads = Uploads::to(Bucket::new());
    let folders = ["", "photos/", "photos/2026/sommer in köln/", "-dash/", "a+b%20c/"];
    for n in 0..45 {
        let stem = format!("{}image {n}", folders[n % folders.len()]);
        match n % 3 {
            0 => uploads.image(&stem, "png", png(1 + n as u32 * 7, 40, n as u8)),
            1 => uploads.image(&stem, "jpg", jpeg(&stem)),
            _ => uploads.image(&stem, "png", png(3, 1 + n as u32, n as u8)),
        }
    }
    for n in 0..60 {
        let (n, folder) = (n + 1, folders[n % folders.len()]);
        match n % 4 {
            0 => {
                let content = format!("id,name\n{n},\"row, {n}\"\n{n}0,last\n");
                let lines = format!("{{\"id\":{n},\"name\":\"row, {n}\"}}\n{{\"id\":{n}0,\"name\":\"last\"}}\n");
                uploads.table(&format!("{folder}table {n}.csv"), content, 2, &lines);
            }
            1 => {
                let lines = format!("{{\"x\":{n},\"y\":2}}\n");
                uploads.table(&format!("{folder}table-{n}.tsv"), format!("x\ty\n{n}\t2\n"), 1, &lines);
            }
            2 => {
                let lines = format!("{{\"n\":{n}}}\n{{\"n\":null}}\n");
                uploads.table(&format!("{folder}{n}.json"), format!("[{{\"n\": {n}}}, {{\"n\": null}}]"), 2, &lines);
            }
            _ => {
                let lines = format!("{{\"n\":{n}}}\n");
                uploads.table(&format!("{folder}{n}.ndjson"), lines.clone(), 1, &lines);
            }
        }
    }
    for (n, name) in ODD_NAMES.iter().enumerate() {
        uploads.moved(name, "passthrough", text(n as u64, n * 37));
    }
    uploads.moved(&long_path(1_000, ".bin"), "passthrough", b"deep".to_vec());
    uploads.moved(&long_path(1_014, ".txt"), "passthrough", b"as deep as can be".to_vec());
    uploads.moved(&"n".repeat(255), "passthrough", b"a long name".to_vec());
    uploads.moved("large.bin", "passthrough", text(7, 3 << 20));
    uploads.table(&long_path(1_000, ".csv"), "a,b\n1,2\n".to_owned(), 1, "{\"a\":1,\"b\":2}\n");
    for n in 0..10 {
        uploads.moved(&format!("empty/{n}"), "passthrough", Vec::new());
        uploads.moved(&format!("empty/{n}.csv"), "parse", Vec::new());
    }

    uploads.dead(&long_path(1_015, ".bin"), "impossible", b"too deep".to_vec());
    uploads.dead(&format!("{}.csv", "n".repeat(251)), "impossible", b"a,b\n1,2\n".to_vec());
    let rejected: [(&str, Vec<u8>); 8] = [
        ("no image.png", b"this is text".to_vec()),
        ("empty.jpg", Vec::new()),
        ("cut.png", png(64, 64, 1)[..100].to_vec()),
        ("cut.jpg", jpeg("cut")[..60].to_vec()),
        ("open.json", b"{\"a\":".to_vec()),
        ("words.json", b"not json at all".to_vec()),
        ("ragged.csv", b"a,b\n1,2,3\n".to_vec()),
        ("bomb.png", bomb()),
    ];
    for (name, content) in rejected {
        uploads.dead(&format!("broken/{name}"), "reject", content);
    }
    while uploads.manifest.len() < 200 {
        let n = uploads.manifest.len();
        uploads.moved(&format!("notes/{n}.txt"), "passthrough", text(n as u64, n * 11));
    }
    assert_eq!(uploads.manifest.len(), 200);
    uploads
}

/// A PNG that says that it has 65,535 × 65,535 pixels.
fn bomb() -> Vec<u8> {
    let mut bomb = png(1, 1, 0);
    bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    bomb
}

#[test]
fn two_hundred_mixed_objects_are_all_accounted_for() {
    let uploads = two_hundred();
    let finished = uploads.bucket.run_until_idle().expect(1);

    let mut auditor = Auditor::new(uploads.bucket.root(), &uploads.manifest);
    for name in ["parse", "passthrough", "resize"] {
        let digest = sha256(&fs::read(built_in_file(name)).unwrap());
        auditor.versions.insert(name.to_owned(), BTreeSet::from([digest]));
    }
    auditor.check();
    check_records(&finished, &uploads);

    // All is done, so another run finds nothing to do and changes nothing.
    uploads.bucket.run_until_idle().expect(0).expect_counts(&[]);
    auditor.check();
}

/// One record for each object, and what each says is so.
fn check_records(finished: &Finished, uploads: &Uploads) {
    let records = finished.records();
    let keys: BTreeSet<&str> = records.iter().map(|record| record["key"].as_str().unwrap()).collect();
    assert_eq!((records.len(), keys.len()), (uploads.manifest.len(), uploads.manifest.len()));
    let (mut bytes_in, mut bytes_out, mut outcomes) = (0, 0, BTreeMap::new());
    for object in &uploads.manifest {
        let record = records.iter().find(|record| record["key"] == object.key.as_str()).expect(&object.key);
        let outcome = record["outcome"].as_str().unwrap();
        *outcomes.entry(outcome.to_owned()).or_insert(0) += 1;
        assert_eq!(record["attempts"], 1, "{record}");
        assert!(record["milliseconds"].as_f64().is_some_and(|time| time > 0.0), "{record}");
        let content = &uploads.contents[&object.key];
        match &object.fate {
            Fate::Processed { plugins, outputs } => {
                let is_skipped = content.is_empty() && plugins[0] == "parse";
                assert_eq!(outcome, if is_skipped { "skipped" } else { "processed" }, "{record}");
                assert_eq!(record.get("reason").is_some(), is_skipped, "{record}");
                assert_eq!(record["destination"], destination(&object.key).as_str());
                assert_eq!(record["bytes_in"], content.len());
                bytes_in += content.len();
                let made: BTreeMap<&str, u64> = record["outputs"].as_array().unwrap().iter().map(output).collect();
                let expected: BTreeMap<&str, u64> = outputs
                    .iter()
                    .map(|out| (&*out.key, fs::metadata(uploads.bucket.path(&out.key)).unwrap().len()))
                    .collect();
                assert_eq!(made, expected, "{record}");
                assert_eq!(record["bytes_out"], made.values().sum::<u64>());
                bytes_out += made.values().sum::<u64>();
                let ran: Vec<&str> = record["plugins"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|plugin| plugin["name"].as_str().unwrap())
                    .collect();
                assert_eq!(ran, *plugins);
            }
            Fate::Dead { class, .. } => {
                assert_eq!((outcome, &record["class"]), ("rejected", &Value::from(class.as_str())), "{record}");
                assert!(record["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{record}");
                assert!(record.get("destination").is_none(), "{record}");
            }
            Fate::Waiting => unreachable!(),
        }
    }
    let summary = finished.summary();
    for (name, count) in outcomes {
        assert_eq!(summary[&name], count, "{summary}");
    }
    assert_eq!((&summary["bytes_in"], &summary["bytes_out"]), (&bytes_in.into(), &bytes_out.into()));
    assert_eq!((&summary["dead"], &summary["retried"]), (&0.into(), &0.into()));
    assert!(summary["seconds"].as_f64().is_some_and(|time| time > 0.0), "{summary}");
}

fn output(output: &Value) -> (&str, u64) {
    (output["key"].as_str().unwrap(), output["bytes"].as_u64().unwrap())
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

/// `a` makes `a.copy` while somebody uploads their own `a.copy`: whichever comes second must not overwrite
/// the first.
#[test]
fn an_upload_with_the_name_of_a_result_is_a_conflict() {
    let conflict = |first: &str, second: &str| {
        let bucket = Bucket::with(&["copy"], COPY);
        let content = |key: &str| key.repeat(10).into_bytes();
        bucket.write(first, &content(first));
        bucket.run_until_idle().expect(0).expect_counts(&[("processed", 1)]);
        bucket.write(second, &content(second));
        let finished = bucket.run_until_idle().expect(1).expect_counts(&[("rejected", 1)]);
        let record = finished.record(second);
        assert_eq!((&record["outcome"], &record["class"]), (&"rejected".into(), &"conflict".into()));
        let reason = record["reason"].as_str().unwrap();
        assert!(reason.starts_with(&format!("`processed/a.copy` was made from `{first}`")), "{reason}");
        let mut manifest =
            vec![Object::copied(first, &content(first)), Object::dead(second, &content(second), "conflict")];
        // The outputs are placed before the original is moved.
        if let Fate::Dead { outputs, .. } = &mut manifest[1].fate {
            outputs.extend((second == "uploads/a.copy").then(|| Output::copy(second, &content(second))));
        }
        Auditor::new(bucket.root(), &manifest).check();
    };
    conflict("uploads/a", "uploads/a.copy");
    conflict("uploads/a.copy", "uploads/a");
}

#[test]
fn what_others_put_at_the_destination_is_not_overwritten() {
    let bucket = Bucket::with(&["copy"], COPY);
    bucket.write("processed/mine", b"an original's place");
    bucket.write("processed/theirs.copy", b"an output's place");
    fs::create_dir_all(bucket.path("processed/folder.copy")).unwrap();
    bucket.write("processed/file", b"a folder's place");
    let names = ["mine", "theirs", "folder", "file/inside"];
    for name in names {
        bucket.write(&format!("uploads/{name}"), name.as_bytes());
    }
    let finished = bucket.run_until_idle().expect(1).expect_counts(&[("rejected", 4)]);

    for (name, part) in names.into_iter().zip(["not put there by this host", "not put there", "directory", "a file"]) {
        let record = finished.record(&format!("uploads/{name}"));
        assert!(record["reason"].as_str().is_some_and(|reason| reason.contains(part)), "{record}");
    }
    assert_eq!(bucket.read_text("processed/mine"), "an original's place");
    assert_eq!(bucket.read_text("processed/theirs.copy"), "an output's place");
    assert_eq!(bucket.read_text("processed/file"), "a folder's place");
    let classes = ["conflict", "conflict", "impossible", "impossible"];
    let mut manifest: Vec<Object> = names
        .into_iter()
        .zip(classes)
        .map(|(name, class)| Object::dead(&format!("uploads/{name}"), name.as_bytes(), class))
        .collect();
    if let Fate::Dead { outputs, .. } = &mut manifest[0].fate {
        outputs.push(Output::copy("uploads/mine", b"mine"));
    }
    let mut auditor = Auditor::new(bucket.root(), &manifest);
    auditor.foreign = ["mine", "theirs.copy", "file"].map(|name| format!("processed/{name}")).into();
    auditor.check();
}

#[test]
fn a_second_upload_of_a_name_replaces_its_own_results() {
    let bucket = Bucket::with(&["copy", "upper"], &all_to(3, r#"plugins = ["copy", "upper"]"#));
    for content in [&b"the first"[..], b"the second, which is longer", b""] {
        bucket.write("uploads/folder/a.txt", content);
        bucket.run_until_idle().expect(0).expect_counts(&[("processed", 1)]);
        Auditor::new(bucket.root(), &[Object::copied_and_upper("uploads/folder/a.txt", content)]).check();
    }
}

#[test]
fn an_object_that_is_overwritten_meanwhile_is_processed_as_it_is_in_the_end() {
    let routes = "[[route.use]]\nplugin = \"slow\"\nsettings = { rounds = 2000 }";
    let bucket = Bucket::with(&["slow"], &all_to(3, routes));
    let host = Host::dev(&bucket, &["--json"]);
    bucket.write("uploads/a", b"the first");
    eventually("the object to be in work", || in_flight(bucket.root()) == 1);
    bucket.write("uploads/a", b"the second");
    host.wait_for_objects(2);
    host.terminate();
    let records = host.finish().expect(0).records();
    // The first delivery may not have opened the object yet, and then finds the second one.
    assert!(records.iter().any(|record| record["outcome"] == "processed"), "{records:#?}");
    assert!(records.iter().all(|record| record["outcome"] != "rejected"), "{records:#?}");
    let output = Output::exactly("processed/a.copy".to_owned(), "slow", b"the second");
    let manifest = [Object::processed("uploads/a", b"the second", &["slow"], vec![output])];
    Auditor::new(bucket.root(), &manifest).check();
}

#[test]
fn links_pipes_and_directories_are_left_alone() {
    let bucket = Bucket::with(&["copy"], COPY);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "nobody's business").unwrap();
    symlink(outside.path().join("secret"), bucket.path("uploads/link")).unwrap();
    symlink(outside.path(), bucket.path("uploads/folder-link")).unwrap();
    symlink("nowhere", bucket.path("uploads/dangling")).unwrap();
    let (fifo, rights) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
    rustix::fs::mknodat(rustix::fs::CWD, bucket.path("uploads/pipe"), fifo, rights, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(bucket.path("uploads/socket")).unwrap();
    fs::create_dir(bucket.path("uploads/empty-folder")).unwrap();
    let not_utf8 = bucket.path("uploads").join(OsStr::from_bytes(b"not-\xff-utf8"));
    fs::write(&not_utf8, "x").unwrap();
    bucket.write("uploads/file", b"x");

    let finished = bucket.run_until_idle().expect(0).expect_counts(&[("processed", 1)]);
    let log = finished.log();
    for name in ["link", "folder-link", "dangling", "pipe", "socket"] {
        let line = finished.err.iter().find(|line| line.contains(&format!("uploads/{name}\"")));
        assert!(line.is_some_and(|line| line.contains("left alone")), "{name}: {log}");
    }
    assert!(log.contains("not UTF-8"), "{log}");
    assert!(not_utf8.is_file() && bucket.path("uploads/empty-folder").is_dir());
    assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "nobody's business");
    let manifest = [Object::copied("uploads/file", b"x")];
    let mut auditor = Auditor::new(bucket.root(), &manifest);
    auditor.foreign = ["link", "folder-link", "dangling", "pipe", "socket", "not-\u{fffd}-utf8"]
        .map(|name| format!("uploads/{name}"))
        .into();
    auditor.check();
}

#[test]
fn a_file_that_is_growing_is_waited_out() {
    let bucket = Bucket::with(&["copy"], COPY);
    let content = text(1, 300_000);
    let mut file = File::create(bucket.path("uploads/growing")).unwrap();
    let chunks: Vec<Vec<u8>> = content.chunks(10_000).map(<[u8]>::to_vec).collect();
    let writer = thread::spawn(move || {
        for chunk in chunks {
            file.write_all(&chunk).unwrap();
            // In all, longer than a file that stays the same is waited for.
            thread::sleep(Duration::from_millis(60));
        }
    });
    bucket.run_until_idle().expect(0).expect_counts(&[("processed", 1)]);
    writer.join().unwrap();
    Auditor::new(bucket.root(), &[Object::copied("uploads/growing", &content)]).check();
}

#[test]
fn a_writer_that_pauses_is_waited_for() {
    let bucket = Bucket::with(&["copy"], COPY);
    let host = Host::dev(&bucket, &["--json"]);
    bucket.write("uploads/first", b"1");
    host.wait_for_objects(1);
    let mut file = File::create(bucket.path("uploads/slow")).unwrap();
    file.write_all(b"one half, ").unwrap();
    // Longer than a file that nobody writes to is waited for.
    thread::sleep(Duration::from_millis(1_500));
    bucket.write("uploads/second", b"2");
    host.wait_for_objects(2);
    assert!(!bucket.exists("processed/slow"));
    file.write_all(b"and the other").unwrap();
    drop(file);
    host.wait_for_objects(3);
    host.terminate();
    host.finish().expect(0).expect_counts(&[("processed", 3)]);
    let manifest = [("first", &b"1"[..]), ("second", b"2"), ("slow", b"one half, and the other")]
        .map(|(name, content)| Object::copied(&format!("uploads/{name}"), content));
    Auditor::new(bucket.root(), &manifest).check();
}

#[test]
fn files_are_taken_as_they_come_until_sigterm() {
    let mut uploads = Uploads::to(Bucket::with(&["copy"], COPY));
    let host = Host::dev(&uploads.bucket, &["--json"]);
    for n in 0..30 {
        let (key, content) = (format!("uploads/{}/{n}", n % 4), text(n, n as usize * 100));
        let object = Object::copied(&key, &content);
        if n % 2 == 0 {
            uploads.add(content, object);
        } else {
            // Written elsewhere and moved in.
            uploads.bucket.write("elsewhere", &content);
            let to = uploads.bucket.path(&key);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::rename(uploads.bucket.path("elsewhere"), to).unwrap();
            uploads.manifest.push(object);
        }
        if n % 10 == 9 {
            host.wait_for_objects(n as usize + 1);
        }
    }
    host.terminate();
    host.finish().expect(0).expect_counts(&[("processed", 30)]);
    Auditor::new(uploads.bucket.root(), &uploads.manifest).check();
}

#[test]
fn sigterm_lets_work_in_flight_finish() {
    let routes = "[[route.use]]\nplugin = \"slow\"\nsettings = { rounds = 4000 }";
    let bucket = Bucket::with(&["slow"], &all_to(3, routes));
    let host = Host::dev(&bucket, &["--json"]);
    bucket.write("uploads/a", b"x");
    eventually("the object to be in work", || in_flight(bucket.root()) == 1);
    host.terminate();
    host.finish().expect(0).expect_counts(&[("processed", 1)]);
    let output = Output::exactly("processed/a.copy".to_owned(), "slow", b"x");
    Auditor::new(bucket.root(), &[Object::processed("uploads/a", b"x", &["slow"], vec![output])]).check();
}

#[test]
fn work_that_outlasts_the_drain_is_given_back() {
    let configuration = format!("drain_timeout = \"200ms\"\n{}", all_to(3, r#"plugins = ["spin"]"#));
    let bucket = Bucket::with(&["spin"], &configuration);
    let host = Host::dev(&bucket, &["--json"]);
    bucket.write("uploads/a", b"x");
    eventually("the object to be in work", || in_flight(bucket.root()) == 1);
    host.terminate();
    host.finish().expect(0).expect_counts(&[]);
    Auditor::new(bucket.root(), &[Object::waiting("uploads/a", b"x")]).check();
}

#[test]
fn a_second_host_on_the_same_directory_is_refused() {
    let bucket = Bucket::with(&["copy"], COPY);
    let first = Host::dev(&bucket, &["--json"]);
    bucket.write("uploads/a", b"x");
    first.wait_for_objects(1);
    let second = bucket.run_until_idle().expect(1);
    assert_eq!(second.out, [""; 0]);
    let expected = format!("another gristmill (process {}) is at work on", first.id());
    assert!(second.log().contains(&expected), "{}", second.log());
    first.terminate();
    first.finish().expect(0);
    bucket.run_until_idle().expect(0);
}

#[test]
fn a_plugin_that_asks_for_it_is_called_again() {
    let bucket = Bucket::with(&["flaky"], &all_to(5, r#"plugins = ["flaky"]"#));
    let content = text(1, 5_000);
    bucket.write("uploads/a", &content);
    let finished = bucket.run_until_idle().expect(0).expect_counts(&[("processed", 1), ("retried", 2)]);
    assert_eq!(finished.record("uploads/a")["attempts"], 3);
    let output = Output::exactly("processed/a.copy".to_owned(), "flaky", &content);
    Auditor::new(bucket.root(), &[Object::processed("uploads/a", &content, &["flaky"], vec![output])]).check();
}

#[test]
fn an_object_that_never_succeeds_dies_until_it_is_replaced() {
    let bucket = Bucket::with(&["retry"], &all_to(3, r#"plugins = ["retry"]"#));
    let digest = sha256(&bucket.read("plugins/retry.wasm").unwrap());
    bucket.write("uploads/a", b"x");
    let finished = bucket.run_until_idle().expect(1).expect_counts(&[("dead", 1), ("retried", 2)]);
    let record = finished.record("uploads/a");
    assert_eq!(
        (&record["outcome"], &record["class"], &record["attempts"]),
        (&"dead".into(), &"retry".into(), &3.into())
    );
    assert!(record["reason"].as_str().is_some_and(|reason| reason.contains("not yet")), "{record}");
    assert_eq!(record["plugins"][0]["digest"], digest.as_str());
    Auditor::new(bucket.root(), &[Object::dead("uploads/a", b"x", "retry")]).check();

    let again = bucket.run_until_idle().expect(0).expect_counts(&[]);
    assert_eq!(again.records(), [Value::Null; 0]);
    Auditor::new(bucket.root(), &[Object::dead("uploads/a", b"x", "retry")]).check();

    bucket.plugin("copy", "retry");
    bucket.write("uploads/a", b"another");
    bucket.run_until_idle().expect(0).expect_counts(&[("processed", 1)]);
    let output = Output::exactly("processed/a.copy".to_owned(), "retry", b"another");
    Auditor::new(bucket.root(), &[Object::processed("uploads/a", b"another", &["retry"], vec![output])]).check();
}

#[test]
fn a_trap_and_a_panic_are_tried_again_and_then_dead() {
    let routes = "match = \"trap\"\nplugins = [\"trap-mid-write\"]\n[[route]]\nplugins = [\"panic\"]";
    let bucket = Bucket::with(&["trap-mid-write", "panic"], &all_to(2, routes));
    bucket.write("uploads/trap", b"x");
    bucket.write("uploads/panic", b"x");
    bucket.run_until_idle().expect(1).expect_counts(&[("dead", 2), ("retried", 2)]);
    let manifest = ["trap", "panic"].map(|name| Object::dead(&format!("uploads/{name}"), b"x", "trap"));
    Auditor::new(bucket.root(), &manifest).check();
}

#[test]
fn a_missing_plugin_is_waited_for_and_then_named() {
    let bucket = Bucket::with(&["copy"], &all_to(3, r#"plugins = ["copy", "absent"]"#));
    bucket.write("uploads/a", b"x");
    let finished = bucket.run_until_idle().expect(1).expect_counts(&[("dead", 1), ("retried", 2)]);
    let reason = finished.record("uploads/a")["reason"].to_string();
    assert!(reason.contains("no plugin `absent` is loaded"), "{reason}");
    assert!(finished.log().contains("a route names a plugin that is not loaded"), "{}", finished.log());
    Auditor::new(bucket.root(), &[Object::dead("uploads/a", b"x", "plugin-missing")]).check();
}

#[test]
fn a_plugin_that_comes_later_takes_what_waited_for_it() {
    let bucket = Bucket::with(&["copy"], &all_to(1_000, r#"plugins = ["copy", "upper"]"#));
    let host = Host::dev(&bucket, &["--json"]);
    bucket.write("uploads/a", b"x");
    eventually("the object to be tried", || in_flight(bucket.root()) == 1);
    bucket.plugin("upper", "upper");
    host.wait_for_objects(1);
    host.terminate();
    host.finish().expect(0);
    Auditor::new(bucket.root(), &[Object::copied_and_upper("uploads/a", b"x")]).check();
}

#[test]
fn limits_are_those_of_the_configuration() {
    let bucket = Bucket::with(
        &["spin", "memory-hog", "copy"],
        &format!(
            "{}\n[[route.use]]\nplugin = \"spin\"\n[route.use.limits]\ndeadline = \"50ms\"\n\
             [[route]]\nmatch = \"hungry\"\n[[route.use]]\nplugin = \"memory-hog\"\n[route.use.limits]\nmemory = \"8MiB\"\n\
             [[route]]\nplugins = [\"copy\"]",
            all_to(2, "match = \"slow\"")
        ),
    );
    for name in ["slow", "hungry", "fine"] {
        bucket.write(&format!("uploads/{name}"), b"x");
    }
    let finished = bucket.run_until_idle().expect(1);
    let reason = |name: &str| finished.record(&format!("uploads/{name}"))["reason"].to_string();
    assert!(reason("slow").contains("50ms"), "{}", reason("slow"));
    assert!(reason("hungry").contains('8'), "{}", reason("hungry"));
    let manifest = [
        Object::dead("uploads/slow", b"x", "deadline"),
        Object::dead("uploads/hungry", b"x", "memory"),
        Object::copied("uploads/fine", b"x"),
    ];
    Auditor::new(bucket.root(), &manifest).check();
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
