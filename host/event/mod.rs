//! Bytes of a message to object events, pure.
//!
//! Four shapes are read: S3's own notification, which local mode's intake writes as well; the same inside an
//! SNS envelope; an event of EventBridge; and that inside an SNS envelope. What SNS delivers raw is the first
//! again. Reading takes one pass and at most a few times the message's size of memory, which SQS bounds at
//! 1 MiB.

mod bridge;
mod field;
mod notification;
#[cfg(test)]
mod tests;

use serde::Deserialize;
use serde_json::{error::Category, json};

use self::{
    bridge::Detail,
    field::{Field, Object},
    notification::Records,
};
use crate::{key, text::printable};

/// Something was stored at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEvent {
    /// The bucket's name.
    pub bucket: String,
    /// The whole key, decoded.
    pub key: String,
    /// Bytes, as the event says.
    pub size: Option<u64>,
    /// Opaque, without quotes.
    pub etag: Option<String>,
    /// In a bucket with versioning.
    pub version_id: Option<String>,
    /// RFC 3339 in UTC.
    pub event_time: Option<String>,
    /// As in `ObjectCreated:Put`.
    pub event_name: String,
}

/// What a message says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// In the order of the message. Several are rare, but allowed.
    pub objects: Vec<ObjectEvent>,
    /// The names of events that are not about a new object: removals, restores, tests.
    pub ignored: Vec<String>,
}

/// Why a message cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The bytes are not JSON.
    #[error("the message is not JSON: {0}")]
    NotJson(String),
    /// It is JSON, but no event.
    #[error("the message is JSON, but no event of S3: {0}")]
    NotAnEvent(String),
    /// One of its records cannot be read, and may be about a new object.
    #[error("record {index} of the message cannot be read: {reason}")]
    Record {
        /// From 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// It is about a new object, but does not say which.
    #[error("the event of EventBridge cannot be read: {0}")]
    Detail(String),
    /// SNS asks whether this queue wants the topic's messages, or says that it gets no more of them. Nobody
    /// but a person can answer.
    #[error(
        "the message is a `{kind}` of the SNS topic `{topic}`, which sends this queue no events until somebody opens \
         the `SubscribeURL` in it"
    )]
    Confirmation {
        /// What SNS calls it.
        kind: String,
        /// Its ARN.
        topic: String,
    },
    /// What SNS carries.
    #[error("in an SNS envelope: {0}")]
    Envelope(Box<EventError>),
}

/// What S3 calls its test event, which it sends when a notification is set up.
const TEST_EVENT: &str = "s3:TestEvent";

/// Every event about a new object has a name that begins so.
const CREATED: &str = "ObjectCreated:";

/// What SNS calls its messages ("Parsing Amazon SNS message formats" in its developer guide).
const NOTIFICATION: &str = "Notification";
const CONFIRMATIONS: [&str; 2] = ["SubscriptionConfirmation", "UnsubscribeConfirmation"];

/// Bytes that a reason repeats of a text in the message: names are short, and what is not is no name.
const MAX_SHOWN: usize = 200;

/// The fields that tell the shapes apart, and those of envelopes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    /// A notification of S3.
    #[serde(rename = "Records")]
    records: Field<Records>,
    /// A test event of S3.
    #[serde(rename = "Event")]
    event: Field<String>,
    /// A message of SNS, and what is in it.
    #[serde(rename = "Type")]
    kind: Field<String>,
    #[serde(rename = "TopicArn")]
    topic: Field<String>,
    #[serde(rename = "Message")]
    message: Field<String>,
    /// An event of EventBridge, and what is in it.
    source: Field<String>,
    #[serde(rename = "detail-type")]
    detail_type: Field<String>,
    time: Field<String>,
    detail: Field<Object<Detail>>,
}

/// Reads all records of a message.
///
/// # Errors
/// When anything in it may be about a new object and cannot be read: nothing is dropped that way.
pub fn parse(body: &[u8]) -> Result<Events, EventError> {
    let message = message(body)?;
    match &message.kind {
        // What else has a type as well is told apart by what only S3 writes.
        Field::Absent => {}
        _ if !message.records.is_absent() => {}
        _ => return envelope(message),
    }
    content(message)
}

fn message(body: &[u8]) -> Result<Message, EventError> {
    let message: Field<Object<Message>> = serde_json::from_slice(body).map_err(|error| match error.classify() {
        // A field is there twice. Who knows which one counts.
        Category::Data => EventError::NotAnEvent(shown(&error.to_string())),
        Category::Syntax | Category::Eof | Category::Io => EventError::NotJson(shown(&error.to_string())),
    })?;
    match message {
        Field::Is(Object(message)) => Ok(message),
        Field::Absent => Err(EventError::NotAnEvent("it is null, and should be an object".to_owned())),
        Field::IsNot(kind) => Err(EventError::NotAnEvent(format!("it is {kind}, and should be an object"))),
    }
}

/// What SNS wraps around a message that it does not deliver raw.
fn envelope(envelope: Message) -> Result<Events, EventError> {
    let kind = envelope.kind.required_text("Type").map_err(EventError::NotAnEvent)?;
    if CONFIRMATIONS.contains(&kind.as_str()) {
        let topic = envelope.topic.required_text("TopicArn").map_err(EventError::NotAnEvent)?;
        return Err(EventError::Confirmation { kind, topic: shown(&topic) });
    }
    if kind != NOTIFICATION {
        let reason = format!("its `Type` is `{}`, and should be `{NOTIFICATION}` as SNS writes it", shown(&kind));
        return Err(EventError::NotAnEvent(reason));
    }
    let carried = envelope.message.required("Message").map_err(EventError::NotAnEvent)?;
    let inside = |error| EventError::Envelope(Box::new(error));
    let carried = message(carried.as_bytes()).map_err(inside)?;
    if !carried.kind.is_absent() && carried.records.is_absent() {
        // One is all that AWS makes. With no end to it, a message could be unpacked for ever.
        return Err(inside(EventError::NotAnEvent("it is one more envelope, and one is the most".to_owned())));
    }
    content(carried).map_err(inside)
}

fn content(message: Message) -> Result<Events, EventError> {
    if let Some(Records(records)) = message.records.optional("Records").map_err(EventError::NotAnEvent)? {
        return records;
    }
    if let Some(event) = message.event.optional("Event").map_err(EventError::NotAnEvent)? {
        return if event == TEST_EVENT {
            Ok(Events { objects: Vec::new(), ignored: vec![event] })
        } else {
            Err(EventError::NotAnEvent(format!("its `Event` is `{}`", shown(&event))))
        };
    }
    if message.detail_type.is_absent() && message.detail.is_absent() {
        let reason =
            "it has neither `Records`, as S3 writes them, nor a `Type` of SNS nor a `detail-type` of EventBridge";
        return Err(EventError::NotAnEvent(reason.to_owned()));
    }
    bridge::read(message.source, message.detail_type, message.time, message.detail)
}

/// Whether a version like `2.1` has the major number that is known.
fn known_major(name: &str, version: &str, known: &str) -> Result<(), String> {
    if version.split('.').next() == Some(known) {
        return Ok(());
    }
    Err(format!("its `{name}` is `{}`, and this version of gristmill reads {known}.x: use a newer one", shown(version)))
}

/// An entity tag without its quotes.
fn bare(etag: Option<String>) -> Option<String> {
    etag.map(|etag| etag.trim_matches('"').to_owned()).filter(|etag| !etag.is_empty())
}

/// A text of the message as a reason may repeat it.
fn shown(text: &str) -> String {
    printable(text, MAX_SHOWN)
}

/// The same as S3 would send it.
pub fn encode(event: &ObjectEvent) -> Vec<u8> {
    let mut object = serde_json::Map::new();
    object.insert("key".to_owned(), key::encode(&event.key).into());
    object.extend(event.size.map(|size| ("size".to_owned(), size.into())));
    object.extend(event.etag.as_deref().map(|etag| ("eTag".to_owned(), etag.into())));
    object.extend(event.version_id.as_deref().map(|version| ("versionId".to_owned(), version.into())));
    let mut record = json!({
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": event.event_name,
        "s3": { "s3SchemaVersion": "1.0", "bucket": { "name": event.bucket }, "object": object },
    });
    if let Some(time) = &event.event_time {
        record["eventTime"] = time.as_str().into();
    }
    json!({ "Records": [record] }).to_string().into_bytes()
}
