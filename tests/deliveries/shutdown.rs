//! The two ways to stop.

use std::time::Duration;

use super::rig::{Rig, end};
use crate::support::faults::{Fault, When};

/// What one call takes.
fn slow(slow: &'static str, seconds: u64) -> impl Fn(&str, When, &str) -> Fault + Send + Sync + 'static {
    move |call, when, _| {
        if call == slow && when == When::Before { Fault::Delay(Duration::from_secs(seconds)) } else { Fault::None }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_ends_with_its_receive() {
    let mut rig = Rig::start(2, |_, _, _| Fault::None);
    tokio::time::sleep(Duration::from_secs(5)).await;
    rig.shutdown.drain.cancel();
    assert_eq!(rig.ended().await, Duration::from_secs(15), "the long poll of 20 s");
}

#[tokio::test(start_paused = true)]
async fn what_a_receive_still_brings_is_given_back() {
    let mut rig = Rig::start(2, |_, _, _| Fault::None);
    rig.called("receive", 1).await;
    rig.shutdown.drain.cancel();
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.upload("uploads/a.copy");
    rig.ended().await;
    let live = rig.queue.live();
    assert_eq!((live.len(), live[0].receive_count), (1, 1));
    assert!(live[0].visible <= tokio::time::Instant::now(), "visible at once");
    assert!(rig.times("open").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_jobs() {
    let mut rig = Rig::start(1, slow("read", 5));
    rig.upload("uploads/a.copy");
    rig.upload("uploads/b.copy");
    rig.called("read", 1).await;
    rig.shutdown.drain.cancel();
    rig.ended().await;
    assert_eq!(rig.next().await, end("uploads/a.copy", "processed"));
    assert_eq!(rig.times("receive").len(), 1, "nothing more is received");
    assert_eq!(rig.queue.live().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_back_what_takes_too_long() {
    for call in ["open", "read", "verify"] {
        let mut rig = Rig::start(1, slow(call, 3_600));
        rig.upload("uploads/a.copy");
        rig.called(call, 1).await;
        rig.shutdown.drain.cancel();
        assert_eq!(rig.ended().await, Duration::from_secs(20), "the drain timeout, at {call}");
        assert_eq!(rig.next().await, end("uploads/a.copy", "released"));
        assert!(rig.queue.live()[0].visible <= tokio::time::Instant::now(), "visible at once");
        assert_eq!(rig.store.objects().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_has_begun_comes_to_its_end() {
    for call in ["publish", "relocate", "acknowledge"] {
        let mut rig = Rig::start(1, slow(call, if call == "acknowledge" { 9 } else { 100 }));
        rig.upload("uploads/a.copy");
        rig.called(call, 1).await;
        rig.shutdown.drain.cancel();
        tokio::time::sleep(Duration::from_secs(1)).await;
        rig.shutdown.now.cancel();
        rig.ended().await;
        assert_eq!(rig.next().await, end("uploads/a.copy", "processed"));
        assert!(rig.queue.live().is_empty(), "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_signal_gives_back_at_once() {
    let mut rig = Rig::start(2, slow("read", 10));
    rig.upload("uploads/a.copy");
    rig.called("read", 1).await;
    assert_eq!(rig.times("receive").len(), 2, "a receive is under way");
    rig.shutdown.drain.cancel();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(rig.is_running());
    rig.shutdown.now.cancel();
    assert_eq!(rig.ended().await, Duration::ZERO);
    assert_eq!(rig.next().await, end("uploads/a.copy", "released"));
    assert!(rig.queue.live()[0].visible <= tokio::time::Instant::now());
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_hangs_does_not_hold_up_the_end() {
    let hangs = |call: &str, _: When, _: &str| match call {
        "set_visibility" => Fault::Hang,
        "read" => Fault::Delay(Duration::from_secs(3_600)),
        _ => Fault::None,
    };
    let mut rig = Rig::start(1, hangs);
    rig.upload("uploads/a.copy");
    rig.called("read", 1).await;
    rig.shutdown.drain.cancel();
    assert!(rig.ended().await < Duration::from_secs(120));
}
