//! What every [`Queue`] has to do.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use gristmill::queue::{DeadLetter, Message, Queue, QueueError, Receipt};

/// The visibility timeout of a queue under test whose clock the test moves.
pub const VISIBILITY: Duration = Duration::from_secs(30);

/// A queue under test, and what its trait has no words for.
pub trait Bench {
    type Queue: Queue;

    /// The visibility timeout.
    const VISIBILITY: Duration = VISIBILITY;

    /// Whether the queue can tell that a message is gone. SQS cannot: it keeps no record of what was deleted,
    /// and to delete it again succeeds and does nothing.
    const KNOWS_WHAT_IS_GONE: bool = true;

    fn queue(&self) -> Arc<Self::Queue>;

    /// Sends a message for a version of a key; answers whether it was new.
    fn send(&self, key: &str, etag: &str) -> impl Future<Output = bool>;

    /// Lets time pass.
    fn advance(&self, by: Duration) -> impl Future<Output = ()>;

    fn live(&self) -> impl Future<Output = usize>;

    fn dead(&self) -> impl Future<Output = Vec<(Bytes, DeadLetter)>>;
}

/// The body that a bench sends.
pub fn body(key: &str, etag: &str) -> Bytes {
    format!("{key} {etag}").into()
}

fn letter() -> DeadLetter {
    DeadLetter {
        reason: "line 3 is \"broken\": ü".to_owned(),
        class: "reject".to_owned(),
        plugin: Some(("parse".to_owned(), "0123".to_owned())),
        attempts: 1,
        key: Some("a".to_owned()),
        backtrace: None,
    }
}

async fn receive_one(bench: &impl Bench) -> Message {
    let mut messages = bench.queue().receive(1).await.unwrap();
    assert_eq!(messages.len(), 1);
    messages.remove(0)
}

async fn acknowledge_what_is_gone<B: Bench>(bench: &B, receipt: &Receipt) {
    let again = bench.queue().acknowledge(receipt).await;
    match B::KNOWS_WHAT_IS_GONE {
        true => assert!(matches!(again, Err(QueueError::Stale)), "{again:?}"),
        false => again.unwrap(),
    }
}

pub async fn a_received_message_is_invisible(bench: &impl Bench) {
    bench.send("a", "1").await;
    let message = receive_one(bench).await;
    assert_eq!((message.receive_count, message.body), (1, body("a", "1")));
    assert!(bench.queue().receive(10).await.unwrap().is_empty());
    assert_eq!(bench.live().await, 1);
}

pub async fn a_message_comes_back_when_its_visibility_ends<B: Bench>(bench: &B) {
    bench.send("a", "1").await;
    let first = receive_one(bench).await;
    bench.advance(B::VISIBILITY).await;
    let second = receive_one(bench).await;
    assert_eq!((&second.id, &second.body, second.receive_count), (&first.id, &first.body, 2));
    assert_ne!(second.receipt, first.receipt);
}

pub async fn a_stale_receipt_does_nothing<B: Bench>(bench: &B) {
    let queue = bench.queue();
    bench.send("a", "1").await;
    let stale = receive_one(bench).await;
    bench.advance(B::VISIBILITY).await;
    let current = receive_one(bench).await;

    assert!(matches!(queue.acknowledge(&stale.receipt).await, Err(QueueError::Stale)));
    assert!(matches!(queue.set_visibility(&stale.receipt, Duration::ZERO).await, Err(QueueError::Stale)));
    assert!(matches!(queue.dead_letter(&stale, &letter()).await, Err(QueueError::Stale)));
    // First, where time is real: to look at the dead takes some.
    assert!(queue.receive(1).await.unwrap().is_empty(), "it was made visible");
    assert_eq!((bench.live().await, bench.dead().await.len()), (1, 0));
    queue.acknowledge(&current.receipt).await.unwrap();
}

pub async fn an_acknowledged_message_is_gone<B: Bench>(bench: &B) {
    let queue = bench.queue();
    bench.send("a", "1").await;
    let message = receive_one(bench).await;
    queue.acknowledge(&message.receipt).await.unwrap();
    assert_eq!(bench.live().await, 0);
    acknowledge_what_is_gone(bench, &message.receipt).await;
    assert!(matches!(queue.set_visibility(&message.receipt, Duration::ZERO).await, Err(QueueError::Stale)));
    bench.advance(2 * B::VISIBILITY).await;
    assert!(queue.receive(1).await.unwrap().is_empty());
}

pub async fn a_late_acknowledgement_counts_until_somebody_else_has_it<B: Bench>(bench: &B) {
    bench.send("a", "1").await;
    let message = receive_one(bench).await;
    bench.advance(2 * B::VISIBILITY).await;
    bench.queue().acknowledge(&message.receipt).await.unwrap();
    assert_eq!(bench.live().await, 0);
}

pub async fn visibility_can_be_extended<B: Bench>(bench: &B) {
    let queue = bench.queue();
    bench.send("a", "1").await;
    let message = receive_one(bench).await;
    bench.advance(B::VISIBILITY / 2).await;
    queue.set_visibility(&message.receipt, B::VISIBILITY).await.unwrap();
    bench.advance(B::VISIBILITY * 3 / 4).await;
    queue.set_visibility(&message.receipt, B::VISIBILITY).await.unwrap();
    assert!(queue.receive(1).await.unwrap().is_empty());
    queue.acknowledge(&message.receipt).await.unwrap();
}

pub async fn a_released_message_is_visible_at_once(bench: &impl Bench) {
    bench.send("a", "1").await;
    let message = receive_one(bench).await;
    bench.queue().set_visibility(&message.receipt, Duration::ZERO).await.unwrap();
    assert_eq!(receive_one(bench).await.receive_count, 2);
}

pub async fn an_excused_delivery_is_left_out_where_the_queue_says_so(bench: &impl Bench) {
    bench.send("a", "1").await;
    let first = receive_one(bench).await;
    let left_out = bench.queue().excuse(&first, Duration::ZERO).await.unwrap();
    let second = receive_one(bench).await;
    assert_eq!(second.receive_count, if left_out { 1 } else { 2 });
    assert!(matches!(bench.queue().acknowledge(&first.receipt).await, Err(QueueError::Stale)));
    bench.queue().acknowledge(&second.receipt).await.unwrap();
    assert_eq!(bench.live().await, 0);
}

pub async fn a_message_that_backs_off_comes_back_then<B: Bench>(bench: &B) {
    bench.send("a", "1").await;
    let message = receive_one(bench).await;
    bench.queue().set_visibility(&message.receipt, 4 * B::VISIBILITY).await.unwrap();
    bench.advance(3 * B::VISIBILITY).await;
    assert!(bench.queue().receive(1).await.unwrap().is_empty());
    bench.advance(B::VISIBILITY).await;
    assert_eq!(receive_one(bench).await.receive_count, 2);
}

pub async fn a_dead_letter_keeps_the_body_and_the_reason(bench: &impl Bench) {
    bench.send("a", "1").await;
    let message = receive_one(bench).await;
    bench.queue().dead_letter(&message, &letter()).await.unwrap();
    assert_eq!(bench.live().await, 0);
    assert_eq!(bench.dead().await, [(body("a", "1"), letter())]);
    acknowledge_what_is_gone(bench, &message.receipt).await;
    assert_eq!(bench.dead().await.len(), 1);
}

pub async fn no_more_than_asked_for_and_the_oldest_first(bench: &impl Bench) {
    for n in 0..25 {
        bench.send(&format!("{n:02}"), "1").await;
    }
    assert!(bench.queue().receive(0).await.unwrap().is_empty());
    let mut all = Vec::new();
    for expected in [10, 10, 5] {
        let messages = bench.queue().receive(10).await.unwrap();
        assert_eq!(messages.len(), expected);
        all.extend(messages.into_iter().map(|message| message.body));
    }
    assert_eq!(all, (0..25).map(|n| body(&format!("{n:02}"), "1")).collect::<Vec<_>>());
}

pub async fn a_version_of_a_key_is_sent_once(bench: &impl Bench) {
    assert!(bench.send("a", "1").await);
    assert!(!bench.send("a", "1").await);
    let message = receive_one(bench).await;
    assert!(!bench.send("a", "1").await, "while it is in flight");
    assert!(bench.send("a", "2").await, "another version");
    bench.queue().acknowledge(&message.receipt).await.unwrap();
    assert!(bench.send("a", "1").await, "it was done, and is back");
}

pub async fn the_dead_are_not_tried_again_until_their_file_changes(bench: &impl Bench) {
    bench.send("a", "1").await;
    bench.send("b", "1").await;
    for _ in 0..2 {
        let message = receive_one(bench).await;
        bench.queue().dead_letter(&message, &letter()).await.unwrap();
    }
    assert!(!bench.send("a", "1").await);
    assert_eq!((bench.live().await, bench.dead().await.len()), (0, 2));
    assert!(bench.send("a", "2").await);
    assert_eq!(bench.live().await, 1);
    assert_eq!(bench.dead().await.into_iter().map(|(body, _)| body).collect::<Vec<_>>(), [body("b", "1")]);
}

/// One receive waits, is woken, and answers; it does not come back empty.
async fn woken_by<B: Bench>(bench: &B, work: impl AsyncFnOnce(&B)) {
    let queue = bench.queue();
    let mut receive = std::pin::pin!(queue.receive(1));
    assert!(is_pending(receive.as_mut()).await);
    // Behind the receive's own look at the queue.
    bench.live().await;
    assert!(is_pending(receive.as_mut()).await);
    work(bench).await;
    assert_eq!(receive.await.unwrap().len(), 1);
}

/// Polls once.
async fn is_pending<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

pub async fn a_new_message_wakes_a_receive(bench: &impl Bench) {
    woken_by(bench, async |bench| {
        bench.send("a", "1").await;
    })
    .await;
}

pub async fn a_released_message_wakes_a_receive(bench: &impl Bench) {
    bench.send("a", "1").await;
    let message = receive_one(bench).await;
    woken_by(bench, async |bench| {
        bench.queue().set_visibility(&message.receipt, Duration::ZERO).await.unwrap();
    })
    .await;
}

pub async fn receivers_at_the_same_time_share_the_messages(bench: &impl Bench) {
    for n in 0..100 {
        bench.send(&n.to_string(), "1").await;
    }
    let receivers: Vec<_> = (0..4)
        .map(|_| {
            let queue = bench.queue();
            tokio::spawn(async move {
                let mut ids = Vec::new();
                loop {
                    let messages = queue.receive(7).await.unwrap();
                    if messages.is_empty() {
                        return ids;
                    }
                    for message in messages {
                        queue.acknowledge(&message.receipt).await.unwrap();
                        ids.push(message.id);
                    }
                }
            })
        })
        .collect();
    let mut ids = Vec::new();
    for receiver in receivers {
        ids.extend(receiver.await.unwrap());
    }
    ids.sort();
    ids.dedup();
    assert_eq!((ids.len(), bench.live().await), (100, 0));
}

pub async fn a_made_up_receipt_is_stale(bench: &impl Bench) {
    for receipt in ["", "x", "1", "1.", "999999.1", "-1.-1"] {
        let receipt = Receipt(receipt.to_owned());
        assert!(matches!(bench.queue().acknowledge(&receipt).await, Err(QueueError::Stale)), "{receipt:?}");
    }
}
