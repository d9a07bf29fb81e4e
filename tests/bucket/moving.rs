//! Moves: a copy that loses nothing, and a delete of nothing else.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use gristmill::{
    admission::Admission,
    config::Retry,
    event::ObjectEvent,
    job::{self, Outcome},
    store::{Expect, Store, StoreError},
};
use tokio_util::sync::CancellationToken;

use super::rig::{BUCKET, Rig, bytes};
use crate::support::{
    cloud::{Fault, s3::Conditions},
    toys,
};

/// Copied in one request, and in three.
const SIZES: [usize; 2] = [1_000, 12 << 20];

/// What a copy would lose by itself.
const HEADERS: [(&str, &str); 13] = [
    ("cache-control", "max-age=60"),
    ("content-disposition", "attachment; filename=\"a b.csv\""),
    ("content-encoding", "gzip"),
    ("content-language", "de"),
    ("content-type", "text/csv; charset=utf-8"),
    ("expires", "0"),
    ("x-amz-website-redirect-location", "/elsewhere"),
    ("x-amz-meta-rows", "3"),
    ("x-amz-meta-author", "=?UTF-8?B?w5x0aA==?="),
    ("x-amz-storage-class", "STANDARD_IA"),
    ("x-amz-server-side-encryption", "aws:kms"),
    ("x-amz-server-side-encryption-aws-kms-key-id", "arn:aws:kms:us-east-1:1:key/1"),
    ("x-amz-server-side-encryption-bucket-key-enabled", "true"),
];

fn event(key: &str) -> ObjectEvent {
    ObjectEvent {
        bucket: BUCKET.to_owned(),
        key: key.to_owned(),
        size: None,
        etag: None,
        version_id: None,
        event_time: None,
        event_name: "ObjectCreated:Put".to_owned(),
    }
}

#[tokio::test]
async fn an_object_without_plugin_is_three_requests() {
    let rig = Rig::new();
    rig.put("uploads/a.move", "content");
    let config = toys::config(Retry::default(), 1);
    let context = toys::context(rig.store.clone(), &Arc::new(config));
    let cancel = CancellationToken::new();
    let seat = Admission::new(&context.config, CancellationToken::new()).seats(1).await.remove(0);
    let (outcome, sent) = rig.sends(job::run(&context, &event("uploads/a.move"), 1, &seat, &cancel)).await;
    assert!(matches!(outcome, Outcome::Processed(_)), "{outcome:?}");
    let expected = ["CopyObject", "DeleteObject", "HeadObject"].map(|operation| (operation.to_owned(), 1));
    assert_eq!(sent.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!((rig.get("uploads/a.move"), rig.get("processed/a.move").unwrap()), (None, b"content".to_vec()));

    // Delivered again, it is known to be done.
    let outcome = job::run(&context, &event("uploads/a.move"), 2, &seat, &cancel).await;
    assert!(matches!(outcome, Outcome::AlreadyDone), "{outcome:?}");
}

#[tokio::test]
async fn a_move_keeps_everything() {
    for size in SIZES {
        let rig = Rig::new();
        let content = bytes(size);
        let mut headers = HEADERS.to_vec();
        headers.push(("x-amz-tagging", "team=a%20b&x=y%26z"));
        rig.cloud.s3().put_with(BUCKET, "uploads/a b+ü.csv", content.clone(), &headers);
        let before = rig.cloud.s3().get(BUCKET, "uploads/a b+ü.csv").unwrap();
        let object = rig.open("uploads/a b+ü.csv").await;
        rig.relocate(&object, "processed/a b+ü.csv").await.unwrap();

        assert_eq!(rig.get("uploads/a b+ü.csv"), None);
        let after = rig.cloud.s3().get(BUCKET, "processed/a b+ü.csv").unwrap();
        assert!(after.body == content);
        assert_eq!(after.headers, before.headers, "{size} bytes");
        assert_eq!(after.tags, before.tags);
        assert_eq!(after.tags["team"], "a b");
        let own: Vec<_> = after.metadata.iter().filter(|(key, _)| !key.starts_with("gristmill-")).collect();
        assert_eq!(own, before.metadata.iter().collect::<Vec<_>>());
        let there = rig.store.inspect("processed/a b+ü.csv").await.unwrap().unwrap();
        assert_eq!(there.provenance, Some(rig.from(&object)));
        assert_eq!(rig.requests("CopyObject") == 0, size as u64 > super::rig::IN_PARTS);
        assert_eq!(rig.cloud.s3().open_uploads(BUCKET), []);
    }
}

#[tokio::test]
async fn an_error_inside_a_200_moves_nothing() {
    for (size, operation) in SIZES.into_iter().zip(["CopyObject", "CompleteMultipartUpload"]) {
        let rig = Rig::new();
        rig.put("uploads/a", bytes(size));
        let object = rig.open("uploads/a").await;
        rig.fault(operation, u64::MAX, Fault::ErrorInside { code: "InternalError" });
        let outcome = rig.relocate(&object, "processed/a").await;
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
        assert_eq!((rig.requests("DeleteObject"), rig.get("processed/a")), (0, None), "{operation}");
        assert!(rig.get("uploads/a").is_some());

        // An answer that is cut before it says how it went is no success.
        rig.fault(operation, u64::MAX, Fault::ShortBody(0));
        let outcome = rig.store.relocate(&object, "processed/a", &rig.from(&object), &Expect::Absent).await;
        assert!(outcome.is_err(), "{operation}: {outcome:?}");
        assert_eq!(rig.requests("DeleteObject"), 0, "{operation}");
        assert!(rig.get("uploads/a").is_some());
    }
}

#[tokio::test]
async fn a_lost_answer_moves_once() {
    let large = ["CreateMultipartUpload", "UploadPartCopy", "CompleteMultipartUpload", "DeleteObject"];
    let cases = ["CopyObject", "DeleteObject"].map(|operation| (SIZES[0], operation));
    for (size, operation) in cases.into_iter().chain(large.map(|operation| (SIZES[1], operation))) {
        let rig = Rig::new();
        let content = bytes(size);
        rig.put("uploads/a", content.clone());
        let object = rig.open("uploads/a").await;
        rig.fault(operation, 1, Fault::LostAnswer);
        rig.relocate(&object, "processed/a").await.unwrap_or_else(|error| panic!("{operation}: {error}"));
        assert_eq!(rig.get("uploads/a"), None, "{operation}");
        assert!(rig.get("processed/a").unwrap() == content, "{operation}");
    }
}

#[tokio::test]
async fn a_copy_that_was_made_is_not_made_again() {
    let rig = Rig::new();
    rig.put("uploads/a", bytes(SIZES[1]));
    let object = rig.open("uploads/a").await;
    rig.fault("DeleteObject", 3, Fault::Error { status: 503, code: "SlowDown" });
    assert!(matches!(rig.relocate(&object, "processed/a").await, Err(StoreError::Unavailable(_))));
    let (moved, sent) = rig.sends(rig.relocate(&object, "processed/a")).await;
    moved.unwrap();
    assert!(!sent.contains_key("UploadPartCopy") && sent.contains_key("DeleteObject"), "{sent:?}");
    assert_eq!(rig.get("uploads/a"), None);
}

#[tokio::test]
async fn which_condition_did_not_hold_is_found_out() {
    for conditions in [Conditions::Named, Conditions::Unnamed, Conditions::Unknown] {
        for size in SIZES {
            let rig = Rig::new();
            rig.cloud.s3().set_conditions(BUCKET, conditions);
            let said = |outcome: &Result<(), StoreError>| match outcome {
                Ok(()) => "moved",
                Err(StoreError::NotFound(_)) => "not found",
                Err(StoreError::Superseded) => "superseded",
                Err(StoreError::Exists(_)) => "exists",
                Err(_) => "other",
            };
            rig.put("uploads/a", bytes(size));
            let object = rig.open("uploads/a").await;
            let from = rig.from(&object);
            let relocate = async |expect: Expect| rig.store.relocate(&object, "processed/a", &from, &expect).await;
            let case = format!("{conditions:?}, {size} bytes");

            // Without a destination that was expected.
            assert_eq!(said(&relocate(Expect::Etag("1".to_owned())).await), "exists", "{case}");
            let etag = rig.put("processed/a", "foreign");
            assert_eq!(said(&relocate(Expect::Absent).await), "exists", "{case}");
            assert_eq!(said(&relocate(Expect::Etag("1".to_owned())).await), "exists", "{case}");
            assert_eq!(rig.get("processed/a").unwrap(), b"foreign");
            rig.put("uploads/a", vec![7; size]);
            assert_eq!(said(&relocate(Expect::Etag(etag.clone())).await), "superseded", "{case}");
            assert!(rig.get("uploads/a").unwrap() == vec![7; size]);
            rig.cloud.s3().remove(BUCKET, "uploads/a");
            assert_eq!(said(&relocate(Expect::Etag(etag)).await), "not found", "{case}");
            assert_eq!(rig.get("processed/a").unwrap(), b"foreign");

            rig.put("uploads/a", bytes(size));
            let object = rig.open("uploads/a").await;
            rig.store.relocate(&object, "processed/b", &from, &Expect::Absent).await.unwrap();
            assert_eq!(rig.get("uploads/a"), None, "{case}");
            assert!(rig.get("processed/b").unwrap() == bytes(size), "{case}");
            rig.wait_for_aborts().await;
        }
    }
}

#[tokio::test]
async fn an_object_that_is_overwritten_during_its_move_stays() {
    for conditions in [Conditions::Named, Conditions::Unknown] {
        for (size, moment) in [(SIZES[0], "DeleteObject"), (SIZES[1], "UploadPartCopy"), (SIZES[1], "DeleteObject")] {
            let rig = Rig::new();
            rig.cloud.s3().set_conditions(BUCKET, conditions);
            rig.put("uploads/a", bytes(size));
            let object = rig.open("uploads/a").await;
            let (s3, is_done) = (rig.cloud.shared_s3(), AtomicBool::new(false));
            // Where there are no conditions, before the look that takes their place.
            rig.cloud.faults(move |call| {
                if call.operation == moment && !is_done.swap(true, Ordering::Relaxed) {
                    s3.put(BUCKET, "uploads/a", "newer");
                }
                Fault::None
            });
            let outcome = rig.relocate(&object, "processed/a").await;
            assert!(matches!(outcome, Err(StoreError::Superseded)), "{moment}: {outcome:?}");
            assert_eq!(rig.get("uploads/a").unwrap(), b"newer", "{moment}");
            rig.wait_for_aborts().await;
        }
    }
}

#[tokio::test]
async fn a_source_that_is_deleted_during_its_move_was_moved() {
    let rig = Rig::new();
    rig.put("uploads/a", "content");
    let object = rig.open("uploads/a").await;
    let s3 = rig.cloud.shared_s3();
    rig.cloud.faults(move |call| {
        if call.operation == "DeleteObject" {
            s3.remove(BUCKET, "uploads/a");
        }
        Fault::None
    });
    rig.relocate(&object, "processed/a").await.unwrap();
    assert_eq!(rig.get("processed/a").unwrap(), b"content");
}

#[tokio::test]
async fn in_a_bucket_with_versions_the_upload_stays_among_them() {
    for size in SIZES {
        let rig = Rig::new();
        rig.cloud.s3().set_versioning(BUCKET);
        rig.cloud.s3().put_with(BUCKET, "uploads/a", bytes(size), &[("x-amz-tagging", "a=b")]);
        let object = rig.open("uploads/a").await;
        rig.relocate(&object, "processed/a").await.unwrap();
        let versions = rig.cloud.s3().versions(BUCKET, "uploads/a");
        assert!(matches!(&versions[..], [Some(old), None] if old.body == bytes(size)), "{} versions", versions.len());
        let there = rig.store.inspect("processed/a").await.unwrap().unwrap();
        assert_eq!(there.provenance, Some(rig.from(&object)));
        assert!(rig.from(&object).source_version.is_some());
        assert_eq!(rig.cloud.s3().get(BUCKET, "processed/a").unwrap().tags["a"], "b");
    }
}

#[tokio::test]
async fn metadata_without_room_for_provenance_is_impossible() {
    let rig = Rig::new();
    let notes = "x".repeat(2_000);
    rig.cloud.s3().put_with(BUCKET, "uploads/a", "content", &[("x-amz-meta-notes", &notes)]);
    let object = rig.open("uploads/a").await;
    let outcome = rig.relocate(&object, "processed/a").await;
    assert!(matches!(&outcome, Err(StoreError::Impossible(why)) if why.contains("shorten")), "{outcome:?}");
    assert_eq!((rig.get("processed/a"), rig.get("uploads/a").unwrap()), (None, b"content".to_vec()));
}

#[tokio::test]
async fn what_is_moved_again_has_the_newer_provenance_alone() {
    let rig = Rig::new();
    rig.put("uploads/a", "content");
    let object = rig.open("uploads/a").await;
    rig.relocate(&object, "uploads/b").await.unwrap();
    let object = rig.open("uploads/b").await;
    assert_eq!(rig.store.meta(&object).metadata, []);
    rig.relocate(&object, "processed/b").await.unwrap();
    let there = rig.store.inspect("processed/b").await.unwrap().unwrap();
    assert_eq!(there.provenance, Some(rig.from(&object)));
}

#[tokio::test]
async fn a_copy_in_parts_that_fails_is_aborted() {
    let rig = Rig::new();
    rig.put("uploads/a", bytes(SIZES[1]));
    let object = rig.open("uploads/a").await;
    rig.fault("UploadPartCopy", u64::MAX, Fault::Error { status: 500, code: "InternalError" });
    let outcome = rig.relocate(&object, "processed/a").await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    rig.wait_for_aborts().await;
    assert_eq!((rig.requests("AbortMultipartUpload"), rig.get("processed/a")), (1, None));
    assert!(rig.get("uploads/a").is_some());
}
