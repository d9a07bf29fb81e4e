//! Hosts that are told to stop, are killed, or are not alone.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    SOON, Uploads, on_ministack,
    support::{
        auditor::{Fate, Object},
        host::Finished,
        remote_bucket::Events,
        remote_host::Deployment,
        samples::text,
    },
};

/// Everything to `slow`, which takes about so many milliseconds.
fn slowly(milliseconds: u32) -> String {
    format!("{SOON}[[route]]\n[[route.use]]\nplugin = \"slow\"\nsettings = {{ rounds = {} }}\n", milliseconds * 4)
}

fn add_many(uploads: &mut Uploads<'_>, number: usize) {
    let object = |n: usize| {
        let content = text(n as u64, n * 10);
        let object = Object::copied(&format!("uploads/{}/{n}", n % 7), &content).made_by("slow");
        (content, object)
    };
    uploads.add_all((0..number).map(object).collect());
}

/// How often each key was processed.
fn processed(finished: &[&Finished]) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for record in finished.iter().flat_map(|finished| finished.records()) {
        assert_eq!(record["outcome"], "processed", "{record}");
        if let Value::String(key) = &record["key"] {
            *times.entry(key.clone()).or_default() += 1;
        }
    }
    times
}

#[test]
fn sigterm_under_load_leaves_every_object_done_or_waiting() {
    let remote = on_ministack(Events::Direct);
    let deployment = Deployment::new(&remote, &["slow"], &slowly(40)).with("GRISTMILL_SLOTS", "8");
    let mut uploads = Uploads::to(&remote);
    add_many(&mut uploads, 200);
    let host = deployment.run(&[]);
    host.wait_for_objects(40);
    host.terminate();
    let first = host.finish().expect(0);
    let done = processed(&[&first]);
    assert!((40..200).contains(&done.len()), "{}", done.len());

    // What the host had received it has finished or given back, and it said what it finished.
    let was_processed = |object: &Object| done.contains_key(&object.key);
    let mut fates = Vec::new();
    for upload in &mut uploads.list {
        let fate = if was_processed(&upload.object) { None } else { Some(Fate::Waiting) };
        fates.push(fate.map(|fate| std::mem::replace(&mut upload.object.fate, fate)));
    }
    uploads.auditor(&deployment).check();

    for (upload, fate) in uploads.list.iter_mut().zip(fates) {
        if let Some(fate) = fate {
            upload.object.fate = fate;
        }
    }
    let second = deployment.run_until_idle().expect(0);
    let times = processed(&[&first, &second]);
    assert_eq!((times.len(), times.values().max()), (200, Some(&1)));
    uploads.auditor(&deployment).check();
}

#[test]
fn two_hosts_share_a_queue() {
    let remote = on_ministack(Events::Direct);
    let deployment = Deployment::new(&remote, &["slow"], &slowly(10)).with("GRISTMILL_SLOTS", "8");
    let mut uploads = Uploads::to(&remote);
    add_many(&mut uploads, 200);
    let hosts = [deployment.run(&["--until-idle"]), deployment.run(&["--until-idle"])];
    let [one, other] = hosts.map(|host| host.finish().expect(0));
    let times = processed(&[&one, &other]);
    assert_eq!((times.len(), times.values().max()), (200, Some(&1)));
    for finished in [&one, &other] {
        assert!(!finished.records().is_empty(), "one of them had nothing to do");
    }
    uploads.auditor(&deployment).check();
}

#[test]
fn what_a_killed_host_had_in_work_is_finished_by_another() {
    let remote = on_ministack(Events::Direct);
    let deployment = Deployment::new(&remote, &["slow"], &slowly(40))
        .with("GRISTMILL_SLOTS", "8")
        .with("GRISTMILL_VISIBILITY_TIMEOUT", "3s");
    let mut uploads = Uploads::to(&remote);
    add_many(&mut uploads, 60);
    let doomed = deployment.run(&[]);
    doomed.wait_for_objects(10);
    doomed.kill();
    deployment.run_until_idle().expect(0);
    uploads.auditor(&deployment).check();
}
