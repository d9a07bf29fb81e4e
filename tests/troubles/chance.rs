//! Every call may fail, at random.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::rig::{Chance, Host, MAX_RECEIVES, internal_error, is_s3, mixed, seed, slow_down};
use crate::support::{
    audited::Audited,
    cloud::{Call, Fault},
    toys::Kind,
};

const SLOTS: usize = 16;

/// Hosts on the same queue: a poll that fails makes one of them wait, and not all.
const HOSTS: usize = 6;

/// Short, as a lost answer to a receive costs so much time.
const VISIBILITY: Duration = Duration::from_secs(3);

/// Of the calls without faults. Each fault costs its own repetition and, where the SDK gives up, that of
/// what came before it.
const MOST_CALLS: f64 = 3.0;

/// What is uploaded, in 200.
const KINDS: &[(Kind, usize)] =
    &[(Kind::Move, 178), (Kind::Copy, 14), (Kind::Fan, 4), (Kind::Split, 2), (Kind::Flaky, 1), (Kind::Reject, 1)];

/// Uploads so many times 200 objects, works on them under these faults, audits, and answers how many calls
/// each object took.
async fn calls(sets: usize, faults: impl Fn(&Call) -> Fault + Send + Sync + 'static) -> f64 {
    let remote = Audited::new(MAX_RECEIVES);
    let kinds = mixed(&KINDS.iter().map(|(kind, number)| (*kind, number * sets)).collect::<Vec<_>>());
    for (number, kind) in kinds.iter().enumerate() {
        remote.upload_kind(*kind, number, 100);
    }
    let mut hosts = Vec::with_capacity(HOSTS);
    for _ in 0..HOSTS {
        hosts.push(Host::start(&remote, SLOTS, VISIBILITY).await);
    }
    remote.cloud.faults(faults);
    hosts[0].drained(&remote).await;
    let calls = remote.cloud.requests();
    remote.cloud.faults(|_| Fault::None);
    for host in hosts {
        host.stop().await;
    }
    remote.check();
    println!("{} objects: {}", kinds.len(), told(&calls));
    calls.values().sum::<u64>() as f64 / kinds.len() as f64
}

fn told(calls: &BTreeMap<String, u64>) -> String {
    calls.iter().map(|(operation, number)| format!("{number} {operation}")).collect::<Vec<_>>().join(", ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fifth_of_all_calls_fails_in_any_way() {
    let chance = Chance::new(seed());
    let plain = calls(2, |_| Fault::None).await;
    let faulty = calls(25, move |call| {
        if !chance.is(0.2) {
            return Fault::None;
        }
        match chance.below(6) {
            0 => internal_error(call),
            1 => slow_down(call),
            2 if is_s3(call) => Fault::Error { status: 400, code: "RequestTimeout" },
            2 => Fault::Error { status: 400, code: "ThrottlingException" },
            3 => Fault::Reset,
            4 => Fault::LostAnswer,
            _ => Fault::Delay(Duration::from_millis(200)),
        }
    });
    let faulty = faulty.await;
    println!("{plain:.2} calls an object without faults, {faulty:.2} with them");
    assert!(
        faulty <= MOST_CALLS * plain,
        "{faulty:.2} calls an object are too many, without faults it takes {plain:.2}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_of_a_batch_fail_one_by_one() {
    let chance = Arc::new(Chance::new(seed()));
    let plain = calls(2, |_| Fault::None).await;
    let faulty = calls(2, move |call| match call.operation.ends_with("Batch") {
        true => Fault::FailEntries((0..10).filter(|_| chance.is(0.3)).collect()),
        false => Fault::None,
    });
    let faulty = faulty.await;
    println!("{plain:.2} calls an object without faults, {faulty:.2} with them");
    assert!(
        faulty <= MOST_CALLS * plain,
        "{faulty:.2} calls an object are too many, without faults it takes {plain:.2}"
    );
}
