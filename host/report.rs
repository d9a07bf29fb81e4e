//! What the host shows of its work: a line or a JSON object for each object, a summary at the end.

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::{
    job::{Committed, Outcome},
    plugin::short_digest,
    provenance::PluginVersion,
    retry::{Class, Failure},
    text,
    worker::{Report, Settled},
};

/// Columns that a key gets before the table is bent for it.
const KEY_WIDTH: usize = 36;

/// Of a key or reason on one line.
const MAX_SHOWN: usize = 2_048;

/// Counts of everything that was finished.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Summary {
    /// Results and original are at the destination.
    pub processed: u64,
    /// Moved without a result, because every plugin found nothing to do.
    pub skipped: u64,
    /// Dead-lettered at once: a plugin's reject, or something that can never work.
    pub rejected: u64,
    /// Dead-lettered after the last attempt.
    pub dead: u64,
    /// Deliveries that failed and came back.
    pub retried: u64,
    /// Bytes of the objects finished.
    pub bytes_in: u64,
    /// Bytes of their results.
    pub bytes_out: u64,
    /// Since the start.
    pub seconds: f64,
}

impl Summary {
    /// Whether anything ended in the dead letters.
    #[must_use]
    pub fn has_dead_letters(&self) -> bool {
        self.rejected + self.dead > 0
    }
}

/// What standard output gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A table for people.
    Table,
    /// One JSON object a line.
    Json,
    /// Nothing; finished objects are logged.
    Log,
}

/// One finished object, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Record<'a> {
    key: &'a str,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<&'a str>,
    outputs: Vec<OutputRecord<'a>>,
    plugins: &'a [PluginVersion],
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    attempts: u32,
    bytes_in: u64,
    bytes_out: u64,
    milliseconds: f64,
}

#[derive(Debug, Serialize)]
struct OutputRecord<'a> {
    key: &'a str,
    bytes: u64,
}

/// Receives reports until the last sender is gone, shows each, and returns the counts.
pub struct Reporter {
    style: Style,
    bar: ProgressBar,
    started: Instant,
    summary: Summary,
}

/// The progress line; hidden where standard error is no terminal.
#[must_use]
pub fn progress_bar(style: Style) -> ProgressBar {
    if style == Style::Log {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::no_length();
    // The template is a constant that parses; without it the default style would be shown.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
        bar.set_style(style);
    }
    bar
}

impl Reporter {
    /// Shows reports in `style`, around the progress line.
    #[must_use]
    pub fn new(style: Style, bar: ProgressBar) -> Self {
        Self { style, bar, started: Instant::now(), summary: Summary::default() }
    }

    /// Runs until all senders are gone. `waiting` says how many objects are queued or in work, for the
    /// progress line.
    pub async fn run(
        mut self,
        mut reports: mpsc::Receiver<Report>,
        waiting: impl AsyncFn() -> Option<u64>,
    ) -> io::Result<Summary> {
        /// How often the progress line is brought up to date.
        const REFRESH: Duration = Duration::from_millis(200);
        let mut refresh = tokio::time::interval(REFRESH);
        refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                report = reports.recv() => match report {
                    Some(report) => self.show(&report)?,
                    None => break,
                },
                _ = refresh.tick(), if !self.bar.is_hidden() => self.progress(waiting().await),
            }
        }
        self.bar.finish_and_clear();
        self.summary.seconds = self.started.elapsed().as_secs_f64();
        self.end()?;
        Ok(self.summary)
    }

    fn progress(&self, waiting: Option<u64>) {
        match waiting {
            Some(waiting) if waiting > 0 => {
                let done = self.summary.processed + self.summary.skipped + self.summary.rejected + self.summary.dead;
                self.bar.set_message(format!("{waiting} waiting or in work, {done} done"));
                self.bar.tick();
            }
            _ => self.bar.set_message("waiting for files"),
        }
    }

    fn show(&mut self, report: &Report) -> io::Result<()> {
        let Some(shown) = Shown::of(report) else { return Ok(()) };
        shown.count(&mut self.summary);
        match self.style {
            Style::Json if shown.is_final => self.line(&serde_json::to_string(&shown.record(report))?),
            Style::Table => self.line(&shown.row(report)),
            Style::Log => {
                shown.log(report);
                Ok(())
            }
            Style::Json => Ok(()),
        }
    }

    fn end(&self) -> io::Result<()> {
        let s = &self.summary;
        match self.style {
            Style::Json => self.line(&serde_json::json!({ "summary": s }).to_string()),
            Style::Table => {
                let counts =
                    [("processed", s.processed), ("skipped", s.skipped), ("rejected", s.rejected), ("dead", s.dead)];
                let counts: Vec<String> =
                    counts.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{n} {name}")).collect();
                let counts = if counts.is_empty() { "nothing to do".to_owned() } else { counts.join(", ") };
                let retried = if s.retried > 0 { format!(" after {} retries", s.retried) } else { String::new() };
                self.line(&format!(
                    "{counts}{retried} in {:.1} s, {} in, {} out",
                    s.seconds,
                    ByteSize(s.bytes_in),
                    ByteSize(s.bytes_out)
                ))
            }
            Style::Log => {
                tracing::info!(
                    processed = s.processed,
                    skipped = s.skipped,
                    rejected = s.rejected,
                    dead = s.dead,
                    retried = s.retried,
                    "stopped"
                );
                Ok(())
            }
        }
    }

    fn line(&self, line: &str) -> io::Result<()> {
        let written = self.bar.suspend(|| writeln!(io::stdout().lock(), "{line}"));
        match written {
            // `gristmill dev … | head` is no reason to stop the work.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

/// One report in the words that are shown.
struct Shown<'a> {
    outcome: &'static str,
    is_final: bool,
    committed: Option<&'a Committed>,
    failure: Option<&'a Failure>,
    reason: Option<String>,
}

impl<'a> Shown<'a> {
    /// Nothing for what needs no line: an object given back untouched.
    fn of(report: &'a Report) -> Option<Self> {
        let shown = |outcome| Self { outcome, is_final: true, committed: None, failure: None, reason: None };
        Some(match &report.result {
            Settled::Released | Settled::Finished(Outcome::Cancelled | Outcome::Failed(_)) => return None,
            Settled::Finished(Outcome::Processed(done)) => Self { committed: Some(done), ..shown("processed") },
            Settled::Finished(Outcome::Skipped(done, reason)) => {
                Self { committed: Some(done), reason: Some(reason.clone()), ..shown("skipped") }
            }
            Settled::Finished(Outcome::AlreadyDone) => {
                Self { reason: Some("an earlier delivery did it all".into()), ..shown("processed") }
            }
            Settled::Finished(Outcome::Superseded) => {
                Self { reason: Some("overwritten meanwhile, the newer one follows".into()), ..shown("superseded") }
            }
            Settled::Finished(Outcome::Vanished) => {
                Self { reason: Some("gone before it could be processed".into()), ..shown("vanished") }
            }
            Settled::Finished(Outcome::Ignored(reason)) => Self { reason: Some(reason.clone()), ..shown("ignored") },
            Settled::Retried(failure, after) => {
                let reason = format!("{}; again in {:.1} s", failure.reason, after.as_secs_f64());
                Self { failure: Some(failure), reason: Some(reason), is_final: false, ..shown("retry") }
            }
            Settled::DeadLettered(failure) => {
                let outcome = if failure.class.is_rejection() { "rejected" } else { "dead" };
                Self { failure: Some(failure), reason: Some(failure.reason.clone()), ..shown(outcome) }
            }
        })
    }

    fn count(&self, summary: &mut Summary) {
        let counter = match self.outcome {
            "processed" => &mut summary.processed,
            "skipped" => &mut summary.skipped,
            "rejected" => &mut summary.rejected,
            "dead" => &mut summary.dead,
            "retry" => &mut summary.retried,
            _ => return,
        };
        *counter += 1;
        summary.bytes_in = summary.bytes_in.saturating_add(self.bytes_in());
        summary.bytes_out = summary.bytes_out.saturating_add(self.bytes_out());
    }

    fn bytes_in(&self) -> u64 {
        self.committed.map_or(0, |done| done.size)
    }

    fn bytes_out(&self) -> u64 {
        self.committed.map_or(0, |done| done.outputs.iter().map(|(_, bytes)| bytes).sum())
    }

    fn plugins(&self) -> &[PluginVersion] {
        match (self.committed, self.failure) {
            (Some(done), _) => &done.plugins,
            (None, Some(failure)) => failure.plugin.as_slice(),
            (None, None) => &[],
        }
    }

    fn record<'b>(&'b self, report: &'b Report) -> Record<'b> {
        let outputs = self.committed.map_or(&[][..], |done| &done.outputs);
        Record {
            key: &report.key,
            outcome: self.outcome,
            destination: self.committed.map(|done| done.destination.as_str()),
            outputs: outputs.iter().map(|(key, bytes)| OutputRecord { key, bytes: *bytes }).collect(),
            plugins: self.plugins(),
            class: self.failure.map(|failure| failure.class.as_str()),
            reason: self.reason.as_deref(),
            attempts: report.attempt,
            bytes_in: self.bytes_in(),
            bytes_out: self.bytes_out(),
            milliseconds: report.elapsed.as_secs_f64() * 1e3,
        }
    }

    /// `processed  uploads/cat.jpg   4.1 MiB   412 ms  resize 3f2a91c04b1e`, and what came of it below.
    fn row(&self, report: &Report) -> String {
        let size = self.committed.map_or(String::new(), |done| ByteSize(done.size).to_string());
        let plugins: Vec<String> =
            self.plugins().iter().map(|p| format!("{} {}", p.name, short_digest(&p.digest))).collect();
        let mut row = format!(
            "{:<10} {:<KEY_WIDTH$} {:>10} {:>7.0} ms  {}",
            self.outcome,
            text::printable(&report.key, MAX_SHOWN),
            size,
            report.elapsed.as_secs_f64() * 1e3,
            plugins.join(", "),
        );
        for (key, bytes) in self.committed.iter().flat_map(|done| &done.outputs) {
            row.push_str(&format!("\n           -> {} ({})", text::printable(key, MAX_SHOWN), ByteSize(*bytes)));
        }
        if let Some(reason) = &self.reason {
            row.push_str(&format!("\n           {}", text::printable(reason, MAX_SHOWN)));
        }
        row
    }

    fn log(&self, report: &Report) {
        let key = text::printable(&report.key, MAX_SHOWN);
        let plugins: Vec<String> =
            self.plugins().iter().map(|p| format!("{}@{}", p.name, short_digest(&p.digest))).collect();
        let (outcome, plugins, attempt) = (self.outcome, plugins.join(","), report.attempt);
        let milliseconds = report.elapsed.as_millis() as u64;
        let reason = self.reason.as_deref();
        match (self.failure, self.outcome) {
            (None, "vanished") => tracing::error!(key, outcome, attempt, milliseconds, reason, "object finished"),
            (None, _) => {
                let (bytes_in, bytes_out) = (self.bytes_in(), self.bytes_out());
                tracing::info!(
                    key,
                    outcome,
                    plugins,
                    attempt,
                    milliseconds,
                    bytes_in,
                    bytes_out,
                    reason,
                    "object finished"
                );
            }
            (Some(failure), _) => {
                let (class, backtrace) = (failure.class.as_str(), failure.backtrace.as_deref());
                if failure.class == Class::Infrastructure || self.outcome == "retry" {
                    tracing::warn!(
                        key,
                        outcome,
                        class,
                        plugins,
                        attempt,
                        milliseconds,
                        reason,
                        backtrace,
                        "object failed"
                    );
                } else {
                    tracing::error!(
                        key,
                        outcome,
                        class,
                        plugins,
                        attempt,
                        milliseconds,
                        reason,
                        backtrace,
                        "object failed"
                    );
                }
            }
        }
    }
}
