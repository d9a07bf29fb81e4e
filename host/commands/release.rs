//! `gristmill plugin promote|rollback`, and what `list` says of releases.

use std::process::ExitCode;

use humantime::format_rfc3339_seconds;
use serde_json::json;

use super::{Fatal, out::Out};
use crate::{
    config::{Config, is_plugin_name},
    plugin::short_digest,
    registry::History,
    release::{Kept, Record},
    text,
};

/// What of a name that is none is shown.
const MAX_SHOWN: usize = 100;

/// What to do by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Promote,
    RollBack,
}

/// Changes the record of a plugin. A host that uses it follows.
pub(super) fn change(config: Option<&Config>, plugin: &str, verb: Verb) -> Result<ExitCode, Fatal> {
    if !is_plugin_name(plugin) {
        let shown = text::printable(plugin, MAX_SHOWN);
        return Err(Fatal::Usage(format!("`{shown}` is not a plugin's name: write it as in `NAME.wasm`")));
    }
    let known = config.map(Known::of).transpose()?.flatten();
    let Some(known) = known.filter(|known| known.records.iter().any(|(name, _)| name == plugin)) else {
        return Err(Fatal::Failed(format!(
            "nothing is known of versions of `{plugin}`: no host has loaded it from a plugin directory with this \
             configuration"
        )));
    };
    let changed = known.history.update(plugin, |record| match verb {
        Verb::Promote => record.promote_by_hand(plugin),
        Verb::RollBack => record.roll_back_by_hand(plugin),
    });
    let stable = changed.map_err(Fatal::failed)?.map_err(Fatal::failed)?;
    Out::new().line(&format!("{plugin}: the stable version is {}", short_digest(&stable)))?;
    Ok(ExitCode::SUCCESS)
}

/// What a host has decided so far.
pub(super) struct Known {
    pub history: History,
    records: Vec<(String, Record)>,
}

impl Known {
    /// Nothing where no host has been. Makes nothing there.
    pub fn of(config: &Config) -> Result<Option<Self>, Fatal> {
        let Some(folder) = super::releases(config).filter(|folder| folder.is_dir()) else { return Ok(None) };
        let history = History::open(&folder).map_err(Fatal::failed)?;
        let records = history.records().map_err(Fatal::failed)?;
        Ok(Some(Self { history, records }))
    }

    /// By plugin.
    pub fn records(&self) -> impl Iterator<Item = (&str, &Record)> {
        self.records.iter().map(|(plugin, record)| (plugin.as_str(), record))
    }
}

/// What a version is to its plugin.
fn role(record: &Record, digest: &str) -> &'static str {
    let is = |other: Option<&str>| other == Some(digest);
    match () {
        () if is(record.current()) => "stable",
        () if is(record.trial()) => "canary, being tried",
        () if is(record.canary.as_deref()) => "canary, not tried any more",
        () if is(record.file.as_deref()) => "replaced",
        () => "earlier",
    }
}

/// The newest version first.
fn versions(record: &Record) -> impl Iterator<Item = (&Kept, &'static str)> {
    record.kept.iter().rev().map(|kept| (kept, role(record, &kept.digest)))
}

/// A line for each version.
pub(super) fn rows(plugin: &str, record: &Record) -> Vec<String> {
    let row = |(kept, role): (&Kept, &str)| {
        let since = format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(kept.since));
        format!("{:<33} {:<20} since {since}", format!("{plugin}@{}", short_digest(&kept.digest)), role)
    };
    versions(record).map(row).collect()
}

/// For programs.
pub(super) fn json(plugin: &str, record: &Record) -> serde_json::Value {
    let versions = versions(record)
        .map(|(kept, role)| json!({ "digest": kept.digest, "size": kept.size, "since": kept.since, "role": role }));
    json!({ "plugin": plugin, "versions": versions.collect::<Vec<_>>() })
}
