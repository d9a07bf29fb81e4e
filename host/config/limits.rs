//! `[limits]`, `[retry]` and `[plugin.NAME]`: numbers within bounds.

use std::{collections::BTreeMap, ops::RangeInclusive, path::Path, time::Duration};

use super::{
    Canary, Grants, Limits, Retry,
    document::Table,
    error::{Located, Problems},
    grants::read_grants,
    value::{count, duration, percentage, plugin_name, sha256, size},
};

/// The most memory of one call, and so the size of a slot in the engine's pool.
pub const MAX_MEMORY: u64 = 1 << 30;

/// The longest that SQS keeps a message invisible, counted from its receipt.
pub const MAX_VISIBILITY: Duration = Duration::from_hours(12);

/// One page of WebAssembly: no plugin starts in less.
const MIN_MEMORY: u64 = 64 << 10;

/// Shorter than [`MAX_VISIBILITY`] by an hour, which is left for reading and committing.
const DEADLINE: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_hours(11);

/// 5 TiB, the largest object that S3 stores.
const MAX_OUTPUT_BYTES: u64 = 5 << 40;

/// Each output costs the host some memory, a request, and in S3 perhaps an upload left open.
const MAX_OUTPUTS: u32 = 100_000;

/// Log lines are kept for nothing but people, who don't read more of one object.
const MAX_LOG_BYTES: u64 = 64 << 20;
const MAX_LOG_LINES: u32 = 1_000_000;

/// The object's own body needs one.
const HANDLES: RangeInclusive<u32> = 1..=1_000_000;

/// An object that takes more requests than that should be several objects.
const MAX_HTTP_REQUESTS: u32 = 100_000;

/// As much as an object may have.
const MAX_HTTP_BYTES: u64 = 5 << 40;

/// The range of a queue's `maxReceiveCount` in SQS, which has to stay the larger one.
const ATTEMPTS: RangeInclusive<u32> = 1..=1_000;

/// A back-off of nothing would be a busy loop.
const BACK_OFF: RangeInclusive<Duration> = Duration::from_millis(1)..=MAX_VISIBILITY;

/// More than there are slots is the same as no bound; none at all would keep the objects for ever.
const CONCURRENCY: RangeInclusive<usize> = 1..=1_000;

/// Some objects must stay with the stable version, or there would be nothing to hold the canary against.
const SHARE: RangeInclusive<f64> = 0.001..=0.9;

/// Nothing is decided after nothing; and who wants to see more than a million objects has a stable version.
const AFTER: RangeInclusive<u32> = 1..=1_000_000;

/// Of its objects, a canary cannot fail on more than all.
const FAILURE_MARGIN: RangeInclusive<f64> = 0.0..=1.0;

/// Ten times as slow is as good as any.
const LATENCY_MARGIN: RangeInclusive<f64> = 0.0..=10.0;

/// Reads what a table of limits says over `defaults`.
pub(super) fn read_limits(mut table: Table<'_>, defaults: Limits) -> Limits {
    let mut limits = defaults;
    set(&mut limits.memory, table.scalar("memory", size(MIN_MEMORY..=MAX_MEMORY)));
    set(&mut limits.deadline, table.scalar("deadline", duration(DEADLINE)));
    set(&mut limits.output_bytes, table.scalar("output_bytes", size(0..=MAX_OUTPUT_BYTES)));
    set(&mut limits.outputs, table.scalar("outputs", count(0..=MAX_OUTPUTS)));
    set(&mut limits.log_bytes, table.scalar("log_bytes", size(0..=MAX_LOG_BYTES)));
    set(&mut limits.log_lines, table.scalar("log_lines", count(0..=MAX_LOG_LINES)));
    set(&mut limits.handles, table.scalar("handles", count(HANDLES)));
    set(&mut limits.http_requests, table.scalar("http_requests", count(0..=MAX_HTTP_REQUESTS)));
    set(&mut limits.http_bytes, table.scalar("http_bytes", size(0..=MAX_HTTP_BYTES)));
    table.finish();
    limits
}

/// Reads `[retry]`, and tells whether it leaves `max_attempts` out, and the interval of probes.
pub(super) fn read_retry(mut table: Table<'_>, problems: &Problems) -> (Retry, bool, Option<Duration>) {
    let mut retry = Retry::default();
    let max_attempts = table.scalar("max_attempts", count(ATTEMPTS));
    let has_default_attempts = max_attempts.is_none();
    set(&mut retry.max_attempts, max_attempts);
    let base = table.scalar("base", duration(BACK_OFF));
    let max = table.scalar("max", duration(BACK_OFF));
    let origin = base.as_ref().or(max.as_ref()).map(|given| given.origin.clone());
    set(&mut retry.base, base);
    set(&mut retry.max, max);
    if let Some(origin) = origin.filter(|_| retry.base > retry.max) {
        let [base, max] = [retry.base, retry.max].map(humantime::format_duration);
        problems.add(origin, format!("`base`: `{base}` is longer than `max`, `{max}`; make `base` the shorter one"));
    }
    let probe_interval = table.scalar("probe_interval", duration(BACK_OFF)).map(|given| given.value);
    table.finish();
    (retry, has_default_attempts, probe_interval)
}

/// What `[plugin.NAME]` says of the plugins that somebody named.
#[derive(Default)]
pub(super) struct Named {
    /// How many calls there may be at the same time.
    pub concurrency: BTreeMap<String, usize>,
    /// Which files it may come from, by their digests.
    pub pins: BTreeMap<String, Vec<String>>,
    /// What it may have beyond its object.
    pub grants: BTreeMap<String, Grants>,
    /// How a canary is tried.
    pub canaries: BTreeMap<String, Canary>,
}

/// Reads `[plugin.NAME]`. No route needs to use the plugin, and no file needs to hold it yet.
pub(super) fn read_plugins(tables: Vec<(Located<String>, Table<'_>)>, base: &Path, problems: &Problems) -> Named {
    let mut named = Named::default();
    for (name, mut table) in tables {
        if let Err(message) = plugin_name(&name.value) {
            problems.add(name.origin, message);
        }
        if let Some(given) = table.scalar("concurrency", count(CONCURRENCY)) {
            named.concurrency.insert(name.value.clone(), given.value);
        }
        if let Some(canary) = table.table("canary", "[plugin.NAME.canary]") {
            named.canaries.insert(name.value.clone(), read_canary(canary));
        }
        if let Some(given) = table.list("sha256", sha256) {
            named.pins.insert(name.value.clone(), given.into_iter().map(|given| given.value).collect());
        }
        named.grants.insert(name.value, read_grants(&mut table, base, problems));
        table.finish();
    }
    named
}

fn read_canary(mut table: Table<'_>) -> Canary {
    let mut canary = Canary::default();
    set(&mut canary.share, table.text("share", percentage(SHARE)));
    set(&mut canary.after, table.scalar("after", count(AFTER)));
    set(&mut canary.failure_margin, table.text("failure_margin", percentage(FAILURE_MARGIN)));
    set(&mut canary.latency_margin, table.text("latency_margin", percentage(LATENCY_MARGIN)));
    table.finish();
    canary
}

fn set<T>(field: &mut T, given: Option<Located<T>>) {
    if let Some(given) = given {
        *field = given.value;
    }
}
