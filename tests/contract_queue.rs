//! The same contract for the queue in a file, for SQS in two makes, and for the fake that the simulation uses.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

mod contract {
    pub mod queue;
}
#[allow(dead_code, reason = "other tests use more of it")]
mod support {
    pub mod cloud;
    pub mod faults;
    pub mod memory_queue;
    pub mod ministack;
    pub mod remote_bucket;
}

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use contract::queue::{Bench, VISIBILITY, body};
use gristmill::queue::{
    DeadLetter, DeadLetters, Queue,
    local::{Clock, LocalQueue, NewMessage},
    sqs::SqsQueue,
};
use support::{
    cloud::Cloud,
    memory_queue::MemoryQueue,
    ministack,
    remote_bucket::{Events, Remote, clients},
};

struct Memory(Arc<MemoryQueue>);

impl Memory {
    fn new() -> Self {
        Self(Arc::new(MemoryQueue::new(VISIBILITY)))
    }
}

impl Bench for Memory {
    type Queue = MemoryQueue;

    fn queue(&self) -> Arc<MemoryQueue> {
        Arc::clone(&self.0)
    }

    async fn send(&self, key: &str, etag: &str) -> bool {
        self.0.enqueue(key, etag, body(key, etag))
    }

    async fn advance(&self, by: Duration) {
        tokio::time::advance(by).await;
    }

    async fn live(&self) -> usize {
        self.0.live().len()
    }

    async fn dead(&self) -> Vec<(Bytes, DeadLetter)> {
        self.0.dead().into_iter().map(|dead| (dead.body, dead.letter)).collect()
    }
}

struct Local {
    queue: Arc<LocalQueue>,
    /// Milliseconds since the clock was made.
    passed: Arc<AtomicU64>,
    folder: tempfile::TempDir,
}

impl Local {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let passed = Arc::new(AtomicU64::new(0));
        let queue = Arc::new(Self::open(&folder, &passed));
        Self { queue, passed, folder }
    }

    fn open(folder: &tempfile::TempDir, passed: &Arc<AtomicU64>) -> LocalQueue {
        let passed = Arc::clone(passed);
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let clock = Clock::from_fn(move || start + Duration::from_millis(passed.load(Ordering::SeqCst)));
        LocalQueue::open(&folder.path().join("queue.db"), VISIBILITY, clock).unwrap()
    }
}

impl Bench for Local {
    type Queue = LocalQueue;

    fn queue(&self) -> Arc<LocalQueue> {
        Arc::clone(&self.queue)
    }

    async fn send(&self, key: &str, etag: &str) -> bool {
        let message = NewMessage { key: key.to_owned(), etag: etag.to_owned(), body: body(key, etag) };
        self.queue.enqueue(vec![message]).await.unwrap() == 1
    }

    async fn advance(&self, by: Duration) {
        self.passed.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    async fn live(&self) -> usize {
        self.queue.live().await.unwrap()
    }

    async fn dead(&self) -> Vec<(Bytes, DeadLetter)> {
        self.queue.dead_letters(1_000).await.unwrap().into_iter().map(|dead| (dead.body, dead.letter)).collect()
    }
}

struct Sqs {
    cloud: Cloud,
    queue: Arc<SqsQueue>,
}

impl Sqs {
    async fn new() -> Self {
        let cloud = Cloud::start();
        // Otherwise each look at an empty queue would take 20 seconds.
        cloud.sqs().longest_wait(Duration::from_millis(100));
        let url = cloud.sqs().create_queue("uploads");
        let dead = cloud.sqs().create_queue("dead");
        let queue = SqsQueue::connect(cloud.sqs().client(), &url, Some(&dead), VISIBILITY).await.unwrap();
        Self { cloud, queue: Arc::new(queue) }
    }
}

impl Bench for Sqs {
    type Queue = SqsQueue;

    const KNOWS_WHAT_IS_GONE: bool = false;

    fn queue(&self) -> Arc<SqsQueue> {
        Arc::clone(&self.queue)
    }

    async fn send(&self, key: &str, etag: &str) -> bool {
        self.cloud.sqs().send("uploads", std::str::from_utf8(&body(key, etag)).unwrap());
        true
    }

    async fn advance(&self, by: Duration) {
        self.cloud.sqs().advance(by);
    }

    async fn live(&self) -> usize {
        self.cloud.sqs().count("uploads")
    }

    async fn dead(&self) -> Vec<(Bytes, DeadLetter)> {
        letters(&self.queue).await
    }
}

async fn letters(queue: &SqsQueue) -> Vec<(Bytes, DeadLetter)> {
    let (mut walk, mut dead) = (queue.dead_letters().unwrap(), Vec::new());
    loop {
        let messages = walk.next().await.unwrap();
        if messages.is_empty() {
            return dead;
        }
        dead.extend(messages.into_iter().map(|message| (message.body, message.letter)));
    }
}

/// SQS of another make, whose clock is everybody's.
struct Ministack {
    remote: Remote,
    queue: Arc<SqsQueue>,
}

impl Ministack {
    async fn new() -> Self {
        let remote = apart(|| Remote::new(ministack::endpoint(), Events::None));
        let (_, client) = clients(ministack::endpoint());
        let queue = SqsQueue::connect(client, &remote.queue, None, Self::VISIBILITY).await.unwrap();
        Self { remote, queue: Arc::new(queue.with_short_polls()) }
    }
}

/// `Remote` has a runtime of its own, which cannot be waited for within another.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap())
}

impl Bench for Ministack {
    type Queue = SqsQueue;

    /// Real time: long enough that a busy machine is not too late for it.
    const VISIBILITY: Duration = Duration::from_secs(3);

    fn queue(&self) -> Arc<SqsQueue> {
        Arc::clone(&self.queue)
    }

    async fn send(&self, key: &str, etag: &str) -> bool {
        let body = String::from_utf8(body(key, etag).into()).unwrap();
        apart(|| self.remote.send(&[body]));
        true
    }

    async fn advance(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }

    async fn live(&self) -> usize {
        self.queue.left().await.unwrap() as usize
    }

    async fn dead(&self) -> Vec<(Bytes, DeadLetter)> {
        letters(&self.queue).await
    }
}

macro_rules! contract {
    (memory: $($name:ident)*) => {
        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                super::contract::queue::$name(&super::Memory::new()).await;
            }
        )*
    };
    (local: $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                super::contract::queue::$name(&super::Local::new()).await;
            }
        )*
    };
    (sqs: $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                super::contract::queue::$name(&super::Sqs::new().await).await;
            }
        )*
    };
    (ministack: $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                super::contract::queue::$name(&super::Ministack::new().await).await;
            }
        )*
    };
    (all { $($name:ident)* } sent_once { $($once:ident)* }) => {
        mod memory {
            contract! { memory: $($name)* $($once)* }
        }
        mod local {
            contract! { local: $($name)* $($once)* }
        }
        // S3 sends an event for each upload, and SQS takes them all.
        mod sqs {
            contract! { sqs: $($name)* }
        }
        mod stand_in {
            contract! { ministack: $($name)* }
        }
    };
}

contract! {
    all {
        a_received_message_is_invisible
        a_message_comes_back_when_its_visibility_ends
        a_stale_receipt_does_nothing
        an_acknowledged_message_is_gone
        a_late_acknowledgement_counts_until_somebody_else_has_it
        visibility_can_be_extended
        a_released_message_is_visible_at_once
        an_excused_delivery_is_left_out_where_the_queue_says_so
        a_message_that_backs_off_comes_back_then
        a_dead_letter_keeps_the_body_and_the_reason
        no_more_than_asked_for_and_the_oldest_first
        a_new_message_wakes_a_receive
        a_released_message_wakes_a_receive
        receivers_at_the_same_time_share_the_messages
        a_made_up_receipt_is_stale
    }
    sent_once {
        a_version_of_a_key_is_sent_once
        the_dead_are_not_tried_again_until_their_file_changes
    }
}

#[tokio::test]
async fn a_restart_keeps_everything_and_releases_what_was_in_flight() {
    let bench = Local::new();
    for key in ["a", "b", "c", "d"] {
        bench.send(key, "1").await;
    }
    let taken = bench.queue.receive(3).await.unwrap();
    bench.queue.acknowledge(&taken[0].receipt).await.unwrap();
    let letter = DeadLetter {
        reason: "no".to_owned(),
        class: "trap".to_owned(),
        plugin: None,
        attempts: 1,
        key: None,
        backtrace: Some("here\nthere".to_owned()),
    };
    bench.queue.dead_letter(&taken[1], &letter).await.unwrap();

    let Local { queue, passed, folder } = bench;
    drop(queue);
    let bench = Local { queue: Arc::new(Local::open(&folder, &passed)), passed, folder };
    bench.advance(Duration::from_secs(1)).await;
    assert_eq!(bench.queue.release_all().await.unwrap(), 1);

    let bodies: Vec<_> =
        bench.queue.receive(10).await.unwrap().into_iter().map(|m| (m.body, m.receive_count)).collect();
    assert_eq!(bodies, [(body("c", "1"), 2), (body("d", "1"), 1)]);
    let dead = bench.queue.dead_letters(10).await.unwrap();
    assert_eq!((dead.len(), &dead[0].body, &dead[0].letter), (1, &body("b", "1"), &letter));
    assert_eq!(bench.queue.dead_letters(0).await.unwrap(), []);
}

#[tokio::test]
async fn what_brought_the_host_down_is_not_the_first_again() {
    let bench = Local::new();
    bench.send("poison", "1").await;
    bench.send("other", "1").await;
    bench.queue.receive(1).await.unwrap();
    bench.advance(Duration::from_secs(1)).await;
    bench.queue.release_all().await.unwrap();
    assert_eq!(bench.queue.receive(1).await.unwrap()[0].body, body("other", "1"));
}
