//! A bucket whose uploads are told of in a queue with a dead-letter queue, on a server of its own.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::collections::BTreeMap;

use super::cloud::Cloud;

pub const BUCKET: &str = "bucket";
const QUEUE: &str = "uploads";
const DEAD: &str = "dead";

/// What makes up the object's own part of `processed/`, as it is stored.
pub type Metadata = BTreeMap<String, String>;

/// A message on the dead-letter queue: its body and its attributes.
pub type Dead = (String, BTreeMap<String, String>);

pub struct Remote {
    pub cloud: Cloud,
    queue_url: String,
}

impl Remote {
    /// The queue gives messages up after so many receives, whatever the host thinks.
    pub fn new(max_receives: u32) -> Self {
        let cloud = Cloud::start();
        let queue_url = cloud.sqs().create_queue(QUEUE);
        cloud.sqs().create_queue(DEAD);
        cloud.sqs().redrive(QUEUE, DEAD, max_receives);
        cloud.s3().create_bucket(BUCKET);
        cloud.s3().notify(BUCKET, "uploads/", QUEUE);
        Self { cloud, queue_url }
    }

    pub fn queue_url(&self) -> &str {
        &self.queue_url
    }

    /// The part of a `gristmill.toml` that says where the objects are.
    pub fn configuration(&self) -> String {
        format!("bucket = \"{BUCKET}\"\nqueue_url = \"{}\"\npath_style = true\n", self.queue_url)
    }

    /// Stores an object, of which the queue is told. Answers its entity tag.
    pub fn upload(&self, key: &str, content: Vec<u8>) -> String {
        self.cloud.s3().put(BUCKET, key, content)
    }

    /// The keys of everything that is stored under the prefix.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        self.cloud.s3().list(BUCKET, prefix)
    }

    /// Entity tag, content and metadata of everything that is stored.
    pub fn objects(&self) -> BTreeMap<String, (String, Vec<u8>, Metadata)> {
        let object = |key: String| {
            let object = self.cloud.s3().get(BUCKET, &key).unwrap();
            (key, (object.etag, object.body.to_vec(), object.metadata))
        };
        self.keys("").into_iter().map(object).collect()
    }

    /// Messages that are not settled.
    pub fn live(&self) -> usize {
        self.cloud.sqs().count(QUEUE)
    }

    /// Messages that somebody has received and not settled.
    pub fn in_flight(&self) -> usize {
        let is_hidden = |message: &super::cloud::sqs::Shown| !message.visible_in.is_zero() && message.receive_count > 0;
        self.cloud.sqs().messages(QUEUE).iter().filter(|message| is_hidden(message)).count()
    }

    /// Everything on the dead-letter queue.
    pub fn dead(&self) -> Vec<Dead> {
        let messages = self.cloud.sqs().messages(DEAD).into_iter();
        let values = |attributes: BTreeMap<String, super::cloud::sqs::Attribute>| {
            attributes.into_iter().map(|(name, attribute)| (name, attribute.value)).collect()
        };
        messages.map(|message| (message.body.to_string(), values(message.attributes))).collect()
    }

    /// All requests so far.
    pub fn calls(&self) -> u64 {
        self.cloud.requests().values().sum()
    }
}
