//! The operator's verbs over a directory: dead letters listed, shown, put back and deleted, with a host at work
//! and without; what `check --live` and `reconcile` say of a directory.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod support {
    pub mod auditor;
    pub mod host;
}

use std::fs;

use serde_json::Value;
use support::{
    auditor::{Auditor, Object},
    host::{Bucket, Finished, Host, command, eventually, gristmill},
};

/// Whatever its name ends in decides what becomes of an object.
const ROUTES: &str = r#"
[retry]
max_attempts = 1

[[route]]
match = "*.bad"
plugins = ["reject"]

[[route]]
match = "*.trap"
plugins = ["trap-mid-write"]

[[route]]
plugins = ["copy"]
"#;

/// Four objects, three of them dead.
fn with_dead() -> Bucket {
    let bucket = Bucket::with(&["copy", "reject", "trap-mid-write"], ROUTES);
    for name in ["a.bad", "b.bad", "c.trap", "fine"] {
        bucket.write(&format!("uploads/{name}"), b"x");
    }
    bucket.run_until_idle().expect(1).expect_counts(&[("processed", 1), ("rejected", 2), ("dead", 1)]);
    bucket
}

fn dlq(bucket: &Bucket, arguments: &[&str]) -> Finished {
    gristmill(&[&["dlq"], arguments, &["-d", bucket.root().to_str().unwrap()]].concat())
}

fn parsed(finished: &Finished) -> Vec<Value> {
    finished.out.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What is dead, by key.
fn dead(bucket: &Bucket) -> Vec<Value> {
    let mut letters = parsed(&dlq(bucket, &["list", "--json"]).expect(0));
    letters.sort_by_key(|letter| letter["key"].to_string());
    letters
}

fn keys(bucket: &Bucket) -> Vec<String> {
    dead(bucket).iter().map(|letter| letter["key"].as_str().unwrap().to_owned()).collect()
}

fn id_of(bucket: &Bucket, key: &str) -> String {
    let letters = dead(bucket);
    let letter = letters.iter().find(|letter| letter["key"] == key).unwrap_or_else(|| panic!("{key}: {letters:?}"));
    letter["id"].as_str().unwrap().to_owned()
}

/// From here on nothing is rejected.
fn mend(bucket: &Bucket) {
    bucket.plugin("copy", "reject");
}

#[test]
fn dead_letters_are_listed_and_shown() {
    let bucket = with_dead();
    assert_eq!(keys(&bucket), ["uploads/a.bad", "uploads/b.bad", "uploads/c.trap"]);
    let letter = &dead(&bucket)[0];
    let digest = support::host::sha256(&bucket.read("plugins/reject.wasm").unwrap());
    assert_eq!(
        (&letter["class"], &letter["attempts"], &letter["reason"]),
        (&"reject".into(), &1.into(), &"always".into())
    );
    assert_eq!((&letter["plugin"], &letter["digest"]), (&"reject".into(), &digest.as_str().into()));
    assert!(letter["died"].as_str().unwrap().ends_with('Z'));

    let table = dlq(&bucket, &["list"]).expect(0).out;
    assert!(table[0].starts_with("ID ") && table.len() == 4, "{table:#?}");
    let row = table.iter().find(|row| row.contains("uploads/a.bad")).unwrap();
    assert!(row.contains("reject") && row.contains(&digest[..12]) && row.ends_with("always"), "{row}");

    assert_eq!(dlq(&bucket, &["list", "--json", "--class", "trap"]).expect(0).out.len(), 1);
    assert_eq!(dlq(&bucket, &["list", "--json", "--reason", "alwa"]).expect(0).out.len(), 2);
    assert_eq!(dlq(&bucket, &["list", "--json", "--class", "trap", "--reason", "alwa"]).expect(0).out, [""; 0]);
    assert_eq!(dlq(&bucket, &["list", "--class", "none"]).expect(0).out, ["no dead letters"]);
    assert_eq!(dlq(&bucket, &["list", "--json", "--limit", "2"]).expect(0).out.len(), 2);

    let id = id_of(&bucket, "uploads/c.trap");
    let shown = dlq(&bucket, &["show", &id]).expect(0).out.join("\n");
    for part in ["class      trap", "object     uploads/c.trap", "  at       ", "message    {\"Records\":"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let shown = &parsed(&dlq(&bucket, &["show", &id, "--json"]).expect(0))[0];
    let body: Value = serde_json::from_str(shown["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["Records"][0]["s3"]["object"]["key"], "uploads/c.trap");
    assert!(!shown["backtrace"].as_str().unwrap().is_empty());

    let finished = dlq(&bucket, &["show", &id, "nonsense"]).expect(1);
    assert!(finished.log().contains("there is no dead letter `nonsense`"), "{}", finished.log());
    assert!(finished.out.join("\n").contains("uploads/c.trap"), "the others are shown all the same");
    assert_eq!(keys(&bucket).len(), 3, "looking changes nothing");
}

#[test]
fn what_was_redriven_is_tried_again_by_the_next_host() {
    let bucket = with_dead();
    mend(&bucket);
    let dry = dlq(&bucket, &["redrive", "--class", "reject", "--dry-run"]).expect(0).out;
    assert_eq!((dry.len(), &*dry[2]), (3, "2 would be redriven"), "{dry:#?}");
    assert_eq!(keys(&bucket).len(), 3);

    let id = id_of(&bucket, "uploads/a.bad");
    let done = parsed(&dlq(&bucket, &["redrive", &id, "--json"]).expect(0));
    assert_eq!((&done[0]["key"], &done[0]["action"]), (&"uploads/a.bad".into(), &"redriven".into()));
    assert_eq!(done[1]["summary"]["done"], 1);
    let gone = dlq(&bucket, &["redrive", &id]).expect(1);
    assert!(gone.log().contains(&format!("there is no dead letter `{id}`")), "{}", gone.log());
    assert_eq!(gone.out, ["0 redriven, 1 could not be"]);

    // Both the host and the intake know it already.
    let finished = bucket.run_until_idle().expect(0).expect_counts(&[("processed", 1)]);
    assert_eq!(finished.record("uploads/a.bad")["attempts"], 1);
    assert_eq!(keys(&bucket), ["uploads/b.bad", "uploads/c.trap"]);
    assert_eq!(dlq(&bucket, &["redrive", "--all"]).expect(0).out[2], "2 redriven");
    bucket.run_until_idle().expect(1).expect_counts(&[("processed", 1), ("dead", 1)]);
    assert_eq!(keys(&bucket), ["uploads/c.trap"], "it is as bad as before");
    Auditor::new(
        bucket.root(),
        &[
            Object::copied("uploads/fine", b"x"),
            Object::dead("uploads/c.trap", b"x", "trap"),
            copied_by_reject("uploads/a.bad"),
            copied_by_reject("uploads/b.bad"),
        ],
    )
    .check();
}

/// By the guest `copy` under the other's name.
fn copied_by_reject(key: &str) -> Object {
    let name = key.replace("uploads/", "processed/") + ".copy";
    let output = support::auditor::Output::exactly(name, "reject", b"x");
    Object::processed(key, b"x", &["reject"], vec![output])
}

#[test]
fn what_was_purged_is_left_alone_until_it_changes() {
    let bucket = with_dead();
    mend(&bucket);
    let dry = dlq(&bucket, &["purge", "--all", "--dry-run"]).expect(0).out;
    assert_eq!((&*dry[3], keys(&bucket).len()), ("3 would be purged", 3));
    assert_eq!(dlq(&bucket, &["purge", "--reason", "always"]).expect(0).out[2], "2 purged");
    assert_eq!(keys(&bucket), ["uploads/c.trap"]);

    bucket.run_until_idle().expect(0).expect_counts(&[]);
    assert!(bucket.exists("uploads/a.bad") && bucket.exists("uploads/b.bad"));
    bucket.write("uploads/a.bad", b"another");
    bucket.run_until_idle().expect(0).expect_counts(&[("processed", 1)]);
    assert_eq!(bucket.read_text("processed/a.bad.copy"), "another");
    assert!(bucket.exists("uploads/b.bad"));
}

#[test]
fn a_host_at_work_takes_what_was_redriven() {
    let bucket = with_dead();
    mend(&bucket);
    let host = Host::dev(&bucket, &["--json"]);
    bucket.write("uploads/new", b"x");
    host.wait_for_objects(1);
    assert_eq!(dlq(&bucket, &["redrive", "--class", "reject", "--rate", "100"]).expect(0).out[2], "2 redriven");
    host.wait_for_objects(3);
    assert_eq!(keys(&bucket), ["uploads/c.trap"]);

    // While it still fails it comes back, and a walk ends though.
    assert_eq!(dlq(&bucket, &["redrive", "--all"]).expect(0).out[1], "1 redriven");
    host.wait_for_objects(4);
    eventually("the dead letter", || keys(&bucket) == ["uploads/c.trap"]);
    assert_eq!(dlq(&bucket, &["purge", "--all"]).expect(0).out[1], "1 purged");
    host.terminate();
    host.finish().expect(1);
    assert_eq!(dead(&bucket), [Value::Null; 0]);
    assert!(bucket.exists("uploads/c.trap"));
}

#[test]
fn whoever_names_nothing_is_told_what_could_be_named() {
    let bucket = Bucket::new();
    for verb in ["redrive", "purge"] {
        let log = dlq(&bucket, &[verb]).expect(64).log();
        assert!(["ID", "--class", "--reason", "--all"].iter().all(|which| log.contains(which)), "{log}");
    }
    assert!(dlq(&bucket, &["show"]).expect(64).log().contains("<ID>..."));
    dlq(&bucket, &["list", "--limit", "0"]).expect(64);
    assert!(!bucket.exists(".gristmill"));
}

#[test]
fn a_directory_that_nobody_served_has_no_queue_and_gets_none() {
    let bucket = Bucket::new();
    let finished = dlq(&bucket, &["list"]).expect(1);
    assert!(finished.log().contains("has no queue, for no gristmill has served it"), "{}", finished.log());
    assert!(!bucket.exists(".gristmill"));
    assert!(gristmill(&["dlq", "list"]).expect(78).log().contains("nothing says where the objects are"));
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let bucket = with_dead();
    let id = id_of(&bucket, "uploads/a.bad");
    for arguments in [&["list"][..], &["show", &id], &["redrive", "--all"]] {
        let mut command = command(&[&["dlq"], arguments, &["-d"]].concat());
        let mut child = command.arg(bucket.root()).spawn().unwrap();
        drop(child.stdout.take());
        let finished = Host::following(child).finish();
        assert_eq!((finished.code, finished.log()), (Some(0), String::new()), "{arguments:?}");
    }
    assert_eq!(dead(&bucket), [Value::Null; 0], "the work was done all the same");
}

#[test]
fn a_configuration_says_where_the_dead_letters_are() {
    let bucket = with_dead();
    let file = bucket.path("elsewhere.toml");
    fs::write(&file, "directory = \".\"\n").unwrap();
    assert_eq!(gristmill(&["dlq", "list", "--json", "-c", file.to_str().unwrap()]).expect(0).out.len(), 3);
    fs::write(&file, "directory = \".\"\nslots = 0\n").unwrap();
    gristmill(&["dlq", "list", "-c", file.to_str().unwrap()]).expect(78);
}

#[test]
fn a_directory_needs_no_reconcile() {
    let bucket = Bucket::new();
    let finished = gristmill(&["reconcile", "-d", bucket.root().to_str().unwrap()]).expect(0);
    assert!(finished.log().contains("nothing to do") && finished.out.is_empty(), "{}", finished.log());
    let wrong = gristmill(&["reconcile", "-d", ".", "--older-than", "soon"]).expect(64);
    assert!(wrong.log().contains("write it like `1h`"), "{}", wrong.log());
}

#[test]
fn check_looks_at_a_directory() {
    let bucket = Bucket::with(&["copy"], "[[route]]\nplugins = [\"copy\"]\n");
    let directory = bucket.root().to_str().unwrap();
    let check = |more: &[&str]| gristmill(&[&["check", "--live", "--json", "-d", directory], more].concat());
    let findings = parsed(&check(&[]).expect(0));
    let severity = |findings: &[Value], name: &str| {
        let found = findings.iter().find(|finding| finding["check"] == name);
        found.unwrap_or_else(|| panic!("{name}: {findings:?}"))["severity"].as_str().unwrap().to_owned()
    };
    for name in ["configuration", "directory", "directory.lock"] {
        assert_eq!(severity(&findings, name), "ok");
    }
    assert!(!bucket.exists(".gristmill"), "a look makes nothing");

    let host = Host::dev(&bucket, &["--json"]);
    bucket.write("uploads/a", b"x");
    host.wait_for_objects(1);
    let findings = parsed(&check(&[]).expect(0));
    assert_eq!(severity(&findings, "directory.lock"), "note");
    assert!(findings.iter().any(|it| it["what"].as_str().unwrap().contains(&format!("process {}", host.id()))));
    host.terminate();
    host.finish().expect(0);

    let missing = bucket.path("missing");
    let text = gristmill(&["check", "--live", "-d", missing.to_str().unwrap()]).expect(78).out.join("\n");
    assert!(text.contains("error    directory") && text.contains("fix: make it"), "{text}");
    assert!(!missing.exists());
    // What is wrong with the configuration comes first.
    bucket.write("gristmill.toml", b"slots = 0\n");
    assert_eq!(check(&[]).expect(78).out, [""; 0]);
    assert!(gristmill(&["check", "--json"]).expect(64).log().contains("--live"));
}
