//! Files that appear in a directory become messages, each version of a file once.
//!
//! The system's notifications say quickly what happens; scans, at the start and every few seconds, make up
//! for what they cannot say: files that were there before, notifications that were lost, directories beyond
//! the limit of watches. A file becomes a message when it is finished, as far as that can be known: closed by
//! its writer, moved in, or unchanged for a while (see [`settling`]). Sending a file again that the queue
//! knows does nothing, so no memory of what was sent is kept.
//!
//! Symbolic links, pipes, sockets and devices are left alone, as are names that are not UTF-8.

mod settling;
mod watch;
mod worker;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use self::{settling::Pace, watch::Signals, worker::Worker};
use super::local::LocalQueue;
use crate::directory::Lock;

/// Why the intake could not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch over `{path}`: {reason}", path = path.display())]
pub struct IntakeError {
    path: PathBuf,
    reason: std::io::Error,
}

/// Watches a directory until it is dropped.
#[derive(Debug)]
pub struct Intake {
    shared: Arc<Shared>,
    signals: Signals,
    thread: Option<thread::JoinHandle<()>>,
}

/// What the thread tells its owner.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// Files seen that are not in the queue, and scans that are due.
    pending: AtomicUsize,
}

impl Intake {
    /// Begins to send what is in the locked directory below `prefix`, as events of `bucket`.
    pub fn start(lock: &Lock, prefix: &str, bucket: &str, queue: Arc<LocalQueue>) -> Result<Self, IntakeError> {
        Self::start_at(Pace::default(), lock, prefix, bucket, queue)
    }

    fn start_at(
        pace: Pace,
        lock: &Lock,
        prefix: &str,
        bucket: &str,
        queue: Arc<LocalQueue>,
    ) -> Result<Self, IntakeError> {
        let failed = |reason| IntakeError { path: lock.directory().join(prefix), reason };
        // One is pending from here on: the first scan.
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), pending: AtomicUsize::new(1) });
        let (signals, changes) = watch::channel();
        let worker = Worker::new(pace, lock, prefix, bucket, queue, Arc::clone(&shared), signals.clone())
            .map_err(|reason| failed(reason.into()))?;
        let thread =
            thread::Builder::new().name("intake".to_owned()).spawn(move || worker.run(&changes)).map_err(failed)?;
        Ok(Self { shared, signals, thread: Some(thread) })
    }

    /// Files that were seen and are not in the queue, and scans that have to be done first. Whoever asks
    /// whether all is done looks here first and at the queue second: a file goes from here to there.
    pub fn pending(&self) -> usize {
        // In this order: a change leaves the first count after it is in the second.
        self.signals.waiting() + self.shared.pending.load(Ordering::SeqCst)
    }

    /// Whether it is at work; if not, it has met a bug of its own, which was reported.
    pub fn alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends it. What was not sent is found at the next start.
    pub async fn shutdown(mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // It ended by itself if it panicked, which the panic hook reported.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    fn stop(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.signals.wake();
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
