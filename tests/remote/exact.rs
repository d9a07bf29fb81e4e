//! What only the server in this process can do: conditions as exact as AWS's, faults on demand, and hosts
//! that die at a chosen request.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    SOON, Uploads, all_to,
    support::{
        auditor::{Fate, Object, Output},
        cloud::{Call, Cloud, Fault},
        remote_bucket::{Attributes, Events, Remote},
        remote_host::Deployment,
        samples::text,
    },
};

fn on(cloud: &Cloud) -> Remote {
    let remote = Remote::new(&cloud.endpoint(), Events::None);
    cloud.s3().notify(&remote.bucket, "uploads/", &remote.queue);
    // A host that stops waits for its last poll.
    cloud.sqs().longest_wait(Duration::from_secs(1));
    remote
}

fn add_copied(uploads: &mut Uploads<'_>, numbers: std::ops::Range<usize>) {
    let object = |n: usize| {
        let content = text(n as u64, 300 + n * 10);
        let object = Object::copied(&format!("uploads/{} & {n}", n % 3), &content);
        (content, object)
    };
    uploads.add_all(numbers.map(object).collect());
}

fn is_s3(call: &Call) -> bool {
    !call.key.is_empty()
}

#[test]
fn nothing_foreign_is_overwritten() {
    let cloud = Cloud::start();
    let remote = on(&cloud);
    let deployment = Deployment::new(&remote, &["split"], &all_to("[\"split\"]"));
    let mut uploads = Uploads::to(&remote);
    let mut foreign = BTreeMap::new();
    for key in ["processed/original", "processed/first.head", "processed/second.tail"] {
        remote.put(key, b"somebody else's");
        foreign.insert(key.to_owned(), b"somebody else's".to_vec());
    }
    let conflict = |name: &str, made: &[&str]| {
        let outputs = made.iter().map(|output| Output::exactly(format!("processed/{name}.{output}"), "split", b"xx"));
        let mut object = Object::dead(&format!("uploads/{name}"), b"xxxx", "conflict");
        object.fate = Fate::Dead { class: "conflict".to_owned(), outputs: outputs.collect() };
        object
    };
    // What was placed before the conflict was met may stay.
    uploads.add(b"xxxx", conflict("original", &["head", "tail"]));
    uploads.add(b"xxxx", conflict("first", &[]));
    uploads.add(b"xxxx", conflict("second", &["head"]));
    deployment.run_until_idle().expect(1).expect_counts(&[("rejected", 3)]);
    let mut auditor = uploads.auditor(&deployment);
    auditor.foreign = foreign;
    auditor.check();

    // With that out of the way a redrive gets them all through.
    for key in auditor.foreign.keys() {
        remote.delete(key);
    }
    deployment.gristmill(&["dlq", "redrive", "--all"]).finish().expect(0);
    deployment.run_until_idle().expect(0).expect_counts(&[("processed", 3)]);
    for upload in &mut uploads.list {
        let to = upload.object.key.replacen("uploads", "processed", 1);
        let outputs = ["head", "tail"].map(|half| Output::exactly(format!("{to}.{half}"), "split", b"xx"));
        upload.object = Object::processed(&upload.object.key, b"xxxx", &["split"], outputs.into());
    }
    uploads.auditor(&deployment).check();
}

#[test]
fn a_newer_upload_replaces_what_was_made_of_the_older() {
    let cloud = Cloud::start();
    let remote = on(&cloud);
    let deployment = Deployment::new(&remote, &["copy"], &all_to("[\"copy\"]"));
    for content in [&b"older"[..], b"newer"] {
        let mut uploads = Uploads::to(&remote);
        uploads.add(content, Object::copied("uploads/a", content));
        deployment.run_until_idle().expect(0).expect_counts(&[("processed", 1)]);
        uploads.auditor(&deployment).check();
    }
}

/// Nobody loses an attempt by it, not even where there is only one.
#[test]
fn an_outage_of_the_store_dead_letters_nothing() {
    let cloud = Cloud::start();
    let remote = on(&cloud);
    let routes = "[retry]\nmax_attempts = 1\nbase = \"1s\"\nmax = \"1s\"\n[[route]]\nplugins = [\"copy\"]\n";
    let deployment = Deployment::new(&remote, &["copy"], routes);
    let mut uploads = Uploads::to(&remote);
    add_copied(&mut uploads, 0..5);
    let calls = AtomicU32::new(0);
    cloud.faults(move |call| match calls.fetch_add(u32::from(is_s3(call)), Ordering::Relaxed) {
        0..30 if is_s3(call) => Fault::Error { status: 503, code: "SlowDown" },
        _ => Fault::None,
    });
    let finished = deployment.run_until_idle().expect(0);
    cloud.faults(|_| Fault::None);
    let summary = finished.summary();
    assert_eq!((&summary["processed"], &summary["dead"]), (&5.into(), &0.into()), "{summary}");
    assert!(finished.records().iter().any(|record| record["attempts"].as_u64() > Some(1)), "{:?}", finished.out);
    uploads.auditor(&deployment).check();
}

#[test]
fn lost_and_broken_answers_change_nothing() {
    let cloud = Cloud::start();
    let remote = on(&cloud);
    let deployment = Deployment::new(&remote, &["copy"], &all_to("[\"copy\"]"));
    let mut uploads = Uploads::to(&remote);
    add_copied(&mut uploads, 0..40);
    let random = std::sync::Mutex::new(fastrand::Rng::with_seed(11));
    cloud.faults(move |call| {
        let Ok(mut random) = random.lock() else { return Fault::None };
        match (random.u32(..12), call.operation.as_str()) {
            // After each of these the host pauses, and longer each time.
            (_, "ReceiveMessage" | "GetQueueAttributes") if random.u32(..10) > 0 => Fault::None,
            (0, _) => Fault::LostAnswer,
            (1, _) => Fault::Reset,
            (2, _) => Fault::Error { status: 500, code: "InternalError" },
            (3 | 4, "GetObject") => Fault::CutBody(100),
            (3 | 4, "CopyObject") => Fault::ErrorInside { code: "InternalError" },
            (3 | 4, "DeleteMessageBatch" | "ChangeMessageVisibilityBatch") => Fault::FailEntries(vec![0]),
            _ => Fault::None,
        }
    });
    let deployment = deployment.with("GRISTMILL_VISIBILITY_TIMEOUT", "2s");
    let finished = deployment.run_until_idle().expect(0);
    cloud.faults(|_| Fault::None);
    let summary = finished.summary();
    assert_eq!((&summary["rejected"], &summary["dead"]), (&0.into(), &0.into()), "{summary}");
    uploads.auditor(&deployment).check();
}

/// Every kind of request that a host makes for an object, and a death before and after it.
#[test]
fn a_host_may_die_at_any_request() {
    let operations =
        ["ReceiveMessage", "HeadObject", "GetObject", "PutObject", "CopyObject", "DeleteObject", "DeleteMessageBatch"];
    let cloud = Cloud::start();
    let remote = on(&cloud);
    let deployment = Deployment::new(&remote, &["copy"], &all_to("[\"copy\"]"))
        .with("GRISTMILL_VISIBILITY_TIMEOUT", "1s")
        .with("GRISTMILL_SLOTS", "2");
    let mut uploads = Uploads::to(&remote);
    for (n, operation) in operations.into_iter().enumerate() {
        for (half, fault) in [Fault::Reset, Fault::LostAnswer].into_iter().enumerate() {
            let first = (n * 2 + half) * 3;
            add_copied(&mut uploads, first..first + 3);
            let host = deployment.run(&[]);
            let died = Arc::new(AtomicBool::new(false));
            let (id, dead) = (host.id(), Arc::clone(&died));
            cloud.faults(move |call| {
                if !dead.load(Ordering::Relaxed) && call.operation == operation {
                    dead.store(true, Ordering::Relaxed);
                    if let Some(id) = Pid::from_raw(id as i32) {
                        let _ = kill_process(id, Signal::KILL);
                    }
                    return fault.clone();
                }
                Fault::None
            });
            let finished = host.finish();
            cloud.faults(|_| Fault::None);
            assert!(finished.code.is_none() && died.load(Ordering::Relaxed), "{operation}: {finished:?}");
        }
    }
    deployment.run_until_idle().expect(0);
    uploads.auditor(&deployment).check();
}

#[test]
fn a_large_object_moves_in_parts_with_all_that_belongs_to_it() {
    let cloud = Cloud::start();
    let remote = on(&cloud);
    let deployment =
        Deployment::new(&remote, &["copy"], &all_to("[\"copy\"]")).with("GRISTMILL_COPY_IN_PARTS_ABOVE", "5MiB");
    let mut uploads = Uploads::to(&remote);
    let content = text(1, (12 << 20) + 1);
    let mut attributes = Attributes::default();
    attributes.headers.insert("cache-control".to_owned(), "no-store".to_owned());
    attributes.metadata.insert("owner".to_owned(), "somebody".to_owned());
    attributes.tags.insert("team".to_owned(), "mill".to_owned());
    uploads.add_with(&content, Object::copied("uploads/large + 1%.bin", &content), attributes);
    deployment.run_until_idle().expect(0).expect_counts(&[("processed", 1)]);
    assert!(cloud.requests().contains_key("UploadPartCopy"), "{:?}", cloud.requests());
    uploads.auditor(&deployment).check();
}

/// The lease is renewed for as long as the work takes, so nobody else gets the object.
#[test]
fn work_may_take_longer_than_the_visibility_timeout() {
    let cloud = Cloud::start();
    let remote = on(&cloud);
    let routes = format!("{SOON}[[route]]\n[[route.use]]\nplugin = \"slow\"\nsettings = {{ rounds = 16000 }}\n");
    let deployment = Deployment::new(&remote, &["slow"], &routes).with("GRISTMILL_VISIBILITY_TIMEOUT", "1s");
    let mut uploads = Uploads::to(&remote);
    uploads.add(b"x", Object::copied("uploads/a", b"x").made_by("slow"));
    let hosts = [deployment.run(&["--until-idle"]), deployment.run(&["--until-idle"])];
    let records: usize = hosts.map(|host| host.finish().expect(0).records().len()).iter().sum();
    assert_eq!(records, 1);
    uploads.auditor(&deployment).check();
}

/// Slots are not held by a slow store: the others go on.
#[test]
fn a_slow_store_only_takes_time() {
    let cloud = Cloud::start();
    let remote = on(&cloud);
    let deployment = Deployment::new(&remote, &["copy"], &all_to("[\"copy\"]")).with("GRISTMILL_SLOTS", "32");
    let mut uploads = Uploads::to(&remote);
    add_copied(&mut uploads, 0..100);
    cloud.latency(Duration::from_millis(30));
    deployment.run_until_idle().expect(0).expect_counts(&[("processed", 100)]);
    cloud.latency(Duration::ZERO);
    uploads.auditor(&deployment).check();
}
