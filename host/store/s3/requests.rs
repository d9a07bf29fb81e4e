//! The client, and how long a request may take.

use std::time::Duration;

use aws_sdk_s3::{
    Client,
    config::{self, timeout::TimeoutConfig},
};

/// One try of a request without much in it, up to the first byte of its answer. S3 answers in well under a
/// second; under load it answers 503 instead of waiting.
const ATTEMPT: Duration = Duration::from_secs(10);

/// All tries of such a request, with the pauses between them.
const REQUEST: Duration = Duration::from_secs(30);

/// The same for what S3 does with bytes that it has: a copy of 5 GB takes it minutes.
const LONG_ATTEMPT: Duration = Duration::from_mins(10);
const LONG_REQUEST: Duration = Duration::from_mins(20);

/// The slowest way up that is waited for, bytes a second. What stands still altogether the SDK notices sooner.
const SLOWEST: u64 = 64 << 10;

/// A client whose requests end in [`REQUEST`] when nothing else is said.
pub(super) fn bounded(client: &Client) -> Client {
    Client::from_conf(client.config().to_builder().timeout_config(timeouts(client, ATTEMPT, REQUEST)).build())
}

/// A client with connections of its own, for another runtime: connections are driven by the runtime that opened
/// them. The SDK keeps a pool for each connect timeout, so `connect` must be one that nobody else has.
pub(super) fn apart(client: &Client, connect: Duration) -> Client {
    let own = timeouts(client, ATTEMPT, REQUEST).into_builder().connect_timeout(connect).build();
    Client::from_conf(client.config().to_builder().timeout_config(own).build())
}

/// For a request with this many bytes in it.
pub(super) fn upload(client: &Client, bytes: usize) -> config::Builder {
    let transfer = Duration::from_secs(bytes as u64 / SLOWEST);
    config::Builder::new().timeout_config(timeouts(client, ATTEMPT + transfer, REQUEST + transfer * 2))
}

/// For a request that S3 works on for long.
pub(super) fn long(client: &Client) -> config::Builder {
    config::Builder::new().timeout_config(timeouts(client, LONG_ATTEMPT, LONG_REQUEST))
}

fn timeouts(client: &Client, attempt: Duration, all: Duration) -> TimeoutConfig {
    let given = client.config().timeout_config().map_or_else(TimeoutConfig::builder, TimeoutConfig::to_builder);
    given.operation_attempt_timeout(attempt).operation_timeout(all).build()
}

/// An entity tag as headers have it.
pub(super) fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

/// An entity tag as everybody else has it.
pub(super) fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}
