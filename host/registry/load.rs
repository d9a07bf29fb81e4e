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
    file::{self, FileError, Stamp},
};
use crate::{
    config::Trust,
    plugin::{Compiler, Digest, Engine, LoadError, Plugin},
    release::plugin_of,
    signing::{self, SignatureError},
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
    /// Files could be put into the directory by others.
    #[error("plugin directory {} {reason}", path.display())]
    Untrusted {
        /// As configured.
        path: PathBuf,
        /// Who could, and what to do about it.
        reason: FileError,
    },
    /// A plugin of the binary itself.
    #[error("built-in plugin `{name}` {reason}")]
    BuiltIn {
        /// Which one.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
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
    pub trust: Trust,
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
    /// What is to be compiled, and nothing else.
    pub digest: Digest,
}

/// Loads every `NAME.wasm` of the directory, one after the other. Files that are being written are waited for,
/// within reason.
///
/// # Errors
/// When the directory cannot be listed, or not trusted. A file in it that is no plugin is not an error: it is in the
/// catalog as refused.
pub fn load_directory(
    engine: &Arc<Engine>,
    compiler: &Compiler,
    directory: &Path,
    trust: &Trust,
) -> Result<Catalog, RegistryError> {
    let source = Source {
        engine: Arc::clone(engine),
        compiler: compiler.clone(),
        directory: directory.to_owned(),
        trust: trust.clone(),
    };
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
    /// When the directory itself cannot be listed, or not trusted.
    pub fn scan(&self, previous: &Catalog) -> Result<Scan, RegistryError> {
        let path = || self.directory.clone();
        let unreadable = |source| RegistryError::Directory { path: path(), source };
        let meta = fs::metadata(&self.directory).map_err(unreadable)?;
        file::check_owner(&meta, &self.trust).map_err(|reason| RegistryError::Untrusted { path: path(), reason })?;
        self.scan_files(previous).map_err(unreadable)
    }

    fn scan_files(&self, previous: &Catalog) -> io::Result<Scan> {
        let mut scan = Scan { catalog: Catalog::default(), uncompiled: Vec::new(), unsettled: false };
        for file in fs::read_dir(&self.directory)? {
            let file = file?.file_name();
            let Some(name) = file.to_str().and_then(|name| name.strip_suffix(".wasm")) else { continue };
            let before = previous.entries.get(name).cloned().unwrap_or_default();
            let Some(meta) = self.metadata(&wasm(name))? else { continue };
            let signature = if self.trust.signed_by.is_empty() { None } else { self.metadata(&sig(name))? };
            let stamp = (Stamp::from(&meta), signature.as_ref().map(Stamp::from));
            let entry = if before.stamp == Some(stamp) {
                before
            } else if [Some(meta), signature].iter().flatten().any(is_fresh) {
                scan.unsettled = true;
                before
            } else {
                self.load(name, before, stamp)
            };
            if let Some(digest) = entry.compiling {
                scan.uncompiled.push(Uncompiled { name: name.to_owned(), digest });
            }
            scan.catalog.entries.insert(name.to_owned(), entry);
        }
        Ok(scan)
    }

    fn load(&self, name: &str, before: Entry, stamp: (Stamp, Option<Stamp>)) -> Entry {
        let entry = Entry { plugin: before.plugin.clone(), stamp: Some(stamp), ..Entry::default() };
        let refuse = |reason: String, digest| Entry { refused: Some(Refusal { reason, digest }), ..entry.clone() };
        let Some((plugin_name, _)) = plugin_of(name) else {
            let shown = text::printable(name, name.len());
            let reason = format!(
                "`{shown}` cannot be a plugin's name: use a-z, 0-9, `-` and `_`, and after that `@canary` or `@shadow` \
                 if it is to be tried"
            );
            return refuse(reason, None);
        };
        let bytes = match file::read(&self.directory, &wasm(name), &self.trust) {
            Ok(bytes) => bytes,
            // That may pass without the file being changed, so the next scan has to look again.
            Err(error @ FileError::Io(_)) => return Entry { stamp: None, ..refuse(error.to_string(), None) },
            Err(error) => return refuse(error.to_string(), None),
        };
        let digest = Digest::of(&bytes);
        match self.check_origin(name, plugin_name, digest, &bytes) {
            Ok(()) => {}
            Err(error) => {
                let stamp = Some(stamp).filter(|_| !error.may_pass());
                return Entry { stamp, ..refuse(error.to_string(), Some(digest)) };
            }
        }
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

    /// Whether the file is one that the configuration lets in.
    fn check_origin(&self, stem: &str, plugin: &str, digest: Digest, bytes: &[u8]) -> Result<(), OriginError> {
        check_pin(plugin, digest, &self.trust)?;
        if self.trust.signed_by.is_empty() {
            return Ok(());
        }
        let file = sig(stem);
        match file::read(&self.directory, &file, &self.trust) {
            Ok(signature) => {
                check_signature(&signature, bytes, &self.trust).map_err(|error| OriginError::Signature(file, error))
            }
            Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Err(OriginError::Unsigned(file)),
            Err(error) => Err(OriginError::Unreadable(file, error)),
        }
    }

    /// The bytes of a file of the directory with the signature beside it, where one is wanted.
    pub(super) fn read(&self, stem: &str) -> Result<(Vec<u8>, Option<Vec<u8>>), FileError> {
        let bytes = file::read(&self.directory, &wasm(stem), &self.trust)?;
        let signature = match self.trust.signed_by.is_empty() {
            true => None,
            false => Some(file::read(&self.directory, &sig(stem), &self.trust)?),
        };
        Ok((bytes, signature))
    }

    fn metadata(&self, file: &str) -> io::Result<Option<fs::Metadata>> {
        match file::metadata(&self.directory, file, &self.trust) {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Compiles a file, unless it is another one by now: then the next scan knows.
    pub fn compile(&self, uncompiled: &Uncompiled) -> Option<Result<Plugin, LoadError>> {
        let bytes = file::read(&self.directory, &wasm(&uncompiled.name), &self.trust).ok()?;
        if Digest::of(&bytes) != uncompiled.digest {
            return None;
        }
        let name = plugin_of(&uncompiled.name).map_or(&*uncompiled.name, |(name, _)| name);
        Some(Plugin::load(&self.engine, &self.compiler, name, &bytes))
    }
}

/// Why a file is not let in.
#[derive(Debug, thiserror::Error)]
enum OriginError {
    #[error("has the SHA-256 {0}, which is not among those of `plugin.{1}.sha256`")]
    Pin(Digest, String),
    #[error("is not signed: put its `{0}` beside it, as `gristmill plugin sign` makes it")]
    Unsigned(String),
    #[error("is not signed: its `{0}` {1}")]
    Unreadable(String, FileError),
    #[error("is not signed: its `{0}` {1}, of those in `plugins_signed_by`")]
    Signature(String, SignatureError),
}

impl OriginError {
    /// Whether it may be otherwise although no file has changed.
    fn may_pass(&self) -> bool {
        matches!(self, Self::Unreadable(_, FileError::Io(_)))
    }
}

fn check_pin(name: &str, digest: Digest, trust: &Trust) -> Result<(), OriginError> {
    match trust.pins.get(name) {
        Some(pins) if !pins.contains(&digest.to_string()) => Err(OriginError::Pin(digest, name.to_owned())),
        _ => Ok(()),
    }
}

fn check_signature(signature: &[u8], bytes: &[u8], trust: &Trust) -> Result<(), SignatureError> {
    let text = str::from_utf8(signature).map_err(|_| SignatureError::Malformed);
    text.and_then(|text| signing::verify(&trust.signed_by, text, bytes)).map(drop)
}

/// Whether the configuration lets in a version that the host has kept, with the signature that was kept beside it.
///
/// # Errors
/// Why it does not.
pub(super) fn check_kept(plugin: &str, bytes: &[u8], signature: Option<&[u8]>, trust: &Trust) -> Result<(), String> {
    check_pin(plugin, Digest::of(bytes), trust).map_err(|error| error.to_string())?;
    match signature {
        _ if trust.signed_by.is_empty() => Ok(()),
        Some(signature) => {
            let checked = check_signature(signature, bytes, trust);
            checked.map_err(|error| format!("is not signed: what was kept {error}, of those in `plugins_signed_by`"))
        }
        None => Err("was not signed when it was kept: put it and its signature into the plugin directory".to_owned()),
    }
}

fn wasm(name: &str) -> String {
    format!("{name}.wasm")
}

fn sig(name: &str) -> String {
    format!("{name}.wasm.sig")
}

/// Whether it may still be growing.
fn is_fresh(meta: &fs::Metadata) -> bool {
    meta.modified().is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < QUIET))
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
                    entry.stamp = None;
                }
            }
            None => entry.stamp = None,
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

/// Compiles the plugins that the binary carries. They are as trusted as the host, so nobody has to sign them, but those
/// that are pinned have to be what they are pinned to.
///
/// # Errors
/// When there are none, this host cannot run them, or one is pinned to something else.
pub fn load_built_in(engine: &Arc<Engine>, compiler: &Compiler, trust: &Trust) -> Result<Catalog, RegistryError> {
    if BUILT_IN.is_empty() {
        return Err(RegistryError::NoBuiltIn);
    }
    let load = |(name, bytes): &(&'static str, &'static [u8])| {
        let refuse = |reason| RegistryError::BuiltIn { name, reason };
        check_pin(name, Digest::of(bytes), trust).map_err(|error| refuse(error.to_string()))?;
        Plugin::load(engine, compiler, name, bytes).map_err(|error| refuse(error.to_string()))
    };
    Ok(Catalog::of(BUILT_IN.iter().map(load).collect::<Result<Vec<_>, _>>()?))
}
