//! Redrive and purge: one by one, told one by one.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime},
};

use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::select::{self, Selection};
use crate::{
    cli::DeadSelection,
    commands::{
        Fatal,
        out::{Out, complain},
    },
    queue::{DeadLetters, DeadMessage, QueueError},
    text::printable,
};

/// Of a key or an ID on a line.
const MAX_SHOWN: usize = 2_048;

/// What is done with a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Redrive,
    Purge,
}

/// What is done with those that are meant.
pub(super) struct Act {
    pub verb: Verb,
    /// At most so many a second.
    pub rate: Option<u32>,
    pub dry_run: bool,
    pub json: bool,
}

/// How it went so far.
#[derive(Default)]
struct Tally {
    done: u64,
    failed: u64,
    /// Died after the work began, perhaps because we put it back.
    later: u64,
}

impl Act {
    pub async fn on<D: DeadLetters>(
        &self,
        selection: DeadSelection,
        walk: impl AsyncFn() -> Result<D, QueueError>,
    ) -> Result<ExitCode, Fatal> {
        let begin = async || walk().await.map_err(Fatal::failed);
        let mut tally = Tally::default();
        let selection = if selection.ids.is_empty() {
            Selection::by(selection.filter)
        } else {
            // In a walk of its own, before anything is done: only at its end it is known who was meant.
            let found = select::find(&mut begin().await?, &selection.ids).await?;
            found.complain();
            tally.failed += found.problems.len() as u64;
            Selection::Ids(found.messages.into_iter().map(|message| message.id).collect())
        };
        let mut out = Out::new();
        self.walk(begin, selection, &mut tally, &mut out).await?;
        self.sum_up(&tally, &mut out)?;
        Ok(ExitCode::from(u8::from(tally.failed > 0)))
    }

    /// Does it with what is selected, and goes on when one of them fails.
    async fn walk<D: DeadLetters>(
        &self,
        begin: impl AsyncFn() -> Result<D, Fatal>,
        selection: Selection,
        tally: &mut Tally,
        out: &mut Out,
    ) -> Result<(), Fatal> {
        let mut missing = match &selection {
            Selection::Ids(ids) if ids.is_empty() => return Ok(()),
            Selection::Ids(ids) => Some(ids.clone()),
            Selection::Filter(_) => None,
        };
        let mut walk = begin().await?;
        let mut pace = self.pace();
        // What was put back and died again would be put back for ever. Where clocks differ it may be too often,
        // but it ends.
        let started = SystemTime::now();
        while missing.as_ref().is_none_or(|missing| !missing.is_empty()) {
            let messages = walk.next().await.map_err(Fatal::failed)?;
            if messages.is_empty() {
                break;
            }
            for message in &messages {
                let is_meant = selection.takes(message);
                let is_later = is_meant && message.died > started;
                if !is_meant || is_later || self.dry_run {
                    walk.keep(message).await.map_err(Fatal::failed)?;
                }
                if !is_meant || is_later {
                    tally.later += u64::from(is_later);
                    continue;
                }
                missing.as_mut().map(|missing| missing.remove(&message.id));
                if !self.dry_run {
                    if let Some(pace) = &mut pace {
                        pace.tick().await;
                    }
                    if let Err(error) = self.settle(&mut walk, message).await {
                        complain(&format!("`{}`: {error}", printable(&message.id, MAX_SHOWN)));
                        tally.failed += 1;
                        continue;
                    }
                }
                tally.done += 1;
                out.line(&self.line(message))?;
            }
        }
        walk.end().await.map_err(Fatal::failed)?;
        for gone in missing.iter().flatten() {
            complain(&format!("`{}`: {GONE}", printable(gone, MAX_SHOWN)));
            tally.failed += 1;
        }
        Ok(())
    }

    async fn settle<D: DeadLetters>(&self, walk: &mut D, message: &DeadMessage) -> Result<(), String> {
        let settled = match self.verb {
            Verb::Redrive => walk.redrive(message).await,
            Verb::Purge => walk.purge(message).await,
        };
        settled.map_err(|error| match error {
            QueueError::Stale => GONE.to_owned(),
            QueueError::Unavailable(reason) => reason,
        })
    }

    fn pace(&self) -> Option<Interval> {
        let mut interval = interval(Duration::from_secs(1) / self.rate?);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(interval)
    }

    fn action(&self) -> &'static str {
        match (self.verb, self.dry_run) {
            (Verb::Redrive, false) => "redriven",
            (Verb::Purge, false) => "purged",
            (Verb::Redrive, true) => "would be redriven",
            (Verb::Purge, true) => "would be purged",
        }
    }

    fn line(&self, message: &DeadMessage) -> String {
        let key = message.letter.key.as_deref();
        if self.json {
            return json!({ "id": message.id, "key": key, "action": self.action() }).to_string();
        }
        let [id, key] = [&message.id, key.unwrap_or("-")].map(|text| printable(text, MAX_SHOWN));
        format!("{}  {id}  {key}", self.action())
    }

    fn sum_up(&self, tally: &Tally, out: &mut Out) -> Result<(), Fatal> {
        let Tally { done, failed, later } = tally;
        if self.json {
            let summary = json!({ "action": self.action(), "done": done, "failed": failed, "later": later });
            return out.line(&json!({ "summary": summary }).to_string());
        }
        let mut line = format!("{done} {}", self.action());
        if *failed > 0 {
            line.push_str(&format!(", {failed} could not be"));
        }
        if *later > 0 {
            line.push_str(&format!(", {later} left that died since this began"));
        }
        out.line(&line)
    }
}

/// Another operator was quicker, or a newer version of the file came.
const GONE: &str = "it is no longer on the dead-letter queue";
