//! Who made what from what: plain data that plugins, jobs and stores all speak of.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Begins a source key that a store had no room for, before the SHA-256 of the key in hexadecimal.
const DIGEST: &str = "sha256:";

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
    /// The source's whole key, or what [`digest_of`] makes of it: compare it with [`Provenance::is_of`].
    pub source_key: String,
    /// The source's pinned entity tag.
    pub source_etag: String,
    /// The source's version, in a bucket with versioning.
    pub source_version: Option<String>,
    /// Who made it: one plugin for an output, every plugin of the route for a moved original (none when
    /// the route had none).
    pub plugins: Vec<PluginVersion>,
}

impl Provenance {
    /// Whether the object was made from the source with this key.
    #[must_use]
    pub fn is_of(&self, source_key: &str) -> bool {
        self.source_key == source_key
            || (self.source_key.starts_with(DIGEST) && self.source_key == digest_of(source_key))
    }
}

/// What stands for a key in a store that has no room for it.
#[must_use]
pub fn digest_of(source_key: &str) -> String {
    let mut text = DIGEST.to_owned();
    for byte in Sha256::digest(source_key) {
        // Writing to a string cannot fail.
        _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Provenance, digest_of};

    #[test]
    fn a_key_is_known_by_its_digest() {
        let of = |source_key: &str| Provenance {
            source_key: source_key.to_owned(),
            source_etag: "1".to_owned(),
            source_version: None,
            plugins: Vec::new(),
        };
        assert!(of("uploads/a").is_of("uploads/a") && !of("uploads/a").is_of("uploads/b"));
        let digest = digest_of("uploads/a");
        assert_eq!(digest.len(), "sha256:".len() + 64);
        assert!(of(&digest).is_of("uploads/a") && !of(&digest).is_of("uploads/b"));
        assert!(of(&digest).is_of(&digest), "a key may look like a digest");
    }
}
