//! Slots, the waiting room, turns at plugins and bytes in flight, with real guests.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gristmill::admission::WAITING_PER_SLOT;
use tokio::time::{Instant, sleep};

use super::rig::{Rig, end};
use crate::support::faults::{Fault, When};

/// The first read of each object with this suffix takes so long.
fn slow(suffix: &'static str, seconds: u64) -> impl Fn(&str, When, &str) -> Fault + Send + Sync + 'static {
    let seen = Mutex::new(BTreeSet::new());
    move |call, _, key| {
        let is_first = call == "read" && key.ends_with(suffix) && {
            seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).insert(key.to_owned())
        };
        if is_first { Fault::Delay(Duration::from_secs(seconds)) } else { Fault::None }
    }
}

/// Messages that somebody has received.
fn received(rig: &Rig) -> usize {
    rig.queue.live().iter().filter(|message| message.receive_count > 0).count()
}

#[tokio::test(start_paused = true)]
async fn a_slow_plugin_does_not_hold_up_the_objects_of_others() {
    let mut rig = Rig::start(16, slow(".split", 50));
    for number in 0..200 {
        rig.upload(&format!("uploads/{number}.split"));
    }
    for number in 0..100 {
        rig.upload(&format!("uploads/{number}.{}", ["copy", "move"][number % 2]));
    }
    for _ in 0..100 {
        let (key, word) = rig.next().await;
        assert!(!key.ends_with(".split") && word == "processed", "{key}: {word}");
    }
    assert_eq!(rig.elapsed(), Duration::ZERO, "they have waited for nothing that takes time");
    let reads = rig.calls().into_iter().filter(|(_, call, key)| *call == "read" && key.ends_with(".split")).count();
    assert_eq!(reads, 12, "three quarters of the slots");

    for _ in 0..200 {
        assert_eq!(rig.next().await.1, "processed");
    }
    // Seventeen times twelve of them; each was received once, however long it waited.
    assert_eq!(rig.elapsed(), Duration::from_secs(17 * 50));
    assert_eq!(rig.times("open").len(), 300);
    assert!(rig.queue.live().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_received_when_slots_and_room_are_full() {
    let hold = Arc::new(AtomicBool::new(true));
    let holding = Arc::clone(&hold);
    let mut config = Rig::config(2);
    config.concurrency.insert("split".to_owned(), 1);
    let mut rig = Rig::with(
        config,
        |queue| queue,
        move |call, _, key| {
            // Not for ever: a call has a deadline.
            let holds = call == "read" && key == "uploads/0.split" && holding.load(Ordering::Relaxed);
            if holds { Fault::Delay(Duration::from_secs(50)) } else { Fault::None }
        },
    );
    for number in 0..100 {
        rig.upload(&format!("uploads/{number}.split"));
    }
    sleep(Duration::from_secs(40)).await;
    let full = 2 + 2 * WAITING_PER_SLOT;
    assert_eq!(received(&rig), full);
    let asked: Vec<String> = rig.calls().into_iter().filter(|call| call.1 == "receive").map(|call| call.2).collect();
    assert!(asked.iter().all(|most| ["1", "2"].contains(&most.as_str())), "{asked:?}");
    let (at, ..) = rig.calls().into_iter().rfind(|call| call.1 == "receive").unwrap_or_default();
    assert_eq!(at, Duration::ZERO, "no slot, no receive");

    hold.store(false, Ordering::Relaxed);
    for _ in 0..100 {
        assert_eq!(rig.next().await.1, "processed");
    }
    assert!(rig.queue.live().is_empty());
    assert_eq!(rig.times("open").len(), 100, "no lease was lost");
}

#[tokio::test(start_paused = true)]
async fn bytes_in_flight_are_bounded() {
    const KIB: usize = 1 << 10;
    let mut config = Rig::config(16);
    config.bytes_in_flight = 1 << 20;
    let under_way = Arc::new(Mutex::new((BTreeSet::new(), Vec::new())));
    let seen = Arc::clone(&under_way);
    let size = |key: &str| if key.contains("huge") { 2_000 * KIB } else { 300 * KIB };
    let mut rig = Rig::with(
        config,
        |queue| queue,
        move |call, when, key| {
            let mut seen = seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let (objects, sums) = &mut *seen;
            match (call, when) {
                ("read", _) if objects.insert(key.to_owned()) => {
                    sums.push((objects.len(), objects.iter().map(|key| size(key)).sum::<usize>()));
                    Fault::Delay(Duration::from_secs(10))
                }
                // What has been staged takes memory until then.
                ("relocate", When::After) => {
                    objects.remove(key);
                    Fault::None
                }
                _ => Fault::None,
            }
        },
    );
    for number in 0..12 {
        let suffix = ["copy", "split"][number % 2];
        let kind = if number % 6 == 0 { "huge" } else { "small" };
        let key = format!("uploads/{kind}{number}.{suffix}");
        rig.upload_bytes(&key, vec![b'x'; size(&key)]);
    }
    for _ in 0..12 {
        assert_eq!(rig.next().await.1, "processed");
    }
    let seen = under_way.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    assert!(seen.1.iter().all(|(objects, sum)| *sum <= 1_024 * KIB || *objects == 1), "{:?}", seen.1);
    assert!(seen.1.iter().any(|(objects, _)| *objects == 3), "no more than one at a time would be too strict");
    assert_eq!(seen.1.iter().filter(|(_, sum)| *sum == 2_000 * KIB).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_back_all_who_wait_and_costs_no_attempt() {
    let mut config = Rig::config(4);
    config.concurrency.insert("copy".to_owned(), 1);
    let mut rig = Rig::with(config, |queue| queue.excusing(), slow(".copy", 5));
    for number in 0..100 {
        rig.upload(&format!("uploads/{number}.copy"));
    }
    sleep(Duration::from_secs(1)).await;
    let full = 4 + 4 * WAITING_PER_SLOT;
    assert_eq!(received(&rig), full);
    rig.shutdown.drain.cancel();
    for _ in 1..full {
        assert_eq!(rig.next().await.1, "released");
    }
    assert_eq!(rig.elapsed(), Duration::from_secs(1), "at once");
    assert_eq!(rig.next().await, end("uploads/0.copy", "processed"));
    rig.ended().await;
    let live = rig.queue.live();
    assert_eq!(live.len(), 99);
    assert!(live.iter().all(|message| message.visible <= Instant::now()), "others can have them");
    assert!(live.iter().all(|message| message.receive_count == message.excused), "no attempt is used up");
    assert!(rig.queue.dead().is_empty());
    assert_eq!(rig.times("publish").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_lost_while_waiting_gives_the_seat_back() {
    let mut config = Rig::config(2);
    config.concurrency.insert("copy".to_owned(), 1);
    let mut rig = Rig::with(config, |queue| queue, slow(".copy", 50));
    rig.upload("uploads/a.copy");
    rig.called("read", 1).await;
    rig.upload("uploads/b.copy");
    rig.called("open", 2).await;
    // Only the second one goes to somebody else, and stays there.
    rig.queue.steal(1);
    assert_eq!(rig.next().await, end("uploads/b.copy", "released"));
    assert_eq!(rig.next().await, end("uploads/a.copy", "processed"));
    assert_eq!(rig.times("publish").len(), 1);
}
