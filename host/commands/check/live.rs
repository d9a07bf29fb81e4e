//! `gristmill check --live`: looks at what the configuration names, says what was found.

use std::process::ExitCode;

use super::{
    bucket, directory,
    finding::{Finding, Severity},
    queue,
};
use crate::{
    aws,
    commands::{Fatal, out::Out},
    config::{Bucket, Config, Place},
    queue::sqs::survey as queue_survey,
    store::s3::survey as bucket_survey,
};

/// After the configuration itself was found good, which `summary` says.
pub(super) fn check(config: &Config, summary: &str, as_json: bool) -> Result<ExitCode, Fatal> {
    let mut findings = vec![Finding::ok("configuration", summary)];
    match &config.place {
        Place::Directory(path) => findings.extend(directory::judge(&directory::look(path), path)),
        Place::Bucket(bucket) => findings.extend(crate::commands::runtime()?.block_on(look(bucket, config))),
    }
    let mut out = Out::new();
    for finding in &findings {
        if as_json {
            out.line(&serde_json::to_string(finding).map_err(Fatal::failed)?)?;
        } else {
            finding.lines().iter().try_for_each(|line| out.line(line))?;
        }
    }
    let has_errors = findings.iter().any(|finding| finding.severity == Severity::Error);
    Ok(if has_errors { ExitCode::from(78) } else { ExitCode::SUCCESS })
}

async fn look(bucket: &Bucket, config: &Config) -> Vec<Finding> {
    let clients = aws::clients(bucket).await;
    let facts = queue_survey::survey(&clients.sqs, &bucket.queue_url).await;
    let redrive = facts.attributes.as_ref().ok().and_then(|attributes| attributes.redrive.as_ref());
    let dead_url = match (&bucket.dead_letter_queue_url, redrive) {
        (Some(url), _) => Some(Ok(url.clone())),
        (None, Some(redrive)) => Some(queue_survey::url_of(&clients.sqs, &redrive.target).await),
        (None, None) => None,
    };
    let dead = match dead_url {
        Some(Ok(url)) => Some(Ok(queue_survey::survey(&clients.sqs, &url).await)),
        Some(Err(reason)) => Some(Err(reason)),
        None => None,
    };
    let dead = dead.as_ref().map(|dead| dead.as_ref().map_err(String::as_str));
    let mut findings = queue::judge(&queue::Facts { queue: &facts, dead }, config);

    let arn = facts.attributes.as_ref().ok().and_then(|attributes| attributes.arn.as_deref());
    let found =
        bucket_survey::survey(&clients.s3, &bucket.name, &config.source_prefix, &config.destination_prefix).await;
    findings.extend(bucket::judge(&found, &bucket.name, arn, config));
    findings
}
