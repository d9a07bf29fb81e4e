//! What S3 refuses, told apart and put into words.

use std::error::Error;

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

use crate::{
    io::IoError,
    store::StoreError,
    text::{causes, printable},
};

/// What is shown of a text of the other side.
const SHOWN: usize = 300;

/// Codes that speak of who asks, and so of every object alike. "Error responses" in the S3 API reference.
const IDENTITY_CODES: &[&str] = &[
    "AccountProblem",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "InvalidToken",
    "NotSignedUp",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
];

/// Codes with a status of 4xx that speak of a moment.
const PASSING_CODES: &[&str] = &[
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InvalidDigest",
    "NoSuchUpload",
    "OperationAborted",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
];

/// A request of ours, and what is needed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Head,
    Get,
    GetTags,
    Put,
    StartUpload,
    UploadPart,
    CopyPart,
    FinishUpload,
    AbortUpload,
    Copy,
    Delete,
}

impl Operation {
    /// As the API reference names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Head => "HeadObject",
            Self::Get => "GetObject",
            Self::GetTags => "GetObjectTagging",
            Self::Put => "PutObject",
            Self::StartUpload => "CreateMultipartUpload",
            Self::UploadPart => "UploadPart",
            Self::CopyPart => "UploadPartCopy",
            Self::FinishUpload => "CompleteMultipartUpload",
            Self::AbortUpload => "AbortMultipartUpload",
            Self::Copy => "CopyObject",
            Self::Delete => "DeleteObject",
        }
    }

    fn permissions(self) -> &'static str {
        match self {
            Self::Head | Self::Get => {
                "allow s3:GetObject, in a bucket with versioning s3:GetObjectVersion too (without s3:ListBucket, S3 \
                 answers the same for an object that does not exist)"
            }
            Self::GetTags => "allow s3:GetObjectTagging, in a bucket with versioning s3:GetObjectVersionTagging too",
            Self::Put | Self::UploadPart | Self::FinishUpload => "allow s3:PutObject",
            Self::StartUpload => "allow s3:PutObject, and s3:PutObjectTagging for an object with tags",
            Self::AbortUpload => "allow s3:AbortMultipartUpload",
            Self::Copy | Self::CopyPart => {
                "allow s3:GetObject and s3:GetObjectTagging on the source (in a bucket with versioning \
                 s3:GetObjectVersion and s3:GetObjectVersionTagging too), s3:PutObject and s3:PutObjectTagging on the \
                 destination"
            }
            Self::Delete => "allow s3:DeleteObject",
        }
    }
}

/// A request that was not done.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    operation: Operation,
    key: String,
    /// Nothing when there was no answer.
    status: Option<u16>,
    /// Empty when there was none, as in the answer to a HEAD.
    code: String,
    message: String,
    /// The condition that did not hold, where S3 names it.
    condition: Option<String>,
}

impl Refusal {
    pub(super) fn new<E>(operation: Operation, key: &str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let raw = error.raw_response();
        // The SDK keeps code and message alone.
        let condition = raw.and_then(|raw| raw.body().bytes()).and_then(|body| element(body, "Condition"));
        let service = error.as_service_error();
        let message = match service.and_then(|error| error.message()) {
            Some(message) => message.to_owned(),
            None => causes(error),
        };
        Self {
            operation,
            key: key.to_owned(),
            status: raw.map(|raw| raw.status().as_u16()),
            code: service.and_then(|error| error.code()).unwrap_or_default().to_owned(),
            message,
            condition,
        }
    }

    /// An answer that came but does not say what it has to.
    pub(super) fn incomplete(operation: Operation, key: &str, what: &str) -> Self {
        Self {
            operation,
            key: key.to_owned(),
            status: Some(200),
            code: String::new(),
            message: format!("the answer has no {what}"),
            condition: None,
        }
    }

    /// The answer to a HEAD has no body, and so no code: another request has to find out.
    pub(super) fn is_silent(&self) -> bool {
        self.operation == Operation::Head && matches!(self.status, Some(400 | 403 | 404))
    }

    /// The object is empty, and can be read.
    pub(super) fn is_out_of_range(&self) -> bool {
        self.status == Some(416)
    }

    /// One whose reason could not be found out. Taken by its status alone it might count as final.
    pub(super) fn unexplained(self) -> Self {
        let status = self.status.map_or_else(String::new, |status| format!("status {status} "));
        Self { status: None, message: format!("{status}without a reason that a GET would tell"), ..self }
    }

    pub(super) fn is_not_found(&self) -> bool {
        match &*self.code {
            "NoSuchBucket" | "NoSuchUpload" => false,
            "NoSuchKey" | "NotFound" | "NoSuchVersion" => true,
            _ => self.status == Some(404),
        }
    }

    pub(super) fn is_no_such_upload(&self) -> bool {
        self.code == "NoSuchUpload"
    }

    pub(super) fn is_precondition(&self) -> bool {
        self.code == "PreconditionFailed" || self.status == Some(412)
    }

    /// A request for an object that needs something else in it.
    pub(super) fn is_invalid_request(&self) -> bool {
        self.code == "InvalidRequest"
    }

    /// Two writes at the same time, of which this one lost without a look at what is there now.
    pub(super) fn is_conflict(&self) -> bool {
        self.code == "ConditionalRequestConflict" || (self.code.is_empty() && self.status == Some(409))
    }

    /// The store knows no such request, or not with this condition.
    pub(super) fn is_not_implemented(&self) -> bool {
        self.code == "NotImplemented" || self.status == Some(501)
    }

    /// Whether it is the source of a copy whose condition did not hold. Nothing when S3 does not say.
    pub(super) fn is_about_source(&self) -> Option<bool> {
        let condition = self.condition.as_deref()?.to_ascii_lowercase();
        Some(condition.starts_with("x-amz-copy-source"))
    }

    /// Whether it is the key of the encryption that may not be used.
    fn is_about_keys(&self) -> bool {
        self.code.starts_with("KMS.") || (self.is_denied() && self.message.to_ascii_lowercase().contains("kms"))
    }

    fn is_denied(&self) -> bool {
        self.code == "AccessDenied" || self.status == Some(403)
    }

    /// What it is for a caller that knows nothing more of the case.
    pub(super) fn into_error(self, bucket: &str) -> StoreError {
        let what = self.to_string();
        match &*self.code {
            "NoSuchBucket" => {
                return StoreError::Unavailable(format!(
                    "{what}: is `{bucket}` the right bucket, and in this account?"
                ));
            }
            "PermanentRedirect" | "TemporaryRedirect" | "IllegalLocationConstraintException" => {
                return StoreError::Unavailable(format!("{what}: `{bucket}` is in another region, set that one"));
            }
            "InvalidObjectState" => return StoreError::Denied(format!("{what}: restore the object from its archive")),
            "KeyTooLongError" | "EntityTooLarge" | "MetadataTooLarge" => return StoreError::Impossible(what),
            code if IDENTITY_CODES.contains(&code) => {
                return StoreError::Unavailable(format!("{what}: check the credentials, the region and the clock"));
            }
            code if PASSING_CODES.contains(&code) => return StoreError::Unavailable(what),
            _ => {}
        }
        if self.is_not_found() {
            return StoreError::NotFound(self.key);
        }
        if self.is_about_keys() {
            let passing = ["Throttl", "Internal", "Timeout"].iter().any(|word| self.code.contains(word));
            return if passing {
                StoreError::Unavailable(what)
            } else {
                let way = "let the host use the key: kms:Decrypt to read, kms:GenerateDataKey to write";
                StoreError::Denied(format!("{what}: {way}"))
            };
        }
        if self.is_denied() {
            return StoreError::Denied(format!("{what}: {}", self.operation.permissions()));
        }
        match self.status {
            Some(301 | 307) => {
                StoreError::Unavailable(format!("{what}: `{bucket}` is in another region, set that one"))
            }
            // Asking again would be answered in the same way, and no other object is concerned.
            Some(400..=499) if !matches!(self.status, Some(408 | 409 | 412 | 429)) => StoreError::Impossible(what),
            _ => StoreError::Unavailable(what),
        }
    }

    /// The same for bytes that are read.
    pub(super) fn into_io_error(self, bucket: &str) -> IoError {
        if self.is_precondition() {
            return IoError::Superseded;
        }
        match self.into_error(bucket) {
            StoreError::NotFound(_) | StoreError::Superseded | StoreError::Exists(_) => IoError::Superseded,
            // A plugin's read that can never be served concerns this one object, too.
            StoreError::Denied(reason) | StoreError::Impossible(reason) => IoError::Denied(reason),
            StoreError::Unavailable(reason) => IoError::Unavailable(reason),
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (operation, key) = (self.operation.name(), printable(&self.key, SHOWN));
        write!(f, "{operation} of `{key}`: ")?;
        match (self.status, self.code.is_empty()) {
            (_, false) => write!(f, "{}: ", printable(&self.code, SHOWN))?,
            (Some(status), true) => write!(f, "status {status}: ")?,
            (None, true) => {}
        }
        f.write_str(printable(&self.message, SHOWN).trim_end_matches('.'))
    }
}

/// The text of an element of an error document, which has no attributes.
fn element(body: &[u8], name: &str) -> Option<String> {
    let body = std::str::from_utf8(body).ok()?;
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    Some(rest.split_once("</")?.0.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Operation, Refusal, element};
    use crate::store::StoreError;

    fn refusal(operation: Operation, status: u16, code: &str, message: &str) -> Refusal {
        Refusal {
            operation,
            key: "uploads/a".to_owned(),
            status: Some(status),
            code: code.to_owned(),
            message: message.to_owned(),
            condition: None,
        }
    }

    #[test]
    fn each_refusal_is_of_its_kind() {
        use Operation::{Copy, Delete, Get, Head, Put};
        let cases = [
            (Head, 404, "", "not found"),
            (Get, 404, "NoSuchKey", "not found"),
            (Get, 404, "NoSuchBucket", "unavailable"),
            (Put, 404, "NoSuchUpload", "unavailable"),
            (Head, 403, "", "denied"),
            (Delete, 403, "AccessDenied", "denied"),
            (Get, 403, "InvalidObjectState", "denied"),
            (Get, 400, "KMS.DisabledException", "denied"),
            (Get, 400, "KMS.ThrottlingException", "unavailable"),
            (Get, 400, "ExpiredToken", "unavailable"),
            (Get, 403, "InvalidAccessKeyId", "unavailable"),
            (Get, 403, "SignatureDoesNotMatch", "unavailable"),
            (Get, 403, "RequestTimeTooSkewed", "unavailable"),
            (Head, 301, "", "unavailable"),
            (Get, 301, "PermanentRedirect", "unavailable"),
            (Put, 400, "KeyTooLongError", "impossible"),
            (Put, 400, "EntityTooLarge", "impossible"),
            (Put, 400, "MetadataTooLarge", "impossible"),
            (Put, 400, "InvalidArgument", "impossible"),
            (Put, 400, "RequestTimeout", "unavailable"),
            (Put, 400, "BadDigest", "unavailable"),
            (Put, 409, "OperationAborted", "unavailable"),
            (Put, 429, "TooManyRequests", "unavailable"),
            (Put, 503, "SlowDown", "unavailable"),
            (Put, 500, "", "unavailable"),
            (Copy, 200, "InternalError", "unavailable"),
            (Copy, 200, "SlowDown", "unavailable"),
        ];
        for (operation, status, code, kind) in cases {
            let error = refusal(operation, status, code, "said so").into_error("pictures");
            let is = match &error {
                StoreError::NotFound(_) => "not found",
                StoreError::Denied(_) => "denied",
                StoreError::Impossible(_) => "impossible",
                StoreError::Unavailable(_) => "unavailable",
                StoreError::Superseded | StoreError::Exists(_) => "other",
            };
            assert_eq!(is, kind, "{status} {code}: {error}");
            assert!(error.to_string().contains("uploads/a"), "{error}");
        }
    }

    #[test]
    fn the_text_says_what_to_do() {
        let text =
            |status, code, message| refusal(Operation::Get, status, code, message).into_error("pictures").to_string();
        assert_eq!(
            text(404, "NoSuchBucket", "The specified bucket does not exist."),
            "GetObject of `uploads/a`: NoSuchBucket: The specified bucket does not exist: is `pictures` the right \
             bucket, and in this account?"
        );
        let denied = text(403, "AccessDenied", "Access Denied");
        assert!(denied.contains("allow s3:GetObject") && denied.contains("s3:ListBucket"), "{denied}");
        let denied = text(403, "AccessDenied", "not authorized to perform: kms:Decrypt on resource");
        assert!(denied.contains("kms:Decrypt to read"), "{denied}");
        assert!(text(403, "", "\u{1b}[31m").contains("\\u{1b}"));
    }

    #[test]
    fn a_condition_is_read_from_the_document() {
        let body = b"<?xml version=\"1.0\"?>\n<Error><Code>PreconditionFailed</Code>\
            <Condition>x-amz-copy-source-If-Match</Condition></Error>";
        assert_eq!(element(body, "Condition").as_deref(), Some("x-amz-copy-source-If-Match"));
        assert_eq!(element(b"<Error/>", "Condition"), None);
        assert_eq!(element(b"<Condition>", "Condition"), None);
        assert_eq!(element(&[0xFF], "Condition"), None);
    }
}
