//! An object with its identity pinned, and what a copy of it has to be given.

use std::time::SystemTime;

use aws_sdk_s3::{
    operation::head_object::HeadObjectOutput,
    types::{ServerSideEncryption, StorageClass},
};

use super::{Shared, etag, provenance::is_own, text::decode_words};
use crate::store::{ObjectMeta, StoreError};

/// An object as it was when it was opened.
#[derive(Debug, Clone)]
pub struct S3Object {
    meta: ObjectMeta,
    pub(super) kept: Kept,
}

/// What a copy loses when its metadata is replaced, and what it does not take over by itself. Object lock is
/// left out: it belongs to the version that was locked.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    pub(super) cache_control: Option<String>,
    pub(super) content_disposition: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) content_language: Option<String>,
    pub(super) content_type: Option<String>,
    /// As it came: it need not be a date.
    pub(super) expires: Option<String>,
    pub(super) website_redirect_location: Option<String>,
    /// The user's, as it came.
    pub(super) metadata: Vec<(String, String)>,
    pub(super) storage_class: Option<StorageClass>,
    pub(super) encryption: Option<ServerSideEncryption>,
    pub(super) kms_key_id: Option<String>,
    pub(super) bucket_key: Option<bool>,
    /// Whether there are tags that a copy in parts has to be given.
    pub(super) has_tags: bool,
}

impl S3Object {
    /// What is known of it.
    pub(super) fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    /// Whether that is its identity.
    pub(super) fn is_pinned_at(&self, etag: &str, version: Option<&str>) -> bool {
        self.meta.etag == etag && self.meta.version_id.as_deref() == version
    }
}

impl Shared {
    pub(super) async fn open(&self, key: &str) -> Result<S3Object, StoreError> {
        let head = match self.head_or_reason(key).await {
            Ok(head) => head,
            // What S3 answers when it is not given the key of an object that is encrypted with a customer's own.
            Err(refusal) if refusal.is_invalid_request() => return Err(customer_key(key)),
            Err(refusal) => return Err(refusal.into_error(&self.bucket)),
        };
        if head.sse_customer_algorithm.is_some() {
            return Err(customer_key(key));
        }
        if let Some(archive) = archive(&head) {
            return Err(StoreError::Denied(format!(
                "`{key}` is archived ({archive}) and cannot be read: restore it, wait until that is done, and redrive \
                 its message"
            )));
        }
        let Some(size) = head.content_length.and_then(|size| u64::try_from(size).ok()) else {
            return Err(StoreError::Unavailable(format!("HeadObject of `{key}`: the answer has no length")));
        };
        if head.missing_meta.is_some_and(|missing| missing > 0) {
            return Err(StoreError::Impossible(format!(
                "`{key}` has metadata that S3 cannot show over HTTP, and a move would lose it: rewrite its metadata"
            )));
        }
        let etag = etag(key, head.e_tag.as_deref()).map_err(|refusal| refusal.into_error(&self.bucket))?;
        let mut metadata: Vec<(String, String)> =
            head.metadata.unwrap_or_default().into_iter().filter(|(key, _)| !is_own(key)).collect();
        metadata.sort();
        let meta = ObjectMeta {
            key: key.to_owned(),
            size,
            etag,
            version_id: head.version_id,
            content_type: head.content_type.clone(),
            metadata: metadata.iter().map(|(key, value)| (key.clone(), decode_words(value))).collect(),
            modified: head.last_modified.and_then(|modified| SystemTime::try_from(modified).ok()),
        };
        let kept = Kept {
            cache_control: head.cache_control,
            content_disposition: head.content_disposition,
            content_encoding: head.content_encoding,
            content_language: head.content_language,
            content_type: head.content_type,
            expires: head.expires_string,
            website_redirect_location: head.website_redirect_location,
            metadata,
            storage_class: head.storage_class,
            encryption: head.server_side_encryption,
            kms_key_id: head.ssekms_key_id,
            bucket_key: head.bucket_key_enabled,
            // Without the permission to read tags the number is not told, but then they cannot be copied either.
            has_tags: head.tag_count.is_some_and(|count| count > 0),
        };
        Ok(S3Object { meta, kept })
    }
}

fn customer_key(key: &str) -> StoreError {
    StoreError::Denied(format!(
        "`{key}` is encrypted with a key of the customer (SSE-C), which the host does not have: encrypt it with SSE-S3 \
         or SSE-KMS"
    ))
}

/// The archive that the object is in and was not restored from.
fn archive(head: &HeadObjectOutput) -> Option<String> {
    // While it is being restored: `ongoing-request="true"`.
    if head.restore.as_ref().is_some_and(|restore| restore.contains("ongoing-request=\"false\"")) {
        return None;
    }
    if let Some(status) = &head.archive_status {
        return Some(status.as_str().to_owned());
    }
    match &head.storage_class {
        Some(class @ (StorageClass::Glacier | StorageClass::DeepArchive)) => Some(class.as_str().to_owned()),
        _ => None,
    }
}
