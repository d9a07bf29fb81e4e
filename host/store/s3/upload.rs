//! Objects that come together from parts.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use aws_sdk_s3::{
    client::customize::CustomizableOperation,
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
    operation::create_multipart_upload::builders::CreateMultipartUploadFluentBuilder,
    types::{CompletedMultipartUpload, CompletedPart},
};
use bytes::Bytes;

use super::{
    Shared,
    error::{Operation, Refusal},
    janitor::Abandoned,
    provenance::is_same,
    requests::{long, quoted, upload},
};
use crate::store::{Expect, Provenance, StoreError};

/// The most parts of an object ("Amazon S3 multipart upload limits" in the user guide).
pub(super) const MAX_PARTS: u64 = 10_000;

/// The smallest part that is not the last.
pub(super) const MIN_PART: u64 = 5 << 20;

/// Sets the header as it came from S3: the SDK takes dates alone, and not everybody writes one there.
pub(super) fn with_expires<T, E, B>(
    request: CustomizableOperation<T, E, B>,
    expires: Option<&str>,
) -> CustomizableOperation<T, E, B> {
    let Some(expires) = expires.map(str::to_owned) else { return request };
    request.mutate_request(move |request| {
        request.headers_mut().insert("expires", expires.clone());
    })
}

/// Parts that nobody sees before they are completed. Dropping it leaves them to the janitor.
#[derive(Debug)]
pub(super) struct Upload {
    shared: Arc<Shared>,
    key: String,
    id: String,
    is_over: AtomicBool,
}

impl Upload {
    /// Begins one, as `request` describes the object.
    pub(super) async fn start(
        shared: &Arc<Shared>,
        key: &str,
        request: CreateMultipartUploadFluentBuilder,
        expires: Option<&str>,
    ) -> Result<Arc<Self>, StoreError> {
        let begun = with_expires(request.bucket(&shared.bucket).key(key).customize(), expires).send().await;
        let begun =
            begun.map_err(|error| Refusal::new(Operation::StartUpload, key, &error).into_error(&shared.bucket))?;
        let Some(id) = begun.upload_id else {
            return Err(Refusal::incomplete(Operation::StartUpload, key, "upload id").into_error(&shared.bucket));
        };
        Ok(Arc::new(Self { shared: Arc::clone(shared), key: key.to_owned(), id, is_over: AtomicBool::new(false) }))
    }

    /// Sends one part.
    pub(super) async fn send(&self, number: i32, bytes: Bytes) -> Result<CompletedPart, StoreError> {
        let bounds = upload(&self.shared.client, bytes.len());
        let request = self.shared.client.upload_part().bucket(&self.shared.bucket).key(&self.key).upload_id(&self.id);
        let sent = request.part_number(number).body(bytes.into()).customize().config_override(bounds).send().await;
        let sent = sent.map_err(|error| self.refused(Operation::UploadPart, &error))?;
        let Some(etag) = sent.e_tag else { return Err(self.incomplete(Operation::UploadPart)) };
        Ok(CompletedPart::builder()
            .part_number(number)
            .e_tag(etag)
            .set_checksum_crc32(sent.checksum_crc32)
            .set_checksum_crc32_c(sent.checksum_crc32_c)
            .set_checksum_crc64_nvme(sent.checksum_crc64_nvme)
            .set_checksum_sha1(sent.checksum_sha1)
            .set_checksum_sha256(sent.checksum_sha256)
            .build())
    }

    /// Lets S3 copy one part. A source that is no longer the pinned one is a failed precondition.
    pub(super) async fn copy(
        &self,
        number: i32,
        source: &str,
        etag: &str,
        range: String,
    ) -> Result<CompletedPart, Refusal> {
        let request = self.shared.client.upload_part_copy().bucket(&self.shared.bucket).key(&self.key);
        let request = request.upload_id(&self.id).part_number(number).copy_source(source).copy_source_range(range);
        let bounds = long(&self.shared.client);
        let copied = request.copy_source_if_match(quoted(etag)).customize().config_override(bounds).send().await;
        let copied = copied.map_err(|error| Refusal::new(Operation::CopyPart, &self.key, &error))?;
        let Some((etag, part)) = copied.copy_part_result.and_then(|part| Some((part.e_tag.clone()?, part))) else {
            return Err(Refusal::incomplete(Operation::CopyPart, &self.key, "entity tag"));
        };
        Ok(CompletedPart::builder()
            .part_number(number)
            .e_tag(etag)
            .set_checksum_crc32(part.checksum_crc32)
            .set_checksum_crc32_c(part.checksum_crc32_c)
            .set_checksum_crc64_nvme(part.checksum_crc64_nvme)
            .set_checksum_sha1(part.checksum_sha1)
            .set_checksum_sha256(part.checksum_sha256)
            .build())
    }

    /// Makes the parts an object of `size` bytes, if `expect` holds. [`StoreError::Exists`] leaves them as they
    /// are, to be completed under another condition; after any other error they may be spent.
    pub(super) async fn complete(
        &self,
        parts: Vec<CompletedPart>,
        expect: &Expect,
        made: &Provenance,
        size: u64,
    ) -> Result<(), StoreError> {
        let refusal = match self.try_complete(&parts, Some(expect)).await {
            Ok(()) => return Ok(()),
            Err(refusal) if refusal.is_not_implemented() => {
                self.shared.check(&self.key, expect).await?;
                match self.try_complete(&parts, None).await {
                    Ok(()) => return Ok(()),
                    Err(refusal) => refusal,
                }
            }
            Err(refusal) => refusal,
        };
        if refusal.is_precondition() || refusal.is_not_found() {
            // Not found is what is to be overwritten.
            return Err(StoreError::Exists(self.key.clone()));
        }
        if refusal.is_no_such_upload() {
            // Perhaps it was completed, and the answer was lost.
            let there = self.shared.look(&self.key).await?;
            let ours = there.is_some_and(|there| {
                there.size == size && there.existing.provenance.is_some_and(|from| is_same(&from, made))
            });
            if ours {
                return Ok(());
            }
        }
        Err(refusal.into_error(&self.shared.bucket))
    }

    async fn try_complete(&self, parts: &[CompletedPart], expect: Option<&Expect>) -> Result<(), Refusal> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec())).build();
        let request = self.shared.client.complete_multipart_upload().bucket(&self.shared.bucket).key(&self.key);
        let request = request.upload_id(&self.id).multipart_upload(parts);
        let request = match expect {
            Some(Expect::Absent) => request.if_none_match("*"),
            Some(Expect::Etag(etag)) => request.if_match(quoted(etag)),
            None => request,
        };
        // S3 may answer 200 before it has done it, and the error comes in the body.
        let done = request.customize().config_override(long(&self.shared.client)).send().await;
        let done = done.map_err(|error| Refusal::new(Operation::FinishUpload, &self.key, &error))?;
        match done.e_tag {
            Some(_) => Ok(()),
            None => Err(Refusal::incomplete(Operation::FinishUpload, &self.key, "entity tag")),
        }
    }

    /// Nothing is left to abort.
    pub(super) fn over(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn refused<E>(&self, operation: Operation, error: &SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        Refusal::new(operation, &self.key, error).into_error(&self.shared.bucket)
    }

    fn incomplete(&self, operation: Operation) -> StoreError {
        Refusal::incomplete(operation, &self.key, "entity tag").into_error(&self.shared.bucket)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !*self.is_over.get_mut() {
            let abandoned = Abandoned { key: std::mem::take(&mut self.key), id: std::mem::take(&mut self.id) };
            self.shared.janitor.abort(abandoned);
        }
    }
}
