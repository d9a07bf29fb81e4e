//! What can be found out about a bucket without touching anybody's object, for `gristmill check --live`.
//!
//! Writing, copying, deleting and their conditions are tried on objects of our own, below
//! `DESTINATION_PREFIX.gristmill-check/`, which are deleted at the end. What may be done below the source prefix
//! shows in calls on a key that nobody has; nothing is written there, since that would be an upload.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use aws_sdk_s3::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    primitives::ByteStream,
};

use super::notifications::{self, Notifications};
use crate::aws::{Permission, words};

/// What the probe objects contain, so that whoever finds one that was left over knows.
const CONTENT: &[u8] = b"Written by `gristmill check --live`. It may be deleted.\n";

/// An entity tag that no object has.
const WRONG_ETAG: &str = "\"00000000000000000000000000000000\"";

/// A condition on a write that the commit protocol relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// PutObject with If-None-Match.
    PutIfAbsent,
    /// PutObject with If-Match.
    PutIfMatch,
    /// CopyObject with x-amz-copy-source-if-match.
    CopySourceIfMatch,
    /// CopyObject with If-None-Match.
    CopyIfAbsent,
    /// DeleteObject with If-Match.
    DeleteIfMatch,
}

/// What a store makes of a condition that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    /// It refuses the call, as it should.
    Honoured,
    /// It says that it does not know the condition.
    Unknown,
    /// It does as if there were none.
    Ignored,
    /// It could not be tried, or the answer says neither; the text is the service's.
    Unclear(String),
}

/// A bucket and what we may do in it.
#[derive(Debug, Clone)]
pub struct BucketFacts {
    /// `s3:ListBucket`, without which an object that is not there looks forbidden.
    pub list: Permission,
    /// `s3:GetObject` below the source prefix.
    pub read_source: Permission,
    /// `s3:DeleteObject` below the source prefix. Not tried where that could leave a mark.
    pub delete_source: Option<Permission>,
    /// `s3:PutObject` below the destination prefix.
    pub write: Permission,
    /// `s3:GetObject` below the destination prefix. This and what follows needs an object.
    pub read: Option<Permission>,
    /// CopyObject.
    pub copy: Option<Permission>,
    /// `s3:DeleteObject` below the destination prefix.
    pub delete: Option<Permission>,
    /// Each that could be tried.
    pub conditions: Vec<(Condition, Support)>,
    /// Probe objects that could not be deleted.
    pub left_over: Vec<String>,
    /// How far the store's clock is ahead of ours, seconds.
    pub clock_ahead: Option<i64>,
    /// Whom the bucket tells of new objects. An error says why that cannot be had.
    pub notifications: Result<Notifications, String>,
    /// Whether old versions are kept.
    pub versioning: Result<bool, String>,
    /// Whether a lifecycle rule takes away what uploads in parts leave over.
    pub aborts_uploads: Result<bool, String>,
}

/// Looks at a bucket.
pub async fn survey(client: &Client, bucket: &str, source_prefix: &str, destination_prefix: &str) -> BucketFacts {
    let nonce = fastrand::u64(..);
    let probe = Probe { client, bucket, folder: format!("{destination_prefix}.gristmill-check/{nonce:016x}/") };
    let nobodys = format!("{source_prefix}.gristmill-check/{nonce:016x}");
    let mut facts = BucketFacts {
        list: permission(client.list_objects_v2().bucket(bucket).prefix(source_prefix).max_keys(1).send().await),
        read_source: permission(client.get_object().bucket(bucket).key(&nobodys).send().await),
        delete_source: None,
        write: Permission::Granted,
        read: None,
        copy: None,
        delete: None,
        conditions: Vec::new(),
        left_over: Vec::new(),
        clock_ahead: None,
        notifications: notifications::look(client, bucket).await,
        versioning: versioning(client, bucket).await,
        aborts_uploads: aborts_uploads(client, bucket).await,
    };
    probe.run(&mut facts).await;
    // A store that took no notice of the condition would mark what is not there as deleted, if it keeps versions.
    let delete_if_match = facts.conditions.iter().find(|(condition, _)| *condition == Condition::DeleteIfMatch);
    let is_noticed = delete_if_match.is_some_and(|(_, support)| *support != Support::Ignored);
    if is_noticed || facts.versioning == Ok(false) {
        let deleted = client.delete_object().bucket(bucket).key(&nobodys).if_match(WRONG_ETAG).send().await;
        facts.delete_source = Some(permission(deleted));
    }
    facts
}

/// Objects of our own.
struct Probe<'a> {
    client: &'a Client,
    bucket: &'a str,
    folder: String,
}

impl Probe<'_> {
    async fn run(&self, facts: &mut BucketFacts) {
        let (first, second) = (format!("{}a", self.folder), format!("{}b", self.folder));
        let before = SystemTime::now();
        facts.write = permission(self.put(&first).send().await);
        match facts.write {
            Permission::Granted => {}
            Permission::Denied(_) => return,
            Permission::Unknown(_) => {
                // Perhaps only the answer was lost. If nothing was written, nothing is left over.
                let _ = self.client.delete_object().bucket(self.bucket).key(&first).send().await;
                return;
            }
        }
        let read = self.client.get_object().bucket(self.bucket).key(&first).send().await;
        facts.clock_ahead = read.as_ref().ok().and_then(|read| {
            let written = SystemTime::try_from(*read.last_modified()?).ok()?;
            Some(ahead(written, before, SystemTime::now()))
        });
        facts.read = Some(permission(read));

        let mut conditions = vec![
            (Condition::PutIfAbsent, support(self.put(&first).if_none_match("*").send().await)),
            (Condition::PutIfMatch, support(self.put(&first).if_match(WRONG_ETAG).send().await)),
        ];
        let copy = || {
            // Nothing in a key of ours needs encoding but what the prefix brings along.
            let source = format!("{}/{}", self.bucket, encoded(&first));
            self.client.copy_object().bucket(self.bucket).key(&second).copy_source(source)
        };
        conditions.push((Condition::CopySourceIfMatch, support(copy().copy_source_if_match(WRONG_ETAG).send().await)));
        let copied = permission(copy().send().await);
        if copied == Permission::Granted {
            conditions.push((Condition::CopyIfAbsent, support(copy().if_none_match("*").send().await)));
        }
        facts.copy = Some(copied);
        let delete = self.client.delete_object().bucket(self.bucket).key(&first).if_match(WRONG_ETAG);
        conditions.push((Condition::DeleteIfMatch, support(delete.send().await)));
        facts.conditions = conditions;
        self.delete(&[first, second], facts).await;
    }

    fn put(&self, key: &str) -> aws_sdk_s3::operation::put_object::builders::PutObjectFluentBuilder {
        let body = ByteStream::from_static(CONTENT);
        self.client.put_object().bucket(self.bucket).key(key).content_type("text/plain").body(body)
    }

    /// Takes them away and notes how that went.
    async fn delete(&self, keys: &[String], facts: &mut BucketFacts) {
        for key in keys {
            let deleted = permission(self.client.delete_object().bucket(self.bucket).key(key).send().await);
            if deleted != Permission::Granted {
                facts.left_over.push(key.clone());
                facts.delete = Some(deleted);
            } else if facts.delete.is_none() {
                facts.delete = Some(deleted);
            }
        }
    }
}

/// As a header wants it: all but slashes and what RFC 3986 calls unreserved.
fn encoded(key: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Seconds between the store's clock and ours: zero while what it says can be true.
fn ahead(written: SystemTime, before: SystemTime, after: SystemTime) -> i64 {
    // The store says whole seconds, perhaps the last one.
    let before = before.checked_sub(Duration::from_secs(1)).unwrap_or(before);
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    match (written.duration_since(after), before.duration_since(written)) {
        (Ok(ahead), _) => seconds(ahead),
        (_, Ok(behind)) => -seconds(behind),
        _ => 0,
    }
}

async fn versioning(client: &Client, bucket: &str) -> Result<bool, String> {
    let found = client.get_bucket_versioning().bucket(bucket).send().await.map_err(words)?;
    Ok(found.status().is_some_and(|status| status.as_str() == "Enabled"))
}

async fn aborts_uploads(client: &Client, bucket: &str) -> Result<bool, String> {
    let found = client.get_bucket_lifecycle_configuration().bucket(bucket).send().await;
    match found {
        Ok(found) => Ok(found
            .rules()
            .iter()
            .any(|rule| rule.status().as_str() == "Enabled" && rule.abort_incomplete_multipart_upload().is_some())),
        Err(error) if code(&error) == Some("NoSuchLifecycleConfiguration") => Ok(false),
        Err(error) => Err(words(error)),
    }
}

/// A call whose condition does not hold.
fn support<T, E>(answer: Result<T, SdkError<E>>) -> Support
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match answer {
        Ok(_) => Support::Ignored,
        Err(error) => match (status(&error), code(&error)) {
            (Some(412), _) | (_, Some("PreconditionFailed")) => Support::Honoured,
            (Some(501), _) | (_, Some("NotImplemented")) => Support::Unknown,
            _ => Support::Unclear(words(error)),
        },
    }
}

/// A call on what is there or isn't: that it isn't is known only to those who may.
fn permission<T, E>(answer: Result<T, SdkError<E>>) -> Permission
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match answer {
        Ok(_) => Permission::Granted,
        Err(error) => match (status(&error), code(&error)) {
            // Who we are is not known, which is no question of policies.
            (_, Some("InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "RequestTimeTooSkewed")) => {
                Permission::Unknown(words(error))
            }
            (Some(403), _) | (_, Some("AccessDenied")) => Permission::Denied(words(error)),
            (_, Some("NoSuchBucket")) => Permission::Unknown(words(error)),
            (Some(404 | 412), _) => Permission::Granted,
            _ => Permission::Unknown(words(error)),
        },
    }
}

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

fn code<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_as_far_as_whole_seconds_go() {
        let at = |milliseconds: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
        for (written, expected) in [(100_000, 0), (99_000, 0), (101_000, 0), (110_000, 8), (90_000, -9)] {
            assert_eq!(ahead(at(written), at(100_500), at(101_400)), expected, "{written}");
        }
    }

    #[test]
    fn copy_sources_are_encoded() {
        assert_eq!(encoded("done/ü b+c/.x~"), "done/%C3%BC%20b%2Bc/.x~");
    }
}
