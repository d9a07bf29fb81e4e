//! What can be found out about a queue without touching anybody's message, for `gristmill check --live`.
//!
//! Whether a call is allowed shows in what SQS answers to one that cannot succeed: a receipt handle that is
//! none, a batch of nothing. Only a receive has no such form that is sure to be authorised first. Where the
//! queue says that it is empty, a real one is tried; else one for more messages than may be asked for, of which
//! only a refusal is believed.

use std::{error::Error, time::Duration};

use aws_sdk_sqs::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    types::QueueAttributeName,
};

use crate::aws::{Permission, words};

/// Names no message.
const NO_RECEIPT: &str = "gristmill-check";

/// One more than SQS hands out at once.
const TOO_MANY: i32 = 11;

/// A queue and what we may do with it.
#[derive(Debug, Clone)]
pub struct QueueFacts {
    /// As it was looked for.
    pub url: String,
    /// Of the queue itself. An error says why they cannot be had.
    pub attributes: Result<QueueAttributes, String>,
    /// `sqs:ReceiveMessage`.
    pub receive: Permission,
    /// `sqs:DeleteMessage`.
    pub delete: Permission,
    /// `sqs:ChangeMessageVisibility`.
    pub change_visibility: Permission,
    /// `sqs:SendMessage`.
    pub send: Permission,
}

/// See "GetQueueAttributes" in the API reference of SQS. What a stand-in leaves out is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueAttributes {
    /// The queue's ARN.
    pub arn: Option<String>,
    /// How long an unsettled message stays.
    pub retention: Option<Duration>,
    /// The largest message with its attributes, bytes.
    pub max_message: Option<u64>,
    /// How long a receive waits that does not say so itself.
    pub receive_wait: Option<Duration>,
    /// How long a new message stays invisible.
    pub delay: Option<Duration>,
    /// Where the queue itself moves messages, and after how many deliveries.
    pub redrive: Option<Redrive>,
    /// About how many messages wait.
    pub waiting: Option<u64>,
    /// First in, first out.
    pub fifo: bool,
}

/// A redrive policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redrive {
    /// The dead-letter queue's ARN.
    pub target: String,
    /// `maxReceiveCount`.
    pub max_receives: u32,
}

/// Looks at a queue.
pub async fn survey(client: &Client, url: &str) -> QueueFacts {
    let attributes = attributes(client, url).await;
    let is_empty = attributes.as_ref().is_ok_and(|attributes| attributes.waiting == Some(0));
    QueueFacts {
        url: url.to_owned(),
        attributes,
        receive: receive(client, url, is_empty).await,
        delete: permission(client.delete_message().queue_url(url).receipt_handle(NO_RECEIPT).send().await),
        change_visibility: permission(
            client
                .change_message_visibility()
                .queue_url(url)
                .receipt_handle(NO_RECEIPT)
                .visibility_timeout(0)
                .send()
                .await,
        ),
        // A batch without entries sends nothing, whoever takes it for right.
        send: permission(client.send_message_batch().queue_url(url).set_entries(Some(Vec::new())).send().await),
    }
}

/// The URL of a queue that another one names by ARN.
///
/// # Errors
/// With the service's words when it is not there or may not be looked at.
pub async fn url_of(client: &Client, arn: &str) -> Result<String, String> {
    let (owner, name) = owner_and_name(arn).ok_or_else(|| format!("`{arn}` is not the ARN of a queue"))?;
    let found = client.get_queue_url().queue_name(name).queue_owner_aws_account_id(owner).send().await;
    match found.map(|found| found.queue_url().map(str::to_owned)) {
        Ok(Some(url)) => Ok(url),
        Ok(None) => Err("the service answers without a URL".to_owned()),
        Err(error) => Err(words(error)),
    }
}

/// `arn:aws:sqs:region:owner:name`
fn owner_and_name(arn: &str) -> Option<(&str, &str)> {
    let parts: Vec<&str> = arn.split(':').collect();
    match parts[..] {
        ["arn", _, "sqs", _, owner, name] if !name.is_empty() => Some((owner, name)),
        _ => None,
    }
}

async fn attributes(client: &Client, url: &str) -> Result<QueueAttributes, String> {
    let found = client.get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::All).send().await;
    let found = found.map_err(words)?;
    let get = |name: QueueAttributeName| found.attributes().and_then(|all| all.get(&name)).cloned();
    let number = |name| get(name).and_then(|value| value.parse::<u64>().ok());
    let seconds = |name| number(name).map(Duration::from_secs);
    Ok(QueueAttributes {
        arn: get(QueueAttributeName::QueueArn),
        retention: seconds(QueueAttributeName::MessageRetentionPeriod),
        max_message: number(QueueAttributeName::MaximumMessageSize),
        receive_wait: seconds(QueueAttributeName::ReceiveMessageWaitTimeSeconds),
        delay: seconds(QueueAttributeName::DelaySeconds),
        redrive: get(QueueAttributeName::RedrivePolicy).as_deref().and_then(redrive),
        waiting: number(QueueAttributeName::ApproximateNumberOfMessages),
        fifo: get(QueueAttributeName::FifoQueue).as_deref() == Some("true"),
    })
}

/// `{"deadLetterTargetArn":"…","maxReceiveCount":"5"}`; the count comes as a number, too.
fn redrive(policy: &str) -> Option<Redrive> {
    let policy: serde_json::Value = serde_json::from_str(policy).ok()?;
    let count = policy.get("maxReceiveCount")?;
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
    let target = policy.get("deadLetterTargetArn")?.as_str()?.to_owned();
    Some(Redrive { target, max_receives: u32::try_from(count).ok()? })
}

/// A message that came in between our look and this is visible again at once; what it costs is one delivery.
async fn receive(client: &Client, url: &str, is_empty: bool) -> Permission {
    let number = if is_empty { 1 } else { TOO_MANY };
    let received = client
        .receive_message()
        .queue_url(url)
        .max_number_of_messages(number)
        .visibility_timeout(0)
        .wait_time_seconds(0)
        .send()
        .await;
    match permission(received) {
        Permission::Granted if !is_empty => {
            Permission::Unknown("it could not be tried without taking somebody's message".to_owned())
        }
        other => other,
    }
}

fn permission<T, E>(answer: Result<T, SdkError<E>>) -> Permission
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match answer {
        Ok(_) => Permission::Granted,
        Err(error) => match error.as_service_error().and_then(ProvideErrorMetadata::code) {
            Some(code) if is_denial(code) => Permission::Denied(words(error)),
            Some(code) if is_about_the_request(code) => Permission::Granted,
            _ => Permission::Unknown(words(error)),
        },
    }
}

/// See "Common error types" in the API reference of SQS.
fn is_denial(code: &str) -> bool {
    ["AccessDenied", "AuthorizationError", "NotAuthorized"].iter().any(|denial| code.contains(denial))
}

/// What SQS finds wrong with requests like ours, once it knows who asks.
fn is_about_the_request(code: &str) -> bool {
    [
        "ReceiptHandleIsInvalid",
        "InvalidParameterValue",
        "EmptyBatchRequest",
        "ReadCountOutOfRange",
        "MessageNotInflight",
    ]
    .iter()
    .any(|wrong| code.contains(wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redrive_policies_are_read_with_numbers_and_with_strings() {
        let expected = Redrive { target: "arn:aws:sqs:r:1:dead".to_owned(), max_receives: 5 };
        for count in ["5", "\"5\""] {
            let policy = format!(r#"{{"deadLetterTargetArn":"arn:aws:sqs:r:1:dead","maxReceiveCount":{count}}}"#);
            assert_eq!(redrive(&policy), Some(expected.clone()));
        }
        for broken in ["", "{}", r#"{"maxReceiveCount":5}"#, r#"{"deadLetterTargetArn":"a","maxReceiveCount":"x"}"#] {
            assert_eq!(redrive(broken), None, "{broken}");
        }
    }

    #[test]
    fn queues_are_found_by_their_arn() {
        assert_eq!(owner_and_name("arn:aws:sqs:eu-west-1:123:dead"), Some(("123", "dead")));
        assert_eq!(owner_and_name("arn:aws:sns:eu-west-1:123:topic"), None);
        assert_eq!(owner_and_name("dead"), None);
    }

    #[test]
    fn both_protocols_codes_are_understood() {
        for code in ["AccessDenied", "AccessDeniedException", "AWS.SimpleQueueService.AccessDenied"] {
            assert!(is_denial(code) && !is_about_the_request(code), "{code}");
        }
        for code in ["ReceiptHandleIsInvalid", "AWS.SimpleQueueService.EmptyBatchRequest", "InvalidParameterValue"] {
            assert!(is_about_the_request(code) && !is_denial(code), "{code}");
        }
        for code in ["QueueDoesNotExist", "InternalError"] {
            assert!(!is_about_the_request(code) && !is_denial(code), "{code}");
        }
    }
}
