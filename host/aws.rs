//! Clients for SQS and S3, and for what speaks like them.
//!
//! Credentials, region and endpoints (`AWS_ENDPOINT_URL`, `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL_SQS`) come
//! from where the SDK's own tools take them; see "Configuration and credential precedence" in the AWS SDKs
//! and tools reference guide.

use std::{error::Error, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};

use crate::{
    config::Bucket,
    text::{causes, printable},
};

/// What is shown of a text of a service.
const SHOWN: usize = 500;

/// How long the other side may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Tries of one request, the first one included. After that the message comes back.
const REQUEST_TRIES: u32 = 3;

/// Both clients, over one set of credentials.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For the queue.
    pub sqs: aws_sdk_sqs::Client,
    /// For the store.
    pub s3: aws_sdk_s3::Client,
}

/// Makes the clients for a bucket and its queue. Nothing is sent but what finds the region and the credentials.
pub async fn clients(bucket: &Bucket) -> Clients {
    let config = sdk_config(bucket.region.as_deref()).await;
    let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(bucket.path_style).build();
    Clients { sqs: aws_sdk_sqs::Client::new(&config), s3: aws_sdk_s3::Client::from_conf(s3) }
}

async fn sdk_config(region: Option<&str>) -> SdkConfig {
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(RetryConfig::standard().with_max_attempts(REQUEST_TRIES))
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build());
    if let Some(region) = region {
        loader = loader.region(Region::new(region.to_owned()));
    }
    loader.load().await
}

/// What a call showed of whether we may make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// It came as far as anybody who is allowed to.
    Granted,
    /// A policy forbids it; the text is the service's.
    Denied(String),
    /// The answer says neither; the text is the service's.
    Unknown(String),
}

/// The service's code and words, or else what the SDK says of why there are none, with its causes.
pub fn words<E>(error: SdkError<E>) -> String
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let service = error.as_service_error().and_then(|error| Some((error.code()?, error.message().unwrap_or_default())));
    let words = match service {
        // Below its first line AWS repeats what was signed.
        Some((code, message)) => format!("{code}: {}", message.lines().next().unwrap_or_default()),
        None => causes(&error),
    };
    printable(words.trim_end_matches(": "), SHOWN)
}
