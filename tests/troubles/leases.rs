//! Messages that are somebody else's before the work on them is done, and clocks that differ.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use super::rig::{Host, MAX_RECEIVES, is_s3};
use crate::support::{audited::Audited, cloud::Fault, toys::Kind};

const VISIBILITY: Duration = Duration::from_secs(2);

/// What makes something visible or takes something away.
const COMMITS: &[&str] =
    &["PutObject", "CopyObject", "CreateMultipartUpload", "CompleteMultipartUpload", "DeleteObject", "DeleteMessage"];

fn commits(remote: &Audited) -> Vec<String> {
    let made = |operation: &String| COMMITS.iter().any(|commit| operation.starts_with(commit));
    remote.cloud.requests().into_keys().filter(made).collect()
}

/// A read that takes far longer than the lease, which `lose` ends.
async fn a_job_without_a_lease_commits_nothing(
    kind: Kind,
    slots: usize,
    renewals: impl Fn(u32) -> Fault + Send + Sync + 'static,
    lose: impl FnOnce(&Audited),
) {
    let remote = Audited::new(MAX_RECEIVES);
    let key = remote.upload_kind(kind, 1, 10_000);
    let is_slow = Arc::new(AtomicBool::new(true));
    let mut host = Host::start(&remote, slots, VISIBILITY).await;
    remote.cloud.faults({
        let (is_slow, seen) = (Arc::clone(&is_slow), AtomicU32::new(0));
        move |call| match &*call.operation {
            "GetObject" | "HeadObject" if is_slow.load(Ordering::Relaxed) => Fault::Delay(4 * VISIBILITY),
            operation if operation.starts_with("ChangeMessageVisibility") => {
                renewals(seen.fetch_add(1, Ordering::Relaxed))
            }
            _ => Fault::None,
        }
    });
    host.until("a read", || remote.cloud.requests().contains_key("HeadObject")).await;
    lose(&remote);
    assert_eq!(host.next().await, (key, "released".to_owned()));
    assert_eq!(commits(&remote), [""; 0], "committed without a lease");
    is_slow.store(false, Ordering::Relaxed);
    host.drained(&remote).await;
    host.stop().await;
    remote.check();
}

/// Its time is over, and nobody else has it.
#[tokio::test]
async fn a_renewal_of_a_message_that_is_no_longer_in_flight() {
    let lose = |remote: &Audited| remote.cloud.sqs().advance(VISIBILITY);
    a_job_without_a_lease_commits_nothing(Kind::Fan, 1, |_| Fault::None, lose).await;
}

/// Its time is over, and another slot receives it at once.
#[tokio::test]
async fn a_renewal_with_a_receipt_that_is_no_longer_valid() {
    let lose = |remote: &Audited| remote.cloud.sqs().advance(VISIBILITY);
    a_job_without_a_lease_commits_nothing(Kind::Copy, 4, |_| Fault::None, lose).await;
}

#[tokio::test]
async fn a_renewal_that_is_never_answered() {
    let renewals = |number| if number == 0 { Fault::Delay(10 * VISIBILITY) } else { Fault::None };
    a_job_without_a_lease_commits_nothing(Kind::Move, 1, renewals, |_| {}).await;
}

/// The answer to a receive takes longer than what it brings stays invisible: whatever is received is visible
/// to others already.
#[tokio::test]
async fn messages_that_have_expired_when_they_arrive() {
    const OBJECTS: usize = 40;
    const LATE: usize = 6;
    let remote = Audited::new(MAX_RECEIVES);
    for number in 0..OBJECTS {
        remote.upload_kind([Kind::Move, Kind::Copy][number % 2], number, 1_000);
    }
    let receives = Arc::new(Mutex::new(0));
    let one = Host::start(&remote, 8, VISIBILITY).await;
    let other = Host::start(&remote, 8, VISIBILITY).await;
    remote.cloud.faults(move |call| {
        if call.operation != "ReceiveMessage" {
            return Fault::None;
        }
        let mut receives = receives.lock().unwrap();
        *receives += 1;
        if *receives <= LATE { Fault::LateAnswer(VISIBILITY + Duration::from_millis(500)) } else { Fault::None }
    });
    one.drained(&remote).await;
    one.stop().await;
    other.stop().await;
    remote.check();
}

/// The machine's clock is wrong for a while. The SDK learns the service's time from its answers; what it
/// cannot mend is no fault of the objects.
#[tokio::test]
async fn requests_whose_time_is_too_skewed() {
    const OBJECTS: usize = 30;
    const REFUSED: u64 = 60;
    let remote = Audited::new(MAX_RECEIVES);
    for number in 0..OBJECTS {
        remote.upload_kind([Kind::Move, Kind::Copy][number % 2], number, 1_000);
    }
    let host = Host::start(&remote, 8, VISIBILITY).await;
    let before: u64 = remote.cloud.requests().values().sum();
    remote.cloud.faults(move |call| match call.number < before + REFUSED && is_s3(call) {
        true => Fault::Error { status: 403, code: "RequestTimeTooSkewed" },
        false => Fault::None,
    });
    host.drained(&remote).await;
    host.stop().await;
    remote.check();
}
