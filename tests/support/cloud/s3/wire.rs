//! Requests taken apart, and answers put together.

use std::{collections::BTreeMap, fmt::Write as _, time::SystemTime};

use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use bytes::{Bytes, BytesMut};

use super::super::{Answer, Asked};

/// A request that is answered with an error.
#[derive(Debug, Clone)]
pub struct Refused {
    status: u16,
    code: String,
    /// Of a 412: the condition that did not hold.
    condition: Option<&'static str>,
}

impl Refused {
    pub fn new(status: u16, code: &str) -> Self {
        Self { status, code: code.to_owned(), condition: None }
    }

    pub fn condition(named: bool, condition: &'static str) -> Self {
        Self { condition: named.then_some(condition), ..Self::new(412, "PreconditionFailed") }
    }

    pub fn answer(&self) -> Answer {
        let Self { status, code, condition } = self;
        let condition = condition.map(|name| format!("<Condition>{name}</Condition>")).unwrap_or_default();
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{code}, says the \
             test</Message>{condition}<RequestId>1</RequestId></Error>"
        );
        Answer::new(*status, body).header("content-type", "application/xml")
    }
}

/// Bucket and key, decoded.
pub fn place(asked: &Asked) -> (String, String) {
    let path = asked.path.strip_prefix('/').unwrap_or(&asked.path);
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    (decode(bucket), decode(key))
}

/// A parameter of the query; empty when it has no value.
pub fn query(asked: &Asked, name: &str) -> Option<String> {
    pairs(&asked.query).find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The pairs of a query or of a tag header.
pub fn pairs(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let given = text.split('&').filter(|pair| !pair.is_empty());
    given.map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(&value.replace('+', " ")))
    })
}

pub fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).unwrap()
}

pub fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        write!(out, "%{byte:02X}").unwrap();
        out
    })
}

pub fn escape(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '<' | '>' | '&' | '"' | '\'' | '\n' | '\r' => write!(out, "&#{};", u32::from(c)).unwrap(),
            other => out.push(other),
        }
        out
    })
}

fn unescape(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    text.replace("&#34;", "\"").replace("&amp;", "&")
}

/// The contents of all elements of that name, in order.
pub fn elements(xml: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let found = xml.split(&*open).skip(1).filter_map(|rest| rest.split_once(&*close));
    found.map(|(content, _)| unescape(content)).collect()
}

/// The body as it was meant: the SDK may send it in chunks, with a checksum at the end.
pub fn payload(asked: &Asked) -> (Bytes, BTreeMap<String, String>) {
    let mut checksums: BTreeMap<String, String> = checksums(&asked.headers);
    let is_chunked = asked.header("content-encoding").is_some_and(|encoding| encoding.contains("aws-chunked"))
        || asked.header("x-amz-content-sha256").is_some_and(|sum| sum.starts_with("STREAMING-"));
    if !is_chunked {
        return (asked.body.clone(), checksums);
    }
    let (mut rest, mut body) = (&*asked.body, BytesMut::new());
    loop {
        let end = rest.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let head = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(head.split(';').next().unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        if size == 0 {
            break;
        }
        body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
    for line in std::str::from_utf8(rest).unwrap().lines() {
        if let Some((name, value)) = line.split_once(':') {
            checksums.insert(name.to_owned(), value.trim().to_owned());
        }
    }
    (body.freeze(), checksums)
}

fn checksums(headers: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_one = |name: &str| {
        name.strip_prefix("x-amz-checksum-")
            .is_some_and(|algorithm| !matches!(algorithm, "mode" | "algorithm" | "type"))
    };
    headers.iter().filter(|(name, _)| is_one(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

pub fn http_date(time: SystemTime) -> String {
    DateTime::from(time).fmt(DateTimeFormat::HttpDate).unwrap()
}

pub fn iso_date(time: SystemTime) -> String {
    DateTime::from(time).fmt(DateTimeFormat::DateTime).unwrap()
}

pub fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}
