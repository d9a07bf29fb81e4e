//! Bytes of a message to object events, pure.
//!
//! The shape is S3's own notification ("Event message structure" in the Amazon S3 user guide). Local
//! mode's intake writes the same one, so that both modes read with the same code.

use serde::Deserialize;
use serde_json::json;

use crate::key;

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
    #[error("the message is JSON, but not an S3 notification: {0}")]
    NotAnEvent(String),
    /// One of its records is about a new object, but does not say which.
    #[error("record {index} of the message cannot be read: {reason}")]
    Record {
        /// From 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Notification {
        #[serde(rename = "Records")]
        records: Vec<serde_json::Value>,
    },
    /// S3 sends one when a notification is set up.
    Test {
        #[serde(rename = "Event")]
        event: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Name {
    event_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    event_time: Option<String>,
    s3: Entity,
}

#[derive(Deserialize)]
struct Entity {
    bucket: Bucket,
    object: Object,
}

#[derive(Deserialize)]
struct Bucket {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    key: String,
    size: Option<u64>,
    e_tag: Option<String>,
    version_id: Option<String>,
}

/// What S3 calls its test event.
const TEST_EVENT: &str = "s3:TestEvent";

/// Every event about a new object has a name that begins so.
const CREATED: &str = "ObjectCreated:";

/// Reads all records of a message.
pub fn parse(body: &[u8]) -> Result<Events, EventError> {
    let json: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| EventError::NotJson(error.to_string()))?;
    let records = match Message::deserialize(json) {
        Ok(Message::Notification { records }) => records,
        Ok(Message::Test { event }) if event == TEST_EVENT => {
            return Ok(Events { objects: Vec::new(), ignored: vec![event] });
        }
        Ok(Message::Test { event }) => return Err(EventError::NotAnEvent(format!("its `Event` is `{event}`"))),
        Err(_) => return Err(EventError::NotAnEvent("it has no list of `Records`".to_owned())),
    };
    let mut events = Events::default();
    for (index, record) in records.into_iter().enumerate() {
        let wrong = |reason: String| EventError::Record { index, reason };
        // The name comes first: records of other events need not have an object at all.
        let Name { event_name } = Name::deserialize(&record).map_err(|error| wrong(error.to_string()))?;
        let event_name = event_name.strip_prefix("s3:").map(str::to_owned).unwrap_or(event_name);
        if !event_name.starts_with(CREATED) {
            events.ignored.push(event_name);
            continue;
        }
        let record = Record::deserialize(&record).map_err(|error| wrong(error.to_string()))?;
        events.objects.push(object_event(event_name, record).map_err(wrong)?);
    }
    Ok(events)
}

fn object_event(event_name: String, record: Record) -> Result<ObjectEvent, String> {
    let Entity { bucket, object } = record.s3;
    let key = key::decode(&object.key).map_err(|error| error.to_string())?;
    if key.is_empty() {
        return Err("its key is empty".to_owned());
    }
    if bucket.name.is_empty() {
        return Err("its bucket's name is empty".to_owned());
    }
    Ok(ObjectEvent {
        bucket: bucket.name,
        key,
        size: object.size,
        etag: object.e_tag.map(|etag| etag.trim_matches('"').to_owned()),
        version_id: object.version_id,
        event_time: record.event_time,
        event_name,
    })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From "Event message structure" in the Amazon S3 user guide, shortened.
    const PUT: &str = r#"{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","awsRegion":"us-west-2",
        "eventTime":"1970-01-01T00:00:00.000Z","eventName":"ObjectCreated:Put",
        "s3":{"s3SchemaVersion":"1.0","configurationId":"testConfigRule",
        "bucket":{"name":"amzn-s3-demo-bucket","arn":"arn:aws:s3:::amzn-s3-demo-bucket"},
        "object":{"key":"uploads/red+flower%2B1.jpg","size":1024,"eTag":"d41d8cd98f00b204e9800998ecf8427e",
        "versionId":"096fKKXTRTtl3on89fVO.nfljtsv6qko","sequencer":"0055AED6DCD90281E5"}}}]}"#;

    #[test]
    fn a_put_is_read() {
        let events = parse(PUT.as_bytes()).unwrap();
        let expected = ObjectEvent {
            bucket: "amzn-s3-demo-bucket".to_owned(),
            key: "uploads/red flower+1.jpg".to_owned(),
            size: Some(1024),
            etag: Some("d41d8cd98f00b204e9800998ecf8427e".to_owned()),
            version_id: Some("096fKKXTRTtl3on89fVO.nfljtsv6qko".to_owned()),
            event_time: Some("1970-01-01T00:00:00.000Z".to_owned()),
            event_name: "ObjectCreated:Put".to_owned(),
        };
        assert_eq!(events, Events { objects: vec![expected], ignored: Vec::new() });
    }

    #[test]
    fn every_record_counts_and_others_are_named() {
        let record = |name: &str, key: &str| {
            format!(r#"{{"eventName":"{name}","s3":{{"bucket":{{"name":"b"}},"object":{{"key":"{key}"}}}}}}"#)
        };
        let body = format!(
            r#"{{"Records":[{},{},{},{{"eventName":"Replication:Later"}}]}}"#,
            record("ObjectCreated:Copy", "a"),
            record("ObjectRemoved:Delete", "%zz"),
            record("s3:ObjectCreated:CompleteMultipartUpload", "c"),
        );
        let events = parse(body.as_bytes()).unwrap();
        assert_eq!(events.objects.iter().map(|event| event.key.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(events.objects[1].event_name, "ObjectCreated:CompleteMultipartUpload");
        assert_eq!(events.ignored, ["ObjectRemoved:Delete", "Replication:Later"]);
    }

    #[test]
    fn a_test_event_has_no_objects() {
        let body = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2014-10-13T15:57:02.089Z",
            "Bucket":"b","RequestId":"5582815E1AEA5ADF","HostId":"8cLeGAmw098X5cv4Zkwcmo8vvZa3eH3eKxsPzbB9wrR"}"#;
        let events = parse(body.as_bytes()).unwrap();
        assert_eq!(events, Events { objects: Vec::new(), ignored: vec![TEST_EVENT.to_owned()] });
        assert_eq!(parse(br#"{"Records":[]}"#), Ok(Events::default()));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let record = |object: &str| {
            format!(
                r#"{{"Records":[{{"eventName":"ObjectCreated:Put","s3":{{"bucket":{{"name":"b"}},"object":{object}}}}}]}}"#
            )
        };
        for (body, why) in [
            (String::new(), "the message is not JSON: EOF"),
            ("{".repeat(100_000), "not JSON"),
            ("[".repeat(100_000), "not JSON: recursion limit exceeded"),
            ("null".to_owned(), "not an S3 notification: it has no list of `Records`"),
            (r#"{"Records":{}}"#.to_owned(), "it has no list of `Records`"),
            (r#"{"Event":"x"}"#.to_owned(), "its `Event` is `x`"),
            (r#"{"Records":[7]}"#.to_owned(), "record 0 of the message cannot be read: invalid type"),
            (r#"{"Records":[{}]}"#.to_owned(), "missing field `eventName`"),
            (r#"{"Records":[{"eventName":"ObjectCreated:Put"}]}"#.to_owned(), "missing field `s3`"),
            (record("{}"), "missing field `key`"),
            (record(r#"{"key":""}"#), "its key is empty"),
            (record(r#"{"key":"a%2"}"#), "`a%2`"),
            (record(r#"{"key":"a","size":-1}"#), "invalid value"),
        ] {
            let error = parse(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    prop_compose! {
        fn event()(
            bucket in ".+", key in ".+", size: Option<u64>, etag in prop::option::of("[^\"]*"),
            version_id: Option<String>, event_time: Option<String>, kind: String,
        ) -> ObjectEvent {
            ObjectEvent { bucket, key, size, etag, version_id, event_time, event_name: format!("{CREATED}{kind}") }
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(event in event()) {
            let events = parse(&encode(&event)).unwrap();
            prop_assert_eq!(events, Events { objects: vec![event], ignored: Vec::new() });
        }

        #[test]
        fn no_bytes_panic(body: Vec<u8>) {
            let _ = parse(&body);
        }

        #[test]
        fn no_damaged_message_panics(at in 0..PUT.len(), byte: u8, end in 0..PUT.len()) {
            let mut body = PUT.as_bytes().to_vec();
            body[at] = byte;
            let _ = parse(&body);
            body.truncate(end);
            prop_assert!(parse(&body).is_err());
        }
    }
}
