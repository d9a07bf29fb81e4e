//! Answers that are not what their first line says: bodies that end early, errors inside of a success.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::rig::{Chance, Host, MAX_RECEIVES, seed};
use crate::support::{
    audited::Audited,
    cloud::Fault,
    toys::{self, Kind},
};

const VISIBILITY: Duration = Duration::from_secs(3);

/// More than one part, for outputs and for copies.
const LARGE: usize = 12 << 20;

#[tokio::test]
async fn nothing_is_made_of_a_part_of_an_input() {
    const OBJECTS: usize = 40;
    let chance = Chance::new(seed());
    let remote = Audited::new(MAX_RECEIVES);
    let keys: Vec<String> = (0..OBJECTS)
        .map(|number| remote.upload_kind([Kind::Copy, Kind::Fan, Kind::Split][number % 3], number, 1 + number * 7_000))
        .collect();
    let always = Arc::new(AtomicBool::new(true));
    let mut host = Host::start(&remote, 16, VISIBILITY).await;
    remote.cloud.faults({
        let always = Arc::clone(&always);
        move |call| match &*call.operation {
            "GetObject" if always.load(Ordering::Relaxed) => Fault::CutBody(0),
            "GetObject" if chance.is(0.5) => Fault::CutBody(chance.below(OBJECTS * 7_000)),
            _ => Fault::None,
        }
    });
    for _ in 0..OBJECTS {
        let (key, end) = host.next().await;
        assert!(keys.contains(&key) && end == "retried: infrastructure", "{key} {end}");
    }
    assert_eq!(remote.keys("processed/"), [""; 0], "made of nothing");
    always.store(false, Ordering::Relaxed);
    host.drained(&remote).await;
    host.stop().await;
    remote.check();
}

/// Copies and completions that say 200 and failed all the same, some of them so often that the SDK gives up.
#[tokio::test]
async fn an_error_inside_of_a_success_is_an_error() {
    const OBJECTS: usize = 40;
    /// Errors before the first success, at most.
    const MOST: usize = 5;
    let remote = Audited::new(MAX_RECEIVES);
    for number in 0..OBJECTS {
        remote.upload_kind([Kind::Move, Kind::Copy][number % 2], number, 1_000);
    }
    // One that is written in parts, and one that is copied in parts.
    remote.upload_kind(Kind::Copy, OBJECTS, LARGE);
    remote.upload_kind(Kind::Move, OBJECTS + 1, LARGE);

    let failures = Arc::new(Mutex::new(BTreeMap::<String, usize>::new()));
    let copied = Arc::new(Mutex::new(BTreeMap::<String, bool>::new()));
    let wrong = Arc::new(Mutex::new(Vec::new()));
    let host = Host::start(&remote, 16, VISIBILITY).await;
    remote.cloud.faults({
        let (failures, copied, wrong) = (Arc::clone(&failures), Arc::clone(&copied), Arc::clone(&wrong));
        move |call| match &*call.operation {
            "CopyObject" | "CompleteMultipartUpload" => {
                let mut failures = failures.lock().unwrap();
                let before = failures.entry(call.key.clone()).or_default();
                *before += 1;
                let fails = *before <= call.key.len() % (MOST + 1);
                copied.lock().unwrap().insert(call.key.clone(), !fails);
                if fails { Fault::ErrorInside { code: "InternalError" } } else { Fault::None }
            }
            "DeleteObject" => {
                if copied.lock().unwrap().get(&toys::destination(&call.key)) != Some(&true) {
                    wrong.lock().unwrap().push(call.key.clone());
                }
                Fault::None
            }
            _ => Fault::None,
        }
    });
    host.drained(&remote).await;
    host.stop().await;
    assert_eq!(*wrong.lock().unwrap(), [""; 0], "deleted without a copy");
    let requests = remote.cloud.requests();
    assert!(requests["CompleteMultipartUpload"] >= 2, "nothing was written or copied in parts: {requests:?}");
    remote.check();
}

/// A HEAD that fails has no body, and so no reason. When a GET finds none either, whatever it was has passed.
#[tokio::test]
async fn a_refusal_without_a_reason_is_not_final() {
    let remote = Audited::new(MAX_RECEIVES);
    for (number, length) in [1, 1_000, 1_000].into_iter().enumerate() {
        remote.upload_kind(Kind::Copy, number, length);
    }
    remote.upload_empty("uploads/empty.move");
    let refused = Mutex::new(BTreeSet::new());
    let host = Host::start(&remote, 4, VISIBILITY).await;
    remote.cloud.faults(move |call| {
        let is_first = call.operation == "HeadObject" && refused.lock().unwrap().insert(call.key.clone());
        let codes = [(400, "RequestTimeout"), (403, "AccessDenied")];
        let (status, code) = codes[call.key.len() % codes.len()];
        if is_first { Fault::Error { status, code } } else { Fault::None }
    });
    host.drained(&remote).await;
    host.stop().await;
    remote.check();
}
