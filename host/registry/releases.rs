//! From what the plugin directory holds to what is called: decided versions, canaries and shadows.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::{Catalog, History, HistoryError, load::Source, shadow::Shadow, trial::Trial};
use crate::{
    config::Canary,
    plugin::{Digest, Plugin, short_digest},
    release::{Decision, Evidence, Record, Role, plugin_of},
};

/// What is called beside, or instead of, what `NAME.wasm` holds.
#[derive(Debug, Clone, Default)]
pub struct Release {
    /// The stable version, when that is another one than the file's.
    pub stable: Option<Arc<Plugin>>,
    /// The canary that takes a share of the objects.
    pub trial: Option<Arc<Trial>>,
    /// The version that sees what the stable one sees.
    pub shadow: Option<Arc<Shadow>>,
    /// What the files held.
    file: Option<Digest>,
    canary: Option<Digest>,
    /// The stable version as decided.
    decided: Option<String>,
    /// What is wrong with the record or the version that it names.
    problem: Option<String>,
}

/// Who decides about releases, and where that is remembered.
pub struct Releases {
    history: History,
    rules: BTreeMap<String, Canary>,
    decided: Arc<dyn Fn() + Send + Sync>,
}

impl Releases {
    /// Remembers in this folder. `rules` are those of the plugins that somebody named.
    ///
    /// # Errors
    /// When the folder cannot be made, or others could write to it.
    pub fn open(folder: &Path, rules: BTreeMap<String, Canary>) -> Result<Self, HistoryError> {
        Ok(Self { history: History::open(folder)?, rules, decided: Arc::new(|| ()) })
    }

    /// Where it is remembered.
    pub(super) fn folder(&self) -> &Path {
        self.history.folder()
    }

    /// Has this called whenever a trial has come to a decision, which the next [`Releases::apply`] carries out.
    pub(super) fn on_decision(self, decided: impl Fn() + Send + Sync + 'static) -> Self {
        Self { decided: Arc::new(decided), ..self }
    }

    /// Fills in the releases of a catalog that a scan of the source has made. Blocks, and for long only where a
    /// version from the history has to be compiled anew.
    pub(super) fn apply(&self, source: &Source, catalog: &mut Catalog, previous: &Catalog) {
        catalog.releases.clear();
        let files = catalog.entries.keys().filter_map(|stem| Some(plugin_of(stem)?.0));
        let known = previous.releases.keys().map(String::as_str);
        let plugins: BTreeSet<String> = files.chain(known).map(str::to_owned).collect();
        for plugin in plugins {
            let before = previous.releases.get(&plugin).cloned().unwrap_or_default();
            let one = One { releases: self, plugin: &plugin, catalog: &*catalog, source };
            let release = one.release(&before);
            let release =
                release.unwrap_or_else(|error| Release { problem: Some(error.to_string()), ..before.clone() });
            if let Some(problem) = &release.problem
                && before.problem.as_ref() != Some(problem)
            {
                tracing::error!(plugin, problem, "a version of a plugin cannot be used, what was in use stays in use");
            }
            if release.file.is_some() || release.canary.is_some() || release.problem.is_some() {
                catalog.releases.insert(plugin, release);
            }
        }
    }
}

/// One plugin, while its release is being worked out.
struct One<'a> {
    releases: &'a Releases,
    plugin: &'a str,
    catalog: &'a Catalog,
    source: &'a Source,
}

impl One<'_> {
    fn release(&self, before: &Release) -> Result<Release, HistoryError> {
        let [file, canary, shadow] = [Role::Stable, Role::Canary, Role::Shadow].map(|role| self.version(role));
        // A file that nobody can tell anything of yet is not a file that is gone.
        if file.is_none() && self.catalog.contains(self.plugin) {
            return Ok(before.clone());
        }
        let [file_digest, canary_digest] = [&file, &canary].map(|plugin| plugin.as_ref().map(|plugin| plugin.digest));
        let has_changed = (file_digest, canary_digest) != (before.file, before.canary);
        if has_changed {
            self.keep(Role::Stable, file.as_deref())?;
            self.keep(Role::Canary, canary.as_deref())?;
        }
        let outcome = before.trial.as_ref().and_then(|trial| Some((trial, trial.decision()?)));
        let (record, is_carried_out) = self.releases.history.update(self.plugin, |record| {
            // Hosts that share the folder see a change one after the other: each tells of its own sight once.
            if has_changed {
                let [file, canary] = [file_digest, canary_digest].map(|digest| digest.map(|digest| digest.to_string()));
                record.directory_holds(file.as_deref(), canary.as_deref());
            }
            let is_carried_out =
                outcome.as_ref().is_some_and(|(trial, (decision, _))| carry_out(record, trial, decision));
            (record.clone(), is_carried_out)
        })?;
        if let Some((trial, (decision, evidence))) = &outcome
            && is_carried_out
        {
            self.tell(trial, decision, evidence);
        }

        let mut release = Release {
            file: file_digest,
            canary: canary_digest,
            decided: record.current().map(str::to_owned),
            ..Release::default()
        };
        let Some(file) = file else { return Ok(release) };
        let is_other = record.current().filter(|current| *current != file.digest.to_string());
        if let Some(current) = is_other {
            let loaded = [&canary, &before.stable].into_iter().flatten();
            match loaded.into_iter().find(|plugin| plugin.digest.to_string() == current) {
                Some(plugin) => release.stable = Some(Arc::clone(plugin)),
                // Once is enough: it does not get better by itself.
                None if before.problem.is_some() && before.decided == release.decided => {
                    release.problem.clone_from(&before.problem);
                }
                None => match self.kept(current) {
                    Ok(plugin) => release.stable = Some(Arc::new(plugin)),
                    Err(error) => release.problem = Some(format!("version {}: {error}", short_digest(current))),
                },
            }
        }
        if !has_changed && outcome.is_none() && before.decided.is_some() && before.decided != release.decided {
            let digest = release.decided.as_deref().map(short_digest);
            tracing::info!(plugin = self.plugin, digest, "another version was made the stable one by hand");
        }
        let stable = release.stable.as_ref().unwrap_or(&file).digest;
        let tried = canary.filter(|canary| record.trial() == Some(canary.digest.to_string().as_str()));
        release.trial = tried.map(|canary| self.trial(canary, stable, before));
        if !has_changed
            && outcome.is_none()
            && release.trial.is_none()
            && let Some(trial) = &before.trial
            && trial.stable == stable
        {
            let canary = trial.canary.digest.short();
            tracing::info!(plugin = self.plugin, canary, "the canary was rolled back by hand");
        }
        let watched = shadow.filter(|shadow| shadow.digest != stable);
        release.shadow = watched.map(|shadow| {
            let same = before.shadow.as_ref().filter(|it| it.plugin.digest == shadow.digest && it.stable == stable);
            same.map_or_else(|| Arc::new(Shadow::new(shadow, stable)), Arc::clone)
        });
        Ok(release)
    }

    /// What the file of that role holds.
    fn version(&self, role: Role) -> Option<Arc<Plugin>> {
        self.catalog.entries.get(&role.stem(self.plugin))?.plugin.clone()
    }

    /// Keeps the bytes of a version that was just loaded. If the file is another one by now, the next scan loads
    /// that, and there was hardly an object that this one took.
    fn keep(&self, role: Role, version: Option<&Plugin>) -> Result<(), HistoryError> {
        let Some(version) = version else { return Ok(()) };
        let history = &self.releases.history;
        let wants_signature = !self.source.trust.signed_by.is_empty();
        let has_signature = || Ok(history.signature(&version.digest.to_string())?.is_some());
        if history.keeps(self.plugin, version.digest)? && (!wants_signature || has_signature()?) {
            return Ok(());
        }
        match self.source.read(&role.stem(self.plugin)) {
            Ok((bytes, signature)) if Digest::of(&bytes) == version.digest => {
                history.keep(self.plugin, version.digest, &bytes, signature.as_deref())
            }
            _ => Ok(()),
        }
    }

    fn kept(&self, digest: &str) -> Result<Plugin, String> {
        let Source { engine, compiler, trust, .. } = self.source;
        self.releases.history.load(engine, compiler, trust, self.plugin, digest)
    }

    /// The trial goes on as long as neither side nor the rules change.
    fn trial(&self, canary: Arc<Plugin>, stable: Digest, before: &Release) -> Arc<Trial> {
        let rules = self.releases.rules.get(self.plugin).copied().unwrap_or_default();
        let same = before.trial.as_ref().filter(|trial| trial.canary.digest == canary.digest && trial.stable == stable);
        if let Some(trial) = same {
            return Arc::clone(trial);
        }
        let (share, after) = (rules.share, rules.after);
        let [canary_digest, stable_digest] = [canary.digest, stable].map(|digest| digest.short());
        tracing::info!(
            plugin = self.plugin,
            canary = canary_digest,
            stable = stable_digest,
            share,
            after,
            "canary begins"
        );
        let decided = Arc::clone(&self.releases.decided);
        Arc::new(Trial::new(canary, stable, rules, move || decided()))
    }

    fn tell(&self, trial: &Trial, decision: &Decision, evidence: &Evidence) {
        let (plugin, stable, canary) = (self.plugin, trial.stable.short(), trial.canary.digest.short());
        let Evidence { stable_calls, stable_failed, canary_calls, canary_failed, worse, .. } = *evidence;
        let [stable_ms, canary_ms] = [evidence.stable_median, evidence.canary_median].map(milliseconds);
        match decision {
            Decision::Promote => tracing::info!(
                plugin,
                canary,
                stable,
                canary_calls,
                canary_failed,
                worse,
                canary_ms,
                stable_calls,
                stable_failed,
                stable_ms,
                "canary promoted"
            ),
            Decision::RollBack(reason) => tracing::warn!(
                plugin,
                canary,
                stable,
                reason = reason.as_str(),
                canary_calls,
                canary_failed,
                worse,
                canary_ms,
                stable_calls,
                stable_failed,
                stable_ms,
                "canary rolled back"
            ),
        }
    }
}

/// Unless somebody was faster, by hand or in another process.
fn carry_out(record: &mut Record, trial: &Trial, decision: &Decision) -> bool {
    let canary = trial.canary.digest.to_string();
    if record.trial() != Some(&canary) {
        return false;
    }
    match decision {
        Decision::Promote => record.promote(&canary),
        Decision::RollBack(_) => record.reject(&canary),
    }
    true
}

fn milliseconds(median: Option<Duration>) -> Option<f64> {
    median.map(|median| median.as_secs_f64() * 1e3)
}
