//! The sandbox: compiled components, and one call of one in a fresh instance.
//!
//! Everything that knows wasmtime is here. This module is handed bytes to compile, a byte source and a
//! place for outputs; it knows no queue, no store and no job.

mod asks;
mod bindings;
mod cache;
mod clock;
mod code;
mod compiler;
mod engine;
mod granted;
mod headroom;
mod http;
mod imports;
mod invoke;
mod limits;
mod load;
mod wasi;

pub use self::http::{Outbound, OutboundError};
pub use asks::{Answer, Ask, Capability};
pub use cache::Cache;
pub use compiler::{CompileLimits, Compiler, compile_standard_input};
pub use engine::{Engine, EngineError};
pub use granted::Granted;
pub use invoke::{Call, CallError, CallReport, CreatedOutput, ObjectInfo, Verdict};
pub use limits::LimitHit;
pub use load::LoadError;

use std::{fmt, sync::Arc};

use crate::{config::Grants, provenance::PluginVersion};

/// The release of the interface that this host serves, as it stands in import and export names.
pub const INTERFACE_VERSION: &str = "0.1.0";

/// One version of a plugin, compiled and checked against the interface.
pub struct Plugin {
    /// As in `NAME.wasm`.
    pub name: String,
    /// What the file holds.
    pub digest: Digest,
    /// Bytes of the file.
    pub size: u64,
    /// The release of `gristmill:plugin` that it was built for.
    pub interface: String,
    /// Every interface that it imports, sorted.
    pub imports: Vec<String>,
    /// Which of them ask for something that has to be granted.
    pub asks: Vec<Ask>,
    grants: Arc<Grants>,
    pre: bindings::PluginPre<imports::Guest>,
    engine: Arc<Engine>,
}

impl Plugin {
    /// Name and digest, as they stand in provenance.
    #[must_use]
    pub fn version(&self) -> PluginVersion {
        PluginVersion { name: self.name.clone(), digest: self.digest.to_string() }
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("name", &self.name).field("digest", &self.digest.short()).finish_non_exhaustive()
    }
}

/// SHA-256 of a plugin file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The first 12 hexadecimal digits: enough to tell versions apart, short enough to read.
    #[must_use]
    pub fn short(&self) -> String {
        short_digest(&self.to_string()).to_owned()
    }
}

/// Cuts a digest in hexadecimal to its first 12 digits.
#[must_use]
pub fn short_digest(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// Of the bytes that were fed to it.
impl From<sha2::Sha256> for Digest {
    fn from(hash: sha2::Sha256) -> Self {
        use sha2::Digest as _;
        Self(hash.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
