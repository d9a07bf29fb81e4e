//! One job, and a crash before and after every single call that it makes of queue and store; then a second
//! host finishes. On the fakes, and on the real directory and the real queue file.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use gristmill::{
    config::Retry,
    directory::Lock,
    queue::{
        Queue,
        local::{Clock, LocalQueue, NewMessage},
    },
    store::{Store, local::LocalStore},
    worker::{Shutdown, Worker},
};
use tokio::{runtime::Builder, sync::mpsc, time::Instant};

use super::switch::{Crashing, Switch};
use crate::support::{
    faults::When,
    ledger::{Ledger, Seen, Snapshot, Upload},
    memory_queue::MemoryQueue,
    memory_store::MemoryStore,
    toys,
};

const VISIBILITY: Duration = Duration::from_secs(30);
const RETRY: Retry = Retry { max_attempts: 4, base: Duration::from_millis(1), max: Duration::from_millis(2) };

/// How long everything may take: on the fakes' clock, or on a slow machine's.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is in the bucket before the job, and what the job is.
struct Scenario {
    name: &'static str,
    /// Processed to its end before the crash.
    earlier: Option<&'static str>,
    /// In the destination.
    foreign: Option<&'static str>,
    key: &'static str,
    processed: bool,
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "only moved", earlier: None, foreign: None, key: "uploads/a b/x.move", processed: true },
    Scenario { name: "two outputs", earlier: None, foreign: None, key: "uploads/x.split", processed: true },
    Scenario { name: "two plugins", earlier: None, foreign: None, key: "uploads/x.fan", processed: true },
    Scenario { name: "one of two plugins skips", earlier: None, foreign: None, key: "uploads/x.half", processed: true },
    Scenario {
        name: "uploaded again",
        earlier: Some("uploads/x.split"),
        foreign: None,
        key: "uploads/x.split",
        processed: true,
    },
    Scenario {
        name: "an output is in the way",
        earlier: None,
        foreign: Some("processed/x.split.tail"),
        key: "uploads/x.split",
        processed: false,
    },
    Scenario {
        name: "an original is in the way",
        earlier: None,
        foreign: Some("processed/x.copy"),
        key: "uploads/x.copy",
        processed: false,
    },
    Scenario { name: "skipped", earlier: None, foreign: None, key: "uploads/x.skip", processed: true },
    Scenario { name: "rejected", earlier: None, foreign: None, key: "uploads/x.reject", processed: false },
    Scenario { name: "tried again", earlier: None, foreign: None, key: "uploads/x.flaky", processed: true },
    Scenario { name: "never works", earlier: None, foreign: None, key: "uploads/x.never", processed: false },
    Scenario { name: "traps", earlier: None, foreign: None, key: "uploads/x.trap", processed: false },
];

/// A bucket and a queue that outlive a host.
trait Bench: Default {
    type Queue: Queue;
    type Store: Store;

    /// Whether its clock is tokio's.
    const PAUSED: bool;

    /// What a host does when it starts.
    async fn open(&self) -> (Arc<Self::Queue>, Arc<Self::Store>);

    async fn put(&self, store: &Self::Store, key: &str, content: &[u8]) -> String;

    async fn send(&self, queue: &Self::Queue, key: &str, etag: &str);

    /// Messages in the queue.
    async fn left(&self, queue: &Self::Queue) -> usize;

    /// Not while a host is at work.
    async fn snapshot(&self, queue: &Self::Queue, store: &Self::Store) -> Snapshot;
}

struct Memory {
    queue: MemoryQueue,
    store: MemoryStore,
}

impl Default for Memory {
    fn default() -> Self {
        Self { queue: MemoryQueue::new(VISIBILITY), store: MemoryStore::new() }
    }
}

impl Bench for Memory {
    type Queue = MemoryQueue;
    type Store = MemoryStore;

    const PAUSED: bool = true;

    async fn open(&self) -> (Arc<MemoryQueue>, Arc<MemoryStore>) {
        (Arc::new(self.queue.clone()), Arc::new(self.store.clone()))
    }

    async fn put(&self, store: &MemoryStore, key: &str, content: &[u8]) -> String {
        store.put(key, content.to_vec())
    }

    async fn send(&self, queue: &MemoryQueue, key: &str, etag: &str) {
        queue.send(key, etag, toys::message([(key, etag)]));
    }

    async fn left(&self, queue: &MemoryQueue) -> usize {
        queue.live().len()
    }

    async fn snapshot(&self, queue: &MemoryQueue, store: &MemoryStore) -> Snapshot {
        let objects = store.objects().into_iter().map(|(key, stored)| {
            (key, Seen { etag: stored.etag, content: stored.body.to_vec(), provenance: stored.provenance })
        });
        Snapshot {
            objects: objects.collect(),
            dead: queue.dead().into_iter().map(|dead| (dead.body, dead.letter)).collect(),
            live: self.left(queue).await,
        }
    }
}

struct Local(tempfile::TempDir);

impl Default for Local {
    fn default() -> Self {
        // A crash of the host needs no disk that survives one of the machine: in memory it is quicker.
        let memory = Path::new("/dev/shm");
        Self(if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap())
    }
}

impl Bench for Local {
    type Queue = LocalQueue;
    type Store = LocalStore;

    const PAUSED: bool = false;

    async fn open(&self) -> (Arc<LocalQueue>, Arc<LocalStore>) {
        let lock = Arc::new(Lock::acquire(self.0.path()).unwrap());
        let store = LocalStore::open(&lock, &["uploads/", "processed/"]).unwrap();
        let queue = LocalQueue::open(&lock.state().join("queue.db"), VISIBILITY, Clock::from_fn(SystemTime::now));
        let queue = queue.unwrap();
        queue.release_all().await.unwrap();
        (Arc::new(queue), Arc::new(store))
    }

    async fn put(&self, store: &LocalStore, key: &str, content: &[u8]) -> String {
        let path = self.0.path().join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        store.inspect(key).await.unwrap().unwrap().etag
    }

    async fn send(&self, queue: &LocalQueue, key: &str, etag: &str) {
        let body = toys::message([(key, etag)]).into();
        queue.enqueue(vec![NewMessage { key: key.to_owned(), etag: etag.to_owned(), body }]).await.unwrap();
    }

    async fn left(&self, queue: &LocalQueue) -> usize {
        queue.live().await.unwrap()
    }

    async fn snapshot(&self, queue: &LocalQueue, store: &LocalStore) -> Snapshot {
        let mut keys = Vec::new();
        files(self.0.path(), &mut |path| {
            let key = path.strip_prefix(self.0.path()).unwrap().to_str().unwrap().to_owned();
            if !key.starts_with(".gristmill/") {
                keys.push(key);
            }
        });
        let mut objects = BTreeMap::new();
        for key in keys {
            let there = store.inspect(&key).await.unwrap().unwrap();
            let content = fs::read(self.0.path().join(&key)).unwrap();
            objects.insert(key, Seen { etag: there.etag, content, provenance: there.provenance });
        }
        let dead = queue.dead_letters(100).await.unwrap();
        Snapshot {
            objects,
            dead: dead.into_iter().map(|dead| (dead.body, dead.letter)).collect(),
            live: self.left(queue).await,
        }
    }
}

fn files(directory: &Path, found: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found(&path) }
    }
}

/// One life of a host, on a runtime that dies with it: until the queue is empty, or it crashes. Answers the
/// calls that it made.
fn live<B: Bench>(
    bench: &B,
    point: Option<(usize, When)>,
    before: impl AsyncFnOnce(&B::Queue, &B::Store),
    after: impl AsyncFnOnce(&B::Queue, &B::Store),
) -> Vec<&'static str> {
    let runtime = Builder::new_current_thread().enable_all().start_paused(B::PAUSED).build().unwrap();
    runtime.block_on(async {
        let (queue, store) = bench.open().await;
        before(&queue, &store).await;
        let switch = Switch::new(point);
        let config = Arc::new(toys::config(RETRY, 1));
        let context = toys::context(Crashing { inner: Arc::clone(&store), switch: Arc::clone(&switch) }, &config);
        let watched = Arc::new(Crashing { inner: Arc::clone(&queue), switch: Arc::clone(&switch) });
        // Nobody listens to its reports.
        let (reports, _) = mpsc::channel(1);
        let (worker, shutdown) = (Worker::new(watched, context, reports), Shutdown::default());
        let empty = async {
            let deadline = Instant::now() + PATIENCE;
            while bench.left(&queue).await > 0 && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            biased;
            () = switch.crashed.cancelled() => {}
            () = empty => after(&queue, &store).await,
            () = worker.run(&shutdown) => panic!("the worker ended by itself"),
        }
        std::mem::take(&mut *switch.calls.lock().unwrap())
    })
}

/// Plays a scenario with a crash. Answers the calls of the host that was to crash, and what is wrong.
fn play<B: Bench>(scenario: &Scenario, point: Option<(usize, When)>) -> (Vec<&'static str>, Vec<String>) {
    let bench = B::default();
    let mut ledger = Ledger::default();
    let upload = async |ledger: &mut Ledger, queue: &B::Queue, store: &B::Store, key: &str, content: &str| {
        let etag = bench.put(store, key, content.as_bytes()).await;
        bench.send(queue, key, &etag).await;
        ledger.uploads.push(Upload { key: key.to_owned(), etag, content: content.into() });
    };
    if let Some(earlier) = scenario.earlier {
        let put = async |queue: &B::Queue, store: &B::Store| {
            upload(&mut ledger, queue, store, earlier, "an earlier content").await;
        };
        live(&bench, None, put, async |_, _| {});
    }
    let put = async |queue: &B::Queue, store: &B::Store| {
        if let Some(key) = scenario.foreign {
            bench.put(store, key, b"mine").await;
            ledger.foreign.insert(key.to_owned(), b"mine".to_vec());
        }
        upload(&mut ledger, queue, store, scenario.key, "the content").await;
    };
    let calls = live(&bench, point, put, async |_, _| {});

    let mut wrong = Vec::new();
    live(
        &bench,
        None,
        async |_, _| {},
        async |queue, store| {
            let end = bench.snapshot(queue, store).await;
            wrong = ledger.at_end(&end);
            if end.dead.is_empty() != scenario.processed {
                wrong.push(format!("dead letters: {:?}", end.dead));
            }
        },
    );
    (calls, wrong)
}

fn crash_everywhere<B: Bench>() {
    let mut wrong = Vec::new();
    let mut points = 0;
    for scenario in SCENARIOS {
        let (calls, at_once) = play::<B>(scenario, None);
        assert!(at_once.is_empty(), "{}, without a crash: {at_once:?}", scenario.name);
        // A receive that waits for more may or may not be there at the end.
        let last = calls.iter().rposition(|call| *call != "receive").unwrap();
        assert!(last >= 2, "{}: {calls:?}", scenario.name);
        for (number, call) in calls[..=last].iter().enumerate() {
            for when in [When::Before, When::After] {
                points += 1;
                let (_, problems) = play::<B>(scenario, Some((number, when)));
                wrong.extend(
                    problems.iter().map(|it| format!("{}, crash {when:?} {call} ({number}): {it}", scenario.name)),
                );
            }
        }
    }
    println!("{points} crashes");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_crash_at_any_call_is_harmless_on_the_fakes() {
    crash_everywhere::<Memory>();
}

#[test]
fn a_crash_at_any_call_is_harmless_on_disk() {
    crash_everywhere::<Local>();
}
