//! What is special about SQS as the queue, over the SDK against an SQS in this process.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

#[allow(dead_code, reason = "other tests use more of it")]
mod support {
    pub mod cloud;
}

mod remote_queue {
    mod batches;
    mod connecting;
    mod dead_letters;
    mod excuses;
    mod patience;
    mod walk;
}

use std::{sync::Arc, time::Duration};

use gristmill::queue::{DeadLetter, Message, Queue, QueueError, sqs::SqsQueue};
use support::cloud::Cloud;
use tokio::{task::JoinSet, time::Instant};

/// The visibility timeout of the queues under test.
const VISIBILITY: Duration = Duration::from_secs(30);

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(10);

/// A queue `uploads` and its dead-letter queue `dead`, which it is told of by its redrive policy.
struct Rig {
    cloud: Cloud,
    queue: Arc<SqsQueue>,
}

impl Rig {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The same after a change to the queues.
    async fn with(change: impl FnOnce(&Cloud)) -> Self {
        let cloud = Cloud::start();
        cloud.sqs().longest_wait(Duration::from_millis(100));
        let url = cloud.sqs().create_queue("uploads");
        cloud.sqs().create_queue("dead");
        cloud.sqs().redrive("uploads", "dead", 5);
        change(&cloud);
        let queue = SqsQueue::connect(cloud.sqs().client(), &url, None, VISIBILITY).await.unwrap();
        Self { cloud, queue: Arc::new(queue) }
    }

    /// Sends so many messages and receives them.
    async fn in_flight(&self, count: usize) -> Vec<Message> {
        for n in 0..count {
            self.cloud.sqs().send("uploads", format!("event {n}"));
        }
        let mut messages = Vec::new();
        while messages.len() < count {
            messages.extend(self.queue.receive(count - messages.len()).await.unwrap());
        }
        messages
    }

    async fn one_in_flight(&self) -> Message {
        self.in_flight(1).await.remove(0)
    }

    fn count(&self, queue: &str) -> usize {
        self.cloud.sqs().count(queue)
    }

    /// How often an operation was asked for.
    fn requests(&self, operation: &str) -> u64 {
        self.cloud.requests().get(operation).copied().unwrap_or_default()
    }

    /// Acknowledges all at once. Answers in the same order.
    async fn acknowledge(&self, messages: &[Message]) -> Vec<Result<(), QueueError>> {
        let mut tasks = JoinSet::new();
        for (place, message) in messages.iter().enumerate() {
            let (queue, receipt) = (Arc::clone(&self.queue), message.receipt.clone());
            tasks.spawn(async move { (place, queue.acknowledge(&receipt).await) });
        }
        let mut answers = tasks.join_all().await;
        answers.sort_by_key(|(place, _)| *place);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

fn letter() -> DeadLetter {
    DeadLetter {
        reason: "line 3 is broken".to_owned(),
        class: "reject".to_owned(),
        plugin: Some(("parse".to_owned(), "0123".to_owned())),
        attempts: 2,
        key: Some("uploads/a.csv".to_owned()),
        backtrace: Some("here\nthere".to_owned()),
    }
}

fn text(answer: Result<(), QueueError>) -> String {
    match answer {
        Err(QueueError::Unavailable(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// Waits until something holds.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}
