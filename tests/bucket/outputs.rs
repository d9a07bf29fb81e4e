//! Outputs: small ones in one request, large ones in parts that nobody sees.

use std::time::Duration;

use bytes::Bytes;
use gristmill::{
    io::{IoError, Outputs},
    store::{Expect, OutputMeta, Store, StoreError},
};

use super::rig::{BUCKET, Rig, bytes, from, output, staged};
use crate::support::cloud::{Fault, s3::Conditions};

/// Three parts and a rest.
const LARGE: usize = 26 << 20;

#[tokio::test]
async fn a_large_output_goes_up_in_parts_at_the_same_time() {
    let rig = Rig::new();
    let content = bytes(LARGE);
    rig.fault("UploadPart", u64::MAX, Fault::Delay(Duration::from_millis(200)));
    let staging = staged(&rig.store, "processed/a", &content).await;
    assert_eq!(rig.get("processed/a"), None);
    rig.store.publish(&staging, 0, &Expect::Absent).await.unwrap();

    let object = rig.cloud.s3().get(BUCKET, "processed/a").unwrap();
    assert!(object.body == content);
    assert_eq!(object.headers["content-type"], "application/x-ndjson");
    assert_eq!(rig.store.inspect("processed/a").await.unwrap().unwrap().provenance, Some(from("uploads/a")));
    let seen = rig.open("processed/a").await;
    assert_eq!(rig.store.meta(&seen).metadata, output("").metadata);
    assert_eq!((rig.requests("UploadPart"), rig.requests("PutObject")), (4, 0));
    assert!((2..=4).contains(&rig.cloud.most_at_once("UploadPart")), "{}", rig.cloud.most_at_once("UploadPart"));
    drop(staging);
    assert_eq!(rig.requests("AbortMultipartUpload"), 0);
}

#[tokio::test]
async fn an_output_of_one_part_is_one_request() {
    let rig = Rig::new();
    let content = bytes(8 << 20);
    let staging = staged(&rig.store, "processed/a", &content).await;
    rig.store.publish(&staging, 0, &Expect::Absent).await.unwrap();
    assert!(rig.get("processed/a").unwrap() == content);
    assert_eq!(rig.cloud.requests().into_iter().collect::<Vec<_>>(), [("PutObject".to_owned(), 1)]);
}

#[tokio::test]
async fn one_large_write_is_cut_into_parts() {
    let rig = Rig::new();
    let content = bytes(LARGE);
    let staging = rig.store.staging(&from("uploads/a"));
    staging.create(output("processed/a"));
    staging.write(0, content.clone().into()).await.unwrap();
    rig.store.publish(&staging, 0, &Expect::Absent).await.unwrap();
    assert!(rig.get("processed/a").unwrap() == content);
}

#[tokio::test]
async fn many_outputs_that_are_nearly_a_part_give_up_their_memory() {
    let rig = Rig::new();
    let content = Bytes::from(bytes(6 << 20));
    let staging = rig.store.staging(&from("uploads/a"));
    for index in 0..13 {
        staging.create(output(&format!("processed/{index}")));
        staging.write(index, content.clone()).await.unwrap();
    }
    // Together they have more than an area keeps, and each of these has enough for a part.
    for index in 0..13 {
        staging.write(index, Bytes::from_static(b"end")).await.unwrap();
    }
    assert!(rig.requests("CreateMultipartUpload") > 0);
    for index in 0..13 {
        rig.store.publish(&staging, index, &Expect::Absent).await.unwrap();
        let made = rig.get(&format!("processed/{index}")).unwrap();
        assert!(made[..6 << 20] == content && made[6 << 20..] == *b"end", "output {index}");
    }
}

#[tokio::test]
async fn what_is_not_published_is_aborted() {
    let rig = Rig::new();
    let staging = staged(&rig.store, "processed/a", &bytes(LARGE)).await;
    let last = staging.clone();
    drop(staging);
    assert_eq!(rig.cloud.s3().open_uploads(BUCKET).len(), 1);
    drop(last);
    rig.wait_for_aborts().await;
    assert_eq!((rig.get("processed/a"), rig.requests("AbortMultipartUpload")), (None, 1));
}

#[tokio::test]
async fn the_end_of_the_store_waits_for_aborts() {
    let Rig { store, cloud } = Rig::new();
    let staging = staged(&store, "processed/a", &bytes(LARGE)).await;
    // After this no part is on its way any more, of which nobody could say when it ends.
    cloud.s3().put(BUCKET, "processed/a", "foreign");
    assert!(matches!(store.publish(&staging, 0, &Expect::Absent).await, Err(StoreError::Exists(_))));
    cloud.faults(|call| match &*call.operation {
        "AbortMultipartUpload" => Fault::Delay(Duration::from_millis(300)),
        _ => Fault::None,
    });
    drop(staging);
    drop(store);
    assert_eq!(cloud.s3().open_uploads(BUCKET), []);
}

#[tokio::test]
async fn a_failed_part_fails_the_output() {
    for (fault, is_denied) in [
        (Fault::Error { status: 403, code: "AccessDenied" }, true),
        (Fault::Error { status: 503, code: "SlowDown" }, false),
        (Fault::Reset, false),
    ] {
        let rig = Rig::new();
        rig.fault("UploadPart", u64::MAX, fault.clone());
        let staging = rig.store.staging(&from("uploads/a"));
        staging.create(output("processed/a"));
        let mut outcome = Ok(());
        for _ in 0..60 {
            outcome = staging.write(0, vec![1; 1 << 20].into()).await;
            if outcome.is_err() {
                break;
            }
        }
        let is = matches!(&outcome, Err(IoError::Denied(_)));
        assert!(outcome.is_err() && is == is_denied, "{fault:?}: {outcome:?}");
        assert!(staging.write(0, vec![1].into()).await.is_err());
        let outcome = rig.store.publish(&staging, 0, &Expect::Absent).await;
        assert!(matches!(outcome, Err(StoreError::Unavailable(_) | StoreError::Denied(_))), "{outcome:?}");
        assert_eq!((rig.get("processed/a"), rig.requests("CompleteMultipartUpload")), (None, 0));
        drop(staging);
        rig.wait_for_aborts().await;
    }
}

#[tokio::test]
async fn an_error_inside_a_200_completes_nothing() {
    let rig = Rig::new();
    let content = bytes(LARGE);
    let staging = staged(&rig.store, "processed/a", &content).await;
    rig.fault("CompleteMultipartUpload", u64::MAX, Fault::ErrorInside { code: "InternalError" });
    let outcome = rig.store.publish(&staging, 0, &Expect::Absent).await;
    assert!(matches!(&outcome, Err(StoreError::Unavailable(why)) if why.contains("InternalError")), "{outcome:?}");
    assert_eq!((rig.get("processed/a"), rig.requests("CompleteMultipartUpload")), (None, 3));
    drop(staging);
    rig.wait_for_aborts().await;

    let staging = staged(&rig.store, "processed/a", &content).await;
    rig.fault("CompleteMultipartUpload", 1, Fault::ErrorInside { code: "InternalError" });
    rig.store.publish(&staging, 0, &Expect::Absent).await.unwrap();
    assert!(rig.get("processed/a").unwrap() == content);
}

#[tokio::test]
async fn a_lost_answer_publishes_once() {
    let content = bytes(LARGE);
    for (operation, content) in [
        ("PutObject", &content[..1_000]),
        ("UploadPart", &content),
        ("CreateMultipartUpload", &content),
        ("CompleteMultipartUpload", &content),
    ] {
        for times in [1, 3] {
            let rig = Rig::new();
            rig.fault(operation, times, Fault::LostAnswer);
            let staging = rig.store.staging(&from("uploads/a"));
            staging.create(output("processed/a"));
            let written = staging.write(0, Bytes::copy_from_slice(content)).await;
            let published = match written {
                Ok(()) => rig.publish(&staging, 0, "processed/a", &from("uploads/a")).await,
                Err(error) => Err(StoreError::Unavailable(error.to_string())),
            };
            // The SDK tries three times. What may have been done is then either seen or done again.
            if times == 1 {
                published.unwrap_or_else(|error| panic!("{operation}: {error}"));
            } else {
                assert!(matches!(published, Ok(()) | Err(StoreError::Unavailable(_))), "{operation}: {published:?}");
                let again = staged(&rig.store, "processed/a", content).await;
                rig.publish(&again, 0, "processed/a", &from("uploads/a")).await.unwrap();
            }
            assert!(rig.get("processed/a").unwrap() == content, "{operation}");
        }
    }
}

#[tokio::test]
async fn an_upload_survives_a_condition_that_did_not_hold() {
    let rig = Rig::new();
    let content = bytes(LARGE);
    rig.put("processed/a", "foreign");
    let staging = staged(&rig.store, "processed/a", &content).await;
    for expect in [Expect::Absent, Expect::Etag("other".to_owned())] {
        let outcome = rig.store.publish(&staging, 0, &expect).await;
        assert!(matches!(outcome, Err(StoreError::Exists(_))), "{outcome:?}");
        assert_eq!(rig.get("processed/a").unwrap(), b"foreign");
    }
    let there = rig.store.inspect("processed/a").await.unwrap().unwrap();
    rig.cloud.s3().remove(BUCKET, "processed/a");
    let outcome = rig.store.publish(&staging, 0, &Expect::Etag(there.etag)).await;
    assert!(matches!(outcome, Err(StoreError::Exists(_))), "{outcome:?}");
    rig.store.publish(&staging, 0, &Expect::Absent).await.unwrap();
    assert!(rig.get("processed/a").unwrap() == content);
}

#[tokio::test]
async fn a_store_without_conditions_is_looked_at_first() {
    let rig = Rig::new();
    rig.cloud.s3().set_conditions(BUCKET, Conditions::Unknown);
    for (size, key) in [(1_000, "processed/small"), (LARGE, "processed/large")] {
        let content = bytes(size);
        let staging = staged(&rig.store, key, &content).await;
        rig.put(key, "foreign");
        for expect in [Expect::Absent, Expect::Etag("other".to_owned())] {
            let outcome = rig.store.publish(&staging, 0, &expect).await;
            assert!(matches!(outcome, Err(StoreError::Exists(_))), "{outcome:?}");
        }
        assert_eq!(rig.get(key).unwrap(), b"foreign");
        let there = rig.store.inspect(key).await.unwrap().unwrap();
        rig.store.publish(&staging, 0, &Expect::Etag(there.etag)).await.unwrap();
        assert!(rig.get(key).unwrap() == content);
    }
}

#[tokio::test]
async fn a_conflict_is_tried_again_where_the_bytes_are_still_here() {
    let conflict = Fault::Error { status: 409, code: "ConditionalRequestConflict" };
    let rig = Rig::new();
    let staging = staged(&rig.store, "processed/small", b"small").await;
    rig.fault("PutObject", 2, conflict.clone());
    rig.store.publish(&staging, 0, &Expect::Absent).await.unwrap();
    assert_eq!(rig.get("processed/small").unwrap(), b"small");

    let staging = staged(&rig.store, "processed/never", b"never").await;
    rig.fault("PutObject", u64::MAX, conflict.clone());
    let outcome = rig.store.publish(&staging, 0, &Expect::Absent).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");

    // S3 has thrown the parts away.
    let staging = staged(&rig.store, "processed/large", &bytes(LARGE)).await;
    rig.fault("CompleteMultipartUpload", 1, conflict);
    for _ in 0..2 {
        let outcome = rig.store.publish(&staging, 0, &Expect::Absent).await;
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    }
    assert_eq!(rig.get("processed/large"), None);
}

#[tokio::test]
async fn an_upload_that_is_gone_is_made_again() {
    let rig = Rig::new();
    let staging = staged(&rig.store, "processed/a", &bytes(LARGE)).await;
    rig.fault("CompleteMultipartUpload", 1, Fault::Error { status: 404, code: "NoSuchUpload" });
    let outcome = rig.store.publish(&staging, 0, &Expect::Absent).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    // Something else that is there is not taken for the result.
    rig.put("processed/a", bytes(LARGE));
    let staging = staged(&rig.store, "processed/a", &bytes(LARGE)).await;
    rig.fault("CompleteMultipartUpload", 1, Fault::Error { status: 404, code: "NoSuchUpload" });
    let outcome = rig.store.publish(&staging, 0, &Expect::Absent).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
}

#[tokio::test]
async fn what_s3_never_takes_is_impossible() {
    let rig = Rig::new();
    let long_key = format!("processed/{}", "n".repeat(1_020));
    let large = OutputMeta { metadata: vec![("notes".to_owned(), "x".repeat(2_000))], ..output("processed/a") };
    for (meta, code) in [(output(&long_key), "KeyTooLongError"), (large, "MetadataTooLarge")] {
        for size in [10, LARGE] {
            let staging = rig.store.staging(&from("uploads/a"));
            staging.create(meta.clone());
            let outcome = match staging.write(0, vec![1; size].into()).await {
                // A write has no other word for it.
                Err(IoError::Denied(why)) => Err(StoreError::Impossible(why)),
                Err(error) => panic!("{error}"),
                Ok(()) => rig.store.publish(&staging, 0, &Expect::Absent).await,
            };
            assert!(matches!(&outcome, Err(StoreError::Impossible(why)) if why.contains(code)), "{code}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_write_that_was_cancelled_is_not_published() {
    let rig = Rig::new();
    let staging = staged(&rig.store, "processed/a", &bytes(7 << 20)).await;
    rig.fault("CreateMultipartUpload", u64::MAX, Fault::Delay(Duration::from_secs(600)));
    let mut write = staging.write(0, vec![1; 2 << 20].into());
    std::future::poll_fn(|context| {
        assert!(write.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    drop(write);
    assert!(staging.write(0, vec![2].into()).await.is_err());
    let outcome = rig.store.publish(&staging, 0, &Expect::Absent).await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    assert_eq!(rig.get("processed/a"), None);
}
