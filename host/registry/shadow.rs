//! A version that sees what the stable one sees, and in what the two differ.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    made::Made,
    plugin::{Digest, Plugin},
    release::Side,
};

/// Objects with differences that are logged for one shadow. Whoever wants to see more knows enough.
const MAX_TOLD: u64 = 100;

/// One shadow beside one stable version. What it came to is logged when it ends.
pub struct Shadow {
    /// The version that is watched.
    pub plugin: Arc<Plugin>,
    pub(super) stable: Digest,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    compared: u64,
    differing: u64,
    missed: u64,
    stable: Side,
    shadow: Side,
}

impl Shadow {
    pub(super) fn new(plugin: Arc<Plugin>, stable: Digest) -> Self {
        let (name, shadow, beside) = (&plugin.name, plugin.digest.short(), stable.short());
        tracing::info!(plugin = name, shadow, stable = beside, "shadow begins");
        Self { plugin, stable, counts: Mutex::default() }
    }

    /// Both versions have seen the object. Each comes with what it made and how long that took.
    pub fn compared(&self, key: &str, stable: (&Made, Duration), shadow: (&Made, Duration)) {
        let differences = stable.0.differences(shadow.0);
        let mut counts = self.counts();
        counts.compared += 1;
        counts.stable.add(Some(stable.1));
        counts.shadow.add(Some(shadow.1));
        if differences.is_empty() {
            return;
        }
        counts.differing += 1;
        let is_told = counts.differing <= MAX_TOLD;
        drop(counts);
        if is_told {
            let (plugin, digest, reason) = (&self.plugin.name, self.plugin.digest.short(), shadow.0.reason.as_deref());
            let [stable_ms, shadow_ms] = [stable.1, shadow.1].map(|took| took.as_secs_f64() * 1e3);
            let differences = differences.join("; ");
            tracing::warn!(plugin, shadow = digest, key, differences, reason, stable_ms, shadow_ms, "shadow differs");
        }
    }

    /// An object was left out: the host was busy, or the object was gone before the shadow could see it.
    pub fn missed(&self) {
        let mut counts = self.counts();
        counts.missed += 1;
        let is_first = counts.missed == 1;
        drop(counts);
        if is_first {
            let (plugin, shadow) = (&self.plugin.name, self.plugin.digest.short());
            tracing::warn!(plugin, shadow, "the host is busy, objects are left out for the shadow");
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        let (plugin, shadow, stable) = (&self.plugin.name, self.plugin.digest.short(), self.stable.short());
        let Counts { compared, differing, missed, stable: stable_side, shadow: shadow_side } = &*self.counts();
        let [stable_ms, shadow_ms] =
            [stable_side, shadow_side].map(|side| side.median().map(|median| median.as_secs_f64() * 1e3));
        tracing::info!(plugin, shadow, stable, compared, differing, missed, stable_ms, shadow_ms, "shadow ended");
    }
}

impl fmt::Debug for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shadow").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}
