//! Amazon SQS as the queue.
//!
//! - A receive is a long poll. Deletions and changes of visibility go ten to a request.
//! - SQS deletes what is deleted already without a word, and on a standard queue an old receipt may still work
//!   after the message was received again. So [`QueueError::Stale`] comes when SQS says it, and not always when
//!   it is so; the commit protocol does not depend on it.
//! - A message can be held for 12 hours from receipt; what would go beyond that is cut.
//! - Without a dead-letter queue nothing is lost: what died comes back once in [`PARKED`], is tried, and dies
//!   again, until the queue's retention ends.

mod attributes;
mod batch;
mod connect;
mod dead;
mod error;
mod receipt;
mod send;
pub mod survey;

use std::time::{Duration, SystemTime};

use aws_sdk_sqs::{
    Client,
    types::{Message as SqsMessage, MessageSystemAttributeName, QueueAttributeName},
};
use bytes::Bytes;

pub use self::dead::SqsDeadLetters;
use self::{
    batch::{Batcher, Work},
    connect::{DeadLetterQueue, Redrive},
    receipt::Handle,
};
use super::{DeadLetter, Message, Queue, QueueError, Receipt};

/// The longest poll that SQS has: the fewest requests, and no message comes later for it.
const WAIT_SECONDS: i32 = 20;

/// The same for a host that ends when the queue is empty: it ends no sooner than its last poll does.
const SHORT_WAIT_SECONDS: i32 = 1;

/// The most messages of a receive: SQS's own maximum.
const MAX_RECEIVE: i32 = 10;

/// How long a receive may take: longer than its poll, since receives have been seen to hang for ever, and less
/// than the worker waits for one. It is tried once, as a second poll that is cut would hide messages which
/// nobody has got; the worker comes again.
const RECEIVE_LIMIT: Duration = Duration::from_secs(23);

/// How long any other call may take, with its tries. A dead letter takes three calls, and the worker waits 10
/// seconds for it.
const CALL_LIMIT: Duration = Duration::from_secs(3);

/// The same at the start, when credentials are fetched, perhaps by a program.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// For how long a message that died is put aside when there is no dead-letter queue. Long enough to cost
/// nothing, short enough for somebody who has mended what was wrong.
const PARKED: Duration = Duration::from_hours(1);

/// A queue in SQS.
#[derive(Debug)]
pub struct SqsQueue {
    receiver: Client,
    client: Client,
    batcher: Batcher,
    url: String,
    dead: Option<DeadLetterQueue>,
    max_receives: Option<u32>,
    visibility_timeout: Duration,
    wait_seconds: i32,
}

impl SqsQueue {
    /// Finds out what the queue itself says of dead letters. Where they go is in `dead_letter_url`, or in the
    /// queue's redrive policy; if in neither, a warning says so.
    ///
    /// # Errors
    /// When one of the queues does not exist, or the queue may not be looked at.
    pub async fn connect(
        client: Client,
        url: &str,
        dead_letter_url: Option<&str>,
        visibility_timeout: Duration,
    ) -> Result<Self, QueueError> {
        let looking = connect::patient(&client, CONNECT_LIMIT, true);
        let redrive = Redrive::of(&looking, url).await?;
        let dead_letter_url = match (dead_letter_url, &redrive.arn) {
            (Some(dead_letter_url), _) => Some(dead_letter_url.to_owned()),
            (None, Some(arn)) => Some(connect::url_of(&looking, arn, url).await?),
            (None, None) => None,
        };
        if dead_letter_url.as_deref() == Some(url) {
            let error = format!("{url} cannot be its own dead-letter queue; set `dead_letter_queue_url` to another");
            return Err(QueueError::Unavailable(error));
        }
        let dead = match dead_letter_url {
            Some(dead_letter_url) => Some(DeadLetterQueue::at(&looking, dead_letter_url).await?),
            None => {
                tracing::warn!(
                    queue = url,
                    minutes = PARKED.as_secs() / 60,
                    "no dead-letter queue: what can never be processed is tried again and again, at this interval; give the queue a redrive policy or set `dead_letter_queue_url`"
                );
                None
            }
        };
        let client = connect::patient(&client, CALL_LIMIT, true);
        Ok(Self {
            receiver: connect::patient(&client, RECEIVE_LIMIT, false),
            batcher: Batcher::start(client.clone(), url.to_owned()),
            client,
            url: url.to_owned(),
            dead,
            max_receives: redrive.max_receives,
            visibility_timeout,
            wait_seconds: WAIT_SECONDS,
        })
    }

    /// Polls for a short time only. A poll that is given up hides what it would have brought until the visibility
    /// timeout ends, so whoever wants to end soon has to poll so.
    #[must_use]
    pub fn with_short_polls(self) -> Self {
        Self { wait_seconds: SHORT_WAIT_SECONDS, ..self }
    }

    /// How often a message is received before the queue itself gives it up.
    #[must_use]
    pub fn max_receives(&self) -> Option<u32> {
        self.max_receives
    }

    /// About how many messages are left, in flight or not.
    ///
    /// # Errors
    /// When the queue cannot be asked.
    pub async fn left(&self) -> Result<u64, QueueError> {
        const COUNTS: [QueueAttributeName; 3] = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let request = self.client.get_queue_attributes().queue_url(&self.url);
        let output = request.set_attribute_names(Some(COUNTS.to_vec())).send().await;
        let output = output.map_err(|error| error::unavailable("sqs:GetQueueAttributes", &self.url, &error))?;
        let attributes = output.attributes.unwrap_or_default();
        let count = |name| attributes.get(name).and_then(|count| count.parse::<u64>().ok());
        COUNTS.iter().map(count).sum::<Option<u64>>().ok_or_else(|| {
            QueueError::Unavailable(format!("sqs:GetQueueAttributes on {}: the answer has no counts", self.url))
        })
    }

    /// Sends events of the host's own, and answers for each.
    pub async fn send(&self, bodies: &[String]) -> Vec<Result<(), QueueError>> {
        send::bodies(&self.client, &self.url, bodies).await
    }

    /// A walk through the dead letters.
    ///
    /// # Errors
    /// When there is no dead-letter queue.
    pub fn dead_letters(&self) -> Result<SqsDeadLetters, QueueError> {
        let missing = || {
            let error = format!(
                "{} has no dead-letter queue; give it a redrive policy or set `dead_letter_queue_url`",
                self.url
            );
            QueueError::Unavailable(error)
        };
        let dead = self.dead.as_ref().ok_or_else(missing)?;
        // A receive of the walk polls for less time than any call may take.
        Ok(SqsDeadLetters::new(self.client.clone(), dead.url.clone(), self.url.clone(), self.max_receives))
    }

    async fn change(&self, receipt: &Receipt, work: impl FnOnce(&Handle) -> Work) -> Result<(), QueueError> {
        let handle = Handle::parse(receipt).ok_or(QueueError::Stale)?;
        let work = work(&handle);
        self.batcher.carry_out(handle.handle, work).await
    }
}

/// One without a body, or with an empty one, goes its way as one that cannot be read.
fn message(message: SqsMessage, received: SystemTime) -> Option<Message> {
    let (id, handle) = identity(&message, received)?;
    let receive_count = receive_count(&message);
    let body = message.body.map(Bytes::from).unwrap_or_default();
    Some(Message { id, receipt: handle.to_receipt(), body, receive_count })
}

/// A message's id and receipt. Without a receipt nothing can be done with it: it comes back by itself.
fn identity(message: &SqsMessage, received: SystemTime) -> Option<(String, Handle)> {
    let id = message.message_id.clone().unwrap_or_default();
    let Some(handle) = message.receipt_handle.clone().filter(|handle| !handle.is_empty()) else {
        tracing::error!(message = id, "SQS delivered a message without a receipt, it comes back");
        return None;
    };
    let attributes = message.attributes.as_ref();
    let group = attributes.and_then(|attributes| attributes.get(&MessageSystemAttributeName::MessageGroupId)).cloned();
    // Some other service than SQS may leave ids out; the receipt tells messages apart too.
    let id = if id.is_empty() { handle.clone() } else { id };
    Some((id, Handle::new(received, group, handle)))
}

/// How often it has been received, this time included.
fn receive_count(message: &SqsMessage) -> u32 {
    let attributes = message.attributes.as_ref();
    let count = attributes.and_then(|attributes| attributes.get(&MessageSystemAttributeName::ApproximateReceiveCount));
    count.and_then(|count| count.parse().ok()).unwrap_or(1).max(1)
}

impl Queue for SqsQueue {
    async fn receive(&self, max: usize) -> Result<Vec<Message>, QueueError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let request = self
            .receiver
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(max).unwrap_or(MAX_RECEIVE).min(MAX_RECEIVE))
            .wait_time_seconds(self.wait_seconds)
            .visibility_timeout(receipt::whole_seconds(self.visibility_timeout))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount);
        let request = match send::is_fifo(&self.url) {
            true => request.message_system_attribute_names(MessageSystemAttributeName::MessageGroupId),
            false => request,
        };
        let output = request.send().await;
        let output = output.map_err(|error| error::unavailable("sqs:ReceiveMessage", &self.url, &error))?;
        let received = SystemTime::now();
        let messages = output.messages.unwrap_or_default().into_iter();
        Ok(messages.filter_map(|it| message(it, received)).collect())
    }

    async fn acknowledge(&self, receipt: &Receipt) -> Result<(), QueueError> {
        self.change(receipt, |_| Work::Delete).await
    }

    async fn set_visibility(&self, receipt: &Receipt, after: Duration) -> Result<(), QueueError> {
        let seconds = |handle: &Handle| Work::ChangeVisibility(handle.visibility_seconds(after, SystemTime::now()));
        self.change(receipt, seconds).await
    }

    /// SQS counts every receive, and at the next one its redrive policy would give up what is not to blame. So
    /// the last delivery is followed by a copy of the message, which counts from the start.
    async fn excuse(&self, message: &Message, after: Duration) -> Result<bool, QueueError> {
        let is_last = self.max_receives.is_some_and(|most| message.receive_count >= most);
        // The order of a FIFO queue is worth more.
        if is_last && !send::is_fifo(&self.url) {
            match send::copy(&self.client, &self.url, &message.body, after).await {
                Ok(()) => {
                    if let Err(error) = self.acknowledge(&message.receipt).await {
                        // Another try would send another copy.
                        tracing::warn!(message = message.id, %error, "sent a message anew, but cannot delete the old one");
                    }
                    return Ok(true);
                }
                Err(error) => tracing::warn!(
                    message = message.id,
                    %error,
                    "cannot send a message anew, the queue's redrive policy will give it up at its next receive"
                ),
            }
        }
        self.set_visibility(&message.receipt, after).await.map(|()| false)
    }

    async fn dead_letter(&self, message: &Message, letter: &DeadLetter) -> Result<(), QueueError> {
        let Some(dead) = &self.dead else {
            self.set_visibility(&message.receipt, PARKED).await?;
            tracing::error!(
                message = message.id,
                key = letter.key,
                class = letter.class,
                reason = letter.reason,
                "no dead-letter queue, the message stays and is tried again later"
            );
            return Ok(());
        };
        // Nobody renews its visibility any more. And if it is no longer ours, it is not ours to give up.
        self.set_visibility(&message.receipt, self.visibility_timeout).await?;
        let group = Handle::parse(&message.receipt).and_then(|handle| handle.group);
        send::dead_letter(&self.client, &dead.url, dead.max_bytes, message, group.as_deref(), letter).await?;
        self.acknowledge(&message.receipt).await
    }

    fn visibility_timeout(&self) -> Duration {
        self.visibility_timeout
    }
}
