//! Bodies that break, lie or jump.

use gristmill::{
    io::IoError,
    store::{Expect, Store, StoreError},
};

use super::rig::{BUCKET, Rig, bytes, from, read_all, staged};
use crate::support::cloud::Fault;

#[tokio::test]
async fn a_body_is_one_request() {
    let rig = Rig::new();
    let content = bytes(3_000_000);
    rig.put("uploads/a", content.clone());
    let object = rig.open("uploads/a").await;
    assert!(read_all(&mut *rig.store.body(&object)).await.unwrap() == content);
    assert_eq!((rig.requests("HeadObject"), rig.requests("GetObject")), (1, 1));
}

#[tokio::test]
async fn a_body_that_breaks_is_resumed_where_it_broke() {
    let rig = Rig::new();
    let content = bytes(3_000_000);
    rig.put("uploads/a", content.clone());
    let object = rig.open("uploads/a").await;
    rig.fault("GetObject", 2, Fault::CutBody(1_000_000));
    assert!(read_all(&mut *rig.store.body(&object)).await.unwrap() == content);
    assert_eq!(rig.requests("GetObject"), 3);

    rig.fault("GetObject", 2, Fault::CutBody(100));
    assert!(rig.store.body(&object).read_at(1_000_000, 1_000_000).await.unwrap() == content[1_000_000..2_000_000]);
}

#[tokio::test]
async fn a_body_that_always_breaks_never_ends_well() {
    let rig = Rig::new();
    rig.put("uploads/a", bytes(1_000));
    let object = rig.open("uploads/a").await;
    rig.fault("GetObject", u64::MAX, Fault::CutBody(10));
    let outcome = read_all(&mut *rig.store.body(&object)).await;
    assert!(matches!(outcome, Err(IoError::Unavailable(_))), "{outcome:?}");
    assert!(rig.requests("GetObject") <= 10);
    let outcome = rig.store.body(&object).read_at(500, 10).await;
    assert!(matches!(outcome, Err(IoError::Unavailable(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_long_body_may_break_often() {
    let rig = Rig::new();
    let content = bytes(20_000_000);
    rig.put("uploads/a", content.clone());
    let object = rig.open("uploads/a").await;
    rig.fault("GetObject", 12, Fault::CutBody(1_500_000));
    assert!(read_all(&mut *rig.store.body(&object)).await.unwrap() == content);
    assert_eq!(rig.requests("GetObject"), 13);
}

#[tokio::test]
async fn a_body_that_is_too_short_is_not_the_end() {
    let rig = Rig::new();
    rig.put("uploads/a", bytes(1_000));
    let object = rig.open("uploads/a").await;
    rig.fault("GetObject", u64::MAX, Fault::ShortBody(999));
    let outcome = read_all(&mut *rig.store.body(&object)).await;
    assert!(matches!(outcome, Err(IoError::Unavailable(_))), "{outcome:?}");
    let outcome = rig.store.body(&object).read_at(0, 1_000).await;
    assert!(matches!(outcome, Err(IoError::Unavailable(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_wrong_byte_is_noticed_before_the_end() {
    let rig = Rig::new();
    let content = bytes(500_000);
    // Through the store, so that the object has the checksum that the SDK computed.
    let staging = staged(&rig.store, "processed/a", &content).await;
    rig.store.publish(&staging, 0, &Expect::Absent).await.unwrap();
    let object = rig.open("processed/a").await;
    assert!(read_all(&mut *rig.store.body(&object)).await.unwrap() == content);

    rig.fault("GetObject", u64::MAX, Fault::WrongByte(400_000));
    let mut body = rig.store.body(&object);
    let mut read = 0;
    let outcome = loop {
        match body.read(1 << 20).await {
            Ok(bytes) if bytes.is_empty() => break Ok(()),
            Ok(bytes) => read += bytes.len(),
            Err(error) => break Err(error),
        }
    };
    assert!(matches!(&outcome, Err(IoError::Unavailable(why)) if why.contains("checksum")), "{outcome:?}");
    assert!(read < content.len(), "the last byte was handed out");
}

#[tokio::test]
async fn a_body_that_is_resumed_after_an_overwrite_is_superseded() {
    let rig = Rig::new();
    rig.put("uploads/a", bytes(2_000_000));
    let object = rig.open("uploads/a").await;
    rig.fault("GetObject", 1, Fault::CutBody(1_000_000));
    let mut body = rig.store.body(&object);
    body.read(100).await.unwrap();
    rig.put("uploads/a", vec![7; 2_000_000]);
    let outcome = read_all(&mut *body).await;
    assert!(matches!(outcome, Err(IoError::Superseded)), "{outcome:?}");
}

#[tokio::test]
async fn many_small_reads_are_few_requests() {
    let rig = Rig::new();
    let content = bytes(3_000_000);
    rig.put("uploads/a.zip", content.clone());
    let object = rig.open("uploads/a.zip").await;
    let mut body = rig.store.body(&object);
    // As archives are read: the end first, then the directory before it.
    assert!(body.read_at(2_999_978, 100).await.unwrap() == content[2_999_978..]);
    for entry in 0..1_000 {
        let offset = 2_800_000 + entry * 100;
        assert!(body.read_at(offset as u64, 46).await.unwrap() == content[offset..offset + 46], "{offset}");
    }
    assert_eq!(rig.requests("GetObject"), 1);
    for header in 0..1_000 {
        body.read_at(1_000_000 + header * 30, 30).await.unwrap();
    }
    assert_eq!(rig.requests("GetObject"), 2);
    assert!(body.read_at(3_000_000, 10).await.unwrap().is_empty());
    assert_eq!(rig.requests("GetObject"), 2, "nothing is there to be asked for");
}

#[tokio::test]
async fn the_pinned_version_is_read() {
    let rig = Rig::new();
    rig.cloud.s3().set_versioning(BUCKET);
    rig.put("uploads/a", "old");
    let object = rig.open("uploads/a").await;
    assert!(rig.store.meta(&object).version_id.is_some());
    rig.put("uploads/a", "newer");
    assert_eq!(read_all(&mut *rig.store.body(&object)).await.unwrap(), b"old");
    assert!(matches!(rig.store.verify(&object).await, Err(StoreError::Superseded)));
    // The same bytes again are another object all the same.
    let object = rig.open("uploads/a").await;
    rig.put("uploads/a", "newer");
    assert!(matches!(rig.store.verify(&object).await, Err(StoreError::Superseded)));
}

#[tokio::test]
async fn what_plugins_are_told_is_decoded_and_without_our_own() {
    let rig = Rig::new();
    let headers = [
        ("content-type", "text/csv"),
        ("x-amz-meta-rows", "3"),
        ("x-amz-meta-author", "=?UTF-8?B?w5x0aA==?="),
        ("x-amz-meta-gristmill-source", "uploads/z"),
    ];
    rig.cloud.s3().put_with(BUCKET, "uploads/a", "x", &headers);
    let object = rig.open("uploads/a").await;
    let meta = rig.store.meta(&object);
    let expected = [("author", "Üth"), ("rows", "3")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!((meta.content_type.as_deref(), &*meta.metadata), (Some("text/csv"), &expected[..]));
}

#[tokio::test]
async fn what_cannot_be_read_says_why() {
    let rig = Rig::new();
    let archived = [("x-amz-storage-class", "DEEP_ARCHIVE")];
    rig.cloud.s3().put_with(BUCKET, "uploads/archived", "x", &archived);
    let restoring = [("x-amz-storage-class", "GLACIER"), ("x-amz-restore", "ongoing-request=\"true\"")];
    rig.cloud.s3().put_with(BUCKET, "uploads/restoring", "x", &restoring);
    let customer = [("x-amz-server-side-encryption-customer-algorithm", "AES256")];
    rig.cloud.s3().put_with(BUCKET, "uploads/locked", "x", &customer);
    for (key, word) in [("archived", "restore it"), ("restoring", "restore it"), ("locked", "SSE-C")] {
        let outcome = rig.store.open(&format!("uploads/{key}")).await.map(|_| ());
        assert!(matches!(&outcome, Err(StoreError::Denied(why)) if why.contains(word)), "{key}: {outcome:?}");
    }
    let restored = [
        ("x-amz-storage-class", "GLACIER"),
        ("x-amz-restore", "ongoing-request=\"false\", expiry-date=\"Fri, 21 Dec 2029 00:00:00 GMT\""),
    ];
    rig.cloud.s3().put_with(BUCKET, "uploads/restored", "x", &restored);
    let object = rig.open("uploads/restored").await;
    assert_eq!(read_all(&mut *rig.store.body(&object)).await.unwrap(), b"x");
}

#[tokio::test]
async fn an_output_of_an_object_with_a_long_key_is_known_again() {
    let rig = Rig::new();
    let key = format!("uploads/{}", "猫".repeat(300));
    let staging = rig.store.staging(&from(&key));
    gristmill::io::Outputs::create(&staging, super::rig::output("processed/a"));
    rig.store.publish(&staging, 0, &Expect::Absent).await.unwrap();
    let found = rig.store.inspect("processed/a").await.unwrap().unwrap().provenance.unwrap();
    assert!(found.source_key.starts_with("sha256:") && found.is_of(&key), "{found:?}");
}
