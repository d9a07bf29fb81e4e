//! What S3 refuses, in words that say what to do.

use gristmill::{
    io::IoError,
    store::{Expect, Store, StoreError, s3::S3Store},
};

use super::rig::{BUCKET, Rig, staged};
use crate::support::cloud::{Call, Fault};

impl Rig {
    /// Every request is answered so.
    fn refuse(&self, status: u16, code: &'static str) {
        self.cloud.faults(move |_: &Call| Fault::Error { status, code });
    }
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let rig = Rig::new();
    rig.put("uploads/a", "content");
    let object = rig.open("uploads/a").await;
    let staging = staged(&rig.store, "processed/a", b"x").await;
    rig.refuse(403, "AccessDenied");
    let opened = rig.store.open("uploads/a").await.map(drop);
    let inspected = rig.store.inspect("processed/a").await.map(drop);
    let published = rig.store.publish(&staging, 0, &Expect::Absent).await;
    let moved = rig.relocate(&object, "processed/b").await;
    for (outcome, permission) in [
        (opened, "s3:ListBucket"),
        (inspected, "s3:GetObject"),
        (published, "s3:PutObject"),
        (moved, "s3:GetObjectTagging"),
    ] {
        assert!(matches!(&outcome, Err(StoreError::Denied(why)) if why.contains(permission)), "{outcome:?}");
    }
    let read = rig.store.body(&object).read(1).await;
    assert!(matches!(&read, Err(IoError::Denied(why)) if why.contains("s3:GetObject")), "{read:?}");

    rig.fault("DeleteObject", 1, Fault::Error { status: 403, code: "AccessDenied" });
    let moved = rig.relocate(&object, "processed/b").await;
    assert!(matches!(&moved, Err(StoreError::Denied(why)) if why.contains("s3:DeleteObject")), "{moved:?}");
}

#[tokio::test]
async fn the_reason_behind_the_answer_to_a_head_is_found() {
    let rig = Rig::new();
    rig.put("uploads/a", "content");
    for (status, code) in [(400, "ExpiredToken"), (403, "InvalidAccessKeyId"), (403, "RequestTimeTooSkewed")] {
        rig.refuse(status, code);
        for outcome in [rig.store.open("uploads/a").await.map(drop), rig.store.inspect("processed/a").await.map(drop)] {
            let told =
                matches!(&outcome, Err(StoreError::Unavailable(why)) if why.contains(code) && why.contains("clock"));
            assert!(told, "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_no_missing_object() {
    let rig = Rig::new();
    let store = S3Store::new(rig.cloud.s3_client(), "elsewhere", 1 << 30);
    let outcome = store.open("uploads/a").await.map(drop);
    assert!(matches!(&outcome, Err(StoreError::Unavailable(why)) if why.contains("elsewhere")), "{outcome:?}");
    let staging = staged(&store, "processed/a", b"x").await;
    let outcome = store.publish(&staging, 0, &Expect::Absent).await;
    assert!(matches!(&outcome, Err(StoreError::Unavailable(why)) if why.contains("elsewhere")), "{outcome:?}");
}

#[tokio::test]
async fn a_store_in_trouble_is_unavailable() {
    let rig = Rig::new();
    rig.put("uploads/a", "content");
    let object = rig.open("uploads/a").await;
    for fault in [
        Fault::Error { status: 503, code: "SlowDown" },
        Fault::Error { status: 500, code: "InternalError" },
        Fault::Reset,
    ] {
        let wrong = fault.clone();
        rig.cloud.faults(move |_: &Call| wrong.clone());
        for outcome in [
            rig.store.open("uploads/a").await.map(drop),
            rig.store.verify(&object).await,
            rig.store.inspect("uploads/a").await.map(drop),
            rig.relocate(&object, "processed/a").await,
        ] {
            assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{fault:?}: {outcome:?}");
        }
        let read = rig.store.body(&object).read(1).await;
        assert!(matches!(read, Err(IoError::Unavailable(_))), "{read:?}");
    }
}

#[tokio::test]
async fn a_store_that_is_away_is_unavailable() {
    let Rig { store, cloud } = Rig::new();
    drop(cloud);
    let outcome = store.open("uploads/a").await.map(drop);
    assert!(matches!(&outcome, Err(StoreError::Unavailable(why)) if why.contains("HeadObject")), "{outcome:?}");
}

#[tokio::test]
async fn one_failure_is_tried_again() {
    let rig = Rig::new();
    rig.put("uploads/a", "content");
    rig.fault("HeadObject", 2, Fault::Error { status: 503, code: "SlowDown" });
    rig.store.open("uploads/a").await.unwrap();
    assert_eq!(rig.requests("HeadObject"), 3);
    assert!(rig.cloud.s3().get(BUCKET, "uploads/a").is_some());
}
