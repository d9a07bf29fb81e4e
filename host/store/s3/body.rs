//! The bytes of a pinned object: one streaming request for those who read in order, windows for those who jump.

use std::{ops::Range, sync::Arc, time::Duration};

use aws_sdk_s3::{primitives::ByteStream, types::ChecksumMode};
use bytes::{Bytes, BytesMut};
use tokio::time;

use super::{
    Shared,
    error::{Operation, Refusal},
    requests::{quoted, unquoted},
};
use crate::{
    io::{Body, BoxFuture, IoError},
    store::ObjectMeta,
    text::causes,
};

/// A read somewhere fetches as much, and the next ones find it: the directory of an archive is read in
/// hundreds of pieces of some bytes each, and each request takes 20 to 50 ms.
const READ_AHEAD: u64 = 256 << 10;

/// How often the bytes of one object are asked for again when they stop coming. Connections that last long do
/// break, and are closed by S3; a way on which they break that often is no way.
const MAX_RESUMES: u32 = 8;

/// A resume that brought so many bytes does not count: a slow plugin may read one object for hours.
const RESUME_EARNED: u64 = 1 << 20;

/// Before the first resume, and more before each later one.
const RESUME_PAUSE: Duration = Duration::from_millis(50);

/// No byte for so long: the connection is dead.
const STALL: Duration = Duration::from_secs(20);

/// Sends nothing before the first read.
pub(super) struct S3Body {
    source: Source,
    /// What [`Body::read`] has not yet been asked for, and the last of its pieces.
    rest: Pieces,
    ahead: Bytes,
    /// What was last read somewhere, and from where.
    window: (u64, Bytes),
}

/// The pinned object.
struct Source {
    shared: Arc<Shared>,
    object: ObjectMeta,
    resumes: u32,
    /// Bytes since the last resume.
    received: u64,
}

/// Bytes that are still to come, and the answer that they come in.
struct Pieces {
    range: Range<u64>,
    stream: Option<ByteStream>,
}

impl S3Body {
    pub(super) fn new(shared: &Arc<Shared>, object: &ObjectMeta) -> Self {
        let source = Source { shared: Arc::clone(shared), object: object.clone(), resumes: 0, received: 0 };
        Self { rest: Pieces::of(0..object.size), source, ahead: Bytes::new(), window: (0, Bytes::new()) }
    }

    /// What the window has of this range, when it has all of it.
    fn seen(&self, range: &Range<u64>) -> Option<Bytes> {
        let (start, bytes) = &self.window;
        let from = usize::try_from(range.start.checked_sub(*start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(*start)?).ok()?;
        (to <= bytes.len()).then(|| bytes.slice(from..to))
    }

    async fn fetch(&mut self, range: Range<u64>) -> Result<Bytes, IoError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if let Some(bytes) = self.seen(&range) {
            return Ok(bytes);
        }
        let size = self.source.object.size;
        if range.end - range.start > READ_AHEAD {
            return self.source.collect(range).await;
        }
        // At the end, where directories are, the window reaches back: they are looked for from there.
        let start = range.start.min(size.saturating_sub(READ_AHEAD));
        let bytes = self.source.collect(start..(start + READ_AHEAD).min(size)).await?;
        self.window = (start, bytes);
        self.seen(&range).ok_or_else(|| IoError::Unavailable("a read was answered with too few bytes".to_owned()))
    }
}

impl Body for S3Body {
    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Bytes, IoError>> {
        Box::pin(async move {
            if self.ahead.is_empty() {
                self.ahead = self.rest.next(&mut self.source).await?;
            }
            Ok(self.ahead.split_to(max.min(self.ahead.len())))
        })
    }

    fn read_at(&mut self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, IoError>> {
        let size = self.source.object.size;
        let start = offset.min(size);
        Box::pin(self.fetch(start..start.saturating_add(len as u64).min(size)))
    }
}

impl Pieces {
    fn of(range: Range<u64>) -> Self {
        Self { range, stream: None }
    }

    /// The next bytes; none at the end. An answer that ends early is never taken for the end.
    async fn next(&mut self, source: &mut Source) -> Result<Bytes, IoError> {
        while !self.range.is_empty() {
            let mut stream = match self.stream.take() {
                Some(stream) => stream,
                None => source.ask(&self.range).await?,
            };
            let broken = match time::timeout(STALL, stream.next()).await {
                Ok(Some(Ok(bytes))) => {
                    let len = bytes.len() as u64;
                    if len > self.range.end - self.range.start {
                        return Err(source.failed("the answer has more bytes than the object"));
                    }
                    self.range.start += len;
                    source.received += len;
                    if self.range.is_empty() {
                        // Only the end of the answer tells whether its checksum is right.
                        source.end(stream).await?;
                    } else {
                        self.stream = Some(stream);
                    }
                    if len > 0 {
                        return Ok(bytes);
                    }
                    continue;
                }
                Ok(Some(Err(error))) => causes(&error),
                Ok(None) => "the answer ended early".to_owned(),
                Err(_) => format!("no byte came for {} s", STALL.as_secs()),
            };
            source.pause(&broken).await?;
        }
        Ok(Bytes::new())
    }
}

impl Source {
    fn failed(&self, what: &str) -> IoError {
        IoError::Unavailable(format!("{} of `{}`: {what}", Operation::Get.name(), self.object.key))
    }

    /// Lets a little time pass, if another try is worth it.
    async fn pause(&mut self, broken: &str) -> Result<(), IoError> {
        if self.received >= RESUME_EARNED {
            self.resumes = 0;
        }
        self.received = 0;
        self.resumes += 1;
        if self.resumes > MAX_RESUMES {
            return Err(self.failed(&format!("{broken}, after {MAX_RESUMES} resumes")));
        }
        tracing::debug!(key = self.object.key, broken, resumes = self.resumes, "resuming the read of an object");
        time::sleep(RESUME_PAUSE * self.resumes).await;
        Ok(())
    }

    /// Asks for a range of the pinned object.
    async fn ask(&self, range: &Range<u64>) -> Result<ByteStream, IoError> {
        let object = &self.object;
        let mut request = self
            .shared
            .client
            .get_object()
            .bucket(&self.shared.bucket)
            .key(&object.key)
            .set_version_id(object.version_id.clone())
            .if_match(quoted(&object.etag))
            .checksum_mode(ChecksumMode::Enabled);
        let is_whole = *range == (0..object.size);
        if !is_whole {
            request = request.range(format!("bytes={}-{}", range.start, range.end - 1));
        }
        let answer = request
            .send()
            .await
            .map_err(|error| Refusal::new(Operation::Get, &object.key, &error).into_io_error(&self.shared.bucket))?;
        if answer.e_tag.as_deref().is_some_and(|etag| unquoted(etag) != object.etag) {
            return Err(IoError::Superseded);
        }
        let expected = i64::try_from(range.end - range.start).ok();
        if answer.content_length != expected {
            return Err(self.failed(&format!("{} bytes were asked for", range.end - range.start)));
        }
        let begins = format!("bytes {}-", range.start);
        if !is_whole && !answer.content_range.is_some_and(|range| range.starts_with(&begins)) {
            return Err(self.failed("the answer is not of the range that was asked for"));
        }
        Ok(answer.body)
    }

    /// Reads an answer to its end, where all its bytes are here.
    async fn end(&self, mut stream: ByteStream) -> Result<(), IoError> {
        match time::timeout(STALL, stream.next()).await {
            Ok(None) => Ok(()),
            Ok(Some(Ok(_))) => Err(self.failed("the answer has more bytes than the object")),
            Ok(Some(Err(error))) => Err(self.failed(&causes(&error))),
            Err(_) => Err(self.failed(&format!("its end did not come for {} s", STALL.as_secs()))),
        }
    }

    async fn collect(&mut self, range: Range<u64>) -> Result<Bytes, IoError> {
        let len = usize::try_from(range.end - range.start).map_err(|_| self.failed("the range is too long"))?;
        let mut pieces = Pieces::of(range);
        let first = pieces.next(self).await?;
        if first.len() == len {
            return Ok(first);
        }
        let mut bytes = BytesMut::with_capacity(len);
        bytes.extend_from_slice(&first);
        while bytes.len() < len {
            bytes.extend_from_slice(&pieces.next(self).await?);
        }
        Ok(bytes.freeze())
    }
}
