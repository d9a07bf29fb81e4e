//! Judges a bucket in S3; pure.

use super::finding::Finding;
use crate::{
    aws::Permission,
    config::Config,
    store::s3::{
        notifications::{Notifications, Target},
        survey::{BucketFacts, Condition, Support},
    },
};

/// From here on ages of objects are off, and not much further S3 refuses what we sign (15 minutes).
const MOST_SKEW: u64 = 60;

/// How an object comes into being; see "Supported event types" in the user guide of S3.
const CREATED: [&str; 4] = [
    "s3:ObjectCreated:Put",
    "s3:ObjectCreated:Post",
    "s3:ObjectCreated:Copy",
    "s3:ObjectCreated:CompleteMultipartUpload",
];

/// All of these.
const ANY_CREATED: &str = "s3:ObjectCreated:*";

/// What is good and what is not. `queue` is the queue's ARN, if it is known.
pub(super) fn judge(facts: &BucketFacts, bucket: &str, queue: Option<&str>, config: &Config) -> Vec<Finding> {
    let mut findings = permissions(facts, config);
    findings.extend(facts.conditions.iter().map(|(condition, support)| judge_condition(*condition, support)));
    findings.extend(facts.left_over.iter().map(|key| {
        Finding::warning("bucket.probes", format!("`{key}` was written to try things and could not be deleted"))
            .fix(format!("aws s3 rm s3://{bucket}/{key}"))
    }));
    findings.extend(facts.clock_ahead.map(clock));
    match &facts.notifications {
        Ok(notifications) => findings.extend(judge_notifications(notifications, bucket, queue, config)),
        Err(reason) => findings.push(
            Finding::note("bucket.notifications", format!("whom the bucket tells cannot be looked at: {reason}"))
                .fix("allow s3:GetBucketNotification, or make sure of it by hand"),
        ),
    }
    findings.extend(information(facts));
    findings
}

fn permissions(facts: &BucketFacts, config: &Config) -> Vec<Finding> {
    let (source, destination) = (&config.source_prefix, &config.destination_prefix);
    let calls = [
        ("bucket.list", "s3:ListBucket", source, Some(&facts.list)),
        ("bucket.read", "s3:GetObject", source, Some(&facts.read_source)),
        ("bucket.delete", "s3:DeleteObject", source, facts.delete_source.as_ref()),
        ("bucket.write_results", "s3:PutObject", destination, Some(&facts.write)),
        ("bucket.read_results", "s3:GetObject", destination, facts.read.as_ref()),
        ("bucket.copy_results", "s3:PutObject, to copy,", destination, facts.copy.as_ref()),
        ("bucket.delete_results", "s3:DeleteObject", destination, facts.delete.as_ref()),
    ];
    let calls = calls.into_iter().filter_map(|(check, action, prefix, found)| Some((check, action, prefix, found?)));
    calls.map(|(check, action, prefix, found)| permission(check, action, prefix, found)).collect()
}

fn permission(check: &'static str, action: &str, prefix: &str, found: &Permission) -> Finding {
    match found {
        Permission::Granted => Finding::ok(check, format!("{action} is allowed below `{prefix}`")),
        // Without it the host works, but cannot tell what is missing from what is forbidden.
        Permission::Denied(reason) if check == "bucket.list" => {
            let what =
                format!("{action} is forbidden, so what is not there looks forbidden, too, and is retried: {reason}");
            Finding::error(check, what).fix("allow s3:ListBucket on the bucket in the policy of this host's role")
        }
        // Deleting below the destination is only for probes, and for nothing that the host has to do.
        Permission::Denied(reason) if check == "bucket.delete_results" => Finding::note(
            check,
            format!("{action} is forbidden below `{prefix}`, which only this check needs: {reason}"),
        ),
        Permission::Denied(reason) => {
            Finding::error(check, format!("{action} is forbidden below `{prefix}`: {reason}"))
                .fix(format!("allow it on `{prefix}*` of the bucket in the policy of this host's role"))
        }
        Permission::Unknown(reason) if check == "bucket.list" || check == "bucket.write_results" => {
            Finding::error(check, format!("{action} does not work below `{prefix}`: {reason}"))
                .fix("check `bucket`, `region`, the endpoint and the credentials")
        }
        Permission::Unknown(reason) => Finding::note(
            check,
            format!("whether {action} is allowed below `{prefix}` could not be found out: {reason}"),
        ),
    }
}

fn judge_condition(condition: Condition, support: &Support) -> Finding {
    let (check, name, otherwise) = match condition {
        Condition::PutIfAbsent => (
            "store.put_if_absent",
            "If-None-Match on PutObject",
            "a result may overwrite what somebody else writes at the same moment",
        ),
        Condition::PutIfMatch => (
            "store.put_if_match",
            "If-Match on PutObject",
            "a newer result may be overwritten by an older one that ends later",
        ),
        Condition::CopySourceIfMatch => (
            "store.copy_source_if_match",
            "x-amz-copy-source-if-match on CopyObject",
            "an object that is overwritten while it is in work may be moved in a version that no plugin saw",
        ),
        Condition::CopyIfAbsent => (
            "store.copy_if_absent",
            "If-None-Match on CopyObject",
            "an original may be moved over what somebody else writes at the same moment",
        ),
        Condition::DeleteIfMatch => (
            "store.delete_if_match",
            "If-Match on DeleteObject",
            "an object that is overwritten at the last moment may be deleted before it was processed",
        ),
    };
    match support {
        Support::Honoured => Finding::ok(check, format!("the store honours {name}")),
        Support::Unknown => Finding::warning(
            check,
            format!("the store does not know {name}; this host looks first instead, and in between {otherwise}"),
        )
        .fix("let nobody write over objects that are in work, or use a newer store"),
        Support::Ignored => Finding::warning(check, format!("the store ignores {name} without a word: {otherwise}"))
            .fix("let nobody write over objects that are in work, or use a newer store"),
        Support::Unclear(reason) => {
            Finding::note(check, format!("whether the store honours {name} could not be found out: {reason}"))
        }
    }
}

fn clock(ahead: i64) -> Finding {
    let (check, off) = ("clock", ahead.unsigned_abs());
    let how = if ahead > 0 { "behind" } else { "ahead of" };
    match off {
        0 => Finding::ok(check, "this clock and the store's agree"),
        1..=MOST_SKEW => Finding::ok(check, format!("this clock is {off} s {how} the store's")),
        _ => Finding::warning(check, format!("this clock is {off} s {how} the store's; requests will be refused"))
            .fix("let the system keep its clock right (chrony, systemd-timesyncd)"),
    }
}

fn judge_notifications(
    notifications: &Notifications,
    bucket: &str,
    queue: Option<&str>,
    config: &Config,
) -> Vec<Finding> {
    let check = "bucket.notifications";
    let Notifications { targets, event_bridge } = notifications;
    if targets.is_empty() && !event_bridge {
        let what = "the bucket tells nobody of new objects, so none will be processed";
        return vec![Finding::error(check, what).fix(notify(bucket, queue, config))];
    }
    // Without the queue's ARN every queue may be ours.
    let direct: Vec<&Target> = targets
        .iter()
        .filter(|target| queue.map_or_else(|| target.arn.contains(":sqs:"), |queue| target.arn == queue))
        .filter(|target| target.events.iter().any(|event| event.starts_with("s3:ObjectCreated:")))
        .collect();
    if direct.is_empty() {
        let mut others: Vec<&str> = targets.iter().map(|target| target.arn.as_str()).collect();
        others.extend(event_bridge.then_some("EventBridge"));
        let what = format!("the bucket does not tell this queue of new objects, but {}", others.join(", "));
        let fix = "make sure that a subscription or a rule leads from there to the queue, with nothing but new objects \
                   below the source prefix";
        return vec![Finding::note(check, what).fix(fix)];
    }
    let mut findings = coverage(&direct, bucket, queue, config);
    findings.extend(direct.iter().filter_map(|target| target.suffix.as_deref()).map(|suffix| {
        Finding::note(
            check,
            format!("the queue is told only of keys that end in `{suffix}`; others stay where they are"),
        )
    }));
    let looped: Vec<&str> = config
        .prefixes()
        .into_iter()
        .filter(|prefix| !prefix.starts_with(&config.source_prefix))
        .filter(|prefix| direct.iter().any(|target| overlaps(target.prefix.as_deref().unwrap_or(""), prefix)))
        .collect();
    if !looped.is_empty() {
        let what = format!(
            "the queue is told of results, too (`{}`); this host ignores those, but each costs requests",
            looped.join("`, `")
        );
        findings.push(Finding::warning("bucket.notified_of_results", what).fix(notify(bucket, queue, config)));
    }
    findings
}

/// Whether every new object below the source prefix is told of.
fn coverage(direct: &[&Target], bucket: &str, queue: Option<&str>, config: &Config) -> Vec<Finding> {
    let (check, source) = ("bucket.notifications", config.source_prefix.as_str());
    let covers = |target: &Target| target.prefix.as_deref().is_none_or(|prefix| source.starts_with(prefix));
    let covering: Vec<&&Target> = direct.iter().filter(|target| covers(target)).collect();
    if covering.is_empty() {
        let prefixes: Vec<&str> = direct.iter().filter_map(|target| target.prefix.as_deref()).collect();
        let prefixes = prefixes.join("`, `");
        let part = direct.iter().any(|target| overlaps(target.prefix.as_deref().unwrap_or(""), source));
        let what = format!("the queue is told of keys below `{prefixes}`, and this host looks for `{source}`");
        let finding = if part { Finding::warning(check, what) } else { Finding::error(check, what) };
        return vec![finding.fix(notify(bucket, queue, config))];
    }
    let is_told = |event: &str| {
        covering.iter().any(|target| target.events.iter().any(|told| told == event || told == ANY_CREATED))
    };
    let missing: Vec<&str> = CREATED.into_iter().filter(|event| !is_told(event)).collect();
    if missing.is_empty() {
        return vec![Finding::ok(check, format!("the queue is told of every new object below `{source}`"))];
    }
    let what = format!("the queue is not told of {}, by which objects come into being, too", missing.join(", "));
    vec![Finding::warning(check, what).fix(notify(bucket, queue, config))]
}

fn overlaps(one: &str, other: &str) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// It replaces the whole configuration, which is why it says so.
fn notify(bucket: &str, queue: Option<&str>, config: &Config) -> String {
    let rule = serde_json::json!({ "Name": "prefix", "Value": config.source_prefix });
    let configuration = serde_json::json!({ "QueueConfigurations": [{
        "QueueArn": queue.unwrap_or("ARN"),
        "Events": [ANY_CREATED],
        "Filter": { "Key": { "FilterRules": [rule] } },
    }] });
    format!(
        "aws s3api put-bucket-notification-configuration --bucket {bucket} --notification-configuration \
         '{configuration}' (it replaces what is there)"
    )
}

/// What is good to know, and no mistake.
fn information(facts: &BucketFacts) -> Vec<Finding> {
    let versioning = match &facts.versioning {
        Ok(true) => {
            Finding::ok("bucket.versioning", "versions are kept; what is moved stays below the source as an old one")
        }
        Ok(false) => Finding::ok("bucket.versioning", "versions are not kept"),
        Err(reason) => Finding::note("bucket.versioning", format!("cannot be looked at: {reason}")),
    };
    let uploads = match &facts.aborts_uploads {
        Ok(true) => Finding::ok("bucket.lifecycle", "parts of uploads that were never completed are taken away"),
        Ok(false) => {
            let what =
                "parts of uploads that were never completed stay and are paid for: of large results, when a host dies";
            Finding::note("bucket.lifecycle", what).fix(
                "add a lifecycle rule with AbortIncompleteMultipartUpload after a day, besides the rules there are",
            )
        }
        Err(reason) => Finding::note("bucket.lifecycle", format!("cannot be looked at: {reason}")),
    };
    vec![versioning, uploads]
}

#[cfg(test)]
mod tests {
    use super::{
        super::{finding::Severity, tests::config},
        *,
    };

    const QUEUE: &str = "arn:aws:sqs:r:1:q";

    fn target(prefix: Option<&str>, events: &[&str]) -> Target {
        Target {
            arn: QUEUE.to_owned(),
            events: events.iter().map(|event| (*event).to_owned()).collect(),
            prefix: prefix.map(str::to_owned),
            suffix: None,
        }
    }

    fn good() -> BucketFacts {
        let conditions = [
            Condition::PutIfAbsent,
            Condition::PutIfMatch,
            Condition::CopySourceIfMatch,
            Condition::CopyIfAbsent,
            Condition::DeleteIfMatch,
        ];
        BucketFacts {
            list: Permission::Granted,
            read_source: Permission::Granted,
            delete_source: Some(Permission::Granted),
            write: Permission::Granted,
            read: Some(Permission::Granted),
            copy: Some(Permission::Granted),
            delete: Some(Permission::Granted),
            conditions: conditions.map(|condition| (condition, Support::Honoured)).to_vec(),
            left_over: Vec::new(),
            clock_ahead: Some(0),
            notifications: Ok(Notifications {
                targets: vec![target(Some("uploads/"), &[ANY_CREATED])],
                event_bridge: false,
            }),
            versioning: Ok(false),
            aborts_uploads: Ok(true),
        }
    }

    /// What is not as it should be, after a change.
    fn found(change: impl FnOnce(&mut BucketFacts)) -> Vec<(Severity, &'static str)> {
        let mut facts = good();
        change(&mut facts);
        let findings = judge(&facts, "b", Some(QUEUE), &config(""));
        let not_ok = findings.iter().filter(|finding| finding.severity != Severity::Ok);
        not_ok.map(|finding| (finding.severity, finding.check)).collect()
    }

    fn told(targets: Vec<Target>, event_bridge: bool) -> Vec<(Severity, &'static str)> {
        found(|facts| facts.notifications = Ok(Notifications { targets, event_bridge }))
    }

    #[test]
    fn a_good_bucket_has_nothing_to_be_said_against_it() {
        assert_eq!(found(|_| {}), []);
    }

    #[test]
    fn what_is_forbidden_is_found() {
        use Severity::{Error, Note};
        let denied = || Permission::Denied("AccessDenied".to_owned());
        let unknown = || Permission::Unknown("timeout".to_owned());
        assert_eq!(found(|facts| facts.list = denied()), [(Error, "bucket.list")]);
        assert_eq!(found(|facts| facts.read_source = denied()), [(Error, "bucket.read")]);
        assert_eq!(found(|facts| facts.read_source = unknown()), [(Note, "bucket.read")]);
        assert_eq!(found(|facts| facts.delete_source = Some(denied())), [(Error, "bucket.delete")]);
        assert_eq!(found(|facts| facts.delete_source = None), []);
        assert_eq!(found(|facts| facts.write = denied()), [(Error, "bucket.write_results")]);
        assert_eq!(found(|facts| facts.write = unknown()), [(Error, "bucket.write_results")]);
        assert_eq!(found(|facts| facts.copy = Some(denied())), [(Error, "bucket.copy_results")]);
        assert_eq!(found(|facts| facts.delete = Some(denied())), [(Note, "bucket.delete_results")]);
    }

    #[test]
    fn every_condition_that_is_not_honoured_is_named() {
        let names = [
            "store.put_if_absent",
            "store.put_if_match",
            "store.copy_source_if_match",
            "store.copy_if_absent",
            "store.delete_if_match",
        ];
        for (index, name) in names.into_iter().enumerate() {
            for (support, severity) in [
                (Support::Ignored, Severity::Warning),
                (Support::Unknown, Severity::Warning),
                (Support::Unclear(String::new()), Severity::Note),
            ] {
                assert_eq!(found(|facts| facts.conditions[index].1 = support), [(severity, name)]);
            }
        }
    }

    #[test]
    fn who_is_told_of_new_objects_is_looked_at() {
        use Severity::{Error, Note, Warning};
        let check = "bucket.notifications";
        assert_eq!(told(vec![], false), [(Error, check)]);
        assert_eq!(told(vec![], true), [(Note, check)]);
        let topic = Target { arn: "arn:aws:sns:r:1:t".to_owned(), ..target(None, &[ANY_CREATED]) };
        assert_eq!(told(vec![topic], false), [(Note, check)]);
        assert_eq!(told(vec![target(None, &["s3:ObjectRemoved:*"])], false), [(Note, check)]);
        assert_eq!(told(vec![target(Some("upl"), &[ANY_CREATED])], false), []);
        assert_eq!(told(vec![target(Some("uploads/a/"), &[ANY_CREATED])], false), [(Warning, check)]);
        assert_eq!(told(vec![target(Some("other/"), &[ANY_CREATED])], false), [(Error, check)]);
        assert_eq!(told(vec![target(None, &[ANY_CREATED])], false), [(Warning, "bucket.notified_of_results")]);
        assert_eq!(told(vec![target(Some("uploads/"), &CREATED[..3])], false), [(Warning, check)]);
        let both = vec![target(Some("uploads/"), &CREATED[..3]), target(Some("uploads/"), &CREATED[3..])];
        assert_eq!(told(both, false), []);
        let suffix = Target { suffix: Some(".jpg".to_owned()), ..target(Some("uploads/"), &[ANY_CREATED]) };
        assert_eq!(told(vec![suffix], false), [(Note, check)]);
        assert_eq!(found(|facts| facts.notifications = Err("NotImplemented".to_owned())), [(Note, check)]);
    }

    #[test]
    fn the_rest_is_found_too() {
        assert_eq!(found(|facts| facts.left_over = vec!["k".to_owned()]), [(Severity::Warning, "bucket.probes")]);
        assert_eq!(found(|facts| facts.clock_ahead = Some(-3)), []);
        assert_eq!(found(|facts| facts.clock_ahead = Some(-61)), [(Severity::Warning, "clock")]);
        assert_eq!(found(|facts| facts.aborts_uploads = Ok(false)), [(Severity::Note, "bucket.lifecycle")]);
        assert!(clock(5).what.contains("5 s behind"), "the store is ahead, so we are behind");
    }
}
