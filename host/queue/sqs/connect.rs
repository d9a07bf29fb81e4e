//! What the host finds out about its queues before it starts.

use aws_sdk_sqs::{
    Client,
    config::{retry::RetryConfig, timeout::TimeoutConfig},
    types::QueueAttributeName as Name,
};
use serde_json::Value;
use tokio::time::Duration;

use super::{super::QueueError, error, send};

const LOOK: &str = "sqs:GetQueueAttributes";

/// A client that is like another but for its patience: how long a call may take, tries and their pauses
/// included. Connections and credentials are shared.
pub(super) fn patient(client: &Client, limit: Duration, may_retry: bool) -> Client {
    let config = client.config();
    let timeouts = config.timeout_config().map_or_else(TimeoutConfig::builder, TimeoutConfig::to_builder);
    let mut builder = config.to_builder().timeout_config(timeouts.operation_timeout(limit).build());
    if !may_retry {
        builder = builder.retry_config(RetryConfig::disabled());
    }
    Client::from_conf(builder.build())
}

/// A queue's redrive policy.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Redrive {
    /// Where dead letters go.
    pub(super) arn: Option<String>,
    /// After how many deliveries.
    pub(super) max_receives: Option<u32>,
}

impl Redrive {
    /// The policy of the queue at `url`; an empty one if it has none.
    pub(super) async fn of(client: &Client, url: &str) -> Result<Self, QueueError> {
        let request = client.get_queue_attributes().queue_url(url).attribute_names(Name::RedrivePolicy);
        let output = request.send().await.map_err(|error| error::unavailable(LOOK, url, &error))?;
        let policy = output.attributes.as_ref().and_then(|attributes| attributes.get(&Name::RedrivePolicy));
        Ok(policy.map(|policy| Self::parse(policy)).unwrap_or_default())
    }

    /// Numbers may be strings, as some tools write them.
    fn parse(policy: &str) -> Self {
        let policy: Value = serde_json::from_str(policy).unwrap_or_default();
        let count = &policy["maxReceiveCount"];
        let count = count.as_u64().or_else(|| count.as_str()?.parse().ok());
        Self {
            arn: policy["deadLetterTargetArn"].as_str().map(str::to_owned),
            max_receives: count.and_then(|count| u32::try_from(count).ok()),
        }
    }
}

/// The dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeadLetterQueue {
    pub(super) url: String,
    /// How large a message may be there, with its attributes.
    pub(super) max_bytes: usize,
}

impl DeadLetterQueue {
    /// The one at `url`.
    pub(super) async fn at(client: &Client, url: String) -> Result<Self, QueueError> {
        let request = client.get_queue_attributes().queue_url(&url).attribute_names(Name::MaximumMessageSize);
        let max_bytes = match request.send().await {
            Ok(output) => {
                let size = output.attributes.as_ref().and_then(|attributes| attributes.get(&Name::MaximumMessageSize));
                size.and_then(|size| size.parse().ok())
            }
            Err(error) if error::is_missing(&error) => return Err(error::unavailable(LOOK, &url, &error)),
            Err(error) => {
                let error = error::unavailable(LOOK, &url, &error);
                tracing::warn!(%error, "cannot look at the dead-letter queue, taking its limits for the usual ones");
                None
            }
        };
        Ok(Self { url, max_bytes: max_bytes.unwrap_or(send::DEFAULT_MAX_BYTES) })
    }
}

/// The URL of the queue with this ARN, which is of the same account and region as the one at `url`: SQS allows
/// no other dead-letter queue.
pub(super) async fn url_of(client: &Client, arn: &str, url: &str) -> Result<String, QueueError> {
    const ACTION: &str = "sqs:GetQueueUrl";
    let unknown = || QueueError::Unavailable(format!("`{arn}` in the redrive policy of {url} is not a queue's ARN"));
    let (account, name) = account_and_name(arn).ok_or_else(unknown)?;
    let request = client.get_queue_url().queue_name(name).queue_owner_aws_account_id(account);
    match request.send().await {
        Ok(output) => output.queue_url.ok_or_else(unknown),
        // Policies written by hand leave this out, and it can be told without.
        Err(error) if error::is_denied(&error) => Ok(beside(url, name)),
        Err(error) => Err(error::unavailable(ACTION, arn, &error)),
    }
}

/// `arn:aws:sqs:region:account:name`.
fn account_and_name(arn: &str) -> Option<(&str, &str)> {
    let mut parts = arn.splitn(6, ':').skip(4);
    let (account, name) = (parts.next()?, parts.next()?);
    (!account.is_empty() && !name.is_empty()).then_some((account, name))
}

/// The URL of another queue of the same account and region.
fn beside(url: &str, name: &str) -> String {
    let end = url.rfind('/').map_or(0, |slash| slash + 1);
    format!("{}{name}", &url[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_people_and_tools_write_them() {
        let policy = |max_receives, arn: Option<&str>| Redrive { arn: arn.map(str::to_owned), max_receives };
        let arn = "arn:aws:sqs:us-east-1:123456789012:dead";
        for (text, expected) in [
            (format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":3}}"#), policy(Some(3), Some(arn))),
            (format!(r#"{{"maxReceiveCount":"5","deadLetterTargetArn":"{arn}"}}"#), policy(Some(5), Some(arn))),
            ("{}".to_owned(), policy(None, None)),
            ("nonsense".to_owned(), policy(None, None)),
        ] {
            assert_eq!(Redrive::parse(&text), expected, "{text}");
        }
    }

    #[test]
    fn an_arn_names_account_and_queue() {
        assert_eq!(account_and_name("arn:aws:sqs:us-east-1:123:dead.fifo"), Some(("123", "dead.fifo")));
        for wrong in ["", "dead", "arn:aws:sqs:us-east-1:123", "arn:aws:sqs:us-east-1:123:", "arn:aws:sqs:us-east-1::q"]
        {
            assert_eq!(account_and_name(wrong), None, "{wrong}");
        }
        assert_eq!(
            beside("https://sqs.eu-west-1.amazonaws.com/1/uploads", "d"),
            "https://sqs.eu-west-1.amazonaws.com/1/d"
        );
    }
}
