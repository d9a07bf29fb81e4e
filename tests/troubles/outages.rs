//! An hour in which nothing works, on a clock that runs faster than the machine's: nothing becomes a dead
//! letter, hardly anything is asked, and when the hour is over everything gets done.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use aws_config::{BehaviorVersion, Region, SdkConfig, credential_process::CredentialProcessProvider};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat as Format};
use serde_json::json;
use tokio::runtime::Builder;

use super::rig::{FastClock, Host, MAX_RECEIVES, internal_error, is_s3, real_time, slow_down};
use crate::support::{
    audited::Audited,
    cloud::{Call, Fault},
    toys::Kind,
};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// How fast the hour passes, and how fast what comes after it: requests take some of the machine's time.
const STEP: Duration = Duration::from_secs(2);
const CAREFUL_STEP: Duration = Duration::from_millis(20);

/// Longer than the slowest machine needs for an answer, on the faster clock.
const VISIBILITY: Duration = Duration::from_secs(30);

const OBJECTS: usize = 40;

/// What one worker may ask in the hour: a poll every half minute, with the SDK's repetitions, and what was in
/// work when it began.
const MOST_CALLS: u64 = 1_000;

fn upload_some(remote: &Audited, from: usize) {
    for number in from..from + OBJECTS {
        remote.upload_kind([Kind::Move, Kind::Copy, Kind::Fan][number % 3], number, 1_000);
    }
}

/// An hour in which `outage` decides about every call, from amid of work on.
async fn an_hour_of(outage: impl Fn(&Call) -> Fault + Send + Sync + 'static) {
    let remote = Audited::new(MAX_RECEIVES);
    upload_some(&remote, 0);
    let host = Host::start(&remote, 8, VISIBILITY).await;
    host.until("work", || remote.cloud.requests().contains_key("CopyObject")).await;

    let lasts = Arc::new(AtomicBool::new(true));
    let calls = Arc::new(AtomicU64::new(0));
    remote.cloud.faults({
        let (lasts, calls) = (Arc::clone(&lasts), Arc::clone(&calls));
        move |call| {
            if !lasts.load(Ordering::Relaxed) {
                return Fault::None;
            }
            calls.fetch_add(1, Ordering::Relaxed);
            outage(call)
        }
    });
    upload_some(&remote, OBJECTS);
    let clock = FastClock::start(&remote);
    clock.run(STEP, "the end of the hour", |passed| passed >= HOUR).await;
    assert_eq!(remote.dead(), [], "dead letters in an outage");
    let asked = calls.load(Ordering::Relaxed);
    assert!((10..=MOST_CALLS).contains(&asked), "{asked} calls in an hour");

    lasts.store(false, Ordering::Relaxed);
    clock.run(CAREFUL_STEP, "an empty queue", |_| remote.live() == 0).await;
    clock.end().await;
    host.stop().await;
    remote.check();
    assert_eq!(remote.dead(), []);
}

fn refused(s3: &'static str, sqs: &'static str) -> impl Fn(&Call) -> Fault + Send + Sync + 'static {
    move |call| Fault::Error { status: 403, code: if is_s3(call) { s3 } else { sqs } }
}

/// All of them at the same time, since they mostly wait.
#[test]
fn an_hour_in_which_calls_fail() {
    thread::scope(|scope| {
        let start = |name: &str, outage: Outage| {
            let hour = move || Builder::new_current_thread().enable_all().build().unwrap().block_on(an_hour_of(outage));
            thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, hour).unwrap();
        };
        start("credentials that have expired", Box::new(refused("ExpiredToken", "ExpiredToken")));
        start("credentials that nobody knows", Box::new(refused("InvalidAccessKeyId", "InvalidClientTokenId")));
        start("signatures of another time", Box::new(refused("RequestTimeTooSkewed", "InvalidSignatureException")));
        start("no queue", Box::new(|call| if is_s3(call) { Fault::None } else { internal_error(call) }));
        start("a queue that hangs up", Box::new(|call| if is_s3(call) { Fault::None } else { Fault::Reset }));
        start("no store", Box::new(|call| if is_s3(call) { slow_down(call) } else { Fault::None }));
        start("a store that hangs up", Box::new(|call| if is_s3(call) { Fault::Reset } else { Fault::None }));
        start("nothing at all", Box::new(|_| Fault::Reset));
    });
}

type Outage = Box<dyn Fn(&Call) -> Fault + Send + Sync>;

/// There are none where they come from, after those that there were have run out. Not a request can be made.
#[tokio::test]
async fn no_credentials() {
    let remote = Audited::new(MAX_RECEIVES);
    upload_some(&remote, 0);
    let folder = tempfile::tempdir().unwrap();
    let given = folder.path().join("given");
    give(&given, CREDENTIALS_LAST);
    let config = configuration(&remote, &given).await;
    let s3 = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
    let (sqs, s3) = (aws_sdk_sqs::Client::new(&config), aws_sdk_s3::Client::from_conf(s3));
    let host = Host::over(&remote, sqs, s3, 8, VISIBILITY).await;
    host.drained(&remote).await;
    fs::remove_file(&given).unwrap();
    real_time(CREDENTIALS_LAST).await;

    upload_some(&remote, OBJECTS);
    let before = remote.calls();
    let clock = FastClock::start(&remote);
    clock.run(STEP, "the end of the hour", |passed| passed >= HOUR).await;
    assert_eq!(remote.calls(), before, "asked without credentials");
    assert_eq!(remote.live(), OBJECTS);
    give(&given, HOUR);
    clock.run(CAREFUL_STEP, "an empty queue", |_| remote.live() == 0).await;
    clock.end().await;
    host.stop().await;
    remote.check();
    assert_eq!(remote.dead(), []);
}

/// For how long those at the beginning are good. The SDK asks for new ones some seconds before.
const CREDENTIALS_LAST: Duration = Duration::from_secs(2);

/// Writes down credentials that can be used for so long.
fn give(file: &Path, lasting: Duration) {
    let expiration = DateTime::from(SystemTime::now() + lasting).fmt(Format::DateTime).unwrap();
    let credentials =
        json!({ "Version": 1, "AccessKeyId": "test", "SecretAccessKey": "test", "Expiration": expiration });
    fs::write(file, credentials.to_string()).unwrap();
}

/// Credentials come from a program, as many get theirs; this one reads a file.
async fn configuration(remote: &Audited, given: &Path) -> SdkConfig {
    let provider = CredentialProcessProvider::new(format!("cat {}", given.display()));
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .region(Region::new("us-east-1"))
        .endpoint_url(remote.cloud.endpoint())
        .credentials_provider(provider)
        .load()
        .await
}
