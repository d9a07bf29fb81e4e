//! What the worker asks of the queue, and when it holds back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::rig::{Rig, end, seconds};
use crate::support::faults::{Fault, When};

/// Guests wait for their first byte until the test says so.
fn held() -> (Arc<AtomicBool>, impl Fn(&str, When, &str) -> Fault + Send + Sync + 'static) {
    let hold = Arc::new(AtomicBool::new(true));
    let holding = Arc::clone(&hold);
    let fault = move |call: &str, _: When, _: &str| {
        if call == "read" && holding.load(Ordering::Relaxed) { Fault::Hang } else { Fault::None }
    };
    (hold, fault)
}

#[tokio::test(start_paused = true)]
async fn it_receives_no_more_than_it_can_start() {
    let (hold, fault) = held();
    let mut rig = Rig::start(3, fault);
    for number in 0..7 {
        rig.upload(&format!("uploads/{number}.copy"));
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let counts = |rig: &Rig| rig.queue.live().iter().filter(|message| message.receive_count > 0).count();
    assert_eq!(counts(&rig), 3, "the others stay visible for other hosts");
    assert_eq!(rig.times("receive").len(), 1, "no slot, no receive");
    // The guests that hang run into their deadline and free their slots.
    hold.store(false, Ordering::Relaxed);
    for _ in 0..10 {
        rig.next().await;
    }
    assert!(rig.queue.live().is_empty());
    assert_eq!(rig.store.objects().keys().filter(|key| key.starts_with("processed/")).count(), 14);
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_only_waits() {
    let rig = Rig::start(2, |_, _, _| Fault::None);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(seconds(&rig.times("receive")), [0, 20, 40, 60, 80]);
    assert_eq!(rig.calls().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn the_pause_grows_while_the_queue_is_down() {
    let failures = AtomicUsize::new(10);
    let down = move |call: &str, when: When, _: &str| {
        let fails = call == "receive"
            && when == When::Before
            && failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if fails { Fault::Error } else { Fault::None }
    };
    let mut rig = Rig::start(2, down);
    rig.called("receive", 11).await;
    let times = rig.times("receive");
    let pauses: Vec<u128> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000, 30_000]);
    // From then on it is as quick as ever.
    rig.upload("uploads/a.move");
    assert_eq!(rig.next().await, end("uploads/a.move", "processed"));
    rig.upload("uploads/b.move");
    let before = rig.elapsed();
    assert_eq!(rig.next().await, end("uploads/b.move", "processed"));
    assert_eq!(rig.elapsed(), before);
}

#[tokio::test(start_paused = true)]
async fn a_receive_that_hangs_is_given_up() {
    let first = AtomicBool::new(true);
    let hangs = move |call: &str, when: When, _: &str| {
        let hangs = call == "receive" && when == When::Before && first.swap(false, Ordering::Relaxed);
        if hangs { Fault::Hang } else { Fault::None }
    };
    let mut rig = Rig::start(2, hangs);
    rig.upload("uploads/a.move");
    assert_eq!(rig.next().await, end("uploads/a.move", "processed"));
    assert!(rig.elapsed() < Duration::from_secs(30));
}

/// Whether the store is down.
fn outage() -> (Arc<AtomicBool>, impl Fn(&str, When, &str) -> Fault + Send + Sync + 'static) {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = Arc::clone(&down);
    let fault = move |call: &str, when: When, _: &str| {
        if call == "open" && when == When::Before && is_down.load(Ordering::Relaxed) {
            Fault::Error
        } else {
            Fault::None
        }
    };
    (down, fault)
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_slows_the_polling_and_costs_no_attempt() {
    let (down, fault) = outage();
    let mut rig = Rig::start(4, fault);
    for key in ["uploads/a.flaky", "uploads/b.never", "uploads/c.copy"] {
        rig.upload(key);
    }
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let receives = rig.times("receive");
    let late = receives.iter().filter(|at| at.as_secs() > 600).count();
    assert!(late <= 2 * 3_000 / 30, "{late} receives in the last 50 minutes");
    assert!(rig.queue.dead().is_empty());
    assert!(rig.queue.live().iter().all(|message| message.receive_count > 6));

    down.store(false, Ordering::Relaxed);
    let mut ends = Vec::new();
    while !rig.queue.live().is_empty() {
        let (key, end) = rig.next().await;
        if end != "retried: infrastructure" {
            ends.push((key, end));
        }
    }
    ends.extend(rig.rest().await);
    ends.sort();
    let expected = [
        ("uploads/a.flaky", "processed"),
        ("uploads/a.flaky", "retried: retry"),
        ("uploads/b.never", "dead: retry"),
        ("uploads/b.never", "retried: retry"),
        ("uploads/b.never", "retried: retry"),
        ("uploads/c.copy", "processed"),
    ];
    assert_eq!(ends, expected.map(|(key, word)| end(key, word)), "each has all of its three attempts");
}
