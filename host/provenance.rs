//! Who made what from what: plain data that plugins, jobs and stores all speak of.

use serde::{Deserialize, Serialize};

/// A plugin at one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginVersion {
    /// As in `NAME.wasm`.
    pub name: String,
    /// SHA-256 of the file, 64 hexadecimal digits.
    pub digest: String,
}

/// Where an object under the destination came from. Stored with every output and every moved original.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The source's whole key.
    pub source_key: String,
    /// The source's pinned entity tag.
    pub source_etag: String,
    /// The source's version, in a bucket with versioning.
    pub source_version: Option<String>,
    /// Who made it: one plugin for an output, every plugin of the route for a moved original (none when
    /// the route had none).
    pub plugins: Vec<PluginVersion>,
}
