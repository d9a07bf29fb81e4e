//! Receive, admit, run, settle; and drain when told to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    event::{self, ObjectEvent},
    job::{self, Context, Outcome},
    queue::{DeadLetter, Message, Queue, QueueError, lease::Lease},
    retry::{self, Action, Class, Failure},
    store::Store,
};

/// The most messages that one receive asks for: SQS's own maximum.
const MAX_BATCH: usize = 10;

/// How long a receive that is under way at shutdown may still take; what it brings is released.
const ABSORB_RECEIVE: Duration = Duration::from_secs(25);

/// Pause of the polling while queue or store are down: doubles from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often an acknowledgement, back-off or dead letter is tried while the queue is down. After that
/// the message comes back by itself, and its object is found done.
const SETTLE_TRIES: u32 = 5;

/// What a delivery of one object came to, for those who watch.
#[derive(Debug)]
pub struct Report {
    /// The object's key; the message's id when it could not be read.
    pub key: String,
    /// Which delivery it was, from 1.
    pub attempt: u32,
    /// How long it took, from receipt.
    pub elapsed: Duration,
    /// What happened.
    pub result: Settled,
}

/// How a delivery of one object ended.
#[derive(Debug)]
pub enum Settled {
    /// Finished well, or nothing to do.
    Finished(Outcome),
    /// It comes back after this long.
    Retried(Failure, Duration),
    /// It is in the dead letters.
    DeadLettered(Failure),
    /// It was given back untouched.
    Released,
}

/// Runs jobs until it is told to stop.
pub struct Worker<Q, S> {
    queue: Arc<Q>,
    context: Arc<Context<S>>,
    reports: mpsc::Sender<Report>,
    /// Outages seen in a row; 0 when the last call to queue and store worked.
    outages: Arc<AtomicU32>,
}

/// The two ways to stop.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Receive nothing more; let jobs finish.
    pub drain: CancellationToken,
    /// Give back at once what is not yet being committed.
    pub now: CancellationToken,
}

impl<Q: Queue, S: Store> Worker<Q, S> {
    /// A worker over a queue and what its jobs need. One [`Report`] is sent for each object of each
    /// delivery.
    pub fn new(queue: Arc<Q>, context: Arc<Context<S>>, reports: mpsc::Sender<Report>) -> Self {
        Self { queue, context, reports, outages: Arc::default() }
    }

    /// Polls and works until `shutdown.drain`, then lets the jobs in flight finish within the drain
    /// timeout. Returns when none is left.
    pub async fn run(self, shutdown: &Shutdown) {
        let slots = Arc::new(Semaphore::new(self.context.config.slots));
        let mut jobs = JoinSet::new();
        loop {
            while let Some(ended) = jobs.try_join_next() {
                log_panic(ended);
            }
            let permits = tokio::select! {
                biased;
                () = shutdown.drain.cancelled() => break,
                permits = admit(&slots) => permits,
            };
            tokio::select! {
                biased;
                () = shutdown.drain.cancelled() => break,
                () = self.pause() => {}
            }
            let received = Instant::now();
            let receive = self.queue.receive(permits.len());
            tokio::pin!(receive);
            let messages = tokio::select! {
                messages = &mut receive => messages,
                () = shutdown.drain.cancelled() => {
                    if let Ok(Ok(messages)) = tokio::time::timeout(ABSORB_RECEIVE, receive).await {
                        self.release(messages).await;
                    }
                    break;
                }
            };
            match messages {
                Ok(messages) => {
                    self.outages.store(0, Ordering::Relaxed);
                    for (message, permit) in messages.into_iter().zip(permits) {
                        jobs.spawn(self.delivery(message, received, permit, shutdown.now.clone()).run());
                    }
                }
                Err(error) => {
                    self.outages.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%error, "cannot receive");
                }
            }
        }
        self.drain(jobs, shutdown).await;
    }

    fn delivery(
        &self,
        message: Message,
        received: Instant,
        permit: OwnedSemaphorePermit,
        cancel: CancellationToken,
    ) -> Delivery<Q, S> {
        Delivery {
            queue: Arc::clone(&self.queue),
            context: Arc::clone(&self.context),
            reports: self.reports.clone(),
            outages: Arc::clone(&self.outages),
            cancel: cancel.child_token(),
            message,
            received,
            _permit: permit,
        }
    }

    /// Waits while the queue or the store are down, so that no delivery is spent on finding that out.
    async fn pause(&self) {
        let outages = self.outages.load(Ordering::Relaxed);
        if outages > 0 {
            let doubled = FIRST_PAUSE.saturating_mul(1 << (outages - 1).min(16));
            tokio::time::sleep(doubled.min(LONGEST_PAUSE)).await;
        }
    }

    async fn release(&self, messages: Vec<Message>) {
        for message in messages {
            if let Err(error) = self.queue.set_visibility(&message.receipt, Duration::ZERO).await {
                tracing::warn!(message = message.id, %error, "cannot release, the message comes back when its visibility timeout ends");
            }
        }
    }

    async fn drain(&self, mut jobs: JoinSet<()>, shutdown: &Shutdown) {
        let deadline = Instant::now() + self.context.config.drain_timeout;
        loop {
            tokio::select! {
                biased;
                ended = jobs.join_next() => match ended {
                    Some(ended) => log_panic(ended),
                    None => return,
                },
                // Jobs that are committing finish; the others are cancelled and release their message.
                () = tokio::time::sleep_until(deadline), if !shutdown.now.is_cancelled() => shutdown.now.cancel(),
            }
        }
    }
}

/// At least one slot, and as many as are free up to a batch.
async fn admit(slots: &Arc<Semaphore>) -> Vec<OwnedSemaphorePermit> {
    let mut permits = Vec::with_capacity(MAX_BATCH);
    // The semaphore is never closed, so an error cannot come; without a permit nothing is received.
    permits.extend(Arc::clone(slots).acquire_owned().await);
    while permits.len() < MAX_BATCH
        && let Ok(permit) = Arc::clone(slots).try_acquire_owned()
    {
        permits.push(permit);
    }
    permits
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a job panicked, its message comes back when its visibility timeout ends");
    }
}

/// One delivery of one message.
struct Delivery<Q, S> {
    queue: Arc<Q>,
    context: Arc<Context<S>>,
    reports: mpsc::Sender<Report>,
    outages: Arc<AtomicU32>,
    cancel: CancellationToken,
    message: Message,
    received: Instant,
    _permit: OwnedSemaphorePermit,
}

impl<Q: Queue, S: Store> Delivery<Q, S> {
    async fn run(self) {
        let lease = Lease::start(Arc::clone(&self.queue), self.message.receipt.clone(), self.received);
        let results = {
            let work = self.work();
            tokio::pin!(work);
            tokio::select! {
                results = &mut work => results,
                () = lease.lost() => {
                    tracing::warn!(message = self.message.id, "lost the lease, stopping the job before it commits");
                    self.cancel.cancel();
                    work.await
                }
            }
        };
        lease.end().await;
        self.settle(results).await;
    }

    /// Each object of the message, one by one. Those that are done stay done when the message comes back.
    async fn work(&self) -> Vec<(String, Outcome)> {
        let attempt = self.message.receive_count;
        let max_attempts = self.context.config.retry.max_attempts;
        let unreadable =
            |class, reason: String| vec![(self.message.id.clone(), Outcome::Failed(Failure::new(class, reason)))];
        let events = match event::parse(&self.message.body) {
            Ok(events) => events,
            Err(error) => return unreadable(Class::Malformed, error.to_string()),
        };
        for event in &events.ignored {
            tracing::info!(message = self.message.id, event, "event ignored");
        }
        let mut results = Vec::with_capacity(events.objects.len());
        for event in events.objects {
            let outcome = if attempt > max_attempts {
                let reason = format!(
                    "was delivered {max_attempts} times and the host was stopped each time before it could finish"
                );
                Outcome::Failed(Failure::new(Class::Crashed, reason))
            } else {
                self.one(&event, attempt).await
            };
            results.push((event.key, outcome));
        }
        results
    }

    async fn one(&self, event: &ObjectEvent, attempt: u32) -> Outcome {
        let outcome = job::run(&self.context, event, attempt, &self.cancel).await;
        match &outcome {
            Outcome::Failed(failure) if failure.class == Class::Infrastructure => {
                self.outages.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Processed(_) | Outcome::Skipped(..) => self.outages.store(0, Ordering::Relaxed),
            _ => {}
        }
        outcome
    }
}

/// What happens to a whole message: the strictest of what its objects need.
enum Fate {
    Acknowledge,
    Release,
    Retry(Duration),
    DeadLetter(Failure),
}

impl<Q: Queue, S: Store> Delivery<Q, S> {
    /// Acknowledges, releases, backs off or dead-letters the message, and tells what came of it.
    async fn settle(self, results: Vec<(String, Outcome)>) {
        let fate = self.fate(&results);
        let settled = self.carry_out(&fate, &results).await;
        for (key, outcome) in results {
            let result = match (outcome, &fate) {
                (Outcome::Cancelled, _) => Settled::Released,
                (Outcome::Failed(_), Fate::Acknowledge | Fate::Release) => Settled::Released,
                (Outcome::Failed(failure), Fate::Retry(after)) => Settled::Retried(failure, *after),
                (Outcome::Failed(failure), Fate::DeadLetter(_)) => Settled::DeadLettered(failure),
                (outcome, _) => Settled::Finished(outcome),
            };
            if !settled && matches!(result, Settled::DeadLettered(_)) {
                continue;
            }
            let report = Report { key, attempt: self.message.receive_count, elapsed: self.received.elapsed(), result };
            // Nobody listens any more only when the host is about to end.
            let _ = self.reports.send(report).await;
        }
    }

    fn fate(&self, results: &[(String, Outcome)]) -> Fate {
        let mut fate = Fate::Acknowledge;
        for (_, outcome) in results {
            fate = match (fate, outcome) {
                (dead @ Fate::DeadLetter(_), _) => dead,
                (before, Outcome::Failed(failure)) => {
                    let jitter = fastrand::f64();
                    match (
                        before,
                        retry::decide(failure, self.message.receive_count, &self.context.config.retry, jitter),
                    ) {
                        (_, Action::DeadLetter) => Fate::DeadLetter(failure.clone()),
                        (Fate::Retry(before), Action::Retry { after }) => Fate::Retry(before.max(after)),
                        (Fate::Release, Action::Retry { .. }) => Fate::Release,
                        (_, Action::Retry { after }) => Fate::Retry(after),
                    }
                }
                (Fate::Acknowledge | Fate::Release, Outcome::Cancelled) => Fate::Release,
                (before, _) => before,
            };
        }
        fate
    }

    /// Whether the queue took it. A stale receipt means that somebody else has the message now.
    async fn carry_out(&self, fate: &Fate, results: &[(String, Outcome)]) -> bool {
        let receipt = &self.message.receipt;
        let mut pause = FIRST_PAUSE;
        for _ in 0..SETTLE_TRIES {
            let done = match fate {
                Fate::Acknowledge => self.queue.acknowledge(receipt).await,
                Fate::Release => self.queue.set_visibility(receipt, Duration::ZERO).await,
                Fate::Retry(after) => self.queue.set_visibility(receipt, *after).await,
                Fate::DeadLetter(failure) => {
                    self.queue.dead_letter(&self.message, &self.letter(failure, results)).await
                }
            };
            match done {
                Ok(()) => return true,
                Err(QueueError::Stale) => return false,
                Err(QueueError::Unavailable(error)) => {
                    self.outages.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(message = self.message.id, error, "cannot settle a message");
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2);
                }
            }
        }
        false
    }

    fn letter(&self, failure: &Failure, results: &[(String, Outcome)]) -> DeadLetter {
        let key = match failure.class {
            Class::Malformed => None,
            _ => results.iter().find(|(_, outcome)| matches!(outcome, Outcome::Failed(_))).map(|(key, _)| key.clone()),
        };
        DeadLetter {
            reason: failure.reason.clone(),
            class: failure.class.as_str().to_owned(),
            plugin: failure.plugin.as_ref().map(|plugin| (plugin.name.clone(), plugin.digest.clone())),
            attempts: self.message.receive_count,
            key,
            backtrace: failure.backtrace.clone(),
        }
    }
}
