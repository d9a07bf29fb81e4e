//! A bucket, and what the tests of it have in common.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use gristmill::{
    io::{Body, IoError, OutputMeta, Outputs},
    store::{
        Expect, PluginVersion, Provenance, Store, StoreError,
        s3::{S3Object, S3Staging, S3Store},
    },
};

use crate::support::cloud::{Call, Cloud, Fault};

pub const BUCKET: &str = "bucket";

/// Above it, objects are copied in parts of this size: the smallest that S3 takes.
pub const IN_PARTS: u64 = 5 << 20;

/// Longer than anything takes in these tests.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Rig {
    pub store: S3Store,
    pub cloud: Cloud,
}

impl Rig {
    pub fn new() -> Self {
        let cloud = Cloud::start();
        cloud.s3().create_bucket(BUCKET);
        Self { store: S3Store::new(cloud.s3_client(), BUCKET, IN_PARTS), cloud }
    }

    pub fn put(&self, key: &str, body: impl Into<Bytes>) -> String {
        self.cloud.s3().put(BUCKET, key, body)
    }

    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.cloud.s3().get(BUCKET, key).map(|object| object.body.to_vec())
    }

    pub async fn open(&self, key: &str) -> S3Object {
        self.store.open(key).await.unwrap()
    }

    pub fn from(&self, object: &S3Object) -> Provenance {
        let meta = self.store.meta(object);
        Provenance {
            source_key: meta.key.clone(),
            source_etag: meta.etag.clone(),
            source_version: meta.version_id.clone(),
            plugins: vec![plugin()],
        }
    }

    /// The first `times` requests of this operation from now on go wrong.
    pub fn fault(&self, operation: &'static str, times: u64, fault: Fault) {
        let count = AtomicU64::new(0);
        self.cloud.faults(move |call: &Call| {
            if call.operation == operation && count.fetch_add(1, Ordering::Relaxed) < times {
                fault.clone()
            } else {
                Fault::None
            }
        });
    }

    /// Requests of this operation so far.
    pub fn requests(&self, operation: &str) -> u64 {
        self.cloud.requests().get(operation).copied().unwrap_or(0)
    }

    /// What `work` sends, by operation.
    pub async fn sends<T>(&self, work: impl Future<Output = T>) -> (T, BTreeMap<String, u64>) {
        let before = self.cloud.requests();
        let done = work.await;
        let mut sent = self.cloud.requests();
        for (operation, count) in before {
            *sent.entry(operation).or_default() -= count;
        }
        sent.retain(|_, count| *count > 0);
        (done, sent)
    }

    /// As a job does it: what is there and comes from the same source is overwritten.
    pub async fn publish(
        &self,
        staging: &S3Staging,
        index: usize,
        key: &str,
        from: &Provenance,
    ) -> Result<(), StoreError> {
        let mut expect = Expect::Absent;
        loop {
            match self.store.publish(staging, index, &expect).await {
                Err(StoreError::Exists(_)) => expect = self.ours(key, from).await?,
                done => return done,
            }
        }
    }

    /// The same for the original.
    pub async fn relocate(&self, object: &S3Object, to: &str) -> Result<(), StoreError> {
        let from = self.from(object);
        let mut expect = Expect::Absent;
        loop {
            match self.store.relocate(object, to, &from, &expect).await {
                Err(StoreError::Exists(_)) => expect = self.ours(to, &from).await?,
                done => return done,
            }
        }
    }

    async fn ours(&self, key: &str, from: &Provenance) -> Result<Expect, StoreError> {
        let Some(there) = self.store.inspect(key).await? else { return Ok(Expect::Absent) };
        assert!(there.provenance.is_some_and(|there| there.is_of(&from.source_key)), "`{key}` is foreign");
        Ok(Expect::Etag(there.etag))
    }

    /// Waits until no upload is open any more.
    pub async fn wait_for_aborts(&self) {
        let aborted = async {
            while !self.cloud.s3().open_uploads(BUCKET).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, aborted).await.unwrap();
    }
}

pub fn plugin() -> PluginVersion {
    PluginVersion { name: "resize".to_owned(), digest: "ab".repeat(32) }
}

pub fn from(source_key: &str) -> Provenance {
    Provenance {
        source_key: source_key.to_owned(),
        source_etag: "1".to_owned(),
        source_version: None,
        plugins: vec![plugin()],
    }
}

/// A staging area with one output in it.
pub async fn staged(store: &S3Store, key: &str, content: &[u8]) -> S3Staging {
    let staging = store.staging(&from("uploads/a"));
    staging.create(output(key));
    for piece in content.chunks(1 << 20) {
        staging.write(0, Bytes::copy_from_slice(piece)).await.unwrap();
    }
    staging
}

pub fn output(key: &str) -> OutputMeta {
    OutputMeta {
        key: key.to_owned(),
        content_type: "application/x-ndjson".to_owned(),
        metadata: vec![("rows".to_owned(), "3 ü".to_owned())],
    }
}

/// Not compressible, and different at every offset.
pub fn bytes(len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

pub async fn read_all(body: &mut dyn Body) -> Result<Vec<u8>, IoError> {
    let mut all = Vec::new();
    loop {
        let bytes = body.read(100_000).await?;
        if bytes.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&bytes);
    }
}
