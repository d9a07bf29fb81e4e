//! A worker in this process, over the SDK's own clients, whose server misbehaves on demand.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that unwraps says where it failed")]

use std::{
    env,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use fastrand::Rng;
use gristmill::{
    config::{Config, Retry},
    queue::sqs::SqsQueue,
    store::s3::S3Store,
    worker::{Report, Settled, Shutdown, Worker},
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, advance, timeout},
};

use crate::support::{
    audited::Audited,
    cloud::{Call, Fault},
    remote::BUCKET,
    toys::{self, Kind},
};

/// Longer than anything takes in these tests. Only tests that fail wait so long.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at what nobody tells of.
const LOOK: Duration = Duration::from_millis(5);

/// Reports that a worker may have sent before somebody takes them: more than any test has deliveries.
const REPORTS: usize = 100_000;

/// Between the small objects and the large ones of these tests, and the least that S3 takes for a part.
const COPY_IN_PARTS_ABOVE: u64 = 5 << 20;

/// How often the queue lets a message be received before it takes it for dead by itself: what people have.
pub const MAX_RECEIVES: u32 = 10;

/// SQS counts in seconds, and so does everything that depends on it.
pub const RETRY: Retry = Retry { max_attempts: 5, base: Duration::from_secs(1), max: Duration::from_secs(2) };

/// The seed of this run, printed so that its choices can be repeated.
pub fn seed() -> u64 {
    let seed = env::var("GRISTMILL_TEST_SEED").ok().map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}: repeat its choices with GRISTMILL_TEST_SEED={seed}");
    seed
}

/// A host in this process.
pub struct Host {
    shutdown: Shutdown,
    worker: JoinHandle<()>,
    reports: mpsc::Receiver<Report>,
}

impl Host {
    /// With so many slots, and a lease of so many seconds.
    pub async fn start(remote: &Audited, slots: usize, visibility_timeout: Duration) -> Self {
        Self::over(remote, remote.cloud.sqs().client(), remote.cloud.s3_client(), slots, visibility_timeout).await
    }

    /// The same over clients of one's own.
    pub async fn over(
        remote: &Audited,
        sqs: aws_sdk_sqs::Client,
        s3: aws_sdk_s3::Client,
        slots: usize,
        visibility_timeout: Duration,
    ) -> Self {
        let config = Config { visibility_timeout, ..toys::config(RETRY, slots) };
        let queue = SqsQueue::connect(sqs, remote.queue_url(), None, visibility_timeout).await.unwrap();
        let store = S3Store::new(s3, BUCKET, COPY_IN_PARTS_ABOVE);
        let (sender, reports) = mpsc::channel(REPORTS);
        let worker = Worker::new(Arc::new(queue), toys::context(store, &Arc::new(config)), sender);
        let shutdown = Shutdown::default();
        let told = shutdown.clone();
        Self { shutdown, worker: tokio::spawn(async move { worker.run(&told).await }), reports }
    }

    /// Waits until nothing is left to do.
    pub async fn drained(&self, remote: &Audited) {
        self.until("an empty queue", || remote.live() == 0).await;
    }

    /// Waits for something that nobody tells of, in the time of the machine.
    pub async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !holds() {
            assert!(std::time::Instant::now() < deadline, "waited in vain for {what}");
            assert!(!self.worker.is_finished(), "the worker ended by itself");
            real_time(LOOK).await;
        }
    }

    /// The next delivery's end, in one word, and of which object.
    pub async fn next(&mut self) -> (String, String) {
        word(&timeout(PATIENCE, self.reports.recv()).await.expect("nothing happens").unwrap())
    }

    /// Ends the worker, which has nothing to do.
    pub async fn stop(self) {
        self.shutdown.drain.cancel();
        // A drain would wait for the end of the poll that is under way.
        self.shutdown.now.cancel();
        timeout(PATIENCE, self.worker).await.expect("the worker does not end").unwrap();
    }
}

fn word(report: &Report) -> (String, String) {
    let word = match &report.result {
        Settled::Finished(outcome) => {
            let outcome = format!("{outcome:?}");
            outcome.split(['(', ' ']).next().unwrap().to_lowercase()
        }
        Settled::Retried(failure, _) => format!("retried: {}", failure.class.as_str()),
        Settled::DeadLettered(failure) => format!("dead: {}", failure.class.as_str()),
        Settled::Released => "released".to_owned(),
    };
    (report.key.clone(), word)
}

/// Waits for so long, whatever the runtime's clock does; requests and answers go on meanwhile.
pub async fn real_time(duration: Duration) {
    tokio::task::spawn_blocking(move || thread::sleep(duration)).await.unwrap();
}

/// A runtime's clock that runs faster than the machine's, and the server's with it.
pub struct FastClock<'a> {
    remote: &'a Audited,
    start: Instant,
    /// A paused clock jumps ahead by itself when there is nothing to do, and does not know that the
    /// server has something to do. As long as a blocking task runs it stands still.
    hold: std::sync::mpsc::Sender<()>,
    keeper: JoinHandle<()>,
}

impl<'a> FastClock<'a> {
    /// Stops the clock.
    pub fn start(remote: &'a Audited) -> Self {
        tokio::time::pause();
        let (hold, held) = std::sync::mpsc::channel();
        let keeper = tokio::task::spawn_blocking(move || assert!(held.recv().is_err()));
        // An empty answer is waited for in the machine's time, and would take hours of the faster one.
        remote.cloud.sqs().longest_wait(LOOK);
        Self { remote, start: Instant::now(), hold, keeper }
    }

    /// Lets `step` pass again and again, with time for requests in between, until `holds`.
    pub async fn run(&self, step: Duration, what: &str, mut holds: impl FnMut(Duration) -> bool) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !holds(self.start.elapsed()) {
            assert!(std::time::Instant::now() < deadline, "waited in vain for {what}");
            self.remote.cloud.sqs().advance(step);
            advance(step).await;
            real_time(Duration::from_millis(1)).await;
        }
    }

    /// Lets it go on like any other.
    pub async fn end(self) {
        drop(self.hold);
        self.keeper.await.unwrap();
        tokio::time::resume();
    }
}

/// Numbers of objects by kind, in an order that mixes them.
pub fn mixed(parts: &[(Kind, usize)]) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = parts.iter().flat_map(|(kind, number)| vec![*kind; *number]).collect();
    Rng::with_seed(1).shuffle(&mut kinds);
    kinds
}

/// Faults drawn by chance, with the same chances for every call.
pub struct Chance(Mutex<Rng>);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(Rng::with_seed(seed)))
    }

    /// True in this part of all cases.
    pub fn is(&self, part: f64) -> bool {
        self.0.lock().unwrap().f64() < part
    }

    /// A number below `end`.
    pub fn below(&self, end: usize) -> usize {
        self.0.lock().unwrap().usize(..end)
    }
}

/// Whether the call is one of S3.
pub fn is_s3(call: &Call) -> bool {
    !call.key.is_empty()
}

/// What either service says when it has an error of its own.
pub fn internal_error(call: &Call) -> Fault {
    Fault::Error { status: 500, code: if is_s3(call) { "InternalError" } else { "InternalFailure" } }
}

/// What either service says when it is asked too much.
pub fn slow_down(call: &Call) -> Fault {
    match is_s3(call) {
        true => Fault::Error { status: 503, code: "SlowDown" },
        false => Fault::Error { status: 503, code: "ServiceUnavailable" },
    }
}
