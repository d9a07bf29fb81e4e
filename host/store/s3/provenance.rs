//! Provenance as user metadata: it is written together with the object and can never be apart from it.
//!
//! ```text
//! gristmill-source           the source's key, percent-encoded, or `sha256:` and its digest
//! gristmill-source-etag      its entity tag
//! gristmill-source-version   its version, in a bucket with versioning
//! gristmill-plugins          `name@digest name@digest`, absent when no plugin ran
//! ```

use std::collections::HashMap;

use super::text::{decode_percent, encode_percent};
use crate::{
    provenance::digest_of,
    store::{PluginVersion, Provenance},
};

/// Metadata keys that begin so are the host's own; plugins cannot choose such ones.
const OWN: &str = "gristmill-";

const SOURCE: &str = "gristmill-source";
const SOURCE_ETAG: &str = "gristmill-source-etag";
const SOURCE_VERSION: &str = "gristmill-source-version";
const PLUGINS: &str = "gristmill-plugins";

/// A longer encoded key is stored as its digest. The limit of S3 for all user metadata is 2 KiB, and a
/// plugin may use the half of it.
const MAX_SOURCE: usize = 512;

/// All user metadata of one object, bytes of all keys and values together: the limit of S3 ("Working with
/// object metadata" in the user guide).
pub(super) const MAX_METADATA: usize = 2 << 10;

/// Whether a metadata key is one of ours.
pub(super) fn is_own(key: &str) -> bool {
    key.starts_with(OWN)
}

/// What is to be stored with an object.
pub(super) fn to_metadata(provenance: &Provenance) -> Vec<(String, String)> {
    let encoded = encode_percent(&provenance.source_key);
    let source = if encoded.len() > MAX_SOURCE { digest_of(&provenance.source_key) } else { encoded };
    let mut metadata =
        vec![(SOURCE.to_owned(), source), (SOURCE_ETAG.to_owned(), encode_percent(&provenance.source_etag))];
    if let Some(version) = &provenance.source_version {
        metadata.push((SOURCE_VERSION.to_owned(), encode_percent(version)));
    }
    if !provenance.plugins.is_empty() {
        let plugins = provenance
            .plugins
            .iter()
            .map(|plugin| format!("{}@{}", encode_percent(&plugin.name), encode_percent(&plugin.digest)));
        metadata.push((PLUGINS.to_owned(), plugins.collect::<Vec<_>>().join(" ")));
    }
    metadata
}

/// What is stored with an object; nothing when this host did not put it there.
pub(super) fn from_metadata(metadata: &HashMap<String, String>) -> Option<Provenance> {
    let get = |key: &str| metadata.get(key).and_then(|value| decode_percent(value));
    let plugins = match metadata.get(PLUGINS) {
        Some(plugins) => plugins.split(' ').map(plugin).collect::<Option<Vec<_>>>()?,
        None => Vec::new(),
    };
    Some(Provenance {
        source_key: get(SOURCE)?,
        source_etag: get(SOURCE_ETAG)?,
        source_version: get(SOURCE_VERSION),
        plugins,
    })
}

fn plugin(text: &str) -> Option<PluginVersion> {
    let (name, digest) = text.split_once('@')?;
    Some(PluginVersion { name: decode_percent(name)?, digest: decode_percent(digest)? })
}

/// Whether two tell of the same work, although one of them may have lost its key to a digest.
pub(super) fn is_same(stored: &Provenance, made: &Provenance) -> bool {
    stored.is_of(&made.source_key)
        && stored.source_etag == made.source_etag
        && stored.source_version == made.source_version
        && stored.plugins == made.plugins
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::{MAX_METADATA, from_metadata, is_own, is_same, to_metadata};
    use crate::{
        key,
        store::{PluginVersion, Provenance},
    };

    fn stored(provenance: &Provenance) -> HashMap<String, String> {
        to_metadata(provenance).into_iter().collect()
    }

    fn plugins() -> impl Strategy<Value = Vec<PluginVersion>> {
        let plugin = (".{1,12}", "[0-9a-f]{64}").prop_map(|(name, digest)| PluginVersion { name, digest });
        proptest::collection::vec(plugin, 0..4)
    }

    proptest! {
        #[test]
        fn what_is_stored_is_found_again(
            source_key in ".{1,300}",
            source_etag in "[0-9a-f]{32}(-[0-9]{1,4})?",
            source_version in proptest::option::of("[A-Za-z0-9._-]{1,40}"),
            plugins in plugins(),
        ) {
            let made = Provenance { source_key, source_etag, source_version, plugins };
            let metadata = stored(&made);
            for (key, value) in &metadata {
                prop_assert!(is_own(key));
                prop_assert!(value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{value}");
            }
            let found = from_metadata(&metadata).unwrap();
            prop_assert!(is_same(&found, &made), "{found:?}");
            prop_assert!(found.source_key == made.source_key || found.source_key.starts_with("sha256:"));
        }
    }

    #[test]
    fn what_the_host_adds_to_an_output_leaves_a_plugin_its_part() {
        let made = Provenance {
            source_key: "猫".repeat(key::MAX_KEY / 3),
            source_etag: format!("{}-10000", "0".repeat(32)),
            source_version: Some("v".repeat(64)),
            plugins: vec![PluginVersion { name: "n".repeat(128), digest: "d".repeat(64) }],
        };
        let len: usize = to_metadata(&made).iter().map(|(key, value)| key.len() + value.len()).sum();
        assert!(len + key::MAX_METADATA <= MAX_METADATA, "{len} bytes");
    }

    #[test]
    fn what_is_not_ours_or_not_whole_is_foreign() {
        let made = Provenance {
            source_key: "uploads/a".to_owned(),
            source_etag: "1".to_owned(),
            source_version: None,
            plugins: vec![PluginVersion { name: "resize".to_owned(), digest: "ab".to_owned() }],
        };
        assert_eq!(from_metadata(&HashMap::new()), None);
        for key in ["gristmill-source", "gristmill-source-etag"] {
            let mut metadata = stored(&made);
            metadata.remove(key);
            assert_eq!(from_metadata(&metadata), None, "without {key}");
        }
        let mut metadata = stored(&made);
        metadata.insert("gristmill-plugins".to_owned(), "resize".to_owned());
        assert_eq!(from_metadata(&metadata), None);
    }
}
