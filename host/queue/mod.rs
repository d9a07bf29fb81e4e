//! The queue seam: messages that become visible again unless they are acknowledged.

pub mod intake;
pub mod lease;
pub mod local;
pub mod sqs;

use std::{
    future::Future,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

/// A received message. It is invisible to other receivers until its visibility timeout ends.
#[derive(Debug, Clone)]
pub struct Message {
    /// Stays the same over deliveries.
    pub id: String,
    /// Names this delivery; see [`Receipt`].
    pub receipt: Receipt,
    /// The event, in one of the shapes that [`crate::event`] reads.
    pub body: Bytes,
    /// How often the message has been received, this time included: from 1. What was excused may be left
    /// out.
    pub receive_count: u32,
}

/// Names one delivery of a message. It goes stale when the message is received again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Receipt(pub String);

/// What is recorded with a message in the dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// For people: what went wrong, and with what.
    pub reason: String,
    /// For filters: `reject`, `trap`, `deadline`, `memory`, `conflict`, `malformed`, …
    pub class: String,
    /// The plugin and its SHA-256 digest, when one had to do with it.
    pub plugin: Option<(String, String)>,
    /// Deliveries, the last one included.
    pub attempts: u32,
    /// The object's key, when the message could be read.
    pub key: Option<String>,
    /// The guest's call stack at a trap, innermost first.
    pub backtrace: Option<String>,
}

/// A message on the dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadMessage {
    /// Stays the same for as long as it is there.
    pub id: String,
    /// Names this look at it.
    pub receipt: Receipt,
    /// As it was in the queue.
    pub body: Bytes,
    /// Why it died. Of the class [`MOVED_BY_QUEUE`] when it was not this host that gave it up.
    pub letter: DeadLetter,
    /// When.
    pub died: SystemTime,
}

/// The class of dead letters that the queue's own redrive policy made.
pub const MOVED_BY_QUEUE: &str = "moved-by-queue";

/// The dead-letter queue, as its keeper walks through it.
pub trait DeadLetters: Send + Sync + 'static {
    /// The next few messages that this walk has not seen; none at its end. Others may not see them until
    /// they are settled in one of the three ways.
    fn next(&mut self) -> impl Future<Output = Result<Vec<DeadMessage>, QueueError>> + Send;

    /// Leaves it where it is.
    fn keep(&mut self, message: &DeadMessage) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Puts it back on the queue, body unchanged and attempts from the start, and then deletes it. A crash
    /// between the two leaves it on both.
    fn redrive(&mut self, message: &DeadMessage) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Deletes it for good.
    fn purge(&mut self, message: &DeadMessage) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Ends the walk, so that others may see what was kept. The end that [`DeadLetters::next`] finds does this
    /// too; it is for walks that stop before.
    fn end(&mut self) -> impl Future<Output = Result<(), QueueError>> + Send {
        async { Ok(()) }
    }
}

/// Why a queue did not do as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// The receipt is stale: the message was deleted, or its visibility ended and somebody else has it.
    #[error("the message is no longer ours: its visibility timeout ended or it was deleted")]
    Stale,
    /// The queue cannot serve now; the text says what happened.
    #[error("{0}")]
    Unavailable(String),
}

/// At-least-once delivery with visibility timeouts, as in SQS.
pub trait Queue: Send + Sync + 'static {
    /// Waits for messages for as long as a long poll takes and returns 0 to `max` of them, each
    /// invisible for [`Queue::visibility_timeout`]. Dropping the future may leave received messages
    /// invisible until that ends; it loses none.
    fn receive(&self, max: usize) -> impl Future<Output = Result<Vec<Message>, QueueError>> + Send;

    /// Deletes the message for good.
    fn acknowledge(&self, receipt: &Receipt) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// Makes the message visible `after` this long from now: renews a lease, backs off, or releases
    /// (zero).
    fn set_visibility(&self, receipt: &Receipt, after: Duration)
    -> impl Future<Output = Result<(), QueueError>> + Send;

    /// [`Queue::set_visibility`] after a delivery that was no attempt: the host was told to stop, or the
    /// store was down. Answers whether the queue itself leaves it out of later receive counts, which not
    /// every queue can.
    fn excuse(&self, message: &Message, after: Duration) -> impl Future<Output = Result<bool, QueueError>> + Send {
        async move { self.set_visibility(&message.receipt, after).await.map(|()| false) }
    }

    /// Puts the message, body unchanged, on the dead-letter queue with `letter`, and then deletes it.
    /// A crash between the two leaves it on both, never on none.
    fn dead_letter(
        &self,
        message: &Message,
        letter: &DeadLetter,
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    /// For how long a received message stays invisible.
    fn visibility_timeout(&self) -> Duration;
}
