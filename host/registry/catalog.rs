//! The immutable snapshot.

use std::{collections::BTreeMap, sync::Arc};

use super::{file::Signature, load::Refusal};
use crate::plugin::{Digest, Plugin};

/// Every plugin there is at one moment, by name.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    pub(super) entries: BTreeMap<String, Entry>,
}

/// What is known of one `NAME.wasm`.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// What jobs call: the last good version of the file.
    pub plugin: Option<Arc<Plugin>>,
    /// Why the file that is there now was refused.
    pub refused: Option<Refusal>,
    /// What the file that is there now holds, while it is being compiled or waits for that.
    pub compiling: Option<Digest>,
    /// The file as it was when it was last read.
    pub(super) signature: Option<Signature>,
}

impl Catalog {
    /// The version of `name` to call now.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Plugin>> {
        self.entries.get(name)?.plugin.as_ref()
    }

    /// Whether there is a `NAME.wasm`, be it good or refused.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Whether the `NAME.wasm` that is there is going to be compiled.
    #[must_use]
    pub fn is_compiling(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.compiling.is_some())
    }

    /// All entries, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// A catalog of plugins that came from no directory.
    #[must_use]
    pub fn of(plugins: impl IntoIterator<Item = Plugin>) -> Self {
        let entry =
            |plugin: Plugin| (plugin.name.clone(), Entry { plugin: Some(Arc::new(plugin)), ..Entry::default() });
        Self { entries: plugins.into_iter().map(entry).collect() }
    }
}
