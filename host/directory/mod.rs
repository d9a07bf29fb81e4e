//! A directory that serves as a bucket: keys are paths below it.
//!
//! What the local queue and the local store have in common: how a key becomes a file ([`Tree`]), what makes
//! a file the same file ([`Identity`]), and that only one host works on a directory ([`Lock`]).

mod identity;
mod lock;
mod tree;

pub use identity::{Identity, changed_time};
pub use lock::{Lock, LockError};
pub use tree::{Kind, Obstacle, Place, Tree, rename_to_free, sync};

/// Bytes that this user may still write to the file system of a directory.
pub fn free_bytes(directory: &std::path::Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(directory)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The host's own directory below the bucket. It is no part of the bucket.
pub const STATE: &str = ".gristmill";
