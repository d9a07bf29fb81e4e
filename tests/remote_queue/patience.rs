//! Calls that never come back end all the same. The clock is paused once the connections are there, so that
//! the limits cost no time.

use std::time::Duration;

use gristmill::queue::Queue;
use tokio::time::Instant;

use crate::{Rig, letter, support::cloud::Fault, text};

/// As the worker has them.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(25);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

const NEVER: Fault = Fault::Delay(Duration::from_secs(3_600));

#[tokio::test]
async fn a_receive_that_hangs_ends_after_its_poll_and_before_the_worker_gives_up() {
    let rig = Rig::new().await;
    rig.cloud.faults(|call| if call.operation == "ReceiveMessage" { NEVER } else { Fault::None });
    tokio::time::pause();
    let start = Instant::now();
    let text = text(rig.queue.receive(10).await.map(drop));
    assert!(text.contains("sqs:ReceiveMessage") && text.contains("no answer in time"), "{text}");
    let elapsed = start.elapsed();
    assert!(elapsed > Duration::from_secs(20) && elapsed < RECEIVE_TIMEOUT, "{elapsed:?}");
}

#[tokio::test]
async fn a_receive_is_tried_once() {
    let rig = Rig::new().await;
    rig.cloud.faults(|call| match call.operation.as_str() {
        "ReceiveMessage" => Fault::Error { status: 503, code: "ServiceUnavailable" },
        _ => Fault::None,
    });
    let text = text(rig.queue.receive(10).await.map(drop));
    assert!(text.contains("ServiceUnavailable"), "{text}");
    assert_eq!(rig.requests("ReceiveMessage"), 1);
}

#[tokio::test]
async fn other_calls_end_before_the_worker_gives_up() {
    let rig = Rig::new().await;
    let message = rig.one_in_flight().await;
    rig.cloud.faults(|_| NEVER);
    tokio::time::pause();
    let start = Instant::now();
    text(rig.queue.acknowledge(&message.receipt).await);
    // The three calls of a dead letter have this long together.
    assert!(3 * start.elapsed() < CALL_TIMEOUT, "{:?}", start.elapsed());
    let start = Instant::now();
    text(rig.queue.set_visibility(&message.receipt, Duration::ZERO).await);
    assert!(start.elapsed() < CALL_TIMEOUT, "{:?}", start.elapsed());
    let start = Instant::now();
    text(rig.queue.dead_letter(&message, &letter()).await);
    assert!(start.elapsed() < CALL_TIMEOUT, "{:?}", start.elapsed());
}
