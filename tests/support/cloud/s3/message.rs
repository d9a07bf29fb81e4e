//! Notifications, in the shape of "Event message structure" in the S3 user guide.

use gristmill::key;
use serde_json::json;

use super::{Object, wire::iso_date};

pub fn notification(event: &str, bucket: &str, key: &str, object: &Object, sequencer: u64) -> String {
    let mut about = json!({
        "key": key::encode(key),
        "size": object.body.len(),
        "eTag": object.etag,
        "sequencer": format!("{sequencer:018X}"),
    });
    if let Some(version) = &object.version {
        about["versionId"] = json!(version);
    }
    json!({ "Records": [{
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": iso_date(object.modified),
        "eventName": event,
        "userIdentity": { "principalId": "AWS:TEST" },
        "requestParameters": { "sourceIPAddress": "127.0.0.1" },
        "responseElements": { "x-amz-request-id": "1", "x-amz-id-2": "1" },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "test",
            "bucket": {
                "name": bucket,
                "ownerIdentity": { "principalId": "TEST" },
                "arn": format!("arn:aws:s3:::{bucket}"),
            },
            "object": about,
        },
    }] })
    .to_string()
}
