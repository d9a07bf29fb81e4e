//! The ways that events come, and what comes besides.

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    Uploads, all_to, on_ministack,
    support::{
        auditor::Object,
        remote_bucket::{Attributes, Events, message, record},
        remote_host::Deployment,
        samples::text,
    },
};

#[test]
fn events_come_from_s3() {
    come_through(Events::Direct);
}

#[test]
fn events_come_in_the_envelope_of_a_topic() {
    come_through(Events::Topic);
}

#[test]
fn events_come_raw_from_a_topic() {
    come_through(Events::RawTopic);
}

/// The rule knows no prefix: the host hears of each of its own outputs and leaves it alone.
#[test]
fn events_come_from_eventbridge() {
    come_through(Events::EventBridge);
}

fn come_through(events: Events) {
    let remote = on_ministack(events);
    let deployment = Deployment::new(&remote, &["copy"], &all_to("[\"copy\"]"));
    let mut uploads = Uploads::to(&remote);
    let names = ["a", "a b+c%20.txt", "+", "ü/猫.txt", "100%", "a&b=c?d#e", "quote\"s'.txt", "a//b", "%2Fetc"];
    for (n, name) in names.iter().enumerate() {
        let content = text(n as u64, n * 1_000);
        uploads.add_with(&content, Object::copied(&format!("uploads/{name}"), &content), dressed());
    }
    let finished = deployment.run_until_idle().expect(0).expect_counts(&[("processed", names.len() as u64)]);
    assert_eq!(finished.record("uploads/ü/猫.txt")["destination"], "processed/ü/猫.txt");
    uploads.auditor(&deployment).check();
}

/// All that S3 keeps with an object.
fn dressed() -> Attributes {
    let map = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
    };
    Attributes {
        headers: map(&[
            ("content-type", "text/plain; charset=utf-8"),
            ("content-encoding", "identity"),
            ("content-language", "de-CH"),
            ("content-disposition", "attachment; filename=\"a b.txt\""),
            ("cache-control", "max-age=60, private"),
        ]),
        metadata: map(&[("owner", "somebody"), ("with-dash", "a=b; c")]),
        tags: map(&[("team", "mill"), ("stage", "raw")]),
    }
}

#[test]
fn every_record_of_a_message_counts() {
    let remote = on_ministack(Events::None);
    let routes = "[\"copy\"]\nmatch = \"good*\"\n[[route]]\nplugins = [\"reject\"]";
    let deployment = Deployment::new(&remote, &["copy", "reject"], &all_to(routes));
    let mut uploads = Uploads::to(&remote);
    for n in 0..9 {
        let content = text(n, 100);
        uploads.add(&content, Object::copied(&format!("uploads/good {n}"), &content));
    }
    uploads.add(b"x", Object::dead("uploads/bad", b"x", "reject"));
    let created = |n: usize| {
        let upload = &uploads.list[n];
        record("ObjectCreated:Put", &remote.bucket, &upload.object.key, &upload.etag)
    };
    let gone = record("ObjectRemoved:Delete", &remote.bucket, "uploads/good 0", "0");
    remote.send(&[
        message(&[created(0)]),
        message(&[created(1), created(2), created(3)]),
        // Those that can be processed are, before the message is given up for the others.
        message(&[created(4), created(9), gone, created(5)]),
        // An envelope in an envelope, and one with several records.
        json!({ "Type": "Notification", "Message": message(&[created(6), created(7)]) }).to_string(),
        // The same once more.
        message(&[created(8), created(8), created(0)]),
    ]);
    let finished = deployment.run_until_idle().expect(1);
    let summary = finished.summary();
    assert_eq!((&summary["rejected"], &summary["dead"]), (&1.into(), &0.into()), "{summary}");
    uploads.auditor(&deployment).check();
}

#[test]
fn what_is_not_for_this_host_is_acknowledged() {
    let remote = on_ministack(Events::Direct);
    let other = remote.second_bucket();
    let deployment = Deployment::new(&remote, &["copy"], &all_to("[\"copy\"]"));
    let mut uploads = Uploads::to(&remote);
    let mut foreign = BTreeMap::new();
    for key in ["uploads/folder/", "uploads/", "processed/there", "elsewhere"] {
        remote.put(key, b"");
        foreign.insert(key.to_owned(), Vec::new());
    }
    other.put("uploads/a", b"of the other bucket");
    let about = |event, key| message(&[record(event, &remote.bucket, key, "0")]);
    remote.send(&[
        json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": remote.bucket }).to_string(),
        about("ObjectCreated:Put", "processed/there"),
        about("ObjectCreated:Put", "processed/not there"),
        about("ObjectCreated:Put", "elsewhere"),
        about("ObjectRemoved:DeleteMarkerCreated", "uploads/a"),
        about("ObjectRestore:Completed", "uploads/a"),
        // Deleted before anybody looked.
        about("ObjectCreated:Put", "uploads/gone"),
        message(&[]),
    ]);
    uploads.add(b"x", Object::copied("uploads/a", b"x"));
    deployment.run_until_idle().expect(0).expect_counts(&[("processed", 1)]);
    let mut auditor = uploads.auditor(&deployment);
    auditor.foreign = foreign;
    auditor.check();
    assert_eq!(other.keys(), ["uploads/a"]);
}

#[test]
fn what_nobody_can_read_is_kept_with_the_reason() {
    let remote = on_ministack(Events::None);
    let deployment = Deployment::new(&remote, &["copy"], &all_to("[\"copy\"]"));
    let uploads = Uploads::to(&remote);
    let damaged = json!({ "bucket": { "name": remote.bucket }, "object": { "key": "uploads/%zz" } });
    let bodies = [
        "not JSON".to_owned(),
        "{}".to_owned(),
        json!({ "Records": [{ "eventName": "ObjectCreated:Put" }] }).to_string(),
        json!({ "Records": [{ "eventName": "ObjectCreated:Put", "s3": { "bucket": { "name": "b" } } }] }).to_string(),
        json!({ "Records": [{ "eventName": "ObjectCreated:Put", "s3": damaged }] }).to_string(),
        json!({ "Type": "Notification", "Message": "{" }).to_string(),
        "[".repeat(10_000),
    ];
    remote.send(&bodies);
    let finished = deployment.run_until_idle().expect(1).expect_counts(&[("rejected", bodies.len() as u64)]);
    assert!(finished.records().iter().all(|record| record["class"] == "malformed"), "{:?}", finished.out);
    let mut auditor = uploads.auditor(&deployment);
    auditor.unreadable = bodies.len();
    auditor.check();
    let mut kept: Vec<String> = remote.messages(&remote.dead_letters).into_iter().map(|letter| letter.body).collect();
    let mut sent = bodies.to_vec();
    kept.sort();
    sent.sort();
    assert_eq!(kept, sent);
}
