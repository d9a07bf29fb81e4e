//! Files that decide what runs: opened without following anybody's link, and nobody else's.

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

/// Why something is not private.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotPrivate {
    /// Its owner is not this user.
    #[error("belongs to another user")]
    Foreign,
    /// Its mode lets others in.
    #[error("is open to other users")]
    Open,
}

/// Opens a file to read it. A link is an error (`ELOOP`), and a pipe does not wait for somebody to write to it.
///
/// # Errors
/// The system's.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

/// Whether it is this user's and closed to all others.
///
/// # Errors
/// When it is not.
pub fn check(meta: &Metadata) -> Result<(), NotPrivate> {
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(NotPrivate::Foreign);
    }
    if meta.mode() & 0o077 != 0 {
        return Err(NotPrivate::Open);
    }
    Ok(())
}
