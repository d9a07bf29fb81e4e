//! A canary while it is being tried: jobs report to it, and the registry acts on what it decides.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    config::Canary,
    plugin::{Digest, Plugin},
    release::{Decision, Evidence, Tally, is_in_share},
};

/// One canary beside one stable version.
pub struct Trial {
    /// The version that is tried.
    pub canary: Arc<Plugin>,
    pub(super) stable: Digest,
    pub(super) rules: Canary,
    state: Mutex<State>,
    decided: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct State {
    tally: Tally,
    decision: Option<Decision>,
}

impl Trial {
    /// Begins with nothing known. `decided` is called once, when there is a decision.
    pub(super) fn new(
        canary: Arc<Plugin>,
        stable: Digest,
        rules: Canary,
        decided: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self { canary, stable, rules, state: Mutex::default(), decided: Box::new(decided) }
    }

    /// Whether the canary takes this object. Once it is to be rolled back it takes none, even before everybody
    /// has been told.
    #[must_use]
    pub fn takes(&self, key: &str, etag: &str) -> bool {
        is_in_share(self.rules.share, key, etag) && !matches!(self.state().decision, Some(Decision::RollBack(_)))
    }

    /// See [`Tally::stable`].
    pub fn stable(&self, took: Option<Duration>) {
        self.count(|tally| tally.stable(took));
    }

    /// See [`Tally::canary_worked`].
    pub fn canary_worked(&self, took: Duration) {
        self.count(|tally| tally.canary_worked(took));
    }

    /// See [`Tally::canary_failed`].
    pub fn canary_failed(&self, stable_worked: bool) {
        self.count(|tally| tally.canary_failed(stable_worked));
    }

    /// What was decided, and on what grounds.
    pub(super) fn decision(&self) -> Option<(Decision, Evidence)> {
        let state = self.state();
        Some((state.decision.clone()?, state.tally.evidence()))
    }

    fn count(&self, count: impl FnOnce(&mut Tally)) {
        let mut state = self.state();
        if state.decision.is_some() {
            return;
        }
        count(&mut state.tally);
        state.decision = state.tally.decide(&self.rules);
        let is_decided = state.decision.is_some();
        drop(state);
        if is_decided {
            (self.decided)();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").field("canary", &self.canary).field("rules", &self.rules).finish_non_exhaustive()
    }
}
