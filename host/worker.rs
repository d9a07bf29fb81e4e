//! Receive, admit, run, settle; and drain when told to.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{Admission, Seat},
    event::{self, ObjectEvent},
    job::{self, Context, Outcome},
    queue::{DeadLetter, Message, Queue, QueueError, lease::Lease},
    retry::{self, Action, Class, Failure},
    store::Store,
};

/// The most messages that one receive asks for: SQS's own maximum.
const MAX_BATCH: usize = 10;

/// How long a receive may take: longer than the longest long poll. Receives have been seen to hang for ever.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(25);

/// How long any other call of the queue may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause of the polling while queue or store are down: doubles from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How often an acknowledgement, back-off or dead letter is tried while the queue is down. After that
/// the message comes back by itself, and its object is found done.
const SETTLE_TRIES: u32 = 5;

/// Messages whose excused deliveries are remembered: far more than an outage can touch while the polling
/// pauses, and still little memory.
const MAX_EXCUSED: usize = 10_000;

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
pub struct Worker<Q, S>(Arc<Shared<Q, S>>);

/// What the worker and its deliveries share.
struct Shared<Q, S> {
    queue: Arc<Q>,
    context: Arc<Context<S>>,
    reports: mpsc::Sender<Report>,
    /// Whether the last call of the queue failed, and whether the store failed the last job.
    queue_is_down: AtomicBool,
    store_is_down: AtomicBool,
    /// Deliveries that came to nothing without the object's fault, by message, as far as the queue does not
    /// leave them out itself. A host that starts again has forgotten these.
    excused: Mutex<HashMap<String, u32>>,
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
        Self(Arc::new(Shared {
            queue,
            context,
            reports,
            queue_is_down: AtomicBool::default(),
            store_is_down: AtomicBool::default(),
            excused: Mutex::default(),
        }))
    }

    /// Polls and works until `shutdown.drain`, then lets the jobs in flight finish within the drain
    /// timeout. Returns when none is left.
    pub async fn run(self, shutdown: &Shutdown) {
        let Self(shared) = self;
        // What waits for a plugin when the drain begins is given back at once, as what is received then.
        let admission = Admission::new(&shared.context.config, shutdown.drain.clone());
        let mut jobs = JoinSet::new();
        let mut pause = Duration::ZERO;
        loop {
            while let Some(ended) = jobs.try_join_next() {
                log_panic(ended);
            }
            let seats = tokio::select! {
                biased;
                () = shutdown.drain.cancelled() => break,
                seats = admission.seats(MAX_BATCH) => seats,
            };
            // While queue or store are down, no delivery is spent on finding that out.
            pause = if shared.is_down() { (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE) } else { Duration::ZERO };
            tokio::select! {
                biased;
                () = shutdown.drain.cancelled() => break,
                () = sleep(pause) => {}
            }
            let receive = within(RECEIVE_TIMEOUT, shared.queue.receive(seats.len()));
            tokio::pin!(receive);
            let messages = tokio::select! {
                biased;
                messages = &mut receive => messages,
                () = shutdown.drain.cancelled() => {
                    let deadline = shared.drain_deadline();
                    shared.absorb(receive, shutdown, deadline).await;
                    return drain(jobs, shutdown, deadline).await;
                }
            };
            shared.queue_is_down.store(messages.is_err(), Ordering::Relaxed);
            match messages {
                Ok(messages) => {
                    for (message, seat) in messages.into_iter().zip(seats) {
                        let delivery = Delivery::new(&shared, message, seat, &shutdown.now);
                        jobs.spawn(delivery.run());
                    }
                }
                Err(error) => tracing::error!(%error, "cannot receive"),
            }
        }
        drain(jobs, shutdown, shared.drain_deadline()).await;
    }
}

impl<Q: Queue, S: Store> Shared<Q, S> {
    fn is_down(&self) -> bool {
        self.queue_is_down.load(Ordering::Relaxed) || self.store_is_down.load(Ordering::Relaxed)
    }

    /// Whether the store is down is what the last job found. That is logged when it changes: with some styles
    /// of report nothing else would tell.
    fn learn(&self, outcome: &Outcome) {
        let waits = matches!(outcome, Outcome::Failed(failure) if failure.class == Class::CircuitOpen);
        if waits || matches!(outcome, Outcome::Ignored(_) | Outcome::Cancelled) {
            return;
        }
        let outage = outage(outcome);
        match (self.store_is_down.swap(outage.is_some(), Ordering::Relaxed), outage) {
            (false, Some(reason)) => tracing::error!(reason, "outage, polling pauses until an object gets through"),
            (true, None) => tracing::info!("the outage is over"),
            _ => {}
        }
    }

    fn drain_deadline(&self) -> Instant {
        Instant::now() + self.context.config.drain_timeout
    }

    /// Gives back what a receive brings that is under way when the drain begins.
    async fn absorb(
        &self,
        receive: impl Future<Output = Result<Vec<Message>, QueueError>>,
        shutdown: &Shutdown,
        deadline: Instant,
    ) {
        let release = async {
            for message in receive.await.unwrap_or_default() {
                if let Err(error) = within(CALL_TIMEOUT, self.queue.excuse(&message, Duration::ZERO)).await {
                    tracing::warn!(message = message.id, %error, "cannot release, the message comes back when its visibility timeout ends");
                }
            }
        };
        tokio::select! {
            biased;
            () = shutdown.now.cancelled() => {}
            // What it still brings after that comes back when its visibility timeout ends.
            _ = timeout_at(deadline, release) => {}
        }
    }

    /// Remembers that a delivery was no attempt, since the queue does not.
    fn excuse(&self, message: &Message) {
        let mut excused = self.excused();
        if excused.len() < MAX_EXCUSED || excused.contains_key(&message.id) {
            *excused.entry(message.id.clone()).or_default() += 1;
        }
    }

    fn forget(&self, message: &Message) {
        self.excused().remove(&message.id);
    }

    fn excused(&self) -> MutexGuard<'_, HashMap<String, u32>> {
        self.excused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call of the queue; one that has not come back in time has failed, as far as anybody can know.
async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, QueueError>>) -> Result<T, QueueError> {
    let late = |_| Err(QueueError::Unavailable(format!("the queue has not answered for {} s", limit.as_secs())));
    timeout(limit, call).await.unwrap_or_else(late)
}

async fn drain(mut jobs: JoinSet<()>, shutdown: &Shutdown, deadline: Instant) {
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

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a job panicked, its message comes back when its visibility timeout ends");
    }
}

/// One delivery of one message.
struct Delivery<Q, S> {
    shared: Arc<Shared<Q, S>>,
    message: Message,
    received: Instant,
    /// From 1.
    attempt: u32,
    cancel: CancellationToken,
    seat: Seat,
}

impl<Q: Queue, S: Store> Delivery<Q, S> {
    fn new(shared: &Arc<Shared<Q, S>>, message: Message, seat: Seat, cancel: &CancellationToken) -> Self {
        let excused = shared.excused().get(&message.id).copied().unwrap_or_default();
        Self {
            shared: Arc::clone(shared),
            attempt: message.receive_count.saturating_sub(excused).max(1),
            message,
            received: Instant::now(),
            cancel: cancel.child_token(),
            seat,
        }
    }

    async fn run(self) {
        let lease = Lease::start(Arc::clone(&self.shared.queue), self.message.receipt.clone(), self.received);
        let results = {
            let work = self.work();
            tokio::pin!(work);
            tokio::select! {
                biased;
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
        let events = match event::parse(&self.message.body) {
            Ok(events) => events,
            Err(error) => {
                let failure = Failure::new(Class::Malformed, error.to_string());
                return vec![(self.message.id.clone(), Outcome::Failed(failure))];
            }
        };
        for event in &events.ignored {
            tracing::info!(message = self.message.id, event, "event ignored");
        }
        let mut results = Vec::with_capacity(events.objects.len());
        for event in events.objects {
            let outcome = self.one(&event).await;
            results.push((event.key, outcome));
        }
        results
    }

    async fn one(&self, event: &ObjectEvent) -> Outcome {
        let outcome = job::run(&self.shared.context, event, self.attempt, &self.seat, &self.cancel).await;
        self.shared.learn(&outcome);
        outcome
    }
}

/// What was down, if that is why nothing came of an object.
fn outage(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Failed(failure) if failure.class == Class::Infrastructure => Some(&failure.reason),
        _ => None,
    }
}

/// What happens to a whole message. While any of its objects may still get further it comes back, since
/// those that are done or can never work lose nothing by that.
enum Fate {
    Acknowledge,
    /// With the key and the failure of the first object that can never work, and the reasons of all.
    DeadLetter(Option<String>, Failure),
    Retry(Duration),
    Release,
}

impl<Q: Queue, S: Store> Delivery<Q, S> {
    /// Acknowledges, releases, backs off or dead-letters the message, and tells what came of it.
    async fn settle(self, results: Vec<(String, Outcome)>) {
        let fate = self.fate(&results);
        let is_excused = |outcome: &Outcome| matches!(outcome, Outcome::Failed(failure) if failure.class.is_excused());
        let was_attempt = !matches!(fate, Fate::Release) && !results.iter().any(|(_, outcome)| is_excused(outcome));
        let settled = self.carry_out(&fate, was_attempt).await;
        match fate {
            Fate::Acknowledge | Fate::DeadLetter(..) => self.shared.forget(&self.message),
            _ if settled == Some(true) => self.shared.forget(&self.message),
            _ if was_attempt => {}
            _ => self.shared.excuse(&self.message),
        }
        for (key, outcome) in results {
            let result = match (outcome, &fate) {
                (Outcome::Cancelled, _) | (Outcome::Failed(_), Fate::Acknowledge | Fate::Release) => Settled::Released,
                (Outcome::Failed(failure), Fate::Retry(after)) => Settled::Retried(failure, *after),
                (Outcome::Failed(failure), Fate::DeadLetter(..)) => Settled::DeadLettered(failure),
                (outcome, _) => Settled::Finished(outcome),
            };
            if settled.is_none() && matches!(result, Settled::DeadLettered(_)) {
                continue;
            }
            let report = Report { key, attempt: self.message.receive_count, elapsed: self.received.elapsed(), result };
            // Without a listener, or with one that stands still, an end at once must come to its end.
            tokio::select! {
                biased;
                _ = self.shared.reports.send(report) => {}
                () = self.cancel.cancelled() => {}
            }
        }
    }

    fn fate(&self, results: &[(String, Outcome)]) -> Fate {
        let mut fate = Fate::Acknowledge;
        for (key, outcome) in results {
            fate = match (fate, outcome) {
                (_, Outcome::Cancelled) | (Fate::Release, _) => Fate::Release,
                (fate, Outcome::Failed(failure)) => {
                    let jitter = fastrand::f64();
                    let action = retry::decide(failure, self.attempt, &self.shared.context.config.retry, jitter);
                    match (fate, action) {
                        (Fate::Retry(before), Action::Retry { after }) => Fate::Retry(before.max(after)),
                        (_, Action::Retry { after }) => Fate::Retry(after),
                        (Fate::Acknowledge, Action::DeadLetter) => {
                            // The key of what cannot be read is not known.
                            let key = (failure.class != Class::Malformed).then(|| key.clone());
                            Fate::DeadLetter(key, failure.clone())
                        }
                        (Fate::DeadLetter(first, mut all), Action::DeadLetter) => {
                            all.reason.push_str(&format!("; `{key}`: {}", failure.reason));
                            Fate::DeadLetter(first, all)
                        }
                        (fate, Action::DeadLetter) => fate,
                    }
                }
                (fate, _) => fate,
            };
        }
        fate
    }

    /// Nothing when the queue did not take it: a stale receipt means that somebody else has the message now.
    /// Else whether the queue itself leaves this delivery out of account.
    async fn carry_out(&self, fate: &Fate, was_attempt: bool) -> Option<bool> {
        let (queue, receipt) = (&self.shared.queue, &self.message.receipt);
        let mut pause = FIRST_PAUSE;
        for _ in 0..SETTLE_TRIES {
            let counted = |()| false;
            let done = match fate {
                Fate::Acknowledge => within(CALL_TIMEOUT, queue.acknowledge(receipt)).await.map(counted),
                Fate::Release => within(CALL_TIMEOUT, queue.excuse(&self.message, Duration::ZERO)).await,
                Fate::Retry(after) if !was_attempt => within(CALL_TIMEOUT, queue.excuse(&self.message, *after)).await,
                Fate::Retry(after) => within(CALL_TIMEOUT, queue.set_visibility(receipt, *after)).await.map(counted),
                Fate::DeadLetter(key, failure) => {
                    let letter = self.letter(key.clone(), failure);
                    within(CALL_TIMEOUT, queue.dead_letter(&self.message, &letter)).await.map(counted)
                }
            };
            self.shared.queue_is_down.store(matches!(done, Err(QueueError::Unavailable(_))), Ordering::Relaxed);
            match done {
                Ok(excused) => return Some(excused),
                Err(QueueError::Stale) => return None,
                Err(QueueError::Unavailable(error)) => {
                    tracing::error!(message = self.message.id, error, "cannot settle a message");
                    sleep(pause).await;
                    pause = pause.saturating_mul(2);
                }
            }
        }
        None
    }

    fn letter(&self, key: Option<String>, failure: &Failure) -> DeadLetter {
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
