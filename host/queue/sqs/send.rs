//! Messages that this host sends: dead letters, redriven ones, and events of its own.

use std::{
    collections::HashSet,
    ops::Range,
    time::{Duration, SystemTime},
};

use aws_sdk_sqs::{
    Client,
    types::{MessageAttributeValue, SendMessageBatchRequestEntry as SendEntry},
};

use super::{
    super::{DeadLetter, Message, QueueError},
    attributes, batch, error,
    receipt::{self, Handle},
};

const ACTION: &str = "sqs:SendMessage";

/// The size of a message with its attributes, and of all of a batch together, that every queue allows unless
/// somebody has changed that. See "Amazon SQS message quotas": newer queues allow 1 MiB.
pub(super) const DEFAULT_MAX_BYTES: usize = 256 << 10;

/// The longest delay of a new message: SQS's own maximum.
const MAX_DELAY: Duration = Duration::from_mins(15);

/// Stands for a body that is not there, since SQS takes no empty one. It is no event either.
const NO_BODY: &str = "(no body)";

/// The message group of what has none of its own, in a FIFO queue.
const GROUP: &str = "gristmill";

/// FIFO queues want a group and an id against duplicates with each message; they tell themselves by name.
pub(super) fn is_fifo(url: &str) -> bool {
    url.ends_with(".fifo")
}

/// Sends a message that died to the dead-letter queue at `url`.
pub(super) async fn dead_letter(
    client: &Client,
    url: &str,
    max_bytes: usize,
    message: &Message,
    group: Option<&str>,
    letter: &DeadLetter,
) -> Result<(), QueueError> {
    let body = text(&message.body);
    let mut request = client.send_message().queue_url(url);
    for attribute in attributes::write(letter, SystemTime::now(), max_bytes.saturating_sub(body.len())) {
        let value = MessageAttributeValue::builder().data_type(attribute.kind).string_value(attribute.value).build();
        let value = value.map_err(|error| QueueError::Unavailable(format!("{ACTION}: {error}")))?;
        request = request.message_attributes(attribute.name, value);
    }
    if is_fifo(url) {
        // A second try after a lost answer makes no second letter.
        request = request.message_group_id(group.unwrap_or(&message.id)).message_deduplication_id(&message.id);
    }
    let sent = request.message_body(body).send().await;
    sent.map(drop).map_err(|error| error::unavailable(ACTION, url, &error))
}

/// Sends a dead message's body to the queue at `url`, as it was when it first came.
pub(super) async fn redrive(
    client: &Client,
    url: &str,
    id: &str,
    handle: &Handle,
    body: &[u8],
) -> Result<(), QueueError> {
    let mut request = client.send_message().queue_url(url);
    if is_fifo(url) {
        request = request.message_group_id(handle.group.as_deref().unwrap_or(id)).message_deduplication_id(id);
    }
    let sent = request.message_body(text(body)).send().await;
    sent.map(drop).map_err(|error| error::unavailable(ACTION, url, &error))
}

/// Sends a body once more to the queue at `url`, to be received in `after` or in what SQS allows of it.
pub(super) async fn copy(client: &Client, url: &str, body: &[u8], after: Duration) -> Result<(), QueueError> {
    let delay = receipt::whole_seconds(after.min(MAX_DELAY));
    let sent = client.send_message().queue_url(url).message_body(text(body)).delay_seconds(delay).send().await;
    sent.map(drop).map_err(|error| error::unavailable(ACTION, url, &error))
}

/// Sends bodies in as few requests as they fit in, and answers for each.
pub(super) async fn bodies(client: &Client, url: &str, bodies: &[String]) -> Vec<Result<(), QueueError>> {
    let mut answers = Vec::with_capacity(bodies.len());
    for range in ranges(bodies) {
        answers.extend(batch_of(client, url, &bodies[range]).await);
    }
    answers
}

async fn batch_of(client: &Client, url: &str, bodies: &[String]) -> Vec<Result<(), QueueError>> {
    let entry = |(place, body): (usize, &String)| {
        let mut entry = SendEntry::builder().id(place.to_string()).message_body(body);
        if is_fifo(url) {
            // A new one for each call: an event may be sent again on purpose.
            let id = format!("{:032x}", fastrand::u128(..));
            entry = entry.message_group_id(GROUP).message_deduplication_id(id);
        }
        entry.build()
    };
    let entries = match bodies.iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>() {
        Ok(entries) => entries,
        Err(error) => return vec![Err(QueueError::Unavailable(format!("{ACTION}: {error}"))); bodies.len()],
    };
    match client.send_message_batch().queue_url(url).set_entries(Some(entries)).send().await {
        Ok(output) => {
            let successful: HashSet<&str> = output.successful.iter().map(|entry| entry.id.as_str()).collect();
            batch::each(ACTION, url, bodies.len(), &successful, &output.failed)
        }
        Err(error) => vec![Err(error::unavailable(ACTION, url, &error)); bodies.len()],
    }
}

/// Cuts a list into batches. One that is too large by itself goes alone, and SQS says what it thinks of it.
fn ranges(bodies: &[String]) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut size = 0;
    for (place, body) in bodies.iter().enumerate() {
        match ranges.last_mut() {
            Some(range) if range.len() < batch::MAX_ENTRIES && size + body.len() <= DEFAULT_MAX_BYTES => {
                range.end = place + 1;
                size += body.len();
            }
            _ => {
                ranges.push(place..place + 1);
                size = body.len();
            }
        }
    }
    ranges
}

/// What came from SQS is UTF-8.
fn text(body: &[u8]) -> String {
    match body {
        [] => NO_BODY.to_owned(),
        body => String::from_utf8_lossy(body).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_cut_by_number_and_by_size() {
        let of = |sizes: &[usize]| ranges(&sizes.iter().map(|size| "x".repeat(*size)).collect::<Vec<_>>());
        assert!(of(&[]).is_empty());
        assert_eq!(of(&[1; 25]), [0..10, 10..20, 20..25]);
        assert_eq!(of(&[100 << 10, 100 << 10, 100 << 10, 1]), [0..2, 2..4]);
        assert_eq!(of(&[1, 300 << 10, 1]), [0..1, 1..2, 2..3]);
        assert_eq!(of(&[256 << 10, 1]), [0..1, 1..2]);
    }
}
