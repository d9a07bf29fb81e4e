//! A bucket in Amazon S3, or in a store that speaks like it.
//!
//! What is written is written under a condition, so that nothing is overwritten unseen. Where a store knows no
//! conditions, a look before the write takes their place, and the log says so. A move is a copy and a delete.

mod body;
mod error;
mod janitor;
mod list;
mod moving;
pub mod notifications;
mod open;
mod provenance;
mod requests;
mod staging;
pub mod survey;
mod text;
mod upload;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use aws_sdk_s3::{Client, operation::head_object::HeadObjectOutput};

use self::{
    body::S3Body,
    error::{Operation, Refusal},
    janitor::Janitor,
    requests::{bounded, unquoted},
};
pub use self::{
    list::{Listed, Page},
    open::S3Object,
    staging::S3Staging,
};
use super::{Existing, Expect, ObjectMeta, Provenance, Store, StoreError};
use crate::io::Body;

/// A bucket. Clones share it.
#[derive(Debug, Clone)]
pub struct S3Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    bucket: String,
    copy_in_parts_above: u64,
    janitor: Janitor,
    /// Whether the log says already that this store knows no conditions.
    said_unconditional: AtomicBool,
}

impl S3Store {
    /// Sends nothing. Objects larger than `copy_in_parts_above` bytes are copied in parts.
    #[must_use]
    pub fn new(client: Client, bucket: &str, copy_in_parts_above: u64) -> Self {
        let client = bounded(&client);
        let janitor = Janitor::new(&client, bucket);
        let shared = Shared {
            client,
            bucket: bucket.to_owned(),
            copy_in_parts_above,
            janitor,
            said_unconditional: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl Store for S3Store {
    type Object = S3Object;
    type Staging = S3Staging;

    async fn open(&self, key: &str) -> Result<S3Object, StoreError> {
        self.shared.open(key).await
    }

    fn meta<'a>(&self, object: &'a S3Object) -> &'a ObjectMeta {
        object.meta()
    }

    fn body(&self, object: &S3Object) -> Box<dyn Body> {
        Box::new(S3Body::new(&self.shared, object.meta()))
    }

    fn staging(&self, provenance: &Provenance) -> S3Staging {
        S3Staging::new(&self.shared, provenance.clone())
    }

    async fn verify(&self, object: &S3Object) -> Result<(), StoreError> {
        match self.shared.identity(&object.meta().key).await? {
            Some((etag, version)) if object.is_pinned_at(&etag, version.as_deref()) => Ok(()),
            _ => Err(StoreError::Superseded),
        }
    }

    async fn publish(&self, staging: &S3Staging, index: usize, expect: &Expect) -> Result<(), StoreError> {
        staging.publish(index, expect).await
    }

    async fn relocate(
        &self,
        object: &S3Object,
        to: &str,
        provenance: &Provenance,
        expect: &Expect,
    ) -> Result<(), StoreError> {
        self.shared.relocate(object, to, provenance, expect).await
    }

    async fn inspect(&self, key: &str) -> Result<Option<Existing>, StoreError> {
        Ok(self.shared.look(key).await?.map(|found| found.existing))
    }
}

/// What is at a key.
struct Found {
    existing: Existing,
    /// Bytes.
    size: u64,
}

impl Shared {
    async fn head(&self, key: &str) -> Result<HeadObjectOutput, Refusal> {
        let asked = self.client.head_object().bucket(&self.bucket).key(key).send().await;
        asked.map_err(|error| Refusal::new(Operation::Head, key, &error))
    }

    /// The same, with the reason where a HEAD has none.
    async fn head_or_reason(&self, key: &str) -> Result<HeadObjectOutput, Refusal> {
        match self.head(key).await {
            Ok(head) => Ok(head),
            Err(refusal) => Err(self.reason(key, refusal).await),
        }
    }

    /// Why a HEAD was refused: that takes a GET, whose errors have a body.
    async fn reason(&self, key: &str, refusal: Refusal) -> Refusal {
        if !refusal.is_silent() {
            return refusal;
        }
        let got = self.client.get_object().bucket(&self.bucket).key(key).range("bytes=0-0").send().await;
        let reason = got.err().filter(|error| error.as_service_error().is_some());
        match reason.map(|error| Refusal::new(Operation::Get, key, &error)) {
            Some(reason) if !reason.is_out_of_range() => reason,
            // It came in between, and the HEAD's answer still counts.
            _ if refusal.is_not_found() => refusal,
            // The object can be read, or nobody knows: whatever it was may have passed.
            _ => refusal.unexplained(),
        }
    }

    /// What is stored at the key, if anything.
    async fn look(&self, key: &str) -> Result<Option<Found>, StoreError> {
        let head = match self.head(key).await {
            Ok(head) => head,
            // Nothing is what is mostly found: it is not asked for twice.
            Err(refusal) if refusal.is_not_found() => return Ok(None),
            Err(refusal) => match self.reason(key, refusal).await {
                refusal if refusal.is_not_found() => return Ok(None),
                refusal => return Err(refusal.into_error(&self.bucket)),
            },
        };
        let etag = etag(key, head.e_tag.as_deref()).map_err(|refusal| refusal.into_error(&self.bucket))?;
        let provenance = head.metadata.as_ref().and_then(provenance::from_metadata);
        let size = head.content_length.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        Ok(Some(Found { existing: Existing { etag, provenance }, size }))
    }

    /// Entity tag and version of what is stored at the key.
    async fn identity(&self, key: &str) -> Result<Option<(String, Option<String>)>, StoreError> {
        match self.head_or_reason(key).await {
            Ok(head) => {
                let etag = etag(key, head.e_tag.as_deref()).map_err(|refusal| refusal.into_error(&self.bucket))?;
                Ok(Some((etag, head.version_id)))
            }
            Err(refusal) if refusal.is_not_found() => Ok(None),
            Err(refusal) => Err(refusal.into_error(&self.bucket)),
        }
    }

    /// Takes the place of a condition in a store that does not know it. Two writers at the same moment can
    /// both pass.
    async fn check(&self, key: &str, expect: &Expect) -> Result<(), StoreError> {
        if !self.said_unconditional.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                bucket = self.bucket,
                "this store knows no conditional writes, a look before each write has to do: let nobody else write \
                 to the destination"
            );
        }
        let there = self.look(key).await?.map(|found| found.existing.etag);
        if is_as_expected(there.as_deref(), expect) { Ok(()) } else { Err(StoreError::Exists(key.to_owned())) }
    }
}

fn is_as_expected(there: Option<&str>, expect: &Expect) -> bool {
    match (expect, there) {
        (Expect::Absent, None) => true,
        (Expect::Etag(etag), Some(there)) => etag == there,
        _ => false,
    }
}

fn etag(key: &str, header: Option<&str>) -> Result<String, Refusal> {
    header.map(unquoted).ok_or_else(|| Refusal::incomplete(Operation::Head, key, "entity tag"))
}
