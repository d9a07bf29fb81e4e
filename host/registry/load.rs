//! From a plugin directory, or the binary itself, to a catalog. Blocks; runs on the registry's thread.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::{
    Catalog, Entry,
    file::{FileError, Signature, read_plugin_file},
};
use crate::{
    plugin::{Compiler, Digest, Engine, LoadError, Plugin},
    release::plugin_of,
    text,
};

include!(concat!(env!("OUT_DIR"), "/built_in.rs"));

/// A file that was written to so recently may still be growing, so it is looked at again later.
const QUIET: Duration = Duration::from_millis(200);

/// When to look again at such a file.
pub(super) const UNSETTLED: Duration = Duration::from_millis(100);

/// For how long the start waits for files that are still being written.
pub(super) const FIRST_SETTLED: Duration = Duration::from_secs(2);

/// Why a file in the plugin directory is not in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// For people.
    pub reason: String,
    /// Of its bytes, when they could be read.
    pub digest: Option<Digest>,
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

/// Where plugins come from and who compiles them.
#[derive(Clone)]
pub(super) struct Source {
    pub engine: Arc<Engine>,
    pub compiler: Compiler,
    pub directory: PathBuf,
}

/// What a scan of the directory found.
pub(super) struct Scan {
    /// The new snapshot.
    pub catalog: Catalog,
    /// Files that have to be compiled.
    pub uncompiled: Vec<Uncompiled>,
    /// A file was changed so recently that it was left out of account: scan again soon.
    pub unsettled: bool,
}

/// A file that has to be compiled. Its bytes are read again when it is its turn: many files may wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uncompiled {
    pub name: String,
    pub path: PathBuf,
    /// What is to be compiled, and nothing else.
    pub digest: Digest,
}

/// Loads every `NAME.wasm` of the directory, one after the other. Files that are being written are waited for,
/// within reason.
///
/// # Errors
/// When the directory cannot be listed. A file in it that is no plugin is not an error: it is in the
/// catalog as refused.
pub fn load_directory(engine: &Arc<Engine>, compiler: &Compiler, directory: &Path) -> Result<Catalog, RegistryError> {
    let source = Source { engine: Arc::clone(engine), compiler: compiler.clone(), directory: directory.to_owned() };
    let (started, mut catalog) = (Instant::now(), Catalog::default());
    loop {
        let scan = source.scan(&catalog)?;
        catalog = scan.catalog;
        for uncompiled in scan.uncompiled {
            let compiled = source.compile(&uncompiled);
            catalog.complete(&uncompiled, compiled);
        }
        if !scan.unsettled || started.elapsed() >= FIRST_SETTLED {
            return Ok(catalog);
        }
        thread::sleep(UNSETTLED);
    }
}

impl Source {
    /// Reads the directory and loads what is new in it, but for what has to be compiled first. Files that have not
    /// changed since `previous` are not read again; a file that is refused, or not compiled yet, leaves the version
    /// before it in use.
    ///
    /// # Errors
    /// When the directory itself cannot be listed.
    pub fn scan(&self, previous: &Catalog) -> Result<Scan, RegistryError> {
        self.scan_files(previous).map_err(|source| RegistryError::Directory { path: self.directory.clone(), source })
    }

    fn scan_files(&self, previous: &Catalog) -> io::Result<Scan> {
        let mut scan = Scan { catalog: Catalog::default(), uncompiled: Vec::new(), unsettled: false };
        for file in fs::read_dir(&self.directory)? {
            let path = file?.path();
            let Some(name) =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".wasm"))
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
            } else if meta.modified().is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < QUIET))
            {
                scan.unsettled = true;
                before
            } else {
                self.load(name, &path, before, signature)
            };
            if let Some(digest) = entry.compiling {
                scan.uncompiled.push(Uncompiled { name: name.to_owned(), path: path.clone(), digest });
            }
            scan.catalog.entries.insert(name.to_owned(), entry);
        }
        Ok(scan)
    }

    fn load(&self, name: &str, path: &Path, before: Entry, signature: Signature) -> Entry {
        let entry = Entry { plugin: before.plugin.clone(), signature: Some(signature), ..Entry::default() };
        let refuse = |reason: String, digest| Entry { refused: Some(Refusal { reason, digest }), ..entry.clone() };
        let Some((plugin_name, _)) = plugin_of(name) else {
            let shown = text::printable(name, name.len());
            let reason = format!(
                "`{shown}` cannot be a plugin's name: use a-z, 0-9, `-` and `_`, and after that `@canary` or `@shadow` \
                 if it is to be tried"
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
            return entry;
        }
        match Plugin::load_at_once(&self.engine, &self.compiler, plugin_name, &bytes) {
            Some(Ok(plugin)) => Entry { plugin: Some(Arc::new(plugin)), ..entry },
            Some(Err(error)) => refuse(error.to_string(), Some(digest)),
            // What was wrong before is of interest until something else is known.
            None => Entry { compiling: Some(digest), refused: before.refused, ..entry },
        }
    }

    /// Compiles a file, unless it is another one by now: then the next scan knows.
    pub fn compile(&self, uncompiled: &Uncompiled) -> Option<Result<Plugin, LoadError>> {
        let bytes = read_plugin_file(&uncompiled.path).ok()?;
        if Digest::of(&bytes) != uncompiled.digest {
            return None;
        }
        let name = plugin_of(&uncompiled.name).map_or(&*uncompiled.name, |(name, _)| name);
        Some(Plugin::load(&self.engine, &self.compiler, name, &bytes))
    }
}

impl Catalog {
    /// Enters what came of compiling a file, if that is still the file that is there.
    pub(super) fn complete(&mut self, uncompiled: &Uncompiled, compiled: Option<Result<Plugin, LoadError>>) {
        let Some(entry) = self.entries.get_mut(&uncompiled.name) else { return };
        if entry.compiling != Some(uncompiled.digest) {
            return;
        }
        entry.compiling = None;
        entry.refused = None;
        match compiled {
            Some(Ok(plugin)) => entry.plugin = Some(Arc::new(plugin)),
            Some(Err(error)) => {
                entry.refused = Some(Refusal { reason: error.to_string(), digest: Some(uncompiled.digest) });
                if error.may_pass() {
                    entry.signature = None;
                }
            }
            None => entry.signature = None,
        }
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
pub fn load_built_in(engine: &Arc<Engine>, compiler: &Compiler) -> Result<Catalog, RegistryError> {
    if BUILT_IN.is_empty() {
        return Err(RegistryError::NoBuiltIn);
    }
    let plugins: Result<Vec<_>, _> =
        BUILT_IN.iter().map(|(name, bytes)| Plugin::load(engine, compiler, name, bytes)).collect();
    Ok(Catalog::of(plugins?))
}
