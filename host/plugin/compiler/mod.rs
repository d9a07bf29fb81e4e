//! Compiles plugins, in a child process of limited means, and keeps the code.
//!
//! A file decides what the compiler takes: a small one can keep it busy for hours, fill the memory, or bring it
//! down. In a child all of that ends with a reason and without harm to the host. It is no wall against a file that
//! takes the compiler over: whoever makes the code that the host runs needs no more.

mod child;
mod process;
mod translate;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use wasmtime::component::Component;

pub use self::child::compile_standard_input;
pub(super) use self::translate::glance;
use self::translate::translate;
use super::{Cache, Digest, Engine, LoadError, code::CompiledCode, load::detail};

/// The most machine code of a plugin. Eighteen megabytes of Python and its runtime come to 35.
pub(super) const MAX_CODE_BYTES: u64 = 256 << 20;

/// The verb of the command line under which this program compiles.
const VERB: &str = "compile-plugin";

/// What one compilation may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Address space of the child, bytes.
    pub memory: u64,
    /// CPU time, in whole seconds, of all its threads together.
    pub cpu_time: Duration,
    /// Wall time.
    pub wall_time: Duration,
}

impl Default for CompileLimits {
    /// The largest language runtimes seen took 16 s on two cores and half a gigabyte, and slower machines take several
    /// times as long. Of a busy one a child of the lowest priority gets next to nothing: 14 s of work took 7 minutes.
    fn default() -> Self {
        Self { memory: 2 << 30, cpu_time: Duration::from_secs(120), wall_time: Duration::from_secs(1_800) }
    }
}

/// Compiles plugins. Clones are one: they share the cache, and are stopped together.
#[derive(Debug, Clone)]
pub struct Compiler {
    place: Place,
    cache: Option<Cache>,
    stopped: Arc<AtomicBool>,
}

#[derive(Debug, Clone)]
enum Place {
    ThisProcess,
    Child { program: PathBuf, limits: CompileLimits },
}

impl Compiler {
    /// One whose child processes run `program`, which has to be this program: it is called as
    /// `program compile-plugin …`, and its answer is run.
    #[must_use]
    pub fn in_child(program: impl Into<PathBuf>, limits: CompileLimits) -> Self {
        Self::at(Place::Child { program: program.into(), limits })
    }

    /// One without any limit, for files that are known: in tests, benchmarks and simulations.
    #[must_use]
    pub fn in_process() -> Self {
        Self::at(Place::ThisProcess)
    }

    fn at(place: Place) -> Self {
        Self { place, cache: None, stopped: Arc::default() }
    }

    /// The same, which takes code from this cache where it can and keeps it there.
    #[must_use]
    pub fn with_cache(self, cache: Option<Cache>) -> Self {
        Self { cache, ..self }
    }

    /// Ends what is being compiled in a child, and compiles nothing any more.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// The code for a file with this digest, if it was compiled before.
    pub(super) fn cached(&self, engine: &Engine, digest: Digest) -> Option<Component> {
        self.cache.as_ref()?.get(engine, digest)
    }

    /// Compiles a file and keeps the code. Blocks.
    pub(super) fn compile(&self, engine: &Engine, digest: Digest, bytes: &[u8]) -> Result<Component, LoadError> {
        let code = match &self.place {
            Place::ThisProcess => translate(&engine.wasmtime, bytes)?,
            Place::Child { program, limits } => process::compile(program, limits, bytes, &self.stopped)?,
        };
        let code = CompiledCode(code);
        let component = code.load(&engine.wasmtime).map_err(|error| LoadError::Invalid(detail(&error)))?;
        if let Some(cache) = &self.cache {
            cache.put(engine, digest, &code);
        }
        Ok(component)
    }
}
