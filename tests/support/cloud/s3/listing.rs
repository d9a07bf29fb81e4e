//! What is in a bucket.

use super::{
    super::{Answer, Asked},
    Bucket,
    wire::{escape, iso_date, query, quoted},
};

/// The most keys of one page.
const MAX_KEYS: usize = 1_000;

pub fn versioning(is_versioned: bool) -> Answer {
    let status = if is_versioned { "<Status>Enabled</Status>" } else { "" };
    Answer::new(200, format!("<VersioningConfiguration>{status}</VersioningConfiguration>"))
}

pub fn objects(bucket: &Bucket, name: &str, asked: &Asked) -> Answer {
    let prefix = query(asked, "prefix").unwrap_or_default();
    // A token is the last key of the page before.
    let after = query(asked, "continuation-token").or_else(|| query(asked, "start-after")).unwrap_or_default();
    let most =
        query(asked, "max-keys").and_then(|most| most.parse().ok()).map_or(MAX_KEYS, |most: usize| most.min(MAX_KEYS));
    let mut found = bucket
        .objects
        .keys()
        .filter(|key| key.starts_with(&prefix) && **key > after)
        .filter_map(|key| Some((key, bucket.current(key)?)));
    let page: Vec<_> = found.by_ref().take(most).collect();
    let is_truncated = found.next().is_some();
    let next = match page.last() {
        Some((key, _)) if is_truncated => {
            format!("<NextContinuationToken>{}</NextContinuationToken>", escape(key))
        }
        _ => String::new(),
    };
    let contents: String = page
        .iter()
        .map(|(key, object)| {
            format!(
                "<Contents><Key>{}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size>\
                 <StorageClass>{}</StorageClass></Contents>",
                escape(key),
                iso_date(object.modified),
                escape(&quoted(&object.etag)),
                object.body.len(),
                object.headers.get("x-amz-storage-class").map_or("STANDARD", String::as_str)
            )
        })
        .collect();
    let body = format!(
        "<ListBucketResult><Name>{name}</Name><Prefix>{}</Prefix><KeyCount>{}</KeyCount><MaxKeys>{most}</MaxKeys>\
         <IsTruncated>{is_truncated}</IsTruncated>{next}{contents}</ListBucketResult>",
        escape(&prefix),
        page.len()
    );
    Answer::new(200, body)
}

pub fn uploads(bucket: &Bucket, name: &str, asked: &Asked) -> Answer {
    let prefix = query(asked, "prefix").unwrap_or_default();
    let uploads: String = bucket
        .uploads
        .iter()
        .filter(|(_, upload)| upload.key().starts_with(&prefix))
        .map(|(id, upload)| format!("<Upload><Key>{}</Key><UploadId>{id}</UploadId></Upload>", escape(upload.key())))
        .collect();
    let body = format!(
        "<ListMultipartUploadsResult><Bucket>{name}</Bucket><IsTruncated>false</IsTruncated>{uploads}\
         </ListMultipartUploadsResult>"
    );
    Answer::new(200, body)
}
