//! The lease on a received message: renewed until it is dropped, ended, or lost.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Queue, QueueError, Receipt};

/// The longest that a message can be held: what SQS allows from receipt on, less a minute for clocks
/// that differ.
pub const MAX_LEASE: Duration = Duration::from_secs(12 * 60 * 60 - 60);

/// A renewal that failed for a passing reason is tried again after this part of the visibility timeout.
const RETRY_PART: u32 = 10;

/// Keeps one message invisible to others. Dropping it stops the renewal.
pub struct Lease {
    lost: CancellationToken,
    ended: CancellationToken,
    renewal: AbortOnDropHandle<()>,
}

impl Lease {
    /// Starts to renew the visibility of a message that was received at `received`.
    pub fn start<Q: Queue>(queue: Arc<Q>, receipt: Receipt, received: Instant) -> Self {
        let (lost, ended) = (CancellationToken::new(), CancellationToken::new());
        let task = tokio::spawn(renew(queue, receipt, received, lost.clone(), ended.clone()));
        Self { lost, ended, renewal: AbortOnDropHandle::new(task) }
    }

    /// Completes when the message may be somebody else's: what has not been committed must not be.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Stops the renewal and waits for one that is under way, at most until the lease expires: a request
    /// that has been sent cannot be called back, and would undo what follows, a back-off or a release.
    pub async fn end(self) {
        self.ended.cancel();
        if let Err(error) = self.renewal.await {
            tracing::error!(%error, "the renewal of a lease panicked");
        }
    }
}

async fn renew<Q: Queue>(
    queue: Arc<Q>,
    receipt: Receipt,
    received: Instant,
    lost: CancellationToken,
    ended: CancellationToken,
) {
    let timeout = queue.visibility_timeout();
    let cap = received + MAX_LEASE;
    let mut expires = received + timeout;
    let mut next = received + timeout / 2;
    loop {
        tokio::select! {
            biased;
            () = ended.cancelled() => return,
            () = sleep_until(next.min(expires).min(cap)) => {}
        }
        let now = Instant::now();
        if now >= expires || now >= cap {
            break;
        }
        // A renewal that has not come back by then has not happened.
        match tokio::time::timeout_at(expires, queue.set_visibility(&receipt, timeout)).await {
            Ok(Ok(())) => {
                // Counted from before the call: the queue's clock started no earlier than that.
                expires = now + timeout;
                next = now + timeout / 2;
            }
            Ok(Err(QueueError::Unavailable(_))) => next = Instant::now() + timeout / RETRY_PART,
            Ok(Err(QueueError::Stale)) | Err(_) => break,
        }
    }
    lost.cancel();
}
