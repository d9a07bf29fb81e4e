//! What every [`Store`] has to do.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use bytes::Bytes;
use gristmill::{
    io::{Body, IoError, Outputs},
    store::{Expect, OutputMeta, PluginVersion, Provenance, Store, StoreError},
};

/// A store under test, and what users do to it.
pub trait Bench {
    type Store: Store;

    fn store(&self) -> &Self::Store;

    /// Stores an object as a user does.
    fn put(&self, key: &str, body: &[u8]);

    fn remove(&self, key: &str);

    /// What a user finds at the key.
    fn get(&self, key: &str) -> Option<Vec<u8>>;
}

fn provenance(source_key: &str, source_etag: &str) -> Provenance {
    Provenance {
        source_key: source_key.to_owned(),
        source_etag: source_etag.to_owned(),
        source_version: None,
        plugins: vec![PluginVersion { name: "resize".to_owned(), digest: "ab".repeat(32) }],
    }
}

fn output(key: &str) -> OutputMeta {
    OutputMeta {
        key: key.to_owned(),
        content_type: "application/x-ndjson".to_owned(),
        metadata: vec![("rows".to_owned(), "3 \"ü\"".to_owned())],
    }
}

/// Not compressible, and different at every offset.
fn bytes(len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

async fn read_all(body: &mut dyn Body, max: usize) -> Result<Vec<u8>, IoError> {
    let mut all = Vec::new();
    loop {
        let bytes = body.read(max).await?;
        assert!(bytes.len() <= max);
        if bytes.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&bytes);
    }
}

pub async fn nothing_is_not_found(bench: &impl Bench) {
    let store = bench.store();
    assert!(matches!(store.open("uploads/a").await, Err(StoreError::NotFound(key)) if key == "uploads/a"));
    assert!(matches!(store.open("no/such/folder/a").await, Err(StoreError::NotFound(_))));
    assert_eq!(store.inspect("uploads/a").await.unwrap(), None);
    assert_eq!(store.inspect("no/such/folder/a").await.unwrap(), None);
}

pub async fn an_object_is_described(bench: &impl Bench) {
    bench.put("uploads/x/a.jpg", b"12345");
    let object = bench.store().open("uploads/x/a.jpg").await.unwrap();
    let meta = bench.store().meta(&object);
    assert_eq!((&*meta.key, meta.size, meta.content_type.as_deref()), ("uploads/x/a.jpg", 5, Some("image/jpeg")));
    assert!(!meta.etag.is_empty() && meta.metadata.is_empty() && meta.modified.is_some());
    let existing = bench.store().inspect("uploads/x/a.jpg").await.unwrap().unwrap();
    assert_eq!((existing.etag, existing.provenance), (meta.etag.clone(), None));
}

pub async fn a_body_is_read_in_order(bench: &impl Bench) {
    let content = bytes(1_500_000);
    bench.put("uploads/a", &content);
    let object = bench.store().open("uploads/a").await.unwrap();
    for max in [usize::MAX, 1 << 20, 65_536, 99_991] {
        assert!(read_all(&mut *bench.store().body(&object), max).await.unwrap() == content, "by {max}");
    }
    let mut body = bench.store().body(&object);
    read_all(&mut *body, 1 << 20).await.unwrap();
    assert!(body.read(1).await.unwrap().is_empty(), "the end stays the end");
}

pub async fn a_body_is_read_anywhere(bench: &impl Bench) {
    let content = bytes(300_000);
    bench.put("uploads/a", &content);
    let object = bench.store().open("uploads/a").await.unwrap();
    let mut body = bench.store().body(&object);
    assert_eq!(body.read(10).await.unwrap(), content[..10]);
    assert!(body.read_at(299_990, 100).await.unwrap() == content[299_990..]);
    assert!(body.read_at(0, 300_000).await.unwrap() == content);
    assert!(body.read_at(100_000, 70_000).await.unwrap() == content[100_000..170_000]);
    assert!(body.read_at(300_000, 1).await.unwrap().is_empty());
    assert!(body.read_at(u64::MAX, usize::MAX).await.unwrap().is_empty());
    assert!(body.read_at(5, 0).await.unwrap().is_empty());
    assert_eq!(body.read(10).await.unwrap(), content[10..20], "the position moved");
}

pub async fn an_empty_object_is_an_object(bench: &impl Bench) {
    bench.put("uploads/a", b"");
    let object = bench.store().open("uploads/a").await.unwrap();
    assert_eq!(bench.store().meta(&object).size, 0);
    assert!(bench.store().body(&object).read(100).await.unwrap().is_empty());
    assert!(bench.store().body(&object).read_at(0, 100).await.unwrap().is_empty());
    bench.store().relocate(&object, "processed/a", &provenance("uploads/a", "1"), &Expect::Absent).await.unwrap();
    assert_eq!(bench.get("processed/a").unwrap(), b"");
}

pub async fn no_byte_of_a_newer_object_is_read(bench: &impl Bench) {
    let old = bytes(2_000_000);
    bench.put("uploads/a", &old);
    let object = bench.store().open("uploads/a").await.unwrap();
    let mut body = bench.store().body(&object);
    let first = body.read(1_000).await.unwrap();
    bench.put("uploads/a", &[0xEE; 2_000_000]);

    let mut read = first.to_vec();
    let outcome = loop {
        match body.read(100_000).await {
            Ok(bytes) if bytes.is_empty() => break Ok(()),
            Ok(bytes) => read.extend_from_slice(&bytes),
            Err(error) => break Err(error),
        }
    };
    assert!(read == old[..read.len()]);
    assert!(matches!(outcome, Err(IoError::Superseded)) || read.len() == old.len());
    let mut late = bench.store().body(&object);
    assert!(matches!(late.read(1).await, Err(IoError::Superseded)));
    assert!(matches!(late.read_at(0, 1).await, Err(IoError::Superseded)));
}

pub async fn verify_tells_the_pinned_object_from_others(bench: &impl Bench) {
    let store = bench.store();
    bench.put("uploads/a", b"one");
    let object = store.open("uploads/a").await.unwrap();
    store.verify(&object).await.unwrap();
    bench.put("uploads/a", b"two");
    assert!(matches!(store.verify(&object).await, Err(StoreError::Superseded)));
    bench.remove("uploads/a");
    assert!(matches!(store.verify(&object).await, Err(StoreError::Superseded)));
}

/// A staging area with one output in it.
fn staged<S: Store>(store: &S, key: &str, from: &Provenance) -> S::Staging {
    let staging = store.staging(from);
    staging.create(output(key));
    staging
}

pub async fn an_output_is_visible_when_it_is_published(bench: &impl Bench) {
    let store = bench.store();
    let (meta, from) = (output("processed/deep/er/a.ndjson"), provenance("uploads/a", "1"));
    let staging = staged(store, &meta.key, &from);
    staging.write(0, Bytes::from_static(b"hello ")).await.unwrap();
    staging.write(0, Bytes::from_static(b"world")).await.unwrap();
    assert_eq!(bench.get("processed/deep/er/a.ndjson"), None);
    store.publish(&staging, 0, &Expect::Absent).await.unwrap();

    assert_eq!(bench.get("processed/deep/er/a.ndjson").unwrap(), b"hello world");
    assert_eq!(store.inspect(&meta.key).await.unwrap().unwrap().provenance, Some(from));
    let object = store.open(&meta.key).await.unwrap();
    let seen = store.meta(&object);
    assert_eq!((seen.content_type.as_ref(), &seen.metadata), (Some(&meta.content_type), &meta.metadata));
    assert!(store.publish(&staging, 0, &Expect::Etag("any".to_owned())).await.is_err(), "published twice");
}

pub async fn large_outputs_are_kept_apart(bench: &impl Bench) {
    let store = bench.store();
    let staging = store.staging(&provenance("a", "1"));
    let contents = [bytes(3_333_333), bytes(70_000), Vec::new(), bytes(2_500_000)];
    for index in 0..contents.len() {
        staging.create(output(&format!("processed/{index}")));
    }
    // In turns, through clones, in pieces of all sizes.
    let mut offsets = [0; 4];
    for piece in [1, 900_000, 100_000, 17, 1_200_000, 2_000_000, 3_000_000] {
        for (index, content) in contents.iter().enumerate() {
            let end = (offsets[index] + piece).min(content.len());
            let bytes = Bytes::copy_from_slice(&content[offsets[index]..end]);
            if !bytes.is_empty() {
                staging.clone().write(index, bytes).await.unwrap();
            }
            offsets[index] = end;
        }
    }
    for (index, content) in contents.iter().enumerate() {
        store.publish(&staging, index, &Expect::Absent).await.unwrap();
        assert!(bench.get(&format!("processed/{index}")).unwrap() == *content, "output {index}");
    }
}

pub async fn a_thousand_small_outputs_are_kept_apart(bench: &impl Bench) {
    let staging = bench.store().staging(&provenance("a", "1"));
    for index in 0..1_000 {
        staging.create(output(&format!("processed/{index}")));
    }
    for round in 0..3_u8 {
        for index in 0..1_000 {
            staging.write(index, vec![round.wrapping_add(index as u8); 5_000].into()).await.unwrap();
        }
    }
    for index in [0, 1, 500, 999] {
        bench.store().publish(&staging, index, &Expect::Absent).await.unwrap();
        let expected: Vec<u8> = (0..3).flat_map(|round: u8| vec![round.wrapping_add(index as u8); 5_000]).collect();
        assert!(bench.get(&format!("processed/{index}")).unwrap() == expected);
    }
}

pub async fn what_is_not_published_is_never_seen(bench: &impl Bench) {
    let (store, from) = (bench.store(), provenance("a", "1"));
    let staging = staged(store, "processed/a", &from);
    staging.write(0, bytes(3_000_000).into()).await.unwrap();
    drop(staging);
    store.publish(&staged(store, "processed/a", &from), 0, &Expect::Absent).await.unwrap();
    assert_eq!(bench.get("processed/a").unwrap(), b"", "bytes of another staging");
}

pub async fn publishing_overwrites_only_what_it_expects(bench: &impl Bench) {
    let store = bench.store();
    bench.put("processed/a", b"foreign");
    let from = provenance("uploads/a", "1");
    let staging = staged(store, "processed/a", &from);
    staging.write(0, Bytes::from_static(b"ours")).await.unwrap();

    for expect in [Expect::Absent, Expect::Etag("other".to_owned())] {
        let outcome = store.publish(&staging, 0, &expect).await;
        assert!(matches!(outcome, Err(StoreError::Exists(key)) if key == "processed/a"));
        assert_eq!(bench.get("processed/a").unwrap(), b"foreign");
        assert_eq!(store.inspect("processed/a").await.unwrap().unwrap().provenance, None);
    }
    let there = store.inspect("processed/a").await.unwrap().unwrap();
    store.publish(&staging, 0, &Expect::Etag(there.etag.clone())).await.unwrap();
    assert_eq!(bench.get("processed/a").unwrap(), b"ours");
    let now = store.inspect("processed/a").await.unwrap().unwrap();
    assert_eq!(now.provenance, Some(from.clone()));
    assert_ne!(now.etag, there.etag);

    bench.remove("processed/a");
    let staging = staged(store, "processed/a", &from);
    let outcome = store.publish(&staging, 0, &Expect::Etag(now.etag)).await;
    assert!(matches!(outcome, Err(StoreError::Exists(_))), "{outcome:?}");
    assert_eq!(bench.get("processed/a"), None);
}

pub async fn what_a_user_overwrites_is_foreign(bench: &impl Bench) {
    let store = bench.store();
    store.publish(&staged(store, "processed/a", &provenance("a", "1")), 0, &Expect::Absent).await.unwrap();
    bench.put("processed/a", b"edited");
    assert_eq!(store.inspect("processed/a").await.unwrap().unwrap().provenance, None);
}

pub async fn of_two_writers_one_wins(bench: &impl Bench) {
    let store = bench.store();
    let (from_one, from_two) = (provenance("1", "1"), provenance("2", "2"));
    let (one, two) = (staged(store, "processed/a", &from_one), staged(store, "processed/a", &from_two));
    one.write(0, Bytes::from_static(b"one")).await.unwrap();
    two.write(0, Bytes::from_static(b"two")).await.unwrap();
    let (first, second) =
        tokio::join!(store.publish(&one, 0, &Expect::Absent), store.publish(&two, 0, &Expect::Absent),);
    assert!(first.is_ok() != second.is_ok());
    let (content, from) = if first.is_ok() { (b"one", from_one) } else { (b"two", from_two) };
    assert_eq!(bench.get("processed/a").unwrap(), content);
    assert_eq!(store.inspect("processed/a").await.unwrap().unwrap().provenance, Some(from));
}

pub async fn a_move_takes_everything_along(bench: &impl Bench) {
    let store = bench.store();
    let content = bytes(100_000);
    bench.put("uploads/x/a.png", &content);
    let object = store.open("uploads/x/a.png").await.unwrap();
    let from = provenance("uploads/x/a.png", &store.meta(&object).etag);
    store.relocate(&object, "processed/x/a.png", &from, &Expect::Absent).await.unwrap();

    assert_eq!(bench.get("uploads/x/a.png"), None);
    assert!(bench.get("processed/x/a.png").unwrap() == content);
    assert_eq!(store.inspect("processed/x/a.png").await.unwrap().unwrap().provenance, Some(from.clone()));
    let moved = store.open("processed/x/a.png").await.unwrap();
    assert_eq!(store.meta(&moved).content_type.as_deref(), Some("image/png"));
    let again = store.relocate(&object, "processed/x/a.png", &from, &Expect::Absent).await;
    assert!(matches!(again, Err(StoreError::NotFound(_))), "{again:?}");
}

pub async fn a_move_leaves_a_newer_source_alone(bench: &impl Bench) {
    let store = bench.store();
    bench.put("uploads/a", b"old");
    let object = store.open("uploads/a").await.unwrap();
    bench.put("uploads/a", b"newer");
    let outcome = store.relocate(&object, "processed/a", &provenance("uploads/a", "1"), &Expect::Absent).await;
    assert!(matches!(outcome, Err(StoreError::Superseded)), "{outcome:?}");
    assert_eq!((bench.get("uploads/a").unwrap(), bench.get("processed/a")), (b"newer".to_vec(), None));
    assert_eq!(store.inspect("uploads/a").await.unwrap().unwrap().provenance, None);
}

pub async fn a_move_overwrites_only_what_it_expects(bench: &impl Bench) {
    let store = bench.store();
    bench.put("uploads/a", b"original");
    bench.put("processed/a", b"foreign");
    let object = store.open("uploads/a").await.unwrap();
    let from = provenance("uploads/a", &store.meta(&object).etag);
    for expect in [Expect::Absent, Expect::Etag("other".to_owned())] {
        let outcome = store.relocate(&object, "processed/a", &from, &expect).await;
        assert!(matches!(outcome, Err(StoreError::Exists(_))), "{outcome:?}");
        let both = (bench.get("uploads/a").unwrap(), bench.get("processed/a").unwrap());
        assert_eq!(both, (b"original".to_vec(), b"foreign".to_vec()));
        store.verify(&object).await.unwrap();
    }
    let there = store.inspect("processed/a").await.unwrap().unwrap();
    assert_eq!(there.provenance, None);
    store.relocate(&object, "processed/a", &from, &Expect::Etag(there.etag)).await.unwrap();
    assert_eq!((bench.get("uploads/a"), bench.get("processed/a").unwrap()), (None, b"original".to_vec()));
    assert_eq!(store.inspect("processed/a").await.unwrap().unwrap().provenance, Some(from));
}

pub async fn strange_keys_are_keys(bench: &impl Bench) {
    let store = bench.store();
    // With its prefix and suffix within the 1,024 bytes of a key.
    let long = format!("{}x", "längér ordner/".repeat(62));
    assert!((950..1_000).contains(&long.len()), "{}", long.len());
    for name in ["a b", "a+b", "100%", "%2F", "-rf", "--", "ü/日本/🦀", "a'\"\\\n", "...", "~", &long] {
        let (key, to) = (format!("uploads/{name}"), format!("processed/{name}"));
        bench.put(&key, name.as_bytes());
        let object = store.open(&key).await.unwrap();
        assert_eq!(read_all(&mut *store.body(&object), 4_096).await.unwrap(), name.as_bytes());
        let from = provenance(&key, "1");
        store.publish(&staged(store, &format!("{to}-1"), &from), 0, &Expect::Absent).await.unwrap();
        store.relocate(&object, &to, &from, &Expect::Absent).await.unwrap();
        assert_eq!(bench.get(&to).unwrap(), name.as_bytes());
        for made in [format!("{to}-1"), to] {
            let found = store.inspect(&made).await.unwrap().unwrap().provenance.unwrap();
            assert!(found.is_of(&key) && !found.is_of(&format!("{key}x")), "{found:?}");
            assert_eq!(found, Provenance { source_key: found.source_key.clone(), ..from.clone() });
        }
    }
}
