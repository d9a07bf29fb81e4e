//! From a plugin directory, or the binary itself, to a catalog. Blocks; runs on the registry's thread.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use super::{Catalog, Entry};
use crate::{
    plugin::{Cache, Digest, Engine, LoadError, Plugin},
    release::plugin_of,
    text,
};

include!(concat!(env!("OUT_DIR"), "/built_in.rs"));

/// The largest plugin file: a language runtime compiled to WASM is 20 MB.
pub(super) const MAX_PLUGIN_BYTES: u64 = 128 << 20;

/// A file that was written to so recently may still be growing, so it is looked at again later.
const QUIET: Duration = Duration::from_millis(200);

/// When to look again at such a file.
pub(super) const UNSETTLED: Duration = Duration::from_millis(100);

/// For how many looks the start waits for files that are still being written.
const FIRST_SCANS: u32 = 20;

/// Why a file in the plugin directory is not in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For people.
    pub reason: String,
    /// Of its bytes, when they could be read.
    pub digest: Option<Digest>,
}

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

/// Why there is no catalog.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The directory cannot be listed.
    #[error("plugin directory {}: {source}", path.display())]
    Directory {
        /// As configured.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A plugin of the binary itself.
    #[error("built-in plugin: {0}")]
    BuiltIn(#[from] LoadError),
    /// Neither a directory nor anything in the binary.
    #[error("this build carries no built-in plugins: run `make plugins` and build again, or name a plugin directory")]
    NoBuiltIn,
    /// No thread to be had.
    #[error("cannot start the thread that loads plugins: {0}")]
    Thread(io::Error),
}

/// What a scan of the directory found.
pub(super) struct Scan {
    /// The new snapshot.
    pub catalog: Catalog,
    /// A file was changed so recently that it was left out of account: scan again soon.
    pub unsettled: bool,
}

/// Loads every `NAME.wasm` of the directory. Files that are being written are waited for, within reason.
///
/// # Errors
/// When the directory cannot be listed. A file in it that is no plugin is not an error: it is in the
/// catalog as refused.
pub fn load_directory(engine: &Arc<Engine>, cache: Option<&Cache>, directory: &Path) -> Result<Catalog, RegistryError> {
    let mut catalog = Catalog::default();
    for _ in 0..FIRST_SCANS {
        let scan = scan(engine, cache, directory, &catalog)
            .map_err(|source| RegistryError::Directory { path: directory.to_owned(), source })?;
        catalog = scan.catalog;
        if !scan.unsettled {
            break;
        }
        thread::sleep(UNSETTLED);
    }
    Ok(catalog)
}

/// Reads the directory and compiles what is new in it. Files that have not changed since `previous` are
/// not read again; a file that is refused leaves the version before it in use.
///
/// # Errors
/// When the directory itself cannot be listed.
pub(super) fn scan(
    engine: &Arc<Engine>,
    cache: Option<&Cache>,
    directory: &Path,
    previous: &Catalog,
) -> io::Result<Scan> {
    let mut scan = Scan { catalog: Catalog::default(), unsettled: false };
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".wasm"))
        else {
            continue;
        };
        let before = previous.entries.get(name).cloned().unwrap_or_default();
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let signature = Signature::from(&meta);
        let entry = if before.signature == Some(signature) {
            before
        } else if meta.modified().is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < QUIET)) {
            scan.unsettled = true;
            before
        } else {
            load(engine, cache, name, &path, before, signature)
        };
        scan.catalog.entries.insert(name.to_owned(), entry);
    }
    Ok(scan)
}

fn load(
    engine: &Arc<Engine>,
    cache: Option<&Cache>,
    name: &str,
    path: &Path,
    before: Entry,
    signature: Signature,
) -> Entry {
    let plugin = before.plugin.clone();
    let refuse = |reason: String, digest| Entry {
        plugin: plugin.clone(),
        refused: Some(Refusal { reason, digest }),
        signature: Some(signature),
    };
    let Some((plugin_name, _)) = plugin_of(name) else {
        let shown = text::printable(name, name.len());
        let reason = format!(
            "`{shown}` cannot be a plugin's name: use a-z, 0-9, `-` and `_`, and after that `@canary` or `@shadow` if it \
             is to be tried"
        );
        return refuse(reason, None);
    };
    let bytes = match read_plugin_file(path) {
        Ok(bytes) => bytes,
        // That may pass without the file being changed, so the next scan has to look again.
        Err(error @ FileError::Io(_)) => return Entry { signature: None, ..refuse(error.to_string(), None) },
        Err(error) => return refuse(error.to_string(), None),
    };
    let digest = Digest::of(&bytes);
    if before.plugin.as_ref().is_some_and(|plugin| plugin.digest == digest) {
        return Entry { plugin, refused: None, signature: Some(signature) };
    }
    match Plugin::load(engine, cache, plugin_name, &bytes) {
        Ok(plugin) => Entry { plugin: Some(Arc::new(plugin)), refused: None, signature: Some(signature) },
        Err(error) => refuse(error.to_string(), Some(digest)),
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

/// The names of the plugins that the binary carries; none when it was built before `make plugins`.
pub fn built_in_names() -> impl Iterator<Item = &'static str> {
    BUILT_IN.iter().map(|(name, _)| *name)
}

/// The bytes of a plugin that the binary carries.
pub fn built_in_bytes(name: &str) -> Option<&'static [u8]> {
    BUILT_IN.iter().find(|(built_in, _)| *built_in == name).map(|(_, bytes)| *bytes)
}

/// Compiles the plugins that the binary carries.
///
/// # Errors
/// When there are none, or this host cannot run them.
pub fn load_built_in(engine: &Arc<Engine>, cache: Option<&Cache>) -> Result<Catalog, RegistryError> {
    if BUILT_IN.is_empty() {
        return Err(RegistryError::NoBuiltIn);
    }
    let plugins: Result<Vec<_>, _> =
        BUILT_IN.iter().map(|(name, bytes)| Plugin::load(engine, cache, name, bytes)).collect();
    Ok(Catalog::of(plugins?))
}
