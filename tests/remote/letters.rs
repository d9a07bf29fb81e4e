//! Dead letters, as consoles and `gristmill dlq` show them.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use serde_json::Value;

use crate::{
    Uploads, all_to, on_ministack,
    support::{
        auditor::{Fate, Object},
        host::Finished,
        remote_bucket::Events,
        remote_host::Deployment,
        samples::text,
    },
};

/// Every line of what a verb printed as JSON.
fn lines(finished: &Finished) -> Vec<Value> {
    finished.out.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn rejects_are_listed_redriven_and_then_processed() {
    let remote = on_ministack(Events::Direct);
    let routes = "[\"good\"]\nmatch = \"good *\"\n[[route]]\nplugins = [\"trap\"]\nmatch = \"trap *\"\n\
                  [[route]]\nplugins = [\"picky\"]";
    let deployment = Deployment::new(&remote, &[], &all_to(routes));
    for (guest, name) in [("copy", "good"), ("reject", "picky"), ("trap-mid-write", "trap")] {
        deployment.plugin(guest, name);
    }
    let old_versions = deployment.versions();
    let mut uploads = Uploads::to(&remote);
    let made_by =
        |name: &str, plugin: &str, content: &[u8]| Object::copied(&format!("uploads/{name}"), content).made_by(plugin);
    let names = ["bad + 1%", "bad/猫", "bad 3", "trap 4", "good 5"];
    for (n, name) in names.iter().enumerate() {
        let content = text(n as u64, 1_000);
        let key = format!("uploads/{name}");
        let object = match n {
            0..3 => Object::dead(&key, &content, "reject"),
            3 => Object::dead(&key, &content, "trap"),
            _ => made_by(name, "good", &content),
        };
        uploads.add(&content, object);
    }
    let finished = deployment.run_until_idle().expect(1);
    finished.expect_counts(&[("processed", 1), ("rejected", 3), ("dead", 1), ("retried", 2)]);
    uploads.auditor(&deployment).check();

    let listed = deployment.gristmill(&["dlq", "list", "--json"]).finish().expect(0);
    let listed = lines(&listed);
    assert_eq!(listed.len(), 4, "{listed:?}");
    for (name, class) in names.iter().zip(["reject", "reject", "reject", "trap"]) {
        let key = format!("uploads/{name}");
        let letter = listed.iter().find(|letter| letter["key"] == key.as_str()).unwrap();
        assert_eq!(letter["class"], class, "{letter}");
    }
    // Looking at them left them where they were.
    uploads.auditor(&deployment).check();

    // Both plugins are mended; only some are to be tried again.
    for name in ["picky", "trap"] {
        deployment.plugin("copy", name);
    }
    deployment.gristmill(&["dlq", "redrive", "--class", "reject"]).finish().expect(0);
    for (upload, name) in uploads.list.iter_mut().zip(&names[..3]) {
        upload.object.fate = Fate::Waiting;
        assert!(upload.object.key.ends_with(name));
    }
    let mut auditor = uploads.auditor(&deployment);
    merge(&mut auditor.versions, &old_versions);
    auditor.check();

    for (n, upload) in uploads.list.iter_mut().enumerate().take(3) {
        upload.object = made_by(names[n], "picky", &text(n as u64, 1_000));
    }
    deployment.run_until_idle().expect(0).expect_counts(&[("processed", 3)]);
    let mut auditor = uploads.auditor(&deployment);
    merge(&mut auditor.versions, &old_versions);
    auditor.check();

    deployment.gristmill(&["dlq", "redrive", "--all"]).finish().expect(0);
    uploads.list[3].object = made_by(names[3], "trap", &text(3, 1_000));
    let finished = deployment.run_until_idle().expect(0).expect_counts(&[("processed", 1)]);
    // Attempts are counted from the start.
    assert_eq!(finished.record("uploads/trap 4")["attempts"], 1);
    let mut auditor = uploads.auditor(&deployment);
    merge(&mut auditor.versions, &old_versions);
    auditor.check();
    let listed = deployment.gristmill(&["dlq", "list", "--json"]).finish().expect(0);
    assert_eq!(lines(&listed), [] as [Value; 0]);
}

type Versions = std::collections::BTreeMap<String, std::collections::BTreeSet<String>>;

fn merge(versions: &mut Versions, others: &Versions) {
    for (name, digests) in others {
        versions.entry(name.clone()).or_default().extend(digests.iter().cloned());
    }
}

#[test]
fn a_dead_letter_says_what_happened() {
    let remote = on_ministack(Events::Topic);
    let deployment = Deployment::new(&remote, &["trap-mid-write"], &all_to("[\"trap-mid-write\"]"));
    let mut uploads = Uploads::to(&remote);
    uploads.add(b"content", Object::dead("uploads/a b", b"content", "trap"));
    deployment.run_until_idle().expect(1).expect_counts(&[("dead", 1), ("retried", 2)]);
    uploads.auditor(&deployment).check();
    let letters = remote.messages(&remote.dead_letters);
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    // As it came, in its envelope.
    assert!(letter.body.contains("\"Type\"") && letter.body.contains("uploads/a+b"), "{}", letter.body);
    let says = |name: &str| letter.attributes.get(name).map(String::as_str).unwrap_or_default();
    assert_eq!((says("gristmill-key"), says("gristmill-attempts")), ("uploads/a b", "3"));
    assert_eq!(says("gristmill-plugin"), "trap-mid-write");
    assert_eq!(says("gristmill-digest"), deployment.versions()["trap-mid-write"].first().unwrap());
    assert!(says("gristmill-backtrace").contains("process"), "{letter:?}");
}
