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
    renewal: AbortOnDropHandle<()>,
}

impl Lease {
    /// Starts to renew the visibility of a message that was received at `received`.
    pub fn start<Q: Queue>(queue: Arc<Q>, receipt: Receipt, received: Instant) -> Self {
        let lost = CancellationToken::new();
        let task = tokio::spawn(renew(queue, receipt, received, lost.clone()));
        Self { lost, renewal: AbortOnDropHandle::new(task) }
    }

    /// Completes when the message may be somebody else's: what has not been committed must not be.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Whether the message may be somebody else's.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Stops the renewal and waits until none is under way, so that it cannot undo what follows: an
    /// acknowledgement, a back-off, a release.
    pub async fn end(self) {
        self.renewal.abort();
        // The only way that it ends with an error is the abort just asked for.
        let _ = self.renewal.await;
    }
}

async fn renew<Q: Queue>(queue: Arc<Q>, receipt: Receipt, received: Instant, lost: CancellationToken) {
    let timeout = queue.visibility_timeout();
    let cap = received + MAX_LEASE;
    let mut expires = received + timeout;
    let mut next = received + timeout / 2;
    loop {
        sleep_until(next.min(expires).min(cap)).await;
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
