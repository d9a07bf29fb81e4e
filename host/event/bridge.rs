//! S3's events as EventBridge hands them on: "EventBridge event message structure" in the Amazon S3 user
//! guide. Keys are literal here, not written like a form.

use serde::Deserialize;

use super::{
    CREATED, EventError, Events, ObjectEvent, bare,
    field::{Field, Object},
    known_major, shown,
};

/// What S3 calls itself.
const SOURCE: &str = "aws.s3";

/// The one type that is about a new object.
const OBJECT_CREATED: &str = "Object Created";

/// What CloudTrail makes of calls, uploads among them. Somebody who set that up wants uploads to be seen.
const CLOUD_TRAIL: &str = "AWS API Call via CloudTrail";

/// Of `event-version`, which not all events have.
const MAJOR_VERSION: &str = "1";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Detail {
    event_version: Field<String>,
    bucket: Field<Object<Bucket>>,
    object: Field<Object<S3Object>>,
    reason: Field<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Bucket {
    name: Field<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct S3Object {
    key: Field<String>,
    size: Field<u64>,
    etag: Field<String>,
    version_id: Field<String>,
}

/// The event in the fields of its envelope.
pub(super) fn read(
    source: Field<String>,
    detail_type: Field<String>,
    time: Field<String>,
    detail: Field<Object<Detail>>,
) -> Result<Events, EventError> {
    let source = source.required_text("source").map_err(EventError::NotAnEvent)?;
    if source != SOURCE {
        let reason = format!("its `source` is `{}`, and should be `{SOURCE}`", shown(&source));
        return Err(EventError::NotAnEvent(reason));
    }
    let name = detail_type.required_text("detail-type").map_err(EventError::NotAnEvent)?;
    match name.as_str() {
        OBJECT_CREATED => {
            let event = created(time, detail).map_err(EventError::Detail)?;
            Ok(Events { objects: vec![event], ignored: Vec::new() })
        }
        CLOUD_TRAIL => Err(EventError::NotAnEvent(format!(
            "its `detail-type` is `{CLOUD_TRAIL}`: turn on EventBridge in the bucket's properties, and match \
             `{OBJECT_CREATED}` in the rule"
        ))),
        other => Ok(Events { objects: Vec::new(), ignored: vec![shown(other)] }),
    }
}

fn created(time: Field<String>, detail: Field<Object<Detail>>) -> Result<ObjectEvent, String> {
    let Object(detail) = detail.required("detail")?;
    if let Some(version) = detail.event_version.text("detail.event-version")? {
        known_major("detail.event-version", &version, MAJOR_VERSION)?;
    }
    let Object(bucket) = detail.bucket.required("detail.bucket")?;
    let Object(object) = detail.object.required("detail.object")?;
    Ok(ObjectEvent {
        bucket: bucket.name.required_text("detail.bucket.name")?,
        key: object.key.required_text("detail.object.key")?,
        size: object.size.optional("detail.object.size")?,
        etag: bare(object.etag.text("detail.object.etag")?),
        version_id: object.version_id.text("detail.object.version-id")?,
        event_time: time.text("time")?,
        event_name: event_name(detail.reason.text("detail.reason")?),
    })
}

/// The name that S3's own notification has for it; `reason` is the call that made the object.
fn event_name(reason: Option<String>) -> String {
    let kind = match reason.as_deref() {
        Some("PutObject") => "Put",
        Some("POST Object") => "Post",
        Some("CopyObject") => "Copy",
        // S3 writes for "any of them".
        None => "*",
        Some(other) => other,
    };
    format!("{CREATED}{kind}")
}
