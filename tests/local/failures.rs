//! Plugins that fail, are missing, or take too much.

use serde_json::Value;

use crate::{
    all_to,
    support::{
        auditor::{Auditor, Object, Output, in_flight},
        host::{Bucket, Host, eventually, sha256},
        samples::text,
    },
};

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
