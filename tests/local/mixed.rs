//! Two hundred objects of all kinds, through the plugins that the binary carries.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that unwraps says where it failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::Value;

use crate::{
    Uploads,
    support::{
        auditor::{Auditor, Fate, Object, Output, destination},
        host::{Bucket, Finished, built_in_file, sha256},
        samples::{is_whole_image, jpeg, png, text},
    },
};

impl Uploads {
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
