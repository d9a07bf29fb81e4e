//! Nothing that somebody else put somewhere is overwritten, and nothing made from an old content stays.

use std::fs;

use crate::{
    COPY, all_to,
    support::{
        auditor::{Auditor, Fate, Object, Output, in_flight, live},
        host::{Bucket, Host, eventually},
    },
};

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
fn an_object_that_is_taken_away_meanwhile_is_told_and_forgotten() {
    let routes = "[[route.use]]\nplugin = \"slow\"\nsettings = { rounds = 2000 }";
    let bucket = Bucket::with(&["slow"], &format!("slots = 1\n{}", all_to(3, routes)));
    let host = Host::dev(&bucket, &["--json"]);
    bucket.write("uploads/first", b"1");
    eventually("the object to be in work", || in_flight(bucket.root()) == 1);
    bucket.write("uploads/second", b"2");
    eventually("the other one to be queued", || live(bucket.root()) == 2);
    fs::remove_file(bucket.path("uploads/second")).unwrap();
    host.wait_for_objects(2);
    host.terminate();
    let finished = host.finish().expect(0).expect_counts(&[("processed", 1)]);
    assert_eq!(finished.record("uploads/second")["outcome"], "vanished");
    let output = Output::exactly("processed/first.copy".to_owned(), "slow", b"1");
    let manifest = [Object::processed("uploads/first", b"1", &["slow"], vec![output])];
    Auditor::new(bucket.root(), &manifest).check();
}
