//! Outputs of one call: in memory while they are small, uploads that are not completed once they are not.

use std::sync::{
    Arc, Mutex as BlockingMutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use aws_sdk_s3::types::CompletedPart;
use bytes::Bytes;
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::{self, Duration},
};

use super::{
    Shared,
    error::{Operation, Refusal},
    provenance::to_metadata,
    requests::{quoted, upload},
    text::encode_words,
    upload::{MAX_PARTS, MIN_PART, Upload},
};
use crate::{
    io::{BoxFuture, IoError, OutputMeta, Outputs},
    store::{Expect, Provenance, StoreError},
};

/// An output up to this size is one request, and parts are of this size at first.
const PART: u64 = 8 << 20;

/// So many parts are of that size. Later ones grow, so that all of them reach the largest object, 5 TiB.
const EVEN_PARTS: u64 = 1_000;

/// What each later part has more than the one before it.
const PART_GROWTH: u64 = 136 << 10;

/// Parts of one output on their way at the same time: one connection to S3 carries 50 to 100 MB/s, and a
/// plugin makes more.
const OUTPUT_PARTS: usize = 4;

/// The same for all outputs of a call together, since each part is in memory.
const STAGING_PARTS: usize = 8;

/// What the outputs of one call have in memory before those that are large enough for a part give it up.
const STAGING_MEMORY: usize = 64 << 20;

/// The most, for outputs of which each is too small for a part.
const MAX_STAGING_MEMORY: usize = 512 << 20;

/// Tries of a write that lost against another one at the same moment, and the pause before the second.
const CONFLICT_TRIES: u32 = 4;
const CONFLICT_PAUSE: Duration = Duration::from_millis(50);

/// The outputs of one call. Clones share them; the last one throws away what was not published.
#[derive(Debug, Clone)]
pub struct S3Staging(Arc<Area>);

#[derive(Debug)]
struct Area {
    shared: Arc<Shared>,
    provenance: Provenance,
    outputs: BlockingMutex<Vec<Arc<Slot>>>,
    buffered: AtomicUsize,
    parts: Arc<Semaphore>,
}

#[derive(Debug)]
struct Slot {
    meta: OutputMeta,
    output: Mutex<Output>,
}

/// How far an output has come.
#[derive(Debug)]
enum Output {
    /// Takes bytes.
    Open { buffer: Vec<u8>, parts: Option<Parts> },
    /// Whole in memory.
    Small(Bytes),
    /// Whole in S3, as parts.
    Large { upload: Arc<Upload>, parts: Vec<CompletedPart>, size: u64 },
    /// At its key.
    Published,
    /// A write failed or was cancelled half-way, so what is there is not what the plugin meant.
    Broken(StoreError),
}

/// Parts of an output that is still written.
#[derive(Debug)]
struct Parts {
    /// Before the upload: they end before it is aborted.
    sending: JoinSet<Result<CompletedPart, StoreError>>,
    done: Vec<CompletedPart>,
    /// So far, sent or being sent.
    count: u64,
    size: u64,
    upload: Arc<Upload>,
}

impl S3Staging {
    pub(super) fn new(shared: &Arc<Shared>, provenance: Provenance) -> Self {
        Self(Arc::new(Area {
            shared: Arc::clone(shared),
            provenance,
            outputs: BlockingMutex::default(),
            buffered: AtomicUsize::new(0),
            parts: Arc::new(Semaphore::new(STAGING_PARTS)),
        }))
    }

    fn slot(&self, index: usize) -> Result<Arc<Slot>, StoreError> {
        let outputs = self.0.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let never = || StoreError::Impossible(format!("output number {index} was never created"));
        outputs.get(index).cloned().ok_or_else(never)
    }

    pub(super) async fn publish(&self, index: usize, expect: &Expect) -> Result<(), StoreError> {
        let slot = self.slot(index)?;
        let mut output = slot.output.lock().await;
        let area = &*self.0;
        let sealed = match std::mem::replace(&mut *output, Output::Broken(cancelled(index))) {
            Output::Open { buffer, parts: None } => {
                // What is kept is kept until it is published: another try needs it.
                Ok(Output::Small(buffer.into()))
            }
            Output::Open { buffer, parts: Some(parts) } => area.seal(buffer, parts).await,
            Output::Broken(error) => Err(error),
            other => Ok(other),
        };
        *output = sealed.unwrap_or_else(Output::Broken);

        let (published, is_spent) = match &*output {
            Output::Small(bytes) => (area.put(&slot.meta, bytes, expect).await, false),
            Output::Large { upload, parts, size } => {
                let completed = upload.complete(parts.clone(), expect, &area.provenance, *size).await;
                if completed.is_ok() {
                    upload.over();
                }
                // Another condition may hold; after anything else S3 may have thrown the parts away.
                let is_spent = !matches!(completed, Ok(()) | Err(StoreError::Exists(_)));
                (completed, is_spent)
            }
            Output::Published => {
                return Err(StoreError::Impossible(format!("output number {index} was published already")));
            }
            Output::Broken(error) => return Err(error.clone()),
            Output::Open { .. } => return Err(cancelled(index)),
        };
        match &published {
            Ok(()) => {
                if let Output::Small(bytes) = &*output {
                    area.buffered.fetch_sub(bytes.len(), Ordering::Relaxed);
                }
                *output = Output::Published;
            }
            Err(error) if is_spent => *output = Output::Broken(error.clone()),
            Err(_) => {}
        }
        published
    }
}

impl Outputs for S3Staging {
    fn create(&self, meta: OutputMeta) {
        let output = Mutex::new(Output::Open { buffer: Vec::new(), parts: None });
        self.0.outputs.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(Slot { meta, output }));
    }

    fn write(&self, index: usize, bytes: Bytes) -> BoxFuture<'_, Result<(), IoError>> {
        Box::pin(async move {
            let slot = self.slot(index).map_err(into_io_error)?;
            let mut output = slot.output.lock().await;
            // Broken unless this comes to its end.
            let (buffer, parts) = match std::mem::replace(&mut *output, Output::Broken(cancelled(index))) {
                Output::Open { buffer, parts } => (buffer, parts),
                Output::Broken(error) => {
                    *output = Output::Broken(error.clone());
                    return Err(into_io_error(error));
                }
                other => {
                    *output = other;
                    return Err(IoError::Unavailable(format!("output number {index} is complete already")));
                }
            };
            match self.0.append(&slot.meta, buffer, parts, bytes).await {
                Ok((buffer, parts)) => {
                    *output = Output::Open { buffer, parts };
                    Ok(())
                }
                Err(error) => {
                    *output = Output::Broken(error.clone());
                    Err(into_io_error(error))
                }
            }
        })
    }
}

fn cancelled(index: usize) -> StoreError {
    StoreError::Unavailable(format!("output number {index} is incomplete: an earlier write to it was cancelled"))
}

fn into_io_error(error: StoreError) -> IoError {
    match error {
        StoreError::Denied(reason) | StoreError::Impossible(reason) => IoError::Denied(reason),
        other => IoError::Unavailable(other.to_string()),
    }
}

/// The size of the part after `count` others.
fn part_size(count: u64) -> usize {
    let size = PART + count.saturating_sub(EVEN_PARTS) * PART_GROWTH;
    usize::try_from(size).unwrap_or(usize::MAX)
}

impl Area {
    async fn append(
        &self,
        meta: &OutputMeta,
        mut buffer: Vec<u8>,
        mut parts: Option<Parts>,
        mut bytes: Bytes,
    ) -> Result<(Vec<u8>, Option<Parts>), StoreError> {
        while !bytes.is_empty() {
            let full = self.full(parts.as_ref().map_or(0, |parts| parts.count));
            if buffer.len() >= full {
                let parts = match &mut parts {
                    Some(parts) => parts,
                    None => parts.insert(Parts::of(self.start(meta).await?)),
                };
                self.send(parts, std::mem::take(&mut buffer)).await?;
                continue;
            }
            let piece = bytes.split_to((full - buffer.len()).min(bytes.len()));
            let buffered = self.buffered.fetch_add(piece.len(), Ordering::Relaxed) + piece.len();
            buffer.extend_from_slice(&piece);
            if buffered > MAX_STAGING_MEMORY {
                return Err(StoreError::Denied(format!(
                    "the outputs that one call has open are more than {} MiB together, each of them too small to be \
                     sent to S3 before it is complete: let the plugin make fewer or larger ones",
                    MAX_STAGING_MEMORY >> 20
                )));
            }
        }
        Ok((buffer, parts))
    }

    /// From how many bytes on the next part is sent.
    fn full(&self, count: u64) -> usize {
        if self.buffered.load(Ordering::Relaxed) > STAGING_MEMORY && count < EVEN_PARTS {
            // Less than S3 takes for a part would have to be the last.
            usize::try_from(MIN_PART).unwrap_or(usize::MAX)
        } else {
            part_size(count)
        }
    }

    async fn start(&self, meta: &OutputMeta) -> Result<Arc<Upload>, StoreError> {
        let request = self
            .shared
            .client
            .create_multipart_upload()
            .content_type(&meta.content_type)
            .set_metadata(Some(self.metadata(meta).collect()));
        Upload::start(&self.shared, &meta.key, request, None).await
    }

    /// What the plugin chose, and where it comes from.
    fn metadata<'a>(&'a self, meta: &'a OutputMeta) -> impl Iterator<Item = (String, String)> + 'a {
        let chosen = meta.metadata.iter().map(|(key, value)| (key.clone(), encode_words(value)));
        chosen.chain(to_metadata(&self.provenance))
    }

    /// Waits until a part may be on its way.
    async fn send(&self, parts: &mut Parts, buffer: Vec<u8>) -> Result<(), StoreError> {
        self.buffered.fetch_sub(buffer.len(), Ordering::Relaxed);
        while parts.sending.len() >= OUTPUT_PARTS {
            parts.finish_one().await?;
        }
        // What has failed meanwhile is noticed now and not at the end.
        while let Some(ended) = parts.sending.try_join_next() {
            parts.done.push(joined(ended)?);
        }
        let permit = Arc::clone(&self.parts).acquire_owned().await.map_err(|_| lost())?;
        parts.count += 1;
        parts.size += buffer.len() as u64;
        let number = i32::try_from(parts.count).ok().filter(|_| parts.count <= MAX_PARTS);
        let Some(number) = number else {
            return Err(StoreError::Impossible(format!("an output has more than {MAX_PARTS} parts")));
        };
        let upload = Arc::clone(&parts.upload);
        parts.sending.spawn(async move {
            let sent = upload.send(number, buffer.into()).await;
            drop(permit);
            sent
        });
        Ok(())
    }

    /// Sends the last part, and waits for all of them.
    async fn seal(&self, buffer: Vec<u8>, mut parts: Parts) -> Result<Output, StoreError> {
        if !buffer.is_empty() {
            self.send(&mut parts, buffer).await?;
        }
        while !parts.sending.is_empty() {
            parts.finish_one().await?;
        }
        let Parts { mut done, size, upload, .. } = parts;
        done.sort_by_key(CompletedPart::part_number);
        Ok(Output::Large { upload, parts: done, size })
    }

    async fn put(&self, meta: &OutputMeta, bytes: &Bytes, expect: &Expect) -> Result<(), StoreError> {
        for tries in 1.. {
            let refusal = match self.try_put(meta, bytes, Some(expect)).await {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal,
            };
            if refusal.is_not_implemented() {
                self.shared.check(&meta.key, expect).await?;
                let put = self.try_put(meta, bytes, None).await;
                return put.map_err(|refusal| refusal.into_error(&self.shared.bucket));
            }
            if refusal.is_precondition() || refusal.is_not_found() {
                // Not found is what is to be overwritten.
                return Err(StoreError::Exists(meta.key.clone()));
            }
            if !refusal.is_conflict() || tries >= CONFLICT_TRIES {
                return Err(refusal.into_error(&self.shared.bucket));
            }
            time::sleep(CONFLICT_PAUSE * tries).await;
        }
        Err(lost())
    }

    async fn try_put(&self, meta: &OutputMeta, bytes: &Bytes, expect: Option<&Expect>) -> Result<(), Refusal> {
        let request = self
            .shared
            .client
            .put_object()
            .bucket(&self.shared.bucket)
            .key(&meta.key)
            .content_type(&meta.content_type)
            .set_metadata(Some(self.metadata(meta).collect()))
            .body(bytes.clone().into());
        let request = match expect {
            Some(Expect::Absent) => request.if_none_match("*"),
            Some(Expect::Etag(etag)) => request.if_match(quoted(etag)),
            None => request,
        };
        let bounds = upload(&self.shared.client, bytes.len());
        let put = request.customize().config_override(bounds).send().await;
        put.map(drop).map_err(|error| Refusal::new(Operation::Put, &meta.key, &error))
    }
}

impl Parts {
    fn of(upload: Arc<Upload>) -> Self {
        Self { sending: JoinSet::new(), done: Vec::new(), count: 0, size: 0, upload }
    }

    async fn finish_one(&mut self) -> Result<(), StoreError> {
        if let Some(ended) = self.sending.join_next().await {
            self.done.push(joined(ended)?);
        }
        Ok(())
    }
}

fn joined(
    ended: Result<Result<CompletedPart, StoreError>, tokio::task::JoinError>,
) -> Result<CompletedPart, StoreError> {
    ended.unwrap_or_else(|_| Err(lost()))
}

/// The runtime ends, or a bug of ours.
fn lost() -> StoreError {
    StoreError::Unavailable("a part of an output was lost on its way".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{EVEN_PARTS, MAX_PARTS, MIN_PART, PART, part_size};

    #[test]
    fn the_parts_of_one_output_reach_the_largest_object() {
        let sizes: Vec<u64> = (0..MAX_PARTS).map(|count| part_size(count) as u64).collect();
        assert!(sizes.iter().sum::<u64>() >= 5 << 40);
        assert!(sizes.iter().all(|size| (MIN_PART..=5 << 30).contains(size)), "what S3 takes for a part");
        assert!(sizes[..EVEN_PARTS as usize].iter().all(|size| *size == PART));
    }
}
