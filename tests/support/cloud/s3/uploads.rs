//! Uploads in parts.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};

use super::{
    super::{Answer, Asked},
    Bucket, Object,
    objects::{check, described, etag_of, source, store, with_version},
    wire::{Refused, elements, escape, iso_date, payload, query, quoted},
};

/// An upload that is neither completed nor aborted.
pub struct Upload {
    key: String,
    /// What the object will be, without its body.
    described: Result<Object, Refused>,
    parts: BTreeMap<usize, (String, Bytes)>,
}

impl Upload {
    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn parts(&self) -> usize {
        self.parts.len()
    }
}

fn find<'a>(bucket: &'a mut Bucket, key: &str, asked: &Asked) -> Result<&'a mut Upload, Refused> {
    let id = query(asked, "uploadId").unwrap_or_default();
    let found = bucket.uploads.get_mut(&id).filter(|upload| upload.key == key);
    found.ok_or_else(|| Refused::new(404, "NoSuchUpload"))
}

fn number(asked: &Asked) -> Result<usize, Refused> {
    let number = query(asked, "partNumber").and_then(|number| number.parse().ok());
    number.filter(|number| (1..=10_000).contains(number)).ok_or_else(|| Refused::new(400, "InvalidArgument"))
}

pub fn create(bucket: &mut Bucket, name: &str, key: &str, asked: &Asked, unique: u64) -> Answer {
    let described = described(asked, Bytes::new(), String::new());
    if let Err(refused) = described {
        return refused.answer();
    }
    let id = format!("upload-{unique}");
    bucket.uploads.insert(id.clone(), Upload { key: key.to_owned(), described, parts: BTreeMap::new() });
    let body = format!(
        "<InitiateMultipartUploadResult><Bucket>{name}</Bucket><Key>{}</Key><UploadId>{id}</UploadId>\
         </InitiateMultipartUploadResult>",
        escape(key)
    );
    Answer::new(200, body)
}

pub fn send(bucket: &mut Bucket, key: &str, asked: &Asked) -> Result<Answer, Refused> {
    let (body, checksums) = payload(asked);
    let (number, etag) = (number(asked)?, etag_of(&body));
    find(bucket, key, asked)?.parts.insert(number, (etag.clone(), body));
    let answer = Answer::new(200, "").header("etag", quoted(&etag));
    Ok(checksums.iter().fold(answer, |answer, (name, value)| answer.header(name, value)))
}

pub fn copy(bucket: &mut Bucket, name: &str, key: &str, asked: &Asked) -> Result<Answer, Refused> {
    let number = number(asked)?;
    find(bucket, key, asked)?;
    let object = source(bucket, name, asked)?;
    let (start, end) = match asked.header("x-amz-copy-source-range") {
        None => (0, object.body.len()),
        Some(range) => {
            let (start, end) = range.trim_start_matches("bytes=").split_once('-').unwrap();
            (start.parse::<usize>().unwrap(), end.parse::<usize>().unwrap() + 1)
        }
    };
    if start >= end || end > object.body.len() {
        return Err(Refused::new(400, "InvalidArgument"));
    }
    let body = object.body.slice(start..end);
    let (etag, modified) = (etag_of(&body), object.modified);
    find(bucket, key, asked)?.parts.insert(number, (etag.clone(), body));
    Ok(Answer::new(
        200,
        format!(
            "<CopyPartResult><ETag>{}</ETag><LastModified>{}</LastModified></CopyPartResult>",
            escape(&quoted(&etag)),
            iso_date(modified)
        ),
    ))
}

pub fn complete(bucket: &mut Bucket, name: &str, key: &str, asked: &Asked, unique: u64) -> Result<Answer, Refused> {
    let min_part = bucket.min_part;
    let upload = find(bucket, key, asked)?;
    let xml = String::from_utf8_lossy(&asked.body).into_owned();
    let named = elements(&xml, "PartNumber").into_iter().zip(elements(&xml, "ETag"));
    let (mut body, mut etags, mut last) = (BytesMut::new(), String::new(), 0);
    let named: Vec<(String, String)> = named.collect();
    for (at, (number, etag)) in named.iter().enumerate() {
        let number: usize = number.parse().unwrap();
        let part = upload.parts.get(&number).filter(|(known, _)| known == etag.trim_matches('"'));
        let Some((etag, bytes)) = part else { return Err(Refused::new(400, "InvalidPart")) };
        if number <= last {
            return Err(Refused::new(400, "InvalidPartOrder"));
        }
        if bytes.len() < min_part && at + 1 < named.len() {
            return Err(Refused::new(400, "EntityTooSmall"));
        }
        last = number;
        body.extend_from_slice(bytes);
        etags.push_str(etag);
    }
    if named.is_empty() {
        return Err(Refused::new(400, "MalformedXML"));
    }
    let object = upload.described.clone()?;
    check(bucket, key, asked)?;
    let etag = format!("{}-{}", etag_of(etags.as_bytes()), named.len());
    let version = store(bucket, key, Object { body: body.freeze(), etag: etag.clone(), ..object }, unique);
    bucket.uploads.remove(&query(asked, "uploadId").unwrap_or_default());
    let body = format!(
        "<CompleteMultipartUploadResult><Bucket>{name}</Bucket><Key>{}</Key><ETag>{}</ETag>\
         </CompleteMultipartUploadResult>",
        escape(key),
        escape(&quoted(&etag))
    );
    Ok(with_version(Answer::new(200, body), version.as_deref()))
}

pub fn abort(bucket: &mut Bucket, key: &str, asked: &Asked) -> Result<Answer, Refused> {
    find(bucket, key, asked)?;
    bucket.uploads.remove(&query(asked, "uploadId").unwrap_or_default());
    Ok(Answer::new(204, ""))
}
