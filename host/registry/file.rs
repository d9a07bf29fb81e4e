//! One file of the plugin directory: told apart from others without reading it, and read once.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

/// The largest plugin file: a language runtime compiled to WASM is 20 MB.
pub(super) const MAX_PLUGIN_BYTES: u64 = 128 << 20;

/// Why a plugin file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A link, a directory, a pipe…
    #[error("is not a regular file (symbolic links are not followed)")]
    NotRegular,
    /// Over the cap.
    #[error("has {0} bytes, more than the {MAX_PLUGIN_BYTES} that a plugin may have")]
    TooLarge(u64),
    /// The system's own reason.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Tells whether a file is the one that was read before, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&fs::Metadata> for Signature {
    fn from(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// The bytes of a plugin file, read once.
///
/// # Errors
/// See [`FileError`].
pub fn read_plugin_file(path: &Path) -> Result<Vec<u8>, FileError> {
    // NONBLOCK: opening a pipe must not wait for somebody to write to it.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let opened = fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| match rustix::io::Errno::from_io_error(&error) {
        Some(rustix::io::Errno::LOOP) => FileError::NotRegular,
        _ => error.into(),
    })?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(FileError::NotRegular);
    }
    if meta.len() > MAX_PLUGIN_BYTES {
        return Err(FileError::TooLarge(meta.len()));
    }
    // The cap again, as the file may grow while it is read.
    let mut bytes = Vec::new();
    file.take(MAX_PLUGIN_BYTES + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 {
        length if length > MAX_PLUGIN_BYTES => Err(FileError::TooLarge(length)),
        _ => Ok(bytes),
    }
}
