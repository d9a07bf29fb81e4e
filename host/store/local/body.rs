//! The bytes of a pinned file, read ahead in chunks away from the async threads.

use std::{os::fd::OwnedFd, sync::Arc};

use bytes::Bytes;
use rustix::{buffer::spare_capacity, io::Errno};

use super::{LocalObject, Shared, blocking, into_io_error};
use crate::{
    directory::Identity,
    io::{Body, BoxFuture, IoError},
    store::StoreError,
};

/// The first chunk: a plugin that looks only at a header should not pay for more.
const FIRST_CHUNK: u64 = 64 << 10;

/// Chunks double up to this. Larger ones fall out of the processor's cache between the disk's copy and the
/// plugin's; smaller ones pay more often for the way to another thread.
const LARGEST_CHUNK: u64 = 512 << 10;

/// Opens its file at the first read, so that objects that wait or are only moved hold no descriptor.
pub(super) struct LocalBody {
    shared: Arc<Shared>,
    key: String,
    pinned: Identity,
    file: Option<Arc<OwnedFd>>,
    /// Of the byte after `ahead`.
    position: u64,
    ahead: Bytes,
    chunk: u64,
}

impl LocalBody {
    pub(super) fn new(shared: &Arc<Shared>, object: &LocalObject) -> Self {
        Self {
            shared: Arc::clone(shared),
            key: object.meta.key.clone(),
            pinned: object.identity,
            file: None,
            position: 0,
            ahead: Bytes::new(),
            chunk: FIRST_CHUNK,
        }
    }

    /// Exactly the bytes that the pinned file has in this range.
    async fn fetch(&mut self, offset: u64, len: u64) -> Result<Bytes, IoError> {
        let len = len.min(self.pinned.size.saturating_sub(offset));
        if len == 0 && self.file.is_some() {
            return Ok(Bytes::new());
        }
        let (shared, key, pinned, file) = (Arc::clone(&self.shared), self.key.clone(), self.pinned, self.file.clone());
        let (file, bytes) = blocking(move || {
            let file = match file {
                Some(file) => file,
                None => Arc::new(shared.open_pinned(&key, &pinned)?),
            };
            let bytes = read_exactly(&file, offset, len).map_err(|reason| shared.refused("read", &key, reason))?;
            // Looked at after the bytes were read, so none of them is from after a change that this misses.
            let now = rustix::fs::fstat(&*file).map_err(|reason| shared.refused("look at", &key, reason))?;
            match bytes {
                Some(bytes) if Identity::of(&now) == pinned => Ok((file, bytes)),
                _ => Err(StoreError::Superseded),
            }
        })
        .await
        .map_err(into_io_error)?;
        self.file = Some(file);
        Ok(bytes)
    }
}

impl Body for LocalBody {
    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Bytes, IoError>> {
        Box::pin(async move {
            if self.ahead.is_empty() {
                self.ahead = self.fetch(self.position, self.chunk).await?;
                self.position += self.ahead.len() as u64;
                self.chunk = (self.chunk * 2).min(LARGEST_CHUNK);
            }
            Ok(self.ahead.split_to(max.min(self.ahead.len())))
        })
    }

    fn read_at(&mut self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, IoError>> {
        Box::pin(self.fetch(offset, len as u64))
    }
}

/// Nothing when the file ends before.
fn read_exactly(file: &OwnedFd, mut offset: u64, len: u64) -> Result<Option<Bytes>, Errno> {
    let Ok(len) = usize::try_from(len) else { return Err(Errno::NOMEM) };
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        // The capacity may be more than was asked for, and is then filled: what is too much is cut off.
        match rustix::io::pread(file, spare_capacity(&mut bytes), offset) {
            Ok(0) => return Ok(None),
            Ok(read) => offset += read as u64,
            Err(Errno::INTR) => {}
            Err(reason) => return Err(reason),
        }
    }
    bytes.truncate(len);
    Ok(Some(bytes.into()))
}
