//! S3: the REST protocol, path style (`/bucket/key`). Everything is in memory, and every answer is at once.

mod listing;
mod message;
mod objects;
mod uploads;
mod wire;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use bytes::Bytes;

use self::{uploads::Upload, wire::Refused};
use super::{Answer, Asked, Fault, sqs::Sqs};

/// All buckets.
pub struct S3 {
    /// Where notifications go.
    sqs: Arc<Sqs>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    buckets: BTreeMap<String, Bucket>,
    /// For version ids, upload ids and sequencers.
    next: u64,
}

struct Bucket {
    is_versioned: bool,
    /// Oldest first; without versioning there is one.
    objects: BTreeMap<String, Vec<Version>>,
    uploads: BTreeMap<String, Upload>,
    /// Prefix and queue.
    notifications: Vec<(String, String)>,
    /// What GetBucketNotificationConfiguration answers.
    configuration: String,
    min_part: usize,
    conditions: Conditions,
}

/// How a bucket takes conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditions {
    /// As AWS does.
    Named,
    /// A failed one is answered, but not which one it is.
    Unnamed,
    /// Any condition on a write or a delete is answered with 501.
    Unknown,
}

/// One version of an object, or a mark that it was deleted.
struct Version {
    id: Option<String>,
    object: Option<Object>,
}

/// An object, as tests see it too.
#[derive(Debug, Clone)]
pub struct Object {
    pub body: Bytes,
    /// Without quotes.
    pub etag: String,
    /// Content headers, storage class, encryption, checksums: as they were sent and are answered.
    pub headers: BTreeMap<String, String>,
    /// Keys without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
    pub version: Option<String>,
    pub modified: SystemTime,
}

impl Bucket {
    fn current(&self, key: &str) -> Option<&Object> {
        self.objects.get(key)?.last()?.object.as_ref()
    }
}

/// What AWS calls this request, and the key that it is about.
pub fn operation(asked: &Asked) -> (String, String) {
    let (bucket, key) = wire::place(asked);
    let has = |name: &str| wire::query(asked, name).is_some();
    let copies = asked.header("x-amz-copy-source").is_some();
    let name = match (&*asked.method, bucket.is_empty(), key.is_empty()) {
        ("GET", true, _) => "ListBuckets",
        ("GET", _, true) if has("uploads") => "ListMultipartUploads",
        ("GET", _, true) if has("notification") => "GetBucketNotificationConfiguration",
        ("GET", _, true) if has("versioning") => "GetBucketVersioning",
        ("GET", _, true) => "ListObjectsV2",
        ("HEAD", _, true) => "HeadBucket",
        ("PUT", _, true) => "CreateBucket",
        ("GET", _, false) if has("tagging") => "GetObjectTagging",
        ("PUT", _, false) if has("tagging") => "PutObjectTagging",
        ("GET", _, false) => "GetObject",
        ("HEAD", _, false) => "HeadObject",
        ("PUT", _, false) if has("partNumber") && copies => "UploadPartCopy",
        ("PUT", _, false) if has("partNumber") => "UploadPart",
        ("PUT", _, false) if copies => "CopyObject",
        ("PUT", _, false) => "PutObject",
        ("POST", _, false) if has("uploads") => "CreateMultipartUpload",
        ("POST", _, false) if has("uploadId") => "CompleteMultipartUpload",
        ("DELETE", _, false) if has("uploadId") => "AbortMultipartUpload",
        ("DELETE", _, false) => "DeleteObject",
        _ => "Unknown",
    };
    (name.to_owned(), key)
}

impl S3 {
    pub fn new(sqs: Arc<Sqs>) -> Self {
        Self { sqs, state: Mutex::default() }
    }

    pub fn answer(&self, operation: &str, asked: &Asked, fault: &Fault) -> Answer {
        let answered = match fault {
            Fault::Error { status, code } => Err(Refused::new(*status, code)),
            Fault::ErrorInside { code } => Err(Refused::new(200, code)),
            _ => self.perform(operation, asked),
        };
        answered.unwrap_or_else(|refused| {
            let answer = refused.answer();
            // The answer to a HEAD has no body.
            if asked.method == "HEAD" { Answer { body: Bytes::new(), ..answer } } else { answer }
        })
    }

    fn perform(&self, operation: &str, asked: &Asked) -> Result<Answer, Refused> {
        let mut state = self.state.lock().unwrap();
        let (name, key) = wire::place(asked);
        if key.len() > 1_024 {
            return Err(Refused::new(400, "KeyTooLongError"));
        }
        if operation == "CreateBucket" {
            state.create(&name);
            return Ok(Answer::new(200, ""));
        }
        let State { buckets, next } = &mut *state;
        let Some(bucket) = buckets.get_mut(&name) else { return Err(Refused::new(404, "NoSuchBucket")) };
        *next += 1;
        let unique = *next;
        let made = match operation {
            "HeadBucket" => return Ok(Answer::new(200, "").header("x-amz-bucket-region", "us-east-1")),
            "GetBucketVersioning" => return Ok(listing::versioning(bucket.is_versioned)),
            "GetBucketNotificationConfiguration" => return Ok(Answer::new(200, bucket.configuration.clone())),
            "ListObjectsV2" => return Ok(listing::objects(bucket, &name, asked)),
            "ListMultipartUploads" => return Ok(listing::uploads(bucket, &name, asked)),
            "GetObject" | "HeadObject" => return objects::get(bucket, &key, asked),
            "GetObjectTagging" => return objects::get_tags(bucket, &key, asked),
            "PutObjectTagging" => return objects::put_tags(bucket, &key, asked),
            "DeleteObject" => return objects::delete(bucket, &key, asked, unique),
            "CreateMultipartUpload" => return Ok(uploads::create(bucket, &name, &key, asked, unique)),
            "UploadPart" => return uploads::send(bucket, &key, asked),
            "UploadPartCopy" => return uploads::copy(bucket, &name, &key, asked),
            "AbortMultipartUpload" => return uploads::abort(bucket, &key, asked),
            "PutObject" => objects::put(bucket, &key, asked, unique).map(|answer| (answer, "ObjectCreated:Put")),
            "CopyObject" => {
                objects::copy(bucket, &name, &key, asked, unique).map(|answer| (answer, "ObjectCreated:Copy"))
            }
            "CompleteMultipartUpload" => uploads::complete(bucket, &name, &key, asked, unique)
                .map(|answer| (answer, "ObjectCreated:CompleteMultipartUpload")),
            _ => Err(Refused::new(501, "NotImplemented")),
        };
        let (answer, event) = made?;
        let object = bucket.current(&key).cloned();
        let queues: Vec<String> = bucket
            .notifications
            .iter()
            .filter(|(prefix, _)| key.starts_with(prefix))
            .map(|(_, queue)| queue.clone())
            .collect();
        drop(state);
        if let Some(object) = object {
            for queue in queues {
                self.sqs.send(&queue, message::notification(event, &name, &key, &object, unique));
            }
        }
        Ok(answer)
    }
}

impl State {
    fn create(&mut self, name: &str) {
        let bucket = Bucket {
            is_versioned: false,
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            notifications: Vec::new(),
            configuration: "<NotificationConfiguration/>".to_owned(),
            min_part: 5 << 20,
            conditions: Conditions::Named,
        };
        self.buckets.entry(name.to_owned()).or_insert(bucket);
    }
}

/// What tests do, past the wire and its faults.
impl S3 {
    pub fn create_bucket(&self, name: &str) {
        self.state.lock().unwrap().create(name);
    }

    fn with_bucket<T>(&self, name: &str, of: impl FnOnce(&mut Bucket) -> T) -> T {
        of(self.state.lock().unwrap().buckets.get_mut(name).unwrap())
    }

    /// From now on, new objects have versions.
    pub fn set_versioning(&self, bucket: &str) {
        self.with_bucket(bucket, |bucket| bucket.is_versioned = true);
    }

    /// The smallest part that is not the last, 5 MiB in AWS.
    pub fn set_min_part(&self, bucket: &str, bytes: usize) {
        self.with_bucket(bucket, |bucket| bucket.min_part = bytes);
    }

    pub fn set_conditions(&self, bucket: &str, conditions: Conditions) {
        self.with_bucket(bucket, |bucket| bucket.conditions = conditions);
    }

    /// What GetBucketNotificationConfiguration answers: XML.
    pub fn set_notification_configuration(&self, bucket: &str, xml: &str) {
        self.with_bucket(bucket, |bucket| bucket.configuration = xml.to_owned());
    }

    /// From now on, every object that is made under the prefix is told of to the queue of that name.
    pub fn notify(&self, bucket: &str, prefix: &str, queue: &str) {
        self.with_bucket(bucket, |bucket| bucket.notifications.push((prefix.to_owned(), queue.to_owned())));
    }

    /// Stores an object as a user does. Answers its entity tag.
    pub fn put(&self, bucket: &str, key: &str, body: impl Into<Bytes>) -> String {
        self.put_with(bucket, key, body, &[])
    }

    /// The same with headers, as `x-amz-meta-rows`, `x-amz-tagging` and `content-type`.
    pub fn put_with(&self, bucket: &str, key: &str, body: impl Into<Bytes>, headers: &[(&str, &str)]) -> String {
        let asked = Asked {
            method: "PUT".to_owned(),
            path: format!("/{bucket}/{}", wire::encode(key)),
            query: String::new(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: body.into(),
        };
        self.perform("PutObject", &asked).unwrap_or_else(|refused| panic!("{refused:?}"));
        self.get(bucket, key).map(|object| object.etag).unwrap_or_default()
    }

    /// What is there now.
    pub fn get(&self, bucket: &str, key: &str) -> Option<Object> {
        self.with_bucket(bucket, |bucket| bucket.current(key).cloned())
    }

    pub fn remove(&self, bucket: &str, key: &str) {
        let mut state = self.state.lock().unwrap();
        let State { buckets, next } = &mut *state;
        *next += 1;
        objects::remove(buckets.get_mut(bucket).unwrap(), key, *next);
    }

    /// All keys under the prefix.
    pub fn list(&self, bucket: &str, prefix: &str) -> Vec<String> {
        self.with_bucket(bucket, |bucket| {
            let keys = bucket.objects.keys().filter(|key| key.starts_with(prefix));
            keys.filter(|key| bucket.current(key).is_some()).cloned().collect()
        })
    }

    /// All versions at the key, oldest first; nothing for a mark that it was deleted.
    pub fn versions(&self, bucket: &str, key: &str) -> Vec<Option<Object>> {
        self.with_bucket(bucket, |bucket| {
            let versions = bucket.objects.get(key).map(Vec::as_slice).unwrap_or_default();
            versions.iter().map(|version| version.object.clone()).collect()
        })
    }

    /// Keys of uploads that are neither completed nor aborted, and how many parts they have.
    pub fn open_uploads(&self, bucket: &str) -> Vec<(String, usize)> {
        self.with_bucket(bucket, |bucket| bucket.uploads.values().map(|up| (up.key().to_owned(), up.parts())).collect())
    }
}
