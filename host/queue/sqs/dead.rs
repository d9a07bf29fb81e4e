//! A walk through the dead-letter queue.
//!
//! SQS has no way to look at a queue but to receive from it. So the walk holds what it has seen invisible until
//! its end, and then gives back what was kept. One that is broken off gives it back when the visibility timeout
//! ends. In a FIFO queue what is held hides the rest of its message group: there each walk sees the first ten
//! messages of a group, and the next ones after these have been redriven or purged.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use aws_sdk_sqs::{
    Client,
    types::{Message as SqsMessage, MessageSystemAttributeName as Name},
};
use bytes::Bytes;

use super::{
    super::{DeadLetters, DeadMessage, QueueError},
    attributes, batch, error,
    receipt::{self, Handle},
    send,
};

const RECEIVE: &str = "sqs:ReceiveMessage";

/// How long a message stays invisible once the walk has seen it: enough for a long walk, and for somebody who
/// is asked about each, and no harm if the walk is broken off.
const HELD: Duration = Duration::from_mins(5);

/// How long a receive waits. A short poll asks only some of SQS's servers and may miss messages.
const WAIT_SECONDS: i32 = 1;

/// How many receives in a row that bring nothing new end the walk: SQS may answer one with nothing although
/// there is something.
const VAIN_RECEIVES: u32 = 2;

/// The most messages that a walk holds. SQS lets 120,000 be in flight, and a FIFO queue 20,000; a receipt has
/// some 400 bytes.
const MAX_HELD: usize = 20_000;

/// The dead letters of a [`super::SqsQueue`].
#[derive(Debug)]
pub struct SqsDeadLetters {
    client: Client,
    /// Of the dead-letter queue.
    url: String,
    /// Where they came from, and go to when they are redriven.
    source_url: String,
    /// After how many deliveries the source's redrive policy moves a message.
    max_receives: Option<u32>,
    /// The receipts of what the walk has seen and not deleted, by message.
    held: HashMap<String, Handle>,
    ended: bool,
}

impl SqsDeadLetters {
    pub(super) fn new(client: Client, url: String, source_url: String, max_receives: Option<u32>) -> Self {
        Self { client, url, source_url, max_receives, held: HashMap::new(), ended: false }
    }

    async fn receive(&self) -> Result<Vec<SqsMessage>, QueueError> {
        let request = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(super::MAX_RECEIVE)
            .wait_time_seconds(WAIT_SECONDS)
            .visibility_timeout(receipt::whole_seconds(HELD))
            .message_system_attribute_names(Name::ApproximateReceiveCount)
            .message_system_attribute_names(Name::SentTimestamp)
            .message_attribute_names("All");
        let request = match send::is_fifo(&self.url) {
            true => request.message_system_attribute_names(Name::MessageGroupId),
            false => request,
        };
        let output = request.send().await.map_err(|error| error::unavailable(RECEIVE, &self.url, &error))?;
        Ok(output.messages.unwrap_or_default())
    }

    /// Remembers a message, and reads it if the walk has not seen it.
    fn take(&mut self, message: SqsMessage, received: SystemTime) -> Option<DeadMessage> {
        let (id, handle) = super::identity(&message, received)?;
        let receipt = handle.to_receipt();
        if self.held.insert(id.clone(), handle).is_some() {
            return None;
        }
        let system = |name: &Name| message.attributes.as_ref().and_then(|attributes| attributes.get(name));
        // The walk's own receive is counted too.
        let received_before = super::receive_count(&message).saturating_sub(1);
        let attribute = |name: &str| message.message_attributes.as_ref()?.get(name)?.string_value.clone();
        let (letter, died) = attributes::read(attribute, self.max_receives.unwrap_or(received_before));
        let sent = system(&Name::SentTimestamp).and_then(|millis| millis.parse().ok()).map(Duration::from_millis);
        Some(DeadMessage {
            id,
            receipt,
            body: message.body.map(Bytes::from).unwrap_or_default(),
            letter,
            // A message that SQS itself has moved still says when it was sent at first.
            died: died.unwrap_or(SystemTime::UNIX_EPOCH + sent.unwrap_or_default()),
        })
    }

    /// The newest receipt of a message that was handed out.
    fn handle(&self, message: &DeadMessage) -> Result<Handle, QueueError> {
        self.held.get(&message.id).cloned().or_else(|| Handle::parse(&message.receipt)).ok_or(QueueError::Stale)
    }

    async fn delete(&mut self, message: &DeadMessage) -> Result<(), QueueError> {
        let handle = self.handle(message)?.handle;
        for answer in batch::delete(&self.client, &self.url, vec![handle]).await {
            answer?;
        }
        self.held.remove(&message.id);
        Ok(())
    }
}

impl DeadLetters for SqsDeadLetters {
    async fn next(&mut self) -> Result<Vec<DeadMessage>, QueueError> {
        let mut vain = 0;
        while !self.ended && vain < VAIN_RECEIVES {
            if self.held.len() >= MAX_HELD {
                tracing::warn!(limit = MAX_HELD, "the walk ends here, there may be more dead letters");
                break;
            }
            let messages = self.receive().await?;
            let received = SystemTime::now();
            let new: Vec<_> = messages.into_iter().filter_map(|message| self.take(message, received)).collect();
            if !new.is_empty() {
                return Ok(new);
            }
            vain += 1;
        }
        self.end().await?;
        Ok(Vec::new())
    }

    async fn keep(&mut self, _: &DeadMessage) -> Result<(), QueueError> {
        // It is given back at the end. If it were now, the walk would meet it again and again.
        Ok(())
    }

    async fn redrive(&mut self, message: &DeadMessage) -> Result<(), QueueError> {
        let handle = self.handle(message)?;
        send::redrive(&self.client, &self.source_url, &message.id, &handle, &message.body).await?;
        self.delete(message).await
    }

    async fn purge(&mut self, message: &DeadMessage) -> Result<(), QueueError> {
        self.delete(message).await
    }

    async fn end(&mut self) -> Result<(), QueueError> {
        self.ended = true;
        let held: Vec<_> = self.held.drain().map(|(_, handle)| (handle.handle, 0)).collect();
        for batch in held.chunks(batch::MAX_ENTRIES) {
            for answer in batch::change_visibility(&self.client, &self.url, batch.to_vec()).await {
                match answer {
                    Ok(()) | Err(QueueError::Stale) => {}
                    Err(error) => {
                        let minutes = HELD.as_secs() / 60;
                        tracing::warn!(%error, minutes, "cannot give a dead letter back, it is invisible for a while");
                    }
                }
            }
        }
        Ok(())
    }
}
