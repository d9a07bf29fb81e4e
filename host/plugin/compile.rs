//! From the bytes of a file to a plugin that can be called.

use std::{
    fs,
    hash::{Hash as _, Hasher as _},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;
use wit_component::ComponentEncoder;

use super::{
    Answer, Capability, Digest, Engine, INTERFACE_VERSION, Plugin, asks::asks, bindings::PluginPre, code::CompiledCode,
};
use crate::text;

/// First bytes of a core module and of a component.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// Where tools put the WIT of a core module: a custom section of a name that starts like this.
const WIT_SECTION: &[u8] = b"component-type";

/// What is kept of the text of wasmtime and its tools.
const MAX_DETAIL: usize = 2 << 10;

/// Why a file is not a plugin. Each says what is wrong first and what the tools said after it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Nothing in it.
    #[error("the file is empty")]
    Empty,
    /// Machine code.
    #[error(
        "is already compiled code (`.cwasm`), and loading that would run it unchecked: drop in the component instead"
    )]
    Precompiled,
    /// Anything else.
    #[error("is not WebAssembly: it starts with `{0}`, not with `\\0asm`")]
    NotWasm(String),
    /// A core module that no WIT tool has touched.
    #[error("is a core module without WIT metadata: build it with wit-bindgen, or make it a component")]
    NoMetadata,
    /// The metadata and the module do not go together.
    #[error("cannot be made a component: {0}")]
    Componentize(String),
    /// The compiler refused it.
    #[error("is not valid WebAssembly for this host: {0}")]
    Invalid(String),
    /// It lacks the function that makes it a plugin.
    #[error("exports no `process`, so it is not a plugin: {0}")]
    NoProcess(String),
    /// It wants something that is not there.
    #[error("imports `{import}`, which this host does not offer: {detail}")]
    MissingImport {
        /// As the component names it.
        import: String,
        /// wasmtime's own words.
        detail: String,
    },
    /// It wants something that it has not been granted.
    #[error("imports `{import}`, and is not granted that: set `{key}` in `[plugin.{name}]` to grant it")]
    NotGranted {
        /// As the component names it.
        import: String,
        /// The key that grants it.
        key: &'static str,
        /// The plugin's name.
        name: String,
    },
    /// It wants connections of its own.
    #[error(
        "imports `{import}`, and no plugin gets sockets: send requests through `wasi:http`, or build it without them \
         (componentize-py has `--stub-wasi`)"
    )]
    Sockets {
        /// As the component names it.
        import: String,
    },
    /// It was built for a release of the interface that this host does not serve.
    #[error(
        "was built for version {built_for} of gristmill:plugin, and this host serves {INTERFACE_VERSION}: {detail}"
    )]
    WrongVersion {
        /// Its version.
        built_for: String,
        /// wasmtime's own words.
        detail: String,
    },
    /// Right names, wrong types.
    #[error("does not fit the interface of this host: {0}")]
    Misfit(String),
}

impl Plugin {
    /// Compiles the bytes of a file, a component or a core module with WIT metadata, or takes the code
    /// from the cache. Blocks for as long as the compiler needs.
    ///
    /// # Errors
    /// When the bytes are not a plugin that this host can run, or one that asks for what it is not granted; see
    /// [`LoadError`].
    pub fn load(engine: &Arc<Engine>, cache: Option<&Cache>, name: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let plugin = Self::examine(engine, cache, name, bytes)?;
        let Some(refused) = plugin.asks.iter().find(|ask| ask.answer == Answer::Refused) else { return Ok(plugin) };
        let (import, name) = (refused.import.clone(), name.to_owned());
        Err(match refused.capability.key() {
            Some(key) => LoadError::NotGranted { import, key, name },
            None => LoadError::Sockets { import },
        })
    }

    /// The same for looking at a plugin: it may ask for what it is not granted, which it does not get.
    ///
    /// # Errors
    /// As [`Plugin::load`].
    pub fn examine(engine: &Arc<Engine>, cache: Option<&Cache>, name: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        let digest = Digest::of(bytes);
        let component = match cache.and_then(|cache| cache.get(engine, digest)) {
            Some(component) => component,
            None => {
                let component_bytes = componentize(bytes)?;
                let code = engine
                    .wasmtime
                    .precompile_component(&component_bytes)
                    .map_err(|e| LoadError::Invalid(detail(&e)))?;
                let code = CompiledCode(code);
                let component = code.load(&engine.wasmtime).map_err(|e| LoadError::Invalid(detail(&e)))?;
                if let Some(cache) = cache {
                    cache.put(engine, digest, &code);
                }
                component
            }
        };
        let ty = component.component_type();
        let mut imports: Vec<String> = ty
            .imports(&engine.wasmtime)
            // Types that the world itself uses stand there too, under names of their own.
            .filter(|(name, _)| name.contains(':'))
            .map(|(name, _)| name.to_owned())
            .collect();
        imports.sort_unstable();
        let grants = engine.granted.of(name);
        let asks = asks(&imports, &grants);
        // The linker would only say that there are none.
        if let Some(ask) = asks.iter().find(|ask| ask.capability == Capability::Sockets) {
            return Err(LoadError::Sockets { import: ask.import.clone() });
        }
        let pre = engine.linker.instantiate_pre(&component).and_then(PluginPre::new);
        let pre = pre.map_err(|error| misfit(engine, &component, &imports, &detail(&error)))?;
        let interface =
            imports.iter().find_map(|import| interface_version(import)).unwrap_or(INTERFACE_VERSION).to_owned();
        Ok(Self {
            name: name.to_owned(),
            digest,
            size: bytes.len() as u64,
            interface,
            imports,
            asks,
            grants,
            pre,
            engine: Arc::clone(engine),
        })
    }
}

/// A component as it is; a core module made into one from the WIT that it carries.
fn componentize(bytes: &[u8]) -> Result<std::borrow::Cow<'_, [u8]>, LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    if wasmtime::Engine::detect_precompiled(bytes).is_some() {
        return Err(LoadError::Precompiled);
    }
    if bytes.starts_with(COMPONENT) {
        return Ok(bytes.into());
    }
    if !bytes.starts_with(CORE_MODULE) {
        let head = &bytes[..bytes.len().min(8)];
        return Err(LoadError::NotWasm(text::printable(&String::from_utf8_lossy(head), 32)));
    }
    if !bytes.windows(WIT_SECTION.len()).any(|window| window == WIT_SECTION) {
        return Err(LoadError::NoMetadata);
    }
    let encode = || ComponentEncoder::default().validate(true).module(bytes)?.encode();
    let component =
        encode().map_err(|error| LoadError::Componentize(text::printable(&format!("{error:#}"), MAX_DETAIL)))?;
    Ok(component.into())
}

/// Puts the reason why a component does not fit into one line in front of wasmtime's own words.
fn misfit(engine: &Engine, component: &Component, imports: &[String], detail: &str) -> LoadError {
    let detail = detail.to_owned();
    // wasmtime names the import in its own text when it is the one that does not fit.
    if let Some(import) = imports.iter().find(|import| detail.contains(&format!("`{import}`"))) {
        match interface_version(import) {
            Some(INTERFACE_VERSION) => {}
            Some(version) => return LoadError::WrongVersion { built_for: version.to_owned(), detail },
            None => return LoadError::MissingImport { import: text::printable(import, MAX_DETAIL), detail },
        }
    }
    let exports_process = component.component_type().exports(&engine.wasmtime).any(|(name, _)| name == "process");
    if exports_process { LoadError::Misfit(detail) } else { LoadError::NoProcess(detail) }
}

/// The version in `gristmill:plugin/types@0.1.0`.
fn interface_version(import: &str) -> Option<&str> {
    import.strip_prefix("gristmill:plugin/")?.split_once('@').map(|(_, version)| version)
}

fn detail(error: &wasmtime::Error) -> String {
    text::printable(&format!("{error:#}"), MAX_DETAIL)
}

/// Compiled code of plugins seen before, by the digest of the file and what compiled it.
///
/// Reading an entry back is as good as running it, so the folder must be this user's and closed to all
/// others. Nothing else depends on it: an entry that is missing or damaged is compiled again.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// Entries kept; the oldest go first. A hundred versions of large plugins are well under a gigabyte.
const MAX_CACHE_ENTRIES: usize = 128;

impl Cache {
    /// Opens the folder, and makes it when it is not there.
    ///
    /// # Errors
    /// When it cannot be made, is not a folder, belongs to somebody else, or is open to others.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let meta = fs::symlink_metadata(folder)?;
        let refuse = |reason: &str| {
            let text = format!("{}: {reason}; compiled code is only kept in a private folder", folder.display());
            Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
        };
        if !meta.is_dir() {
            return refuse("is not a folder");
        }
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return refuse("belongs to another user");
        }
        if meta.permissions().mode() & 0o077 != 0 {
            return refuse("is open to other users (make it mode 0700)");
        }
        Ok(Self { folder: folder.to_owned() })
    }

    /// An entry is a checksum and then the code.
    fn get(&self, engine: &Engine, digest: Digest) -> Option<Component> {
        let mut options = fs::OpenOptions::new();
        options.read(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
        let mut entry = Vec::new();
        options.open(self.path(engine, digest)).and_then(|mut file| file.read_to_end(&mut entry)).ok()?;
        let (checksum, _) = entry.split_first_chunk::<32>()?;
        let checksum = *checksum;
        let code = entry.split_off(checksum.len());
        if Self::checksum(digest, &code) != checksum {
            return None;
        }
        CompiledCode(code).load(&engine.wasmtime).ok()
    }

    /// Over the file's digest, too, so that not only a torn or damaged entry is noticed, but also one that
    /// has got the name of another.
    fn checksum(digest: Digest, code: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(digest.to_string()).chain_update(code).finalize().into()
    }

    fn put(&self, engine: &Engine, digest: Digest, code: &CompiledCode) {
        let path = self.path(engine, digest);
        let write = || -> io::Result<()> {
            self.make_room()?;
            // Of a name of its own, with mode 0600, and gone when it cannot be finished.
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(&Self::checksum(digest, &code.0))?;
            file.write_all(&code.0)?;
            file.persist(&path)?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::warn!(path = %path.display(), %error, "cannot keep compiled code");
        }
    }

    fn make_room(&self) -> io::Result<()> {
        let mut entries: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            entries.push((entry.metadata()?.modified()?, entry.path()));
        }
        entries.sort_unstable();
        let surplus = (entries.len() + 1).saturating_sub(MAX_CACHE_ENTRIES);
        entries.iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
    }

    fn path(&self, engine: &Engine, digest: Digest) -> PathBuf {
        let mut compiler = std::hash::DefaultHasher::new();
        engine.wasmtime.precompile_compatibility_hash().hash(&mut compiler);
        env!("CARGO_PKG_VERSION").hash(&mut compiler);
        self.folder.join(format!("{digest}-{:016x}", compiler.finish()))
    }
}
