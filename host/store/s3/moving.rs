//! The move of an original: a copy under two conditions, then a delete under one.

use std::sync::Arc;

use aws_sdk_s3::types::{CompletedPart, MetadataDirective, ServerSideEncryption, TaggingDirective};
use tokio::task::JoinSet;

use super::{
    Shared,
    error::{Operation, Refusal},
    is_as_expected,
    open::{Kept, S3Object},
    provenance::{MAX_METADATA, is_same, to_metadata},
    requests::{long, quoted},
    text::{copy_source, decode_words, tagging},
    upload::{MAX_PARTS, MIN_PART, Upload, with_expires},
};
use crate::store::{Expect, Provenance, StoreError};

/// A part of a copy. S3 copies some 100 MB/s in one request, so a part takes seconds.
const COPY_PART: u64 = 512 << 20;

/// Parts that S3 copies at the same time. They cost this host nothing.
const COPIES: usize = 8;

impl Shared {
    pub(super) async fn relocate(
        self: &Arc<Self>,
        object: &S3Object,
        to: &str,
        provenance: &Provenance,
        expect: &Expect,
    ) -> Result<(), StoreError> {
        let move_ = Move { shared: self, object, to, provenance, metadata: metadata(object, provenance)? };
        if object.meta().size > self.copy_in_parts_above {
            move_.copy_in_parts(expect).await?;
        } else {
            move_.copy(expect).await?;
        }
        // Only now: everything that could fail a copy has been looked at.
        move_.delete().await
    }
}

/// The user's metadata and ours.
fn metadata(object: &S3Object, provenance: &Provenance) -> Result<Vec<(String, String)>, StoreError> {
    let mut all = object.kept.metadata.clone();
    all.extend(to_metadata(provenance));
    let len: usize = all.iter().map(|(key, value)| key.len() + decode_words(value).len()).sum();
    if len > MAX_METADATA {
        return Err(StoreError::Impossible(format!(
            "`{}` has so much metadata that where it came from cannot be added: {len} bytes, and S3 takes \
             {MAX_METADATA}; shorten its own",
            object.meta().key
        )));
    }
    Ok(all)
}

struct Move<'a> {
    shared: &'a Arc<Shared>,
    object: &'a S3Object,
    to: &'a str,
    provenance: &'a Provenance,
    metadata: Vec<(String, String)>,
}

/// Sets what both ways of copying have in common. They are requests of two types without one trait.
macro_rules! describe {
    ($request:expr, $kept:expr, $metadata:expr) => {{
        let kept: &Kept = $kept;
        let is_kms = kept.encryption == Some(ServerSideEncryption::AwsKms);
        $request
            .set_cache_control(kept.cache_control.clone())
            .set_content_disposition(kept.content_disposition.clone())
            .set_content_encoding(kept.content_encoding.clone())
            .set_content_language(kept.content_language.clone())
            .set_content_type(kept.content_type.clone())
            .set_website_redirect_location(kept.website_redirect_location.clone())
            .set_metadata(Some($metadata.iter().cloned().collect()))
            .set_storage_class(kept.storage_class.clone())
            .set_server_side_encryption(kept.encryption.clone())
            .set_ssekms_key_id(kept.kms_key_id.clone())
            .set_bucket_key_enabled(kept.bucket_key.filter(|_| is_kms))
    }};
}

impl Move<'_> {
    fn key(&self) -> &str {
        &self.object.meta().key
    }

    fn source(&self) -> String {
        copy_source(&self.shared.bucket, self.key(), self.object.meta().version_id.as_deref())
    }

    async fn copy(&self, expect: &Expect) -> Result<(), StoreError> {
        let refusal = match self.try_copy(Some(expect)).await {
            Ok(()) => return Ok(()),
            Err(refusal) if refusal.is_not_implemented() => {
                self.shared.check(self.to, expect).await?;
                match self.try_copy(None).await {
                    Ok(()) => return Ok(()),
                    Err(refusal) => refusal,
                }
            }
            Err(refusal) => refusal,
        };
        Err(self.why_not_copied(refusal).await)
    }

    async fn try_copy(&self, expect: Option<&Expect>) -> Result<(), Refusal> {
        let request = self
            .shared
            .client
            .copy_object()
            .bucket(&self.shared.bucket)
            .key(self.to)
            .copy_source(self.source())
            .copy_source_if_match(quoted(&self.object.meta().etag))
            .metadata_directive(MetadataDirective::Replace)
            .tagging_directive(TaggingDirective::Copy);
        let request = match expect {
            Some(Expect::Absent) => request.if_none_match("*"),
            Some(Expect::Etag(etag)) => request.if_match(quoted(etag)),
            None => request,
        };
        let request = describe!(request, &self.object.kept, self.metadata);
        let request = with_expires(request.customize(), self.object.kept.expires.as_deref())
            .config_override(long(&self.shared.client));
        // S3 may answer 200 before it has done it, and the error comes in the body.
        let copied = request.send().await.map_err(|error| Refusal::new(Operation::Copy, self.key(), &error))?;
        match copied.copy_object_result.and_then(|result| result.e_tag) {
            Some(_) => Ok(()),
            None => Err(Refusal::incomplete(Operation::Copy, self.key(), "entity tag")),
        }
    }

    /// Whether it was the source or the destination that is not as it should be.
    async fn why_not_copied(&self, refusal: Refusal) -> StoreError {
        if refusal.is_precondition() {
            match refusal.is_about_source() {
                Some(true) => return StoreError::Superseded,
                Some(false) => return StoreError::Exists(self.to.to_owned()),
                None => {}
            }
        } else if !refusal.is_not_found() {
            return refusal.into_error(&self.shared.bucket);
        }
        match self.shared.identity(self.key()).await {
            Ok(None) => StoreError::NotFound(self.key().to_owned()),
            Ok(Some((etag, _))) if etag == self.object.meta().etag => StoreError::Exists(self.to.to_owned()),
            Ok(Some(_)) => StoreError::Superseded,
            Err(error) => error,
        }
    }

    async fn copy_in_parts(&self, expect: &Expect) -> Result<(), StoreError> {
        // Before the work, as it is much: only the end of it has a condition.
        let there = self.shared.look(self.to).await?;
        if !is_as_expected(there.as_ref().map(|found| &*found.existing.etag), expect) {
            return match self.shared.identity(self.key()).await? {
                None => Err(StoreError::NotFound(self.key().to_owned())),
                Some((etag, _)) if etag != self.object.meta().etag => Err(StoreError::Superseded),
                Some(_) => Err(StoreError::Exists(self.to.to_owned())),
            };
        }
        let is_there = there.is_some_and(|there| {
            there.size == self.object.meta().size
                && there.existing.provenance.is_some_and(|from| is_same(&from, self.provenance))
        });
        if is_there {
            // An earlier try made it, and its answer or its delete was lost.
            return Ok(());
        }
        let upload = self.start().await?;
        let parts = self.copy_parts(&upload).await?;
        upload.complete(parts, expect, self.provenance, self.object.meta().size).await?;
        upload.over();
        Ok(())
    }

    async fn start(&self) -> Result<Arc<Upload>, StoreError> {
        let request = self.shared.client.create_multipart_upload().set_tagging(self.tags().await?);
        let request = describe!(request, &self.object.kept, self.metadata);
        Upload::start(self.shared, self.to, request, self.object.kept.expires.as_deref()).await
    }

    /// A copy in parts takes no tags along.
    async fn tags(&self) -> Result<Option<String>, StoreError> {
        if !self.object.kept.has_tags {
            return Ok(None);
        }
        let request = self.shared.client.get_object_tagging().bucket(&self.shared.bucket).key(self.key());
        let tags = request.set_version_id(self.object.meta().version_id.clone()).send().await;
        let tags =
            tags.map_err(|error| Refusal::new(Operation::GetTags, self.key(), &error).into_error(&self.shared.bucket))?;
        Ok(Some(tagging(tags.tag_set.iter().map(|tag| (tag.key(), tag.value())))))
    }

    async fn copy_parts(&self, upload: &Arc<Upload>) -> Result<Vec<CompletedPart>, StoreError> {
        let mut parts = Vec::new();
        let mut copying = JoinSet::new();
        for (number, range) in ranges(self.object.meta().size, self.shared.copy_in_parts_above) {
            while copying.len() >= COPIES {
                self.finish_one(&mut copying, &mut parts).await?;
            }
            let (upload, source, etag) = (Arc::clone(upload), self.source(), self.object.meta().etag.clone());
            copying.spawn(async move { upload.copy(number, &source, &etag, range).await });
        }
        while !copying.is_empty() {
            self.finish_one(&mut copying, &mut parts).await?;
        }
        parts.sort_by_key(CompletedPart::part_number);
        Ok(parts)
    }

    async fn finish_one(
        &self,
        copying: &mut JoinSet<Result<CompletedPart, Refusal>>,
        parts: &mut Vec<CompletedPart>,
    ) -> Result<(), StoreError> {
        match copying.join_next().await {
            None => {}
            Some(Ok(Ok(part))) => parts.push(part),
            // The destination has no condition here.
            Some(Ok(Err(refusal))) if refusal.is_precondition() => return Err(StoreError::Superseded),
            Some(Ok(Err(refusal))) => return Err(refusal.into_error(&self.shared.bucket)),
            Some(Err(_)) => {
                return Err(StoreError::Unavailable(format!("a part of the copy of `{}` was lost", self.key())));
            }
        }
        Ok(())
    }

    /// Without a version: what is deleted is the name, and in a bucket with versioning the upload stays among
    /// the versions, as people expect it there.
    async fn delete(&self) -> Result<(), StoreError> {
        let refusal = match self.try_delete(true).await {
            Ok(()) => return Ok(()),
            Err(refusal) => refusal,
        };
        let refusal = if refusal.is_not_implemented() {
            let pinned = Expect::Etag(self.object.meta().etag.clone());
            match self.shared.check(self.key(), &pinned).await {
                Ok(()) => match self.try_delete(false).await {
                    Ok(()) => return Ok(()),
                    Err(refusal) => refusal,
                },
                Err(StoreError::Exists(_)) => return self.after_another_delete().await,
                Err(error) => return Err(error),
            }
        } else {
            refusal
        };
        if refusal.is_not_found() {
            // A delivery of the same event did it.
            return Ok(());
        }
        if refusal.is_precondition() {
            return self.after_another_delete().await;
        }
        Err(refusal.into_error(&self.shared.bucket))
    }

    /// What the source's key holds is not the pinned object: nothing, or a newer one, which stays.
    async fn after_another_delete(&self) -> Result<(), StoreError> {
        match self.shared.identity(self.key()).await? {
            None => Ok(()),
            Some((etag, _)) if etag == self.object.meta().etag => {
                Err(StoreError::Unavailable(format!("`{}` changed while it was deleted", self.key())))
            }
            Some(_) => Err(StoreError::Superseded),
        }
    }

    async fn try_delete(&self, is_conditional: bool) -> Result<(), Refusal> {
        let request = self.shared.client.delete_object().bucket(&self.shared.bucket).key(self.key());
        let request = if is_conditional { request.if_match(quoted(&self.object.meta().etag)) } else { request };
        request.send().await.map(drop).map_err(|error| Refusal::new(Operation::Delete, self.key(), &error))
    }
}

/// Numbers and ranges of the parts of a copy.
fn ranges(size: u64, in_parts_above: u64) -> impl Iterator<Item = (i32, String)> {
    let part = COPY_PART.min(in_parts_above).max(MIN_PART).max(size.div_ceil(MAX_PARTS));
    (1..)
        .zip((0..size).step_by(usize::try_from(part).unwrap_or(usize::MAX)))
        .map(move |(number, start)| (number, format!("bytes={start}-{}", (start + part).min(size) - 1)))
}
