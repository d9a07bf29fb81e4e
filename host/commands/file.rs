//! A file as a plugin's object, for the verbs that have no store.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use bytes::Bytes;

use crate::io::{Body, BoxFuture, IoError};

/// A file as an object. It blocks: in a process for one object a slow disk holds up nobody else.
pub(super) struct FileBody {
    file: File,
    position: u64,
}

impl FileBody {
    pub fn new(file: File) -> Self {
        Self { file, position: 0 }
    }

    fn at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match self.file.read_at(&mut bytes[filled..], offset.saturating_add(filled as u64))? {
                0 => break,
                n => filled += n,
            }
        }
        bytes.truncate(filled);
        Ok(Bytes::from(bytes))
    }
}

impl Body for FileBody {
    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Bytes, IoError>> {
        Box::pin(async move {
            let bytes = self.at(self.position, max).map_err(unavailable)?;
            self.position += bytes.len() as u64;
            Ok(bytes)
        })
    }

    fn read_at(&mut self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, IoError>> {
        Box::pin(async move { self.at(offset, len).map_err(unavailable) })
    }
}

fn unavailable(error: io::Error) -> IoError {
    IoError::Unavailable(error.to_string())
}
