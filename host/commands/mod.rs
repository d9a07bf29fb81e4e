//! The verbs, and the ways in which any of them can end badly.

pub mod check;
pub mod dlq;
mod file;
mod out;
pub mod plugin;
pub mod reconcile;
mod release;
pub mod replay;
pub mod serve;
mod signing;

use std::{fmt, path::PathBuf, process::ExitCode};

use tokio::runtime::{Builder, Runtime};

use crate::{
    aws,
    config::{Bucket, Config},
    queue::sqs::SqsQueue,
    store::s3::S3Store,
};

/// Why the process ends without having done what it was asked to. The codes are those of sysexits.h.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// Exit code 64.
    #[error("{0}")]
    Usage(String),
    /// Exit code 78. The text may have several lines, one a problem.
    #[error("wrong configuration\n{0}")]
    Config(String),
    /// Exit code 1.
    #[error("{0}")]
    Failed(String),
}

impl Fatal {
    /// Wraps the error of something that the host cannot do without.
    pub fn failed(error: impl fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// What the process exits with.
    #[must_use]
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Usage(_) => 64,
            Self::Config(_) => 78,
            Self::Failed(_) => 1,
        })
    }
}

/// The bucket's name when a directory plays it. Not the directory's, which may be renamed while there are
/// messages about what is in it.
pub const LOCAL_BUCKET: &str = "local";

/// Where the verbs that do one thing after the other run.
fn runtime() -> Result<Runtime, Fatal> {
    let built = Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Fatal::Failed(format!("cannot start: {error}")))
}

/// The queue and the store of a bucket. Only the queue is asked anything yet.
async fn connect(bucket: &Bucket, config: &Config) -> Result<(SqsQueue, S3Store), Fatal> {
    let clients = aws::clients(bucket).await;
    let dead = bucket.dead_letter_queue_url.as_deref();
    let queue = SqsQueue::connect(clients.sqs, &bucket.queue_url, dead, config.visibility_timeout).await;
    let store = S3Store::new(clients.s3, &bucket.name, bucket.copy_in_parts_above);
    Ok((queue.map_err(Fatal::failed)?, store))
}

/// The store of a bucket alone.
async fn store(bucket: &Bucket) -> S3Store {
    let clients = aws::clients(bucket).await;
    S3Store::new(clients.s3, &bucket.name, bucket.copy_in_parts_above)
}

/// Where the versions of plugins are kept, and what was decided about them.
fn releases(config: &Config) -> Option<PathBuf> {
    Some(config.state.as_ref()?.join("releases"))
}
