//! From the bytes of a file to a plugin that can be called.

use std::{sync::Arc, time::Duration};

use bytesize::ByteSize;
use wasmtime::component::Component;

use super::{
    Answer, Capability, Compiler, Digest, Engine, INTERFACE_VERSION, Plugin, asks::asks, bindings::PluginPre,
    compiler::glance,
};
use crate::text;

/// What is kept of the text of wasmtime and its tools.
pub(super) const MAX_DETAIL: usize = 2 << 10;

/// What helps against each limit of the compiler.
const SMALLER: &str = "leave out what the plugin does not use, or split its largest functions";

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
    /// The compiler ran out of memory over it.
    #[error("takes more than {} of memory to compile: {SMALLER}", ByteSize(*.0))]
    CompileMemory(u64),
    /// The compiler ran out of CPU time over it.
    #[error("takes more than {} of CPU time to compile: {SMALLER}", humantime::format_duration(*.0))]
    CompileCpuTime(Duration),
    /// The compiler did not come to an end, perhaps because the machine had no time for it.
    #[error(
        "was not compiled within {}: {SMALLER}; on a busy machine `touch` the file to try again",
        humantime::format_duration(*.0)
    )]
    CompileTime(Duration),
    /// It would be too much machine code.
    #[error("compiles to more than {} of machine code: {SMALLER}", ByteSize(*.0))]
    CodeSize(u64),
    /// The compiler broke over it, or somebody ended the compiler.
    #[error("made the compiler fail, which {0}; `touch` the file to try again")]
    CompilerFailed(String),
    /// Not the file's fault.
    #[error("cannot be compiled now, as the compiler cannot be started: {0}")]
    NoCompiler(String),
    /// Not the file's fault either.
    #[error("was not compiled, as the host is stopping")]
    Stopped,
}

impl LoadError {
    /// Whether trying the same file again may come out differently.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NoCompiler(_) | Self::Stopped)
    }
}

impl Plugin {
    /// Compiles the bytes of a file, a component or a core module with WIT metadata, or takes the code from the
    /// compiler's cache. Blocks for as long as the compiler needs.
    ///
    /// # Errors
    /// When the bytes are not a plugin that this host can run, or one that asks for what it is not granted; see
    /// [`LoadError`].
    pub fn load(engine: &Arc<Engine>, compiler: &Compiler, name: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        Self::examine(engine, compiler, name, bytes).and_then(Self::if_granted)
    }

    /// The same for looking at a plugin: it may ask for what it is not granted, which it does not get.
    ///
    /// # Errors
    /// As [`Plugin::load`].
    pub fn examine(engine: &Arc<Engine>, compiler: &Compiler, name: &str, bytes: &[u8]) -> Result<Self, LoadError> {
        Self::examine_at_once(engine, compiler, name, bytes).unwrap_or_else(|| {
            let digest = Digest::of(bytes);
            let component = compiler.compile(engine, digest, bytes)?;
            Self::link(engine, name, digest, bytes.len(), &component)
        })
    }

    /// Loads what needs no compiling: files that are no WebAssembly at all, and those whose code is in the
    /// compiler's cache. `None` for the others.
    pub fn load_at_once(
        engine: &Arc<Engine>,
        compiler: &Compiler,
        name: &str,
        bytes: &[u8],
    ) -> Option<Result<Self, LoadError>> {
        Some(Self::examine_at_once(engine, compiler, name, bytes)?.and_then(Self::if_granted))
    }

    fn examine_at_once(
        engine: &Arc<Engine>,
        compiler: &Compiler,
        name: &str,
        bytes: &[u8],
    ) -> Option<Result<Self, LoadError>> {
        if let Err(error) = glance(bytes) {
            return Some(Err(error));
        }
        let digest = Digest::of(bytes);
        let component = compiler.cached(engine, digest)?;
        Some(Self::link(engine, name, digest, bytes.len(), &component))
    }

    /// Refuses a plugin that asks for what it could not do without, and is not granted.
    fn if_granted(self) -> Result<Self, LoadError> {
        let Some(ask) = self.asks.iter().find(|ask| ask.answer == Answer::Refused) else { return Ok(self) };
        let import = text::printable(&ask.import, MAX_DETAIL);
        Err(match ask.capability.key() {
            Some(key) => LoadError::NotGranted { import, key, name: self.name },
            None => LoadError::Sockets { import },
        })
    }

    /// Holds the component against what this host offers.
    fn link(
        engine: &Arc<Engine>,
        name: &str,
        digest: Digest,
        size: usize,
        component: &Component,
    ) -> Result<Self, LoadError> {
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
            return Err(LoadError::Sockets { import: text::printable(&ask.import, MAX_DETAIL) });
        }
        let pre = engine.linker.instantiate_pre(component).and_then(PluginPre::new);
        let pre = pre.map_err(|error| misfit(engine, component, &imports, &detail(&error)))?;
        let interface =
            imports.iter().find_map(|import| interface_version(import)).unwrap_or(INTERFACE_VERSION).to_owned();
        Ok(Self {
            name: name.to_owned(),
            digest,
            size: size as u64,
            interface,
            imports,
            asks,
            grants,
            pre,
            engine: Arc::clone(engine),
        })
    }
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

pub(super) fn detail(error: &wasmtime::Error) -> String {
    text::printable(&format!("{error:#}"), MAX_DETAIL)
}
