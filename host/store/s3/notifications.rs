//! Whom a bucket tells of new objects; see "Amazon S3 Event Notifications" in the user guide.

use aws_sdk_s3::{
    Client,
    types::{Event, FilterRuleName, NotificationConfigurationFilter},
};

use crate::aws::words;

/// A bucket's notification configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notifications {
    /// Queues, topics and functions.
    pub targets: Vec<Target>,
    /// Whether EventBridge is told of everything.
    pub event_bridge: bool,
}

/// Somebody who is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Of the queue, topic or function.
    pub arn: String,
    /// As in `s3:ObjectCreated:*`.
    pub events: Vec<String>,
    /// Only of keys that begin so.
    pub prefix: Option<String>,
    /// Only of keys that end so.
    pub suffix: Option<String>,
}

pub(super) async fn look(client: &Client, bucket: &str) -> Result<Notifications, String> {
    let found = client.get_bucket_notification_configuration().bucket(bucket).send().await.map_err(words)?;
    let queues = found.queue_configurations().iter().map(|it| target(it.queue_arn(), it.events(), it.filter()));
    let topics = found.topic_configurations().iter().map(|it| target(it.topic_arn(), it.events(), it.filter()));
    let functions = found
        .lambda_function_configurations()
        .iter()
        .map(|it| target(it.lambda_function_arn(), it.events(), it.filter()));
    Ok(Notifications {
        targets: queues.chain(topics).chain(functions).collect(),
        event_bridge: found.event_bridge_configuration().is_some(),
    })
}

fn target(arn: &str, events: &[Event], filter: Option<&NotificationConfigurationFilter>) -> Target {
    let rules = filter.and_then(|filter| filter.key()).map_or(&[][..], |key| key.filter_rules());
    let rule = |wanted: &FilterRuleName| {
        // AWS itself writes the names with a capital, and takes both.
        let is_wanted = |name: &FilterRuleName| name.as_str().eq_ignore_ascii_case(wanted.as_str());
        let found = rules.iter().find(|rule| rule.name().is_some_and(is_wanted));
        found.and_then(|rule| rule.value()).filter(|value| !value.is_empty()).map(str::to_owned)
    };
    Target {
        arn: arn.to_owned(),
        events: events.iter().map(|event| event.as_str().to_owned()).collect(),
        prefix: rule(&FilterRuleName::Prefix),
        suffix: rule(&FilterRuleName::Suffix),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::types::{FilterRule, S3KeyFilter};

    use super::*;

    #[test]
    fn filters_are_read_whatever_their_case() {
        let rule = |name: &str, value: &str| FilterRule::builder().name(name.into()).value(value).build();
        let key = S3KeyFilter::builder().filter_rules(rule("Prefix", "uploads/")).filter_rules(rule("suffix", ".jpg"));
        let filter = NotificationConfigurationFilter::builder().key(key.build()).build();
        let expected = Target {
            arn: "arn:aws:sqs:r:1:q".to_owned(),
            events: vec!["s3:ObjectCreated:*".to_owned()],
            prefix: Some("uploads/".to_owned()),
            suffix: Some(".jpg".to_owned()),
        };
        assert_eq!(target(&expected.arn, &["s3:ObjectCreated:*".into()], Some(&filter)), expected);
        assert_eq!(target("a", &[], None), Target { arn: "a".to_owned(), ..Target::default() });
    }
}
