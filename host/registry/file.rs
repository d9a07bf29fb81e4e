//! One file of the plugin directory: told apart from others without reading it, and read once.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use crate::{config::Trust, private};

/// The largest plugin file: a language runtime compiled to WASM is 20 MB.
pub(super) const MAX_PLUGIN_BYTES: u64 = 128 << 20;

/// The link that Kubernetes swaps to replace all files of a volume at once.
const DATA: &str = "..data";

/// Why a plugin file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A link, a directory, a pipe…
    #[error("is not a regular file (symbolic links are not followed)")]
    NotRegular,
    /// A link that could be followed.
    #[error("is a link through `..data`, as in the volumes of Kubernetes: set `plugins_by_links` to follow those")]
    KubernetesLink,
    /// Over the cap.
    #[error("has {0} bytes, more than the {MAX_PLUGIN_BYTES} that a plugin may have")]
    TooLarge(u64),
    /// Somebody else's.
    #[error("belongs to user {0}, not to root or the user that the host runs as: `chown` it, or {RELAX}")]
    ForeignOwner(u32),
    /// Anybody's.
    #[error("can be written to by others (mode {0:04o}): `chmod go-w` it, or {RELAX}")]
    Writable(u32),
    /// The system's own reason.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// The other way out of a check of owner and mode.
const RELAX: &str = "set `plugins_of_any_owner`";

/// Tells whether a file is the one that was read before, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&fs::Metadata> for Stamp {
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

/// Whether only root and this user can change a file, or what is in a directory.
///
/// # Errors
/// When others can, unless that is trusted.
pub(super) fn check_owner(meta: &fs::Metadata, trust: &Trust) -> Result<(), FileError> {
    if trust.any_owner {
        return Ok(());
    }
    if meta.uid() != 0 && meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(FileError::ForeignOwner(meta.uid()));
    }
    // Many systems give each user a group of his own, of the same number, and let it write.
    let others = if meta.gid() == meta.uid() { 0o002 } else { 0o022 };
    if meta.mode() & others != 0 {
        return Err(FileError::Writable(meta.mode() & 0o7777));
    }
    Ok(())
}

/// What the system says of a file of the directory.
pub(super) fn metadata(directory: &Path, file: &str, trust: &Trust) -> io::Result<fs::Metadata> {
    fs::symlink_metadata(place(directory, file, trust))
}

/// The bytes of a file of the directory, read once.
///
/// # Errors
/// See [`FileError`].
pub(super) fn read(directory: &Path, file: &str, trust: &Trust) -> Result<Vec<u8>, FileError> {
    let path = place(directory, file, trust);
    if let Some(folder) = path.parent().filter(|folder| *folder != directory) {
        check_owner(&fs::symlink_metadata(folder)?, trust)?;
    }
    match read_file(&path, trust) {
        Err(FileError::NotRegular) if !trust.links && is_through_data(&path, file) => Err(FileError::KubernetesLink),
        read => read,
    }
}

/// The bytes of a plugin file that somebody named, whoever it belongs to.
///
/// # Errors
/// See [`FileError`].
pub fn read_named_file(path: &Path) -> Result<Vec<u8>, FileError> {
    read_file(path, &Trust { any_owner: true, ..Trust::default() })
}

/// Where a file of the directory is: in the directory itself, or where the links of Kubernetes lead, which never leave
/// the directory. Any other link is left as it is, and will not be followed.
fn place(directory: &Path, file: &str, trust: &Trust) -> PathBuf {
    let path = directory.join(file);
    if !trust.links || !is_through_data(&path, file) {
        return path;
    }
    let Ok(to) = fs::read_link(directory.join(DATA)) else { return path };
    // One name, of a folder beside it that holds the files of now.
    let is_beside = to.to_str().is_some_and(|to| to.starts_with("..") && to.len() > 2 && !to.contains('/'));
    let folder = directory.join(to);
    let is_folder = fs::symlink_metadata(&folder).is_ok_and(|meta| meta.is_dir());
    if is_beside && is_folder { folder.join(file) } else { path }
}

fn is_through_data(path: &Path, file: &str) -> bool {
    fs::read_link(path).is_ok_and(|to| to == Path::new(DATA).join(file))
}

fn read_file(path: &Path, trust: &Trust) -> Result<Vec<u8>, FileError> {
    let file = private::open(path).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::LOOP) => FileError::NotRegular,
        _ => error.into(),
    })?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(FileError::NotRegular);
    }
    check_owner(&meta, trust)?;
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
