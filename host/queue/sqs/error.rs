//! What SQS answers instead of doing it, in words for people.

use std::error::Error;

use aws_sdk_sqs::{
    error::{ProvideErrorMetadata, SdkError},
    types::BatchResultErrorEntry,
};

use super::super::QueueError;
use crate::text;

/// What is shown of a text of the service.
const SHOWN: usize = 500;

/// The codes that say that a queue is not there, in both of the service's protocols.
const NO_QUEUE: [&str; 2] = ["AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"];

/// A call as a whole did not go through. `action` is what a policy has to allow for it, `sqs:ReceiveMessage`
/// for example; `url` is the queue.
pub(super) fn unavailable<E>(action: &str, url: &str, error: &SdkError<E>) -> QueueError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let what = match error {
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or("an error without a code");
            described(action, url, code, service.err().message())
        }
        SdkError::TimeoutError(_) => "no answer in time; is SQS reachable from here?".to_owned(),
        SdkError::ResponseError(response) => {
            format!("status {} with an answer that cannot be read", response.raw().status().as_u16())
        }
        other => without_answer(other),
    };
    QueueError::Unavailable(format!("{action} on {url}: {what}"))
}

/// One entry of a batch did not go through, while the others may have.
pub(super) fn refused(action: &str, url: &str, entry: &BatchResultErrorEntry) -> QueueError {
    if is_stale(&entry.code, entry.message()) {
        return QueueError::Stale;
    }
    let whose = if entry.sender_fault { "refused" } else { "failed inside SQS" };
    let what = described(action, url, &entry.code, entry.message());
    QueueError::Unavailable(format!("{action} on {url}: {whose} for one message of a batch: {what}"))
}

/// Whether the queue is not there, or not visible to this account.
pub(super) fn is_missing<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    code(error).is_some_and(|code| NO_QUEUE.contains(&code))
}

/// Whether a policy forbids the call.
pub(super) fn is_denied<E: ProvideErrorMetadata>(error: &SdkError<E>) -> bool {
    code(error).is_some_and(|code| code.starts_with("AccessDenied"))
}

fn code<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// Whether an entry failed because its message is no longer ours. Besides the codes that say so there is one
/// for every wrong parameter. Of these it is said of the receipt handle when it has expired or the message is
/// gone, and of the visibility timeout when the 12 hours of a delivery are over: then too it cannot be held
/// any longer.
fn is_stale(code: &str, message: Option<&str>) -> bool {
    let about = |what| message.is_some_and(|message| message.contains(what));
    match code.rsplit(['.', '#']).next().unwrap_or(code) {
        "ReceiptHandleIsInvalid" | "MessageNotInflight" | "InvalidIdFormat" => true,
        "InvalidParameterValue" => about("ReceiptHandle") || about("Total VisibilityTimeout"),
        _ => false,
    }
}

/// Code, message, and what to do about it.
fn described(action: &str, url: &str, code: &str, message: Option<&str>) -> String {
    let mut text = code.to_owned();
    // What is signed includes the session's token, and AWS's message about a wrong signature quotes it, below
    // its first line.
    let message = message.and_then(|message| message.lines().next()).unwrap_or_default();
    if !message.is_empty() && !code.starts_with("Signature") {
        text.push_str(": ");
        text.push_str(&text::printable(message, SHOWN));
    }
    if let Some(advice) = advice(action, url, code) {
        text.push_str("; ");
        text.push_str(&advice);
    }
    text
}

fn advice(action: &str, url: &str, code: &str) -> Option<String> {
    Some(match code {
        _ if NO_QUEUE.contains(&code) => format!("check that `{url}` exists and is in the region that is used"),
        "AccessDenied" | "AccessDeniedException" | "AuthorizationError" => {
            format!("allow `{action}` on this queue in the policy of the role or user of this host")
        }
        "ExpiredToken" | "ExpiredTokenException" => {
            "log in again, or give this host credentials that renew themselves".to_owned()
        }
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "InvalidAccessKeyId"
        | "MissingAuthenticationToken" => "check the credentials of this host".to_owned(),
        "SignatureDoesNotMatch" | "IncompleteSignature" => {
            "check the secret access key, the region and the clock of this host".to_owned()
        }
        "RequestExpired" | "RequestTimeTooSkewed" => "check the clock of this host".to_owned(),
        "OverLimit" => "too many messages of this queue are in flight".to_owned(),
        _ if code.starts_with("KMS.") || code.starts_with("Kms") => {
            "allow `kms:Decrypt` and `kms:GenerateDataKey` on the key of this queue".to_owned()
        }
        _ => return None,
    })
}

/// No connection, no credentials, no region: the SDK says what in the causes of its error.
fn without_answer<E: Error + 'static>(error: &SdkError<E>) -> String {
    let text = text::printable(&text::causes(error), SHOWN);
    match text.to_ascii_lowercase().contains("credentials") {
        true => format!("{text}; give this host credentials: a role, a profile, or AWS_ACCESS_KEY_ID and its secret"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://sqs.eu-west-1.amazonaws.com/1/q";

    fn entry(code: &str, message: &str, sender_fault: bool) -> BatchResultErrorEntry {
        BatchResultErrorEntry::builder()
            .id("0")
            .code(code)
            .message(message)
            .sender_fault(sender_fault)
            .build()
            .expect("it is complete")
    }

    #[test]
    fn what_says_that_the_message_is_no_longer_ours_is_stale() {
        for (code, message) in [
            ("ReceiptHandleIsInvalid", ""),
            ("AWS.SimpleQueueService.MessageNotInflight", ""),
            ("MessageNotInflight", ""),
            (
                "InvalidParameterValue",
                "Value AQEB for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.",
            ),
            (
                "InvalidParameterValue",
                "Value AQEB for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not \
                 available for visibility timeout change.",
            ),
            (
                "InvalidParameterValue",
                "Value 43200 for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the \
                 message is beyond the limit [43200 seconds]",
            ),
        ] {
            let error = refused("sqs:ChangeMessageVisibility", URL, &entry(code, message, true));
            assert!(matches!(error, QueueError::Stale), "{code} {message}: {error}");
        }
    }

    #[test]
    fn what_says_something_else_is_not_stale() {
        for (code, message, sender, expected) in [
            ("InternalError", "oops", false, "failed inside SQS for one message of a batch: InternalError: oops"),
            (
                "InvalidParameterValue",
                "Value 99999 for parameter VisibilityTimeout is invalid. Reason: Must be between 0 and 43200",
                true,
                "refused for one message of a batch: InvalidParameterValue",
            ),
            ("AccessDenied", "no", true, "allow `sqs:DeleteMessage` on this queue"),
        ] {
            let error = refused("sqs:DeleteMessage", URL, &entry(code, message, sender)).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_token_that_aws_quotes_is_not_repeated() {
        let message = "The request signature we calculated does not match.\n\nx-amz-security-token:SECRET";
        for code in ["SignatureDoesNotMatch", "Other"] {
            assert!(!described("sqs:ReceiveMessage", URL, code, Some(message)).contains("SECRET"));
        }
    }
}
