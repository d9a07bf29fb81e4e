//! `check --live`, `reconcile` and `dlq` of the real binary, against S3 and SQS in this process.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

#[allow(dead_code, reason = "each test uses a part of it")]
mod support {
    pub mod cloud;
    pub mod host;
}

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use support::{
    cloud::{Cloud, Fault, s3::Conditions},
    host::{Bucket, Finished, Host, command},
};

/// A bucket, its queue and its dead-letter queue, set up as they should be.
struct Rig {
    cloud: Cloud,
    /// Only its configuration file is used.
    folder: Bucket,
}

impl Rig {
    fn new() -> Self {
        let cloud = Cloud::start();
        cloud.sqs().longest_wait(Duration::from_millis(100));
        let url = cloud.sqs().create_queue("events");
        cloud.sqs().create_queue("dead");
        cloud.sqs().set("events", "MessageRetentionPeriod", "345600");
        cloud.sqs().set("dead", "MessageRetentionPeriod", "1209600");
        cloud.sqs().redrive("events", "dead", 20);
        cloud.s3().create_bucket("bucket");
        let rig = Self { folder: Bucket::with(&[], &file(&url)), cloud };
        rig.notify("uploads/");
        rig
    }

    fn notify(&self, prefix: &str) {
        let arn = self.cloud.sqs().arn("events");
        let configuration = format!(
            "<NotificationConfiguration><QueueConfiguration><Id>1</Id><Queue>{arn}</Queue>\
             <Event>s3:ObjectCreated:*</Event><Filter><S3Key><FilterRule><Name>prefix</Name><Value>{prefix}</Value>\
             </FilterRule></S3Key></Filter></QueueConfiguration></NotificationConfiguration>"
        );
        self.cloud.s3().set_notification_configuration("bucket", &configuration);
    }

    fn run(&self, verb: &[&str]) -> Finished {
        let mut command = command(verb);
        command.arg("-c").arg(self.folder.path("gristmill.toml")).envs(self.cloud.environment());
        Host::spawn(&mut command).finish()
    }

    /// What is not as it should be: severity and check.
    fn findings(&self, code: i32) -> BTreeSet<(String, String)> {
        let lines = parsed(&self.run(&["check", "--live", "--json"]).expect(code));
        assert!(lines.len() > 15, "{lines:#?}");
        let text = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
        let found = lines.iter().map(|line| (text(line, "severity"), text(line, "check")));
        found.filter(|(severity, _)| severity != "ok").collect()
    }

    fn keys(&self) -> Vec<String> {
        self.cloud.s3().list("bucket", "")
    }
}

fn file(url: &str) -> String {
    format!("bucket = \"bucket\"\nqueue_url = \"{url}\"\npath_style = true\n")
}

fn parsed(finished: &Finished) -> Vec<Value> {
    finished.out.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn set(findings: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    findings.iter().map(|(severity, check)| ((*severity).to_owned(), (*check).to_owned())).collect()
}

/// This server knows no lifecycle rules.
const USUAL: [(&str, &str); 1] = [("note", "bucket.lifecycle")];

fn usual(more: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    &set(&USUAL) | &set(more)
}

fn event(key: &str, etag: &str) -> String {
    let object = json!({ "key": key, "eTag": etag });
    let record =
        json!({ "eventName": "ObjectCreated:Put", "s3": { "bucket": { "name": "bucket" }, "object": object } });
    json!({ "Records": [record] }).to_string()
}

#[test]
fn a_good_bucket_passes_and_is_left_as_it_was() {
    let rig = Rig::new();
    rig.cloud.s3().put("bucket", "uploads/a", "x");
    assert_eq!(rig.findings(0), usual(&[]));
    assert_eq!(rig.keys(), ["uploads/a"], "nothing is left over");

    // With a message there, a receive cannot be tried.
    rig.cloud.sqs().send("events", event("uploads/a", "1"));
    rig.cloud.sqs().send("dead", event("uploads/a", "1"));
    let before = [rig.cloud.sqs().messages("events"), rig.cloud.sqs().messages("dead")];
    assert_eq!(rig.findings(0), usual(&[("note", "queue.receive")]));
    assert_eq!([rig.cloud.sqs().messages("events"), rig.cloud.sqs().messages("dead")], before, "nobody's is touched");
}

#[test]
fn what_is_forbidden_is_an_error_and_names_the_call() {
    let rig = Rig::new();
    for (operation, check, more) in [
        ("ListObjectsV2", "bucket.list", &[][..]),
        ("DeleteMessage", "queue.delete", &[("note", "dead_letters.delete")]),
        ("ChangeMessageVisibility", "queue.visibility", &[]),
        ("ReceiveMessage", "queue.receive", &[("note", "dead_letters.receive")]),
        ("SendMessageBatch", "dead_letters.send", &[]),
        ("GetQueueUrl", "dead_letters", &[]),
        ("DeleteObject", "bucket.delete", &[]),
    ] {
        // Our own objects can be deleted.
        rig.cloud.faults(move |call| match call.operation == operation && !call.key.starts_with("processed/") {
            true => Fault::Error { status: 403, code: "AccessDenied" },
            false => Fault::None,
        });
        assert_eq!(rig.findings(78), usual(&[&[("error", check)], more].concat()), "{operation}");
        assert_eq!(rig.keys(), [""; 0], "{operation}");
    }
}

#[test]
fn what_is_forbidden_for_results_is_an_error_too() {
    let rig = Rig::new();
    for (operation, check, more) in [
        ("PutObject", "bucket.write_results", &[][..]),
        ("CopyObject", "bucket.copy_results", &[("note", "store.copy_source_if_match")]),
        ("GetObject", "bucket.read_results", &[("error", "bucket.read")]),
    ] {
        rig.cloud.faults(move |call| match call.operation == operation {
            true => Fault::Error { status: 403, code: "AccessDenied" },
            false => Fault::None,
        });
        assert_eq!(rig.findings(78), usual(&[&[("error", check)], more].concat()), "{operation}");
        assert_eq!(rig.keys(), [""; 0], "{operation}");
    }
}

#[test]
fn what_cannot_be_deleted_is_named() {
    let rig = Rig::new();
    rig.cloud.faults(|call| match &*call.operation {
        "DeleteObject" if call.key.starts_with("processed/") => Fault::Error { status: 403, code: "AccessDenied" },
        _ => Fault::None,
    });
    let text = rig.run(&["check", "--live"]).expect(0).out.join("\n");
    let left = rig.keys();
    assert_eq!(left.len(), 2, "{left:?}");
    for key in left {
        assert!(
            key.starts_with("processed/.gristmill-check/") && text.contains(&format!("aws s3 rm s3://bucket/{key}"))
        );
    }
}

#[test]
fn what_the_store_and_the_settings_lack_is_told() {
    let rig = Rig::new();
    rig.cloud.s3().set_conditions("bucket", Conditions::Unknown);
    let findings = rig.findings(0);
    let missing: Vec<&str> = findings
        .iter()
        .filter(|(_, check)| check.starts_with("store."))
        .map(|(severity, _)| severity.as_str())
        .collect();
    assert!(missing.len() >= 3 && missing.iter().all(|severity| *severity == "warning"), "{findings:?}");

    let rig = Rig::new();
    rig.notify("");
    rig.cloud.sqs().redrive("events", "dead", 3);
    rig.cloud.sqs().set("dead", "MessageRetentionPeriod", "3600");
    let expected = [
        ("warning", "bucket.notified_of_results"),
        ("note", "queue.max_receives"),
        ("warning", "dead_letters.retention"),
    ];
    assert_eq!(rig.findings(0), usual(&expected));
    rig.notify("elsewhere/");
    assert!(rig.findings(78).contains(&("error".to_owned(), "bucket.notifications".to_owned())));
}

#[test]
fn what_is_not_there_is_told_at_once() {
    let rig = Rig::new();
    rig.folder.write("gristmill.toml", file(&format!("{}/123456789012/absent", rig.cloud.endpoint())).as_bytes());
    let text = rig.run(&["check", "--live"]).expect(78).out.join("\n");
    assert!(text.contains("error    queue.attributes") && text.contains("NonExistentQueue"), "{text}");
}

#[test]
fn what_nobody_was_told_of_is_queued_and_what_is_dead_is_not() {
    const LOST: usize = 1_100;
    let rig = Rig::new();
    let s3 = rig.cloud.s3();
    for n in 0..LOST {
        s3.put("bucket", &format!("uploads/lost {n:04}+ü"), "x");
    }
    s3.put("bucket", "uploads/folder/", "");
    s3.put("bucket", "processed/done", "x");
    let etag = s3.put("bucket", "uploads/dead", "x");
    rig.cloud.sqs().send("dead", event("uploads/dead", &etag));

    let young = rig.run(&["reconcile"]).expect(0).out;
    assert_eq!(
        young,
        [format!(
            "0 queued, 1 left that are on the dead-letter queue (`gristmill dlq list`), {LOST} left that are younger than 1h"
        )]
    );
    let dry = rig.run(&["reconcile", "--older-than", "0s", "--dry-run"]).expect(0).out;
    assert!(dry.len() == LOST + 1 && dry[0].ends_with("uploads/lost 0000+ü"), "{:?}", dry[0]);
    assert_eq!(rig.cloud.sqs().count("events"), 0);

    let done = parsed(&rig.run(&["reconcile", "--older-than", "0s", "--json"]).expect(0));
    let summary = json!({ "action": "queued", "done": LOST, "failed": 0, "younger": 0, "dead": 1 });
    assert_eq!(done[LOST]["summary"], summary);
    let messages = rig.cloud.sqs().messages("events");
    let keys: BTreeSet<String> = messages
        .iter()
        .map(|message| gristmill::event::parse(message.body.as_bytes()).unwrap().objects.remove(0).key)
        .collect();
    assert_eq!(keys, (0..LOST).map(|n| format!("uploads/lost {n:04}+ü")).collect());
    assert_eq!(rig.cloud.sqs().messages("dead")[0].visible_in, Duration::ZERO, "it is given back");

    let more = rig.run(&["reconcile", "--older-than", "0s", "--include-dead", "--dry-run"]).expect(0).out;
    assert_eq!(more[LOST + 1], format!("{} would be queued", LOST + 1));
}

#[test]
fn messages_that_cannot_be_sent_are_counted() {
    let rig = Rig::new();
    rig.cloud.s3().put("bucket", "uploads/a", "x");
    rig.cloud.faults(|call| match &*call.operation {
        "SendMessageBatch" => Fault::Error { status: 403, code: "AccessDenied" },
        _ => Fault::None,
    });
    let finished = rig.run(&["reconcile", "--older-than", "0s"]).expect(1);
    assert_eq!(finished.out, ["0 queued, 1 could not be"]);
    assert!(
        finished.log().contains("`uploads/a`: ") && finished.log().contains("sqs:SendMessage"),
        "{}",
        finished.log()
    );
}

#[test]
fn dead_letters_of_a_queue_are_handled_like_those_of_a_directory() {
    let rig = Rig::new();
    for n in 0..25 {
        rig.cloud.sqs().send("dead", event(&format!("uploads/{n}"), "1"));
    }
    let listed = parsed(&rig.run(&["dlq", "list", "--json"]).expect(0));
    assert_eq!(listed.len(), 25);
    assert!(listed.iter().all(|letter| letter["class"] == "moved-by-queue"));
    let id = listed[0]["id"].as_str().unwrap();
    let shown = parsed(&rig.run(&["dlq", "show", &id[..12], "--json"]).expect(0));
    assert_eq!(shown[0]["id"], id);

    assert_eq!(rig.run(&["dlq", "redrive", &id[..12]]).expect(0).out[1], "1 redriven");
    assert_eq!((rig.cloud.sqs().count("events"), rig.cloud.sqs().count("dead")), (1, 24));
    assert_eq!(rig.run(&["dlq", "purge", "--class", "moved-by-queue"]).expect(0).out[24], "24 purged");
    assert_eq!((rig.cloud.sqs().count("events"), rig.cloud.sqs().count("dead")), (1, 0));
}
