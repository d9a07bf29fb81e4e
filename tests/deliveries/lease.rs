//! A lease holds what it promises: renewed in time, lost in time, and over when it is ended.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that unwraps says where it failed")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use gristmill::queue::{
    DeadLetter, Message, Queue, QueueError, Receipt,
    lease::{Lease, MAX_LEASE},
};
use tokio::time::{Instant, sleep, timeout};

use super::rig::{VISIBILITY, seconds};
use crate::support::{
    faults::{Fault, When},
    memory_queue::MemoryQueue,
};

type Times = Arc<Mutex<Vec<Duration>>>;

/// One message in the queue, its lease, and when renewals were asked for.
struct Rig {
    queue: MemoryQueue,
    lease: Lease,
    start: Instant,
    renewals: Times,
}

async fn rig(fault: impl Fn(usize, When) -> Fault + Send + Sync + 'static) -> Rig {
    let (start, renewals) = (Instant::now(), Times::default());
    let seen = Arc::clone(&renewals);
    let faults = move |call: &'static str, when: When, _: &str| {
        if call != "set_visibility" {
            return Fault::None;
        }
        let mut seen = seen.lock().unwrap();
        if when == When::Before {
            seen.push(start.elapsed());
        }
        fault(seen.len(), when)
    };
    let queue = MemoryQueue::with_faults(VISIBILITY, Arc::new(faults));
    queue.send("a", "1", "");
    let message = queue.receive(1).await.unwrap().remove(0);
    let lease = Lease::start(Arc::new(queue.clone()), message.receipt, Instant::now());
    Rig { queue, lease, start, renewals }
}

impl Rig {
    fn renewals(&self) -> Vec<u64> {
        seconds(&self.renewals.lock().unwrap())
    }

    async fn is_lost(&self) -> bool {
        timeout(Duration::ZERO, self.lease.lost()).await.is_ok()
    }

    /// How long until the lease is lost.
    async fn lost(&self) -> u64 {
        timeout(MAX_LEASE * 2, self.lease.lost()).await.expect("the lease is never lost");
        self.start.elapsed().as_secs()
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_renewed_at_half_the_timeout() {
    let rig = rig(|_, _| Fault::None).await;
    sleep(Duration::from_secs(100)).await;
    assert_eq!(rig.renewals(), [15, 30, 45, 60, 75, 90]);
    assert!(!rig.is_lost().await);
    assert_eq!(rig.queue.live()[0].visible.duration_since(rig.start).as_secs(), 120);
}

#[tokio::test(start_paused = true)]
async fn dropping_it_stops_the_renewal() {
    let Rig { lease, renewals, .. } = rig(|_, _| Fault::None).await;
    sleep(Duration::from_secs(20)).await;
    drop(lease);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(seconds(&renewals.lock().unwrap()), [15]);
}

#[tokio::test(start_paused = true)]
async fn ending_it_stops_the_renewal() {
    let Rig { lease, renewals, .. } = rig(|_, _| Fault::None).await;
    sleep(Duration::from_secs(20)).await;
    lease.end().await;
    sleep(Duration::from_secs(100)).await;
    assert_eq!(seconds(&renewals.lock().unwrap()), [15]);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_failed_is_tried_again() {
    let rig = rig(|number, when| if number <= 3 && when == When::Before { Fault::Error } else { Fault::None }).await;
    sleep(Duration::from_secs(50)).await;
    assert_eq!(rig.renewals(), [15, 18, 21, 24, 39]);
    assert!(!rig.is_lost().await);
}

#[tokio::test(start_paused = true)]
async fn it_is_lost_when_it_expires() {
    let rig = rig(|_, _| Fault::Error).await;
    assert_eq!(rig.lost().await, 30);
    assert_eq!(rig.renewals(), [15, 18, 21, 24, 27]);
}

#[tokio::test(start_paused = true)]
async fn it_is_lost_at_once_when_somebody_else_has_the_message() {
    let rig = rig(|_, _| Fault::None).await;
    sleep(Duration::from_secs(3)).await;
    rig.queue.redeliver();
    rig.queue.receive(1).await.unwrap();
    assert_eq!(rig.lost().await, 15);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(rig.renewals(), [15]);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_hangs_does_not_count() {
    let rig = rig(|number, _| if number == 2 { Fault::Hang } else { Fault::None }).await;
    assert_eq!(rig.lost().await, 45, "30 s from when the first renewal was asked for");
}

#[tokio::test(start_paused = true)]
async fn a_slow_renewal_counts_from_when_it_was_asked_for() {
    let rig = rig(|number, when| match (number, when) {
        (1, When::After) => Fault::Delay(Duration::from_secs(10)),
        (1, _) => Fault::None,
        _ => Fault::Error,
    })
    .await;
    assert_eq!(rig.lost().await, 45);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_held_for_ever() {
    let rig = rig(|_, _| Fault::None).await;
    assert_eq!(rig.lost().await, MAX_LEASE.as_secs());
    let renewals = rig.renewals().len();
    sleep(Duration::from_secs(1_000)).await;
    assert_eq!(rig.renewals().len(), renewals);
}

/// A queue across a network: what was sent arrives after a second, whether somebody waits for it or not.
struct Far(Arc<Mutex<Vec<(Duration, Duration)>>>, Instant);

impl Queue for Far {
    async fn receive(&self, _: usize) -> Result<Vec<Message>, QueueError> {
        Ok(Vec::new())
    }

    async fn acknowledge(&self, _: &Receipt) -> Result<(), QueueError> {
        Ok(())
    }

    async fn set_visibility(&self, _: &Receipt, after: Duration) -> Result<(), QueueError> {
        let (arrived, start) = (Arc::clone(&self.0), self.1);
        let request = tokio::spawn(async move {
            sleep(Duration::from_secs(1)).await;
            arrived.lock().unwrap().push((start.elapsed(), after));
        });
        request.await.unwrap();
        Ok(())
    }

    async fn dead_letter(&self, _: &Message, _: &DeadLetter) -> Result<(), QueueError> {
        Ok(())
    }

    fn visibility_timeout(&self) -> Duration {
        VISIBILITY
    }
}

#[tokio::test(start_paused = true)]
async fn no_renewal_lands_after_the_end() {
    let (arrived, start) = (Arc::default(), Instant::now());
    let queue = Arc::new(Far(Arc::clone(&arrived), start));
    let message = Message { id: "1".into(), receipt: Receipt("1".into()), body: Bytes::new(), receive_count: 1 };
    let lease = Lease::start(Arc::clone(&queue), message.receipt.clone(), start);
    sleep(Duration::from_millis(15_500)).await;
    lease.end().await;
    queue.set_visibility(&message.receipt, Duration::ZERO).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    let arrived: Vec<u64> = arrived.lock().unwrap().iter().map(|(_, after)| after.as_secs()).collect();
    assert_eq!(arrived, [30, 0], "the release is the last word");
}
