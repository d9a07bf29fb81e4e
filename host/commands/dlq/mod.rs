//! `gristmill dlq`: list, show, redrive and purge dead letters, of local mode and of SQS alike.

mod act;
mod select;
mod show;

use std::{path::Path, process::ExitCode, sync::Arc};

use super::{Fatal, out::Out};
use crate::{
    cli::DlqCommand,
    config::{Config, Place},
    directory::STATE,
    queue::{
        DeadLetters, QueueError,
        local::{Clock, LocalDeadLetters, LocalQueue},
    },
};
use act::{Act, Verb};
use select::Selection;

/// `gristmill dlq …`.
///
/// # Errors
/// When the queue is not there or cannot serve.
pub fn run(command: DlqCommand, config: &Config) -> Result<ExitCode, Fatal> {
    super::runtime()?.block_on(async {
        match &config.place {
            Place::Directory(directory) => {
                let queue = Arc::new(open(directory, config)?);
                on(command, async || Ok(LocalDeadLetters::new(Arc::clone(&queue)))).await
            }
            Place::Bucket(bucket) => {
                let (queue, _) = super::connect(bucket, config).await?;
                on(command, async || queue.dead_letters()).await
            }
        }
    })
}

/// The queue of a directory that a host has served. Nothing is made where none has.
fn open(directory: &Path, config: &Config) -> Result<LocalQueue, Fatal> {
    let path = directory.join(STATE).join("queue.db");
    if !path.is_file() {
        let directory = directory.display();
        return Err(Fatal::Failed(format!(
            "`{directory}` has no queue, for no gristmill has served it: name the directory that you gave to \
             `gristmill dev`"
        )));
    }
    LocalQueue::open(&path, config.visibility_timeout, Clock::system()).map_err(Fatal::failed)
}

/// The same for both kinds of queue. `walk` begins a walk.
async fn on<D: DeadLetters>(
    command: DlqCommand,
    walk: impl AsyncFn() -> Result<D, QueueError>,
) -> Result<ExitCode, Fatal> {
    match command {
        DlqCommand::List { filter, limit, json, .. } => {
            let walk = walk().await.map_err(Fatal::failed)?;
            list(walk, &Selection::by(filter), limit.unwrap_or(u64::MAX), json).await
        }
        DlqCommand::Show { ids, json, .. } => show(walk().await.map_err(Fatal::failed)?, &ids, json).await,
        DlqCommand::Redrive { selection, rate, dry_run, json, .. } => {
            Act { verb: Verb::Redrive, rate, dry_run, json }.on(selection, walk).await
        }
        DlqCommand::Purge { selection, dry_run, json, .. } => {
            Act { verb: Verb::Purge, rate: None, dry_run, json }.on(selection, walk).await
        }
    }
}

async fn list<D: DeadLetters>(
    mut walk: D,
    selection: &Selection,
    limit: u64,
    as_json: bool,
) -> Result<ExitCode, Fatal> {
    let (mut out, mut table, mut shown) = (Out::new(), show::Table::new(Out::is_terminal()), 0);
    while shown < limit && out.is_open() {
        let messages = walk.next().await.map_err(Fatal::failed)?;
        if messages.is_empty() {
            break;
        }
        for message in &messages {
            if shown < limit && selection.takes(message) {
                let lines = if as_json { vec![show::json(message).to_string()] } else { table.rows(message) };
                lines.iter().try_for_each(|line| out.line(line))?;
                shown += 1;
            }
            walk.keep(message).await.map_err(Fatal::failed)?;
        }
    }
    walk.end().await.map_err(Fatal::failed)?;
    if shown == 0 && !as_json {
        out.line("no dead letters")?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn show<D: DeadLetters>(mut walk: D, ids: &[String], as_json: bool) -> Result<ExitCode, Fatal> {
    let found = select::find(&mut walk, ids).await?;
    let mut out = Out::new();
    for (index, message) in found.messages.iter().enumerate() {
        if as_json {
            out.line(&show::json_in_full(message).to_string())?;
        } else {
            if index > 0 {
                out.line("")?;
            }
            show::in_full(message).iter().try_for_each(|line| out.line(line))?;
        }
    }
    Ok(if found.complain() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}
