//! The immutable snapshot.

use std::{collections::BTreeMap, sync::Arc};

use super::{file::Stamp, load::Refusal, releases::Release, shadow::Shadow, trial::Trial};
use crate::plugin::{Digest, Plugin};

/// Every plugin there is at one moment, by name.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// By the file's name before `.wasm`.
    pub(super) entries: BTreeMap<String, Entry>,
    /// By the plugin's name.
    pub(super) releases: BTreeMap<String, Release>,
}

/// The versions of a plugin that an object may meet.
#[derive(Debug, Clone)]
pub struct Versions {
    /// The one that takes it, unless another does.
    pub stable: Arc<Plugin>,
    /// Takes a share of all objects.
    pub trial: Option<Arc<Trial>>,
    /// Sees what the stable one sees.
    pub shadow: Option<Arc<Shadow>>,
}

/// What is known of one file.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// What jobs call: the last good version of the file.
    pub plugin: Option<Arc<Plugin>>,
    /// Why the file that is there now was refused.
    pub refused: Option<Refusal>,
    /// What the file that is there now holds, while it is being compiled or waits for that.
    pub compiling: Option<Digest>,
    /// The file, and its signature where one is wanted, as they were when they were last read.
    pub(super) stamp: Option<(Stamp, Option<Stamp>)>,
}

impl Catalog {
    /// The stable version of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Plugin>> {
        let file = self.entries.get(name)?.plugin.as_ref()?;
        Some(self.releases.get(name).and_then(|release| release.stable.as_ref()).unwrap_or(file))
    }

    /// The versions of `name` to call now.
    #[must_use]
    pub fn versions(&self, name: &str) -> Option<Versions> {
        let stable = Arc::clone(self.get(name)?);
        let release = self.releases.get(name);
        let trial = release.and_then(|release| release.trial.clone());
        Some(Versions { stable, trial, shadow: release.and_then(|release| release.shadow.clone()) })
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

    /// The same with this plugin in the place of the one that has its name.
    #[must_use]
    pub fn with(mut self, plugin: Plugin) -> Self {
        let name = plugin.name.clone();
        self.releases.remove(&name);
        self.entries.insert(name, Entry { plugin: Some(Arc::new(plugin)), ..Entry::default() });
        self
    }

    /// A catalog of plugins that came from no directory.
    #[must_use]
    pub fn of(plugins: impl IntoIterator<Item = Plugin>) -> Self {
        let entry =
            |plugin: Plugin| (plugin.name.clone(), Entry { plugin: Some(Arc::new(plugin)), ..Entry::default() });
        Self { entries: plugins.into_iter().map(entry).collect(), ..Self::default() }
    }
}
