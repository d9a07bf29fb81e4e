//! Judges a queue in SQS; pure.

use std::time::Duration;

use humantime::format_duration;

use super::finding::Finding;
use crate::{
    aws::Permission,
    config::{Config, Retry},
    queue::sqs::survey::{QueueAttributes, QueueFacts, Redrive},
};

/// Below this a host that is slow for a moment loses its leases: they are renewed at half of it, and a request
/// that is tried three times takes some seconds.
const LEAST_VISIBILITY: Duration = Duration::from_secs(10);

/// Below this a weekend's outage loses messages.
const LEAST_RETENTION: Duration = Duration::from_hours(3 * 24);

/// What SQS allows at most.
const MOST_RETENTION: Duration = Duration::from_hours(14 * 24);

/// A notification about the longest key, form-encoded, with all that S3 puts around it, is below 8 KiB.
const LEAST_MESSAGE: u64 = 8 << 10;

/// What a dead letter adds to its message: a reason and a backtrace of up to 8 KiB each, and some names.
const LEAST_DEAD_MESSAGE: u64 = LEAST_MESSAGE + (24 << 10);

/// Deliveries that are nobody's fault count for the queue, too: hosts that are stopped, stores that are down.
const ENOUGH_RECEIVES: u32 = 20;

/// What is known of the queue and of where its dead letters go.
pub(super) struct Facts<'a> {
    pub queue: &'a QueueFacts,
    /// As far as there is one. An error says why the one that the queue names cannot be found.
    pub dead: Option<Result<&'a QueueFacts, &'a str>>,
}

/// What is good and what is not.
pub(super) fn judge(facts: &Facts<'_>, config: &Config) -> Vec<Finding> {
    let url = &facts.queue.url;
    let attributes = match &facts.queue.attributes {
        Ok(attributes) => attributes,
        // Without the queue nothing else is worth a look.
        Err(reason) => {
            return vec![Finding::error("queue.attributes", format!("{url} cannot be looked at: {reason}")).fix(
                "check `queue_url`, `region` and the credentials, and allow sqs:GetQueueAttributes on the queue",
            )];
        }
    };
    let mut findings = permissions(facts.queue);
    findings.extend(shape(url, attributes));
    findings.push(visibility(config.visibility_timeout));
    findings.extend(dead_letters(facts, attributes, &config.retry, config.has_default_attempts));
    findings
}

fn permissions(queue: &QueueFacts) -> Vec<Finding> {
    let calls = [
        ("queue.receive", "sqs:ReceiveMessage", &queue.receive),
        ("queue.delete", "sqs:DeleteMessage", &queue.delete),
        ("queue.visibility", "sqs:ChangeMessageVisibility", &queue.change_visibility),
    ];
    calls.into_iter().map(|(check, action, found)| permission(check, action, found, &queue.url)).collect()
}

fn permission(check: &'static str, action: &str, found: &Permission, url: &str) -> Finding {
    match found {
        Permission::Granted => Finding::ok(check, format!("{action} is allowed")),
        Permission::Denied(reason) => Finding::error(check, format!("{action} on {url} is forbidden: {reason}"))
            .fix(format!("allow {action} on the queue in the policy of this host's role")),
        Permission::Unknown(reason) => {
            Finding::note(check, format!("whether {action} is allowed could not be found out: {reason}"))
        }
    }
}

/// What the queue is like, apart from dead letters.
fn shape(url: &str, attributes: &QueueAttributes) -> Vec<Finding> {
    let mut findings = Vec::new();
    if attributes.fifo {
        findings.push(
            Finding::warning("queue.fifo", "it is a FIFO queue, to which S3 cannot send")
                .fix("use a standard queue, unless something else than S3 sends the events"),
        );
    }
    if let Some(retention) = attributes.retention {
        let kept = format!("messages that nobody takes are kept for {}", format_duration(retention));
        findings.push(if retention < LEAST_RETENTION {
            Finding::warning("queue.retention", format!("{kept}; a longer outage loses them, until a reconcile"))
                .fix(set(url, "MessageRetentionPeriod", MOST_RETENTION.as_secs()))
        } else {
            Finding::ok("queue.retention", kept)
        });
    }
    if let Some(most) = attributes.max_message.filter(|most| *most < LEAST_MESSAGE) {
        findings.push(
            Finding::error("queue.message_size", format!("it takes messages of {most} bytes, and S3's can be larger"))
                .fix(set(url, "MaximumMessageSize", LEAST_DEAD_MESSAGE.max(256 << 10))),
        );
    }
    if let Some(delay) = attributes.delay.filter(|delay| !delay.is_zero()) {
        findings.push(
            Finding::note("queue.delay", format!("it holds every message back for {}", format_duration(delay)))
                .fix(set(url, "DelaySeconds", 0)),
        );
    }
    if attributes.receive_wait.is_some_and(|wait| wait.is_zero()) {
        let what = "its default is short polling; this host always asks for long polling, others may not";
        findings.push(Finding::note("queue.long_polling", what).fix(set(url, "ReceiveMessageWaitTimeSeconds", 20)));
    }
    findings
}

fn visibility(timeout: Duration) -> Finding {
    let check = "queue.visibility_timeout";
    let what = format!("a message is ours for {}, and renewed while it is in work", format_duration(timeout));
    if timeout < LEAST_VISIBILITY {
        Finding::warning(check, format!("{what}; at so short a time any delay lets others have it, too"))
            .fix("set `visibility_timeout` to \"30s\" or more")
    } else {
        Finding::ok(check, what)
    }
}

fn dead_letters(
    facts: &Facts<'_>,
    attributes: &QueueAttributes,
    retry: &Retry,
    has_default_attempts: bool,
) -> Vec<Finding> {
    let url = &facts.queue.url;
    let mut findings = match facts.dead {
        None => vec![
            Finding::warning(
                "dead_letters",
                "there is no dead-letter queue, so what always fails is tried again for days",
            )
            .fix(format!("create a queue and name it: {}", redrive_command(url, "ARN", ENOUGH_RECEIVES))),
        ],
        Some(Err(reason)) => vec![
            Finding::error("dead_letters", format!("the dead-letter queue cannot be found: {reason}"))
                .fix("create it, or set `dead_letter_queue_url`, and allow sqs:GetQueueUrl on it"),
        ],
        Some(Ok(dead)) => dead_queue(dead, attributes),
    };
    findings.push(attempts(url, attributes.redrive.as_ref(), retry, has_default_attempts));
    findings
}

fn dead_queue(dead: &QueueFacts, attributes: &QueueAttributes) -> Vec<Finding> {
    let url = &dead.url;
    let mut findings = Vec::new();
    match &dead.attributes {
        Err(reason) => findings.push(
            Finding::warning("dead_letters", format!("{url} cannot be looked at: {reason}"))
                .fix("allow sqs:GetQueueAttributes on the dead-letter queue"),
        ),
        Ok(found) => {
            if let (Some(queue), Some(dead)) = (attributes.retention, found.retention) {
                let is_longest = dead > queue || dead >= MOST_RETENTION;
                let [queue, kept] = [queue, dead].map(format_duration);
                findings.push(if is_longest {
                    Finding::ok("dead_letters.retention", format!("dead letters are kept for {kept}"))
                } else {
                    let what = format!(
                        "dead letters are kept for {kept}, and the queue's messages for {queue}; the time counts from the \
                         first queue on when the queue itself moves them, so some are deleted unseen"
                    );
                    Finding::warning("dead_letters.retention", what).fix(set(
                        url,
                        "MessageRetentionPeriod",
                        MOST_RETENTION.as_secs(),
                    ))
                });
            }
            if let Some(most) = found.max_message.filter(|most| *most < LEAST_DEAD_MESSAGE) {
                let what = format!("{url} takes messages of {most} bytes, too few for a reason and a backtrace");
                findings.push(Finding::warning("dead_letters.size", what).fix(set(
                    url,
                    "MaximumMessageSize",
                    256 << 10,
                )));
            }
        }
    }
    findings.push(permission("dead_letters.send", "sqs:SendMessage", &dead.send, url));
    // Only `gristmill dlq` needs these.
    for (check, action, found) in [
        ("dead_letters.receive", "sqs:ReceiveMessage", &dead.receive),
        ("dead_letters.delete", "sqs:DeleteMessage", &dead.delete),
    ] {
        if let Permission::Denied(reason) = found {
            let what = format!("{action} on {url} is forbidden, so `gristmill dlq` does not work from here: {reason}");
            findings.push(Finding::note(check, what).fix(format!("allow {action} on it to whoever looks after it")));
        }
    }
    findings
}

/// The queue's own count is for hosts that crash; ours is to be reached first, since it comes with a reason.
fn attempts(url: &str, redrive: Option<&Redrive>, retry: &Retry, has_default_attempts: bool) -> Finding {
    let check = "queue.max_receives";
    let Some(Redrive { target, max_receives }) = redrive else {
        let what = "it has no redrive policy, so a message that brings every host down comes back for ever";
        return Finding::warning(check, what).fix(redrive_command(url, "ARN", ENOUGH_RECEIVES));
    };
    let (max, attempts) = (*max_receives, retry.max_attempts);
    let roomy = redrive_command(url, target, ENOUGH_RECEIVES.max(attempts.saturating_add(1)));
    if !has_default_attempts && attempts > max {
        let what = format!(
            "it moves a message after {max} deliveries, before this host has made its {attempts} attempts, and without \
             a reason"
        );
        return Finding::warning(check, what).fix(format!("set `max_attempts` to at most {max}, or {roomy}"));
    }
    if max < ENOUGH_RECEIVES {
        let what = format!(
            "it moves a message after {max} deliveries; restarts and outages count, too, so {ENOUGH_RECEIVES} or more \
             leave room"
        );
        return Finding::note(check, what).fix(roomy);
    }
    Finding::ok(check, format!("it moves a message after {max} deliveries"))
}

fn set(url: &str, attribute: &str, value: u64) -> String {
    format!("aws sqs set-queue-attributes --queue-url {url} --attributes {attribute}={value}")
}

fn redrive_command(url: &str, target: &str, max_receives: u32) -> String {
    let policy = serde_json::json!({ "deadLetterTargetArn": target, "maxReceiveCount": max_receives.to_string() });
    let attributes = serde_json::json!({ "RedrivePolicy": policy.to_string() });
    format!("aws sqs set-queue-attributes --queue-url {url} --attributes '{attributes}'")
}

#[cfg(test)]
mod tests {
    use super::{
        super::{finding::Severity, tests::config},
        *,
    };

    const DAY: Duration = Duration::from_hours(24);

    fn good(url: &str) -> QueueFacts {
        QueueFacts {
            url: url.to_owned(),
            attributes: Ok(QueueAttributes {
                arn: Some(format!("arn:aws:sqs:r:1:{url}")),
                retention: Some(DAY * 4),
                max_message: Some(1 << 20),
                receive_wait: Some(Duration::from_secs(20)),
                delay: Some(Duration::ZERO),
                redrive: Some(Redrive { target: "arn:aws:sqs:r:1:dead".to_owned(), max_receives: 20 }),
                waiting: Some(0),
                fifo: false,
            }),
            receive: Permission::Granted,
            delete: Permission::Granted,
            change_visibility: Permission::Granted,
            send: Permission::Granted,
        }
    }

    fn good_dead() -> QueueFacts {
        let mut dead = good("dead");
        dead.attributes.as_mut().unwrap().retention = Some(DAY * 14);
        dead
    }

    /// What is not as it should be, after a change to the queue and its dead-letter queue.
    fn found(change: impl FnOnce(&mut QueueFacts, &mut QueueFacts)) -> Vec<(Severity, &'static str)> {
        let (mut queue, mut dead) = (good("q"), good_dead());
        change(&mut queue, &mut dead);
        not_ok(&judge(&Facts { queue: &queue, dead: Some(Ok(&dead)) }, &config("")))
    }

    fn not_ok(findings: &[Finding]) -> Vec<(Severity, &'static str)> {
        let not_ok = findings.iter().filter(|finding| finding.severity != Severity::Ok);
        not_ok.map(|finding| (finding.severity, finding.check)).collect()
    }

    fn attributes(facts: &mut QueueFacts) -> &mut QueueAttributes {
        facts.attributes.as_mut().unwrap()
    }

    #[test]
    fn a_good_queue_has_nothing_to_be_said_against_it() {
        assert_eq!(found(|_, _| {}), []);
        // A stand-in that says nothing of itself is no worse.
        let quiet = |queue: &mut QueueFacts| {
            let redrive = attributes(queue).redrive.clone();
            queue.attributes = Ok(QueueAttributes { redrive, ..QueueAttributes::default() });
        };
        assert_eq!(
            found(|queue, dead| {
                quiet(queue);
                quiet(dead);
            }),
            []
        );
    }

    #[test]
    fn what_is_wrong_with_a_queue_is_found() {
        use Severity::{Error, Note, Warning};
        let denied = || Permission::Denied("AccessDenied".to_owned());
        let unknown = || Permission::Unknown("timeout".to_owned());
        assert_eq!(found(|q, _| q.receive = denied()), [(Error, "queue.receive")]);
        assert_eq!(found(|q, _| q.delete = denied()), [(Error, "queue.delete")]);
        assert_eq!(found(|q, _| q.change_visibility = denied()), [(Error, "queue.visibility")]);
        assert_eq!(found(|q, _| q.receive = unknown()), [(Note, "queue.receive")]);
        assert_eq!(found(|q, _| q.send = denied()), [], "the host sends nothing to its own queue");
        assert_eq!(found(|q, _| attributes(q).fifo = true), [(Warning, "queue.fifo")]);
        assert_eq!(found(|q, _| attributes(q).retention = Some(DAY * 2)), [(Warning, "queue.retention")]);
        assert_eq!(found(|q, _| attributes(q).max_message = Some(1_024)), [(Error, "queue.message_size")]);
        assert_eq!(found(|q, _| attributes(q).delay = Some(DAY)), [(Note, "queue.delay")]);
        assert_eq!(found(|q, _| attributes(q).receive_wait = Some(Duration::ZERO)), [(Note, "queue.long_polling")]);
        assert_eq!(found(|q, _| q.attributes = Err("gone".to_owned())), [(Error, "queue.attributes")]);
        assert_eq!(found(|_, d| attributes(d).retention = Some(DAY * 4)), [(Warning, "dead_letters.retention")]);
        assert_eq!(found(|_, d| attributes(d).max_message = Some(16 << 10)), [(Warning, "dead_letters.size")]);
        assert_eq!(found(|_, d| d.attributes = Err("forbidden".to_owned())), [(Warning, "dead_letters")]);
        assert_eq!(found(|_, d| d.send = denied()), [(Error, "dead_letters.send")]);
        assert_eq!(found(|_, d| d.receive = denied()), [(Note, "dead_letters.receive")]);
    }

    #[test]
    fn dead_letters_need_a_queue() {
        let queue = good("q");
        let without = |dead| not_ok(&judge(&Facts { queue: &queue, dead }, &config("")));
        assert_eq!(without(None), [(Severity::Warning, "dead_letters")]);
        assert_eq!(without(Some(Err("no such queue"))), [(Severity::Error, "dead_letters")]);
    }

    #[test]
    fn attempts_have_to_fit_into_the_queues_own_count() {
        let redrive = |max_receives| Some(Redrive { target: "arn:dead".to_owned(), max_receives });
        let retry = |max_attempts| Retry { max_attempts, ..Retry::default() };
        let of = |max: u32, tried: u32, default: bool| {
            attempts("url", redrive(max).as_ref(), &retry(tried), default).severity
        };
        assert_eq!(of(20, 20, false), Severity::Ok);
        assert_eq!(of(20, 21, false), Severity::Warning);
        assert_eq!(of(3, 5, true), Severity::Note, "by default the host takes the queue's");
        assert_eq!(of(19, 5, false), Severity::Note);
        assert_eq!(attempts("url", None, &retry(5), true).severity, Severity::Warning);
        let fix = attempts("url", redrive(3).as_ref(), &retry(40), false).fix.unwrap();
        let policy = r#"{"RedrivePolicy":"{\"deadLetterTargetArn\":\"arn:dead\",\"maxReceiveCount\":\"41\"}"}"#;
        assert!(fix.contains(policy), "{fix}");
    }

    #[test]
    fn a_tiny_visibility_timeout_is_warned_of() {
        assert_eq!(visibility(Duration::from_secs(2)).severity, Severity::Warning);
        assert_eq!(visibility(Duration::from_secs(30)).severity, Severity::Ok);
    }
}
