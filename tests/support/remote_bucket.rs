//! A bucket, the queue of its events and that queue's dead letters, on whatever plays AWS, as a test sees
//! and changes them. It shares no code with the host.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

use aws_sdk_s3::{
    config::{BehaviorVersion, Credentials, Region},
    primitives::ByteStream,
    types::{
        EncodingType, Event, EventBridgeConfiguration, FilterRule, FilterRuleName, NotificationConfiguration,
        NotificationConfigurationFilter, QueueConfiguration, S3KeyFilter, TopicConfiguration,
    },
};
use aws_sdk_sqs::types::{
    ChangeMessageVisibilityBatchRequestEntry, MessageAttributeValue, QueueAttributeName, SendMessageBatchRequestEntry,
};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::JoinSet};

/// Requests at a time where there are many to send.
const AT_ONCE: usize = 16;

/// The most messages that SQS takes or gives in one request.
const BATCH: usize = 10;

/// Deliveries before the queue itself gives a message up. The host gives up first.
const MAX_RECEIVES: u32 = 20;

/// What tests do over the network, they do here.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("tests").enable_all().build().unwrap()
});

/// How events get from the bucket to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// S3 sends them to the queue.
    Direct,
    /// S3 sends them to a topic, which wraps them up.
    Topic,
    /// The same, delivered raw.
    RawTopic,
    /// S3 sends them to EventBridge, and a rule takes those of this bucket.
    EventBridge,
    /// Not at all: the test sends its own.
    None,
}

/// What S3 keeps with an object besides its bytes, and a move has to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Headers by their name.
    pub headers: BTreeMap<String, String>,
    pub metadata: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
}

impl Default for Attributes {
    /// No more than what S3 keeps of every object.
    fn default() -> Self {
        let headers = BTreeMap::from([("content-type".to_owned(), "application/octet-stream".to_owned())]);
        Self { headers, metadata: BTreeMap::new(), tags: BTreeMap::new() }
    }
}

/// An object as it is in the bucket.
#[derive(Debug, Clone)]
pub struct Stored {
    pub content: Vec<u8>,
    /// Without quotes.
    pub etag: String,
    pub attributes: Attributes,
}

/// A message as it is in a queue.
#[derive(Debug, Clone)]
pub struct Queued {
    pub body: String,
    pub attributes: BTreeMap<String, String>,
}

/// One of its own for each test.
pub struct Remote {
    s3: aws_sdk_s3::Client,
    sqs: aws_sdk_sqs::Client,
    endpoint: String,
    pub bucket: String,
    /// URLs.
    pub queue: String,
    pub dead_letters: String,
}

impl Remote {
    /// A new bucket, whose events about what lands under `uploads/` come to a new queue.
    pub fn new(endpoint: &str, events: Events) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let (s3, sqs) = clients(endpoint);
        let (queue, dead_letters, arn) = RUNTIME.block_on(async {
            let dead_letters = create_queue(&sqs, &format!("{name}-dead"), None).await;
            let policy =
                json!({ "deadLetterTargetArn": arn(&sqs, &dead_letters).await, "maxReceiveCount": MAX_RECEIVES });
            let queue = create_queue(&sqs, &name, Some(policy.to_string())).await;
            s3.create_bucket().bucket(&name).send().await.unwrap();
            let arn = arn(&sqs, &queue).await;
            (queue, dead_letters, arn)
        });
        let this = Self { s3, sqs, endpoint: endpoint.to_owned(), bucket: name, queue, dead_letters };
        this.wire(events, &arn);
        this
    }

    /// Another bucket that sends its events to the same queue.
    pub fn second_bucket(&self) -> Self {
        let bucket = format!("{}-second", self.bucket);
        let arn = RUNTIME.block_on(async {
            self.s3.create_bucket().bucket(&bucket).send().await.unwrap();
            arn(&self.sqs, &self.queue).await
        });
        let this = Self {
            s3: self.s3.clone(),
            sqs: self.sqs.clone(),
            endpoint: self.endpoint.clone(),
            bucket,
            queue: self.queue.clone(),
            dead_letters: self.dead_letters.clone(),
        };
        this.wire(Events::Direct, &arn);
        this
    }

    /// What a process needs in its environment to take the stand-in for AWS.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
    }

    fn wire(&self, events: Events, queue: &str) {
        let filter = NotificationConfigurationFilter::builder()
            .key(
                S3KeyFilter::builder()
                    .filter_rules(FilterRule::builder().name(FilterRuleName::Prefix).value("uploads/").build())
                    .build(),
            )
            .build();
        let created = || Event::from("s3:ObjectCreated:*");
        let configuration = NotificationConfiguration::builder();
        let configuration = match events {
            Events::None => return,
            Events::Direct => configuration.queue_configurations(
                QueueConfiguration::builder().queue_arn(queue).events(created()).filter(filter).build().unwrap(),
            ),
            Events::Topic | Events::RawTopic => {
                let topic = self.topic(queue, events == Events::RawTopic);
                configuration.topic_configurations(
                    TopicConfiguration::builder().topic_arn(topic).events(created()).filter(filter).build().unwrap(),
                )
            }
            Events::EventBridge => {
                self.rule(queue);
                configuration.event_bridge_configuration(EventBridgeConfiguration::builder().build())
            }
        };
        let request = self
            .s3
            .put_bucket_notification_configuration()
            .bucket(&self.bucket)
            .notification_configuration(configuration.build());
        RUNTIME.block_on(request.send()).unwrap();
    }

    /// A topic of SNS that this queue has subscribed to.
    fn topic(&self, queue: &str, raw: bool) -> String {
        let made = self.post("sns", &[], &format!("Action=CreateTopic&Name={}", self.bucket));
        let (_, rest) = made.split_once("<TopicArn>").unwrap();
        let topic = rest.split('<').next().unwrap().to_owned();
        self.post(
            "sns",
            &[],
            &format!(
                "Action=Subscribe&TopicArn={topic}&Protocol=sqs&Endpoint={queue}&ReturnSubscriptionArn=true\
                 &Attributes.entry.1.key=RawMessageDelivery&Attributes.entry.1.value={raw}"
            ),
        );
        topic
    }

    /// A rule of EventBridge that hands this bucket's new objects to the queue, wherever they are in it.
    fn rule(&self, queue: &str) {
        let pattern = json!({
            "source": ["aws.s3"], "detail-type": ["Object Created"], "detail": { "bucket": { "name": [self.bucket] } }
        });
        let rule = json!({ "Name": self.bucket, "EventPattern": pattern.to_string() });
        self.post("events", &["X-Amz-Target: AWSEvents.PutRule"], &rule.to_string());
        let target = json!({ "Rule": self.bucket, "Targets": [{ "Id": "queue", "Arn": queue }] });
        self.post("events", &["X-Amz-Target: AWSEvents.PutTargets"], &target.to_string());
    }

    /// A call of a service that no SDK is at hand for. Names and ARNs need no escapes.
    fn post(&self, service: &str, headers: &[&str], body: &str) -> String {
        let kind = if headers.is_empty() { "x-www-form-urlencoded" } else { "x-amz-json-1.1" };
        let host = self.endpoint.strip_prefix("http://").unwrap();
        let mut request = format!(
            "POST / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/{kind}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/{service}/aws4_request, \
             SignedHeaders=host, Signature=none\r\nContent-Length: {}\r\n",
            body.len()
        );
        for header in headers {
            request += &format!("{header}\r\n");
        }
        let mut stream = TcpStream::connect(host).unwrap();
        stream.write_all(format!("{request}\r\n{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{service}: {body}: {answer}");
        answer
    }

    /// Uploads, and answers the entity tag.
    pub fn put(&self, key: &str, content: &[u8]) -> String {
        self.put_with(key, content, &Attributes::default())
    }

    pub fn put_with(&self, key: &str, content: &[u8], attributes: &Attributes) -> String {
        RUNTIME.block_on(put(
            self.s3.clone(),
            self.bucket.clone(),
            key.to_owned(),
            content.to_vec(),
            attributes.clone(),
        ))
    }

    /// Uploads many at once, and answers their entity tags in the same order.
    pub fn put_all(&self, objects: impl IntoIterator<Item = (String, Vec<u8>, Attributes)>) -> Vec<String> {
        let (s3, bucket) = (&self.s3, &self.bucket);
        many(
            objects
                .into_iter()
                .map(|(key, content, attributes)| put(s3.clone(), bucket.clone(), key, content, attributes)),
        )
    }

    pub fn delete(&self, key: &str) {
        RUNTIME.block_on(self.s3.delete_object().bucket(&self.bucket).key(key).send()).unwrap();
    }

    /// What is at the key, if anything.
    pub fn get(&self, key: &str) -> Option<Stored> {
        RUNTIME.block_on(get(self.s3.clone(), self.bucket.clone(), key.to_owned()))
    }

    pub fn exists(&self, key: &str) -> bool {
        let head = self.s3.head_object().bucket(&self.bucket).key(key);
        match RUNTIME.block_on(head.send()) {
            Ok(_) => true,
            Err(error) if error.as_service_error().is_some_and(|error| error.is_not_found()) => false,
            Err(error) => panic!("{key}: {error:?}"),
        }
    }

    /// Every key of the bucket.
    pub fn keys(&self) -> Vec<String> {
        RUNTIME.block_on(async {
            let mut keys = Vec::new();
            let mut from = None;
            loop {
                // A key may have characters that XML has not.
                let page = self.s3.list_objects_v2().bucket(&self.bucket).encoding_type(EncodingType::Url);
                let page = page.set_continuation_token(from.take()).send().await.unwrap();
                let is_encoded = page.encoding_type() == Some(&EncodingType::Url);
                let key = |key: &str| if is_encoded { form_decode(key).unwrap() } else { key.to_owned() };
                keys.extend(page.contents().iter().map(|object| key(object.key().unwrap())));
                from = page.next_continuation_token().map(str::to_owned);
                if from.is_none() {
                    return keys;
                }
            }
        })
    }

    /// The whole bucket.
    pub fn objects(&self) -> BTreeMap<String, Stored> {
        let keys = self.keys();
        let found = many(keys.iter().map(|key| get(self.s3.clone(), self.bucket.clone(), key.clone())));
        keys.into_iter().zip(found).filter_map(|(key, stored)| Some((key, stored?))).collect()
    }

    /// Keys of uploads in parts that somebody began and neither finished nor gave up.
    pub fn unfinished_uploads(&self) -> Vec<String> {
        let uploads = RUNTIME.block_on(self.s3.list_multipart_uploads().bucket(&self.bucket).send()).unwrap();
        uploads.uploads().iter().map(|upload| upload.key().unwrap().to_owned()).collect()
    }

    /// Sends messages of the test's own to the queue.
    pub fn send(&self, bodies: &[String]) {
        let entry = |(n, body): (usize, &String)| {
            SendMessageBatchRequestEntry::builder().id(n.to_string()).message_body(body).build().unwrap()
        };
        many(bodies.chunks(BATCH).map(|batch| {
            let entries = batch.iter().enumerate().map(entry).collect();
            let request = self.sqs.send_message_batch().queue_url(&self.queue).set_entries(Some(entries));
            async move { assert!(request.send().await.unwrap().failed().is_empty()) }
        }));
    }

    /// Sends a dead letter, with attributes.
    pub fn bury(&self, body: &str, attributes: &[(&'static str, String)]) {
        let attribute =
            |value: &str| MessageAttributeValue::builder().data_type("String").string_value(value).build().unwrap();
        let mut request = self.sqs.send_message().queue_url(&self.dead_letters).message_body(body);
        for (name, value) in attributes {
            request = request.message_attributes(*name, attribute(value));
        }
        RUNTIME.block_on(request.send()).unwrap();
    }

    /// Deletes every message.
    pub fn empty(&self, queue: &str) {
        RUNTIME.block_on(self.sqs.purge_queue().queue_url(queue).send()).unwrap();
    }

    /// Takes a message into work and never settles it.
    pub fn hold(&self, queue: &str) {
        let taken = RUNTIME.block_on(self.sqs.receive_message().queue_url(queue).send()).unwrap();
        assert_eq!(taken.messages().len(), 1);
    }

    /// Begins an upload in parts and never finishes it.
    pub fn begin_upload(&self, key: &str) {
        RUNTIME.block_on(self.s3.create_multipart_upload().bucket(&self.bucket).key(key).send()).unwrap();
    }

    /// Messages that wait, and messages that somebody has in work.
    pub fn counts(&self, queue: &str) -> (u32, u32) {
        let (waits, flies) = (
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
        );
        let request = self.sqs.get_queue_attributes().queue_url(queue);
        let answer = RUNTIME.block_on(request.attribute_names(waits.clone()).attribute_names(flies.clone()).send());
        let attributes = answer.unwrap().attributes.unwrap();
        (attributes[&waits].parse().unwrap(), attributes[&flies].parse().unwrap())
    }

    /// Every message of a queue that nobody works on. They stay there.
    pub fn messages(&self, queue: &str) -> Vec<Queued> {
        RUNTIME.block_on(async {
            let mut found = Vec::new();
            let mut receipts = Vec::new();
            loop {
                let request = self.sqs.receive_message().queue_url(queue).max_number_of_messages(BATCH as i32);
                // Longer than the walk may take.
                let request = request.visibility_timeout(300).message_attribute_names("All");
                let messages = request.send().await.unwrap().messages.unwrap_or_default();
                if messages.is_empty() {
                    break;
                }
                for message in messages {
                    let attributes = message.message_attributes.unwrap_or_default().into_iter();
                    let text =
                        |(name, value): (String, MessageAttributeValue)| (name, value.string_value.unwrap_or_default());
                    found.push(Queued { body: message.body.unwrap(), attributes: attributes.map(text).collect() });
                    receipts.push(message.receipt_handle.unwrap());
                }
            }
            for batch in receipts.chunks(BATCH) {
                let entry = |(n, receipt): (usize, &String)| {
                    let entry = ChangeMessageVisibilityBatchRequestEntry::builder().id(n.to_string());
                    entry.receipt_handle(receipt).visibility_timeout(0).build().unwrap()
                };
                let entries = batch.iter().enumerate().map(entry).collect();
                let back = self.sqs.change_message_visibility_batch().queue_url(queue).set_entries(Some(entries));
                assert!(back.send().await.unwrap().failed().is_empty());
            }
            found
        })
    }
}

/// Clients with connections of their own: those are driven by the runtime that opened them.
pub fn clients(endpoint: &str) -> (aws_sdk_s3::Client, aws_sdk_sqs::Client) {
    let http = aws_smithy_http_client::Builder::new().build_http();
    let (credentials, region) = (Credentials::new("test", "test", None, None, "tests"), Region::new("us-east-1"));
    let s3 = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http.clone())
        .credentials_provider(credentials.clone())
        .region(region.clone())
        .endpoint_url(endpoint)
        .force_path_style(true)
        .build();
    let sqs = aws_sdk_sqs::Config::builder()
        .behavior_version(aws_sdk_sqs::config::BehaviorVersion::latest())
        .http_client(http)
        .credentials_provider(credentials)
        .region(region)
        .endpoint_url(endpoint)
        .build();
    (aws_sdk_s3::Client::from_conf(s3), aws_sdk_sqs::Client::from_conf(sqs))
}

async fn create_queue(sqs: &aws_sdk_sqs::Client, name: &str, redrive: Option<String>) -> String {
    let mut request = sqs.create_queue().queue_name(name);
    if let Some(policy) = redrive {
        request = request.attributes(QueueAttributeName::RedrivePolicy, policy);
    }
    request.send().await.unwrap().queue_url.unwrap()
}

async fn arn(sqs: &aws_sdk_sqs::Client, queue: &str) -> String {
    let arn = QueueAttributeName::QueueArn;
    let answer = sqs.get_queue_attributes().queue_url(queue).attribute_names(arn.clone()).send().await.unwrap();
    answer.attributes.unwrap().remove(&arn).unwrap()
}

async fn put(s3: aws_sdk_s3::Client, bucket: String, key: String, content: Vec<u8>, attributes: Attributes) -> String {
    let header = |name: &str| attributes.headers.get(name).cloned();
    let tags: Vec<String> = attributes.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let request = s3
        .put_object()
        .bucket(bucket)
        .key(&key)
        .body(ByteStream::from(content))
        .set_content_type(header("content-type"))
        .set_content_encoding(header("content-encoding"))
        .set_content_language(header("content-language"))
        .set_content_disposition(header("content-disposition"))
        .set_cache_control(header("cache-control"))
        .set_metadata(Some(attributes.metadata.clone().into_iter().collect()))
        .set_tagging((!tags.is_empty()).then(|| tags.join("&")));
    let done = request.send().await.unwrap_or_else(|error| panic!("{key}: {error:?}"));
    done.e_tag().unwrap().trim_matches('"').to_owned()
}

async fn get(s3: aws_sdk_s3::Client, bucket: String, key: String) -> Option<Stored> {
    let found = match s3.get_object().bucket(&bucket).key(&key).send().await {
        Ok(found) => found,
        Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => return None,
        Err(error) => panic!("{key}: {error:?}"),
    };
    let etag = found.e_tag().unwrap().trim_matches('"').to_owned();
    let headers = [
        ("content-type", found.content_type()),
        ("content-encoding", found.content_encoding()),
        ("content-language", found.content_language()),
        ("content-disposition", found.content_disposition()),
        ("cache-control", found.cache_control()),
    ];
    let headers = headers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    let metadata = found.metadata().cloned().unwrap_or_default().into_iter().collect();
    let mut tags = BTreeMap::new();
    if found.tag_count().is_some_and(|count| count > 0) {
        let tagging = s3.get_object_tagging().bucket(bucket).key(&key).send().await.unwrap();
        tags = tagging.tag_set.into_iter().map(|tag| (tag.key, tag.value)).collect();
    }
    let content = found.body.collect().await.unwrap().to_vec();
    Some(Stored { content, etag, attributes: Attributes { headers, metadata, tags } })
}

/// Does many things, some of them at a time, and answers in their order.
fn many<T: Send + 'static>(work: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>) -> Vec<T> {
    RUNTIME.block_on(async {
        let mut running = JoinSet::new();
        let mut done = BTreeMap::new();
        for (n, task) in work.into_iter().enumerate() {
            if running.len() == AT_ONCE {
                done.extend(running.join_next().await.map(Result::unwrap));
            }
            running.spawn(async move { (n, task.await) });
        }
        while let Some(ended) = running.join_next().await {
            let (n, value) = ended.unwrap();
            done.insert(n, value);
        }
        done.into_values().collect()
    })
}

/// A record of a notification, as S3 writes it.
pub fn record(event: &str, bucket: &str, key: &str, etag: &str) -> Value {
    json!({
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1", "eventName": event,
        "eventTime": "2026-01-01T00:00:00.000Z",
        "s3": { "bucket": { "name": bucket }, "object": { "key": form_encode(key), "size": 1, "eTag": etag } },
    })
}

/// The message with these records.
pub fn message(records: &[Value]) -> String {
    json!({ "Records": records }).to_string()
}

fn form_encode(key: &str) -> String {
    let encode = |byte: u8| match byte {
        b' ' => "+".to_owned(),
        b'/' | b'-' | b'_' | b'.' | b'*' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    key.bytes().map(encode).collect()
}

/// Undoes what S3 does to keys in notifications and, when asked to, in listings. Nothing when it cannot be.
pub fn form_decode(form: &str) -> Option<String> {
    percent_decode(&form.replace('+', " "))
}

pub fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}
