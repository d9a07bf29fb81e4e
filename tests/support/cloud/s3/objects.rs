//! Whole objects: reads, writes, copies, deletes and their conditions.

use std::{collections::BTreeMap, time::SystemTime};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{
    super::{Answer, Asked},
    Bucket, Conditions, Object, Version,
    wire::{Refused, decode, elements, escape, http_date, iso_date, pairs, payload, query, quoted},
};

/// Headers that are stored with an object and answered with it.
const KEPT: &[&str] = &[
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "x-amz-restore",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-bucket-key-enabled",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-storage-class",
    "x-amz-website-redirect-location",
];

const CUSTOMER_KEY: &str = "x-amz-server-side-encryption-customer-algorithm";

/// All user metadata of an object, bytes.
const MAX_METADATA: usize = 2_048;

pub fn etag_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// What the headers of a request say of the object that it makes.
pub fn described(asked: &Asked, body: Bytes, etag: String) -> Result<Object, Refused> {
    let mut headers: BTreeMap<String, String> =
        KEPT.iter().filter_map(|name| Some(((*name).to_owned(), asked.header(name)?.to_owned()))).collect();
    if let Some(encoding) = headers.remove("content-encoding") {
        let own: Vec<&str> = encoding.split(',').map(str::trim).filter(|one| *one != "aws-chunked").collect();
        if !own.is_empty() {
            headers.insert("content-encoding".to_owned(), own.join(","));
        }
    }
    headers.retain(|name, value| name != "x-amz-storage-class" || value != "STANDARD");
    headers.entry("content-type".to_owned()).or_insert_with(|| "binary/octet-stream".to_owned());
    let metadata: BTreeMap<String, String> = asked
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("x-amz-meta-")?.to_owned(), value.clone())))
        .collect();
    if metadata.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_METADATA {
        return Err(Refused::new(400, "MetadataTooLarge"));
    }
    let tags = asked.header("x-amz-tagging").map(|tags| pairs(tags).collect()).unwrap_or_default();
    Ok(Object { body, etag, headers, metadata, tags, version: None, modified: SystemTime::now() })
}

/// Whether a write may be, by its conditions on what is there.
pub fn check(bucket: &Bucket, key: &str, asked: &Asked) -> Result<(), Refused> {
    let (if_match, if_none_match) = (asked.header("if-match"), asked.header("if-none-match"));
    if bucket.conditions == Conditions::Unknown && (if_match.is_some() || if_none_match.is_some()) {
        return Err(Refused::new(501, "NotImplemented"));
    }
    let is_named = bucket.conditions == Conditions::Named;
    match (if_match, if_none_match, bucket.current(key)) {
        (Some(_), _, None) => Err(Refused::new(404, "NoSuchKey")),
        (Some(etag), _, Some(there)) if etag != "*" && etag.trim_matches('"') != there.etag => {
            Err(Refused::condition(is_named, "If-Match"))
        }
        (_, Some(_), Some(_)) => Err(Refused::condition(is_named, "If-None-Match")),
        _ => Ok(()),
    }
}

pub fn store(bucket: &mut Bucket, key: &str, object: Object, unique: u64) -> Option<String> {
    let id = bucket.is_versioned.then(|| format!("v{unique}.a_b-c"));
    let versions = bucket.objects.entry(key.to_owned()).or_default();
    versions.retain(|version| version.id.is_some());
    versions.push(Version { id: id.clone(), object: Some(Object { version: id.clone(), ..object }) });
    id
}

pub fn with_version(answer: Answer, version: Option<&str>) -> Answer {
    match version {
        Some(version) => answer.header("x-amz-version-id", version),
        None => answer,
    }
}

pub fn put(bucket: &mut Bucket, key: &str, asked: &Asked, unique: u64) -> Result<Answer, Refused> {
    let (body, checksums) = payload(asked);
    let etag = etag_of(&body);
    let mut object = described(asked, body, etag.clone())?;
    check(bucket, key, asked)?;
    object.headers.extend(checksums.clone());
    let version = store(bucket, key, object, unique);
    let answer = checksums.iter().fold(Answer::new(200, ""), |answer, (name, value)| answer.header(name, value));
    Ok(with_version(answer.header("etag", quoted(&etag)), version.as_deref()))
}

fn find<'a>(bucket: &'a Bucket, key: &str, version: Option<&str>) -> Result<&'a Object, Refused> {
    match version {
        None => bucket.current(key).ok_or_else(|| Refused::new(404, "NoSuchKey")),
        Some(version) => {
            let versions = bucket.objects.get(key).map(Vec::as_slice).unwrap_or_default();
            let found = versions.iter().find(|one| one.id.as_deref().unwrap_or("null") == version);
            let found = found.ok_or_else(|| Refused::new(404, "NoSuchVersion"))?;
            found.object.as_ref().ok_or_else(|| Refused::new(405, "MethodNotAllowed"))
        }
    }
}

pub fn get(bucket: &Bucket, key: &str, asked: &Asked) -> Result<Answer, Refused> {
    let object = find(bucket, key, query(asked, "versionId").as_deref())?;
    if asked.header("if-match").is_some_and(|etag| etag.trim_matches('"') != object.etag) {
        return Err(Refused::condition(true, "If-Match"));
    }
    if object.headers.contains_key(CUSTOMER_KEY) && asked.header(CUSTOMER_KEY).is_none() {
        return Err(Refused::new(400, "InvalidRequest"));
    }
    let is_head = asked.method == "HEAD";
    let class = object.headers.get("x-amz-storage-class").map(String::as_str);
    if !is_head && matches!(class, Some("GLACIER" | "DEEP_ARCHIVE")) && !object.headers.contains_key("x-amz-restore") {
        return Err(Refused::new(403, "InvalidObjectState"));
    }
    let size = object.body.len();
    let range = match asked.header("range").filter(|_| !is_head) {
        None => None,
        Some(range) => {
            let (start, end) = range.trim_start_matches("bytes=").split_once('-').unwrap();
            let start: usize = start.parse().unwrap();
            let end = end.parse().map_or(size, |end: usize| size.min(end + 1));
            if start >= size {
                return Err(Refused::new(416, "InvalidRange"));
            }
            Some(start..end)
        }
    };
    let mut answer = match &range {
        None => Answer::new(200, if is_head { Bytes::new() } else { object.body.clone() }),
        Some(range) => Answer::new(206, object.body.slice(range.clone()))
            .header("content-range", format!("bytes {}-{}/{size}", range.start, range.end - 1)),
    };
    if is_head {
        answer.content_length = Some(size as u64);
    }
    answer = answer.header("etag", quoted(&object.etag)).header("accept-ranges", "bytes");
    answer = answer.header("last-modified", http_date(object.modified));
    let shows_checksums = range.is_none() && asked.header("x-amz-checksum-mode").is_some();
    for (name, value) in &object.headers {
        if shows_checksums || !name.starts_with("x-amz-checksum-") {
            answer = answer.header(name, value);
        }
    }
    for (name, value) in &object.metadata {
        answer = answer.header(&format!("x-amz-meta-{name}"), value);
    }
    if !object.tags.is_empty() {
        answer = answer.header("x-amz-tagging-count", object.tags.len().to_string());
    }
    Ok(with_version(answer, object.version.as_deref()))
}

/// The source of a copy, under its conditions.
pub fn source<'a>(bucket: &'a Bucket, name: &str, asked: &Asked) -> Result<&'a Object, Refused> {
    let header = asked.header("x-amz-copy-source").unwrap();
    let (path, version) =
        header.split_once("?versionId=").map_or((header, None), |(path, id)| (path, Some(decode(id))));
    let path = decode(path.trim_start_matches('/'));
    let key = path.strip_prefix(name).and_then(|rest| rest.strip_prefix('/'));
    let Some(key) = key else { return Err(Refused::new(404, "NoSuchBucket")) };
    let object = find(bucket, key, version.as_deref())?;
    match asked.header("x-amz-copy-source-if-match") {
        Some(etag) if etag.trim_matches('"') != object.etag => {
            Err(Refused::condition(bucket.conditions == Conditions::Named, "x-amz-copy-source-If-Match"))
        }
        _ => Ok(object),
    }
}

pub fn copy(bucket: &mut Bucket, name: &str, key: &str, asked: &Asked, unique: u64) -> Result<Answer, Refused> {
    let source = source(bucket, name, asked)?.clone();
    check(bucket, key, asked)?;
    let replaced = described(asked, source.body.clone(), source.etag.clone())?;
    let is_replaced = asked.header("x-amz-metadata-directive") == Some("REPLACE");
    let mut object = if is_replaced { replaced.clone() } else { source.clone() };
    object.tags =
        if asked.header("x-amz-tagging-directive") == Some("REPLACE") { replaced.tags } else { source.tags.clone() };
    // What a copy is given by its own request, whatever it takes along.
    for name in KEPT.iter().filter(|name| name.starts_with("x-amz-")) {
        object.headers.remove(*name);
        if let Some(value) = replaced.headers.get(*name) {
            object.headers.insert((*name).to_owned(), value.clone());
        }
    }
    let checksums = source.headers.iter().filter(|(name, _)| name.starts_with("x-amz-checksum-"));
    object.headers.extend(checksums.map(|(name, value)| (name.clone(), value.clone())));
    object.modified = SystemTime::now();
    let body = format!(
        "<CopyObjectResult><ETag>{}</ETag><LastModified>{}</LastModified></CopyObjectResult>",
        escape(&quoted(&object.etag)),
        iso_date(object.modified)
    );
    let version = store(bucket, key, object, unique);
    Ok(with_version(Answer::new(200, body), version.as_deref()))
}

pub fn delete(bucket: &mut Bucket, key: &str, asked: &Asked, unique: u64) -> Result<Answer, Refused> {
    if let Some(etag) = asked.header("if-match") {
        if bucket.conditions == Conditions::Unknown {
            return Err(Refused::new(501, "NotImplemented"));
        }
        match bucket.current(key) {
            None => return Err(Refused::new(404, "NoSuchKey")),
            Some(there) if etag.trim_matches('"') != there.etag => {
                return Err(Refused::condition(bucket.conditions == Conditions::Named, "If-Match"));
            }
            Some(_) => {}
        }
    }
    remove(bucket, key, unique);
    Ok(Answer::new(204, ""))
}

pub fn remove(bucket: &mut Bucket, key: &str, unique: u64) {
    if bucket.is_versioned {
        let mark = Version { id: Some(format!("v{unique}")), object: None };
        bucket.objects.entry(key.to_owned()).or_default().push(mark);
    } else {
        bucket.objects.remove(key);
    }
}

pub fn get_tags(bucket: &Bucket, key: &str, asked: &Asked) -> Result<Answer, Refused> {
    let object = find(bucket, key, query(asked, "versionId").as_deref())?;
    let tags: String = object
        .tags
        .iter()
        .map(|(key, value)| format!("<Tag><Key>{}</Key><Value>{}</Value></Tag>", escape(key), escape(value)))
        .collect();
    Ok(Answer::new(200, format!("<Tagging><TagSet>{tags}</TagSet></Tagging>")))
}

pub fn put_tags(bucket: &mut Bucket, key: &str, asked: &Asked) -> Result<Answer, Refused> {
    find(bucket, key, None)?;
    let xml = String::from_utf8_lossy(&asked.body).into_owned();
    let tags = elements(&xml, "Key").into_iter().zip(elements(&xml, "Value")).collect();
    let versions = bucket.objects.get_mut(key).into_iter().flatten();
    if let Some(object) = versions.last().and_then(|version| version.object.as_mut()) {
        object.tags = tags;
    }
    Ok(Answer::new(200, ""))
}
