//! A worker under test: fakes, faults by closure, and a record of every call.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that unwraps says where it failed")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gristmill::{
    config::{Config, Retry},
    worker::{Report, Settled, Shutdown, Worker},
};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};

use crate::support::{
    faults::{Fault, Faults, When},
    memory_queue::MemoryQueue,
    memory_store::MemoryStore,
    toys,
};

pub const VISIBILITY: Duration = Duration::from_secs(30);

/// Longer than anything takes in these tests.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// A call, when it came, and on what.
pub type Called = (Duration, &'static str, String);

/// Faults by a closure, and a record of the calls that came.
pub struct Record<F> {
    start: Instant,
    calls: Arc<Mutex<Vec<Called>>>,
    fault: F,
}

impl<F: Fn(&str, When, &str) -> Fault + Send + Sync + 'static> Faults for Record<F> {
    fn at(&self, call: &'static str, when: When, subject: &str) -> Fault {
        if when == When::Before {
            self.calls.lock().unwrap().push((self.start.elapsed(), call, subject.to_owned()));
        }
        (self.fault)(call, when, subject)
    }
}

pub struct Rig {
    pub queue: MemoryQueue,
    pub store: MemoryStore,
    pub shutdown: Shutdown,
    start: Instant,
    calls: Arc<Mutex<Vec<Called>>>,
    reports: mpsc::Receiver<Report>,
    worker: JoinHandle<()>,
}

impl Rig {
    /// Starts a worker with so many slots.
    pub fn start(slots: usize, fault: impl Fn(&str, When, &str) -> Fault + Send + Sync + 'static) -> Self {
        Self::with(Self::config(slots), |queue| queue, fault)
    }

    /// What [`Rig::start`] gives its worker.
    pub fn config(slots: usize) -> Config {
        let retry = Retry { max_attempts: 3, base: Duration::from_secs(1), max: Duration::from_secs(60) };
        toys::config(retry, slots)
    }

    /// Starts a worker on a queue that is made a little different.
    pub fn with(
        config: Config,
        queue: impl FnOnce(MemoryQueue) -> MemoryQueue,
        fault: impl Fn(&str, When, &str) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let (start, calls) = (Instant::now(), Arc::default());
        let faults = Arc::new(Record { start, calls: Arc::clone(&calls), fault });
        let queue = queue(MemoryQueue::with_faults(VISIBILITY, faults.clone()));
        let store = MemoryStore::with_faults(faults);
        let context = toys::context(store.clone(), &Arc::new(config));
        let (reporter, reports) = mpsc::channel(1_000);
        let worker = Worker::new(Arc::new(queue.clone()), context, reporter);
        let shutdown = Shutdown::default();
        let told = shutdown.clone();
        let worker = tokio::spawn(async move { worker.run(&told).await });
        Self { queue, store, shutdown, start, calls, reports, worker }
    }

    /// Uploads an object and sends its event.
    pub fn upload(&self, key: &str) -> String {
        self.upload_bytes(key, b"some content".to_vec())
    }

    /// The same with another content.
    pub fn upload_bytes(&self, key: &str, content: Vec<u8>) -> String {
        let etag = self.store.put(key, content);
        self.queue.send(key, &etag, toys::message([(key, &*etag)]));
        etag
    }

    /// The next delivery's end, in one word, and of which object.
    pub async fn next(&mut self) -> (String, String) {
        word(timeout(PATIENCE, self.reports.recv()).await.expect("nothing happens").unwrap())
    }

    /// The ends that nobody has asked for.
    pub async fn rest(&mut self) -> Vec<(String, String)> {
        self.shutdown.drain.cancel();
        self.ended().await;
        std::iter::from_fn(|| self.reports.try_recv().ok()).map(word).collect()
    }

    /// The ends of so many deliveries, sorted.
    pub async fn ends(&mut self, number: usize) -> Vec<(String, String)> {
        let mut ends = Vec::new();
        for _ in 0..number {
            ends.push(self.next().await);
        }
        ends.sort();
        ends
    }

    /// Waits until a call has been made so often.
    pub async fn called(&self, call: &str, times: usize) {
        let waited = timeout(PATIENCE, async {
            while self.times(call).len() < times {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{call} came {} times, not {times}", self.times(call).len()));
    }

    /// When a call came.
    pub fn times(&self, call: &str) -> Vec<Duration> {
        self.calls.lock().unwrap().iter().filter(|(_, name, _)| *name == call).map(|(at, ..)| *at).collect()
    }

    pub fn calls(&self) -> Vec<Called> {
        self.calls.lock().unwrap().clone()
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn is_running(&self) -> bool {
        !self.worker.is_finished()
    }

    /// Waits for the worker's end, and answers how long that took.
    pub async fn ended(&mut self) -> Duration {
        let before = Instant::now();
        timeout(PATIENCE, &mut self.worker).await.expect("the worker does not end").unwrap();
        before.elapsed()
    }
}

fn word(report: Report) -> (String, String) {
    let word = match report.result {
        Settled::Finished(outcome) => {
            let outcome = format!("{outcome:?}");
            outcome.split(['(', ' ']).next().unwrap().to_lowercase()
        }
        Settled::Retried(failure, _) => format!("retried: {}", failure.class.as_str()),
        Settled::DeadLettered(failure) => format!("dead: {}", failure.class.as_str()),
        Settled::Released => "released".to_owned(),
    };
    (report.key, word)
}

pub fn end(key: &str, word: &str) -> (String, String) {
    (key.to_owned(), word.to_owned())
}

pub fn seconds(times: &[Duration]) -> Vec<u64> {
    times.iter().map(Duration::as_secs).collect()
}
