//! What tells one version of a file from another, in a directory that serves as a bucket.
//!
//! Moving a file keeps its identity, writing to it or putting another one in its place changes it: what an
//! entity tag does for an object in S3. The change time is no part of it, since moving alters that.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use rustix::fs::Stat;

/// The identity of a regular file. [`fmt::Display`] gives the entity tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The inode's number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last modification, nanoseconds since 1970.
    pub modified: i128,
}

impl Identity {
    /// Of what was asked about.
    pub fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            size: u64::try_from(stat.st_size).unwrap_or_default(),
            modified: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        }
    }

    /// Last modification; nothing for a time that the system's clock cannot express.
    pub fn modified_time(&self) -> Option<SystemTime> {
        time(self.modified)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{:x}", self.inode, self.size, self.modified)
    }
}

/// When the file's content, name or attributes last changed; not to be set by anybody.
pub fn changed_time(stat: &Stat) -> Option<SystemTime> {
    time(nanoseconds(stat.st_ctime, stat.st_ctime_nsec))
}

/// The fields' types differ between platforms.
fn nanoseconds(seconds: impl Into<i128>, nanoseconds: impl Into<i128>) -> i128 {
    seconds.into() * 1_000_000_000 + nanoseconds.into()
}

fn time(nanoseconds: i128) -> Option<SystemTime> {
    let distance = u64::try_from(nanoseconds.unsigned_abs()).map(Duration::from_nanos).ok()?;
    if nanoseconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_keeps_the_identity_and_writing_changes_it() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        let identity = |path: &std::path::Path| Identity::of(&rustix::fs::lstat(path).unwrap());

        std::fs::write(&a, "one").unwrap();
        let before = identity(&a);
        std::fs::rename(&a, &b).unwrap();
        assert_eq!(identity(&b), before);
        std::fs::write(&b, "longer").unwrap();
        assert_ne!(identity(&b).to_string(), before.to_string());
    }

    #[test]
    fn times_before_1970_are_times() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old");
        let old = SystemTime::UNIX_EPOCH - Duration::from_secs(86_400);
        std::fs::File::create(&path).unwrap().set_modified(old).unwrap();
        assert_eq!(Identity::of(&rustix::fs::lstat(&path).unwrap()).modified_time(), Some(old));
    }
}
