//! Turns, seats and the room under a clock that jumps.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use proptest::prelude::*;
use tokio::{
    runtime::Builder,
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};

use super::*;
use crate::config::{Overrides, Sources, load};

fn config(text: &str) -> Config {
    let sources = Sources {
        file: Some(("gristmill.toml".into(), format!("directory = 'd'\n{text}"))),
        env: BTreeMap::new(),
        overrides: Overrides::default(),
        cores: 1,
        is_directory: |_| false,
    };
    load(sources).unwrap()
}

fn admission(text: &str) -> Arc<Admission> {
    Admission::new(&config(text), CancellationToken::new())
}

/// Lets everybody do what he can do now.
async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

async fn one(admission: &Arc<Admission>) -> Seat {
    timeout(Duration::from_secs(1), admission.seats(1)).await.expect("no slot is free").remove(0)
}

/// Somebody who asks for a turn, and has it when the task has ended.
type Asked = JoinHandle<Option<(Seat, Turn)>>;

fn ask_from(seat: Seat, plugins: &[&'static str], bytes: u64) -> Asked {
    let plugins = plugins.to_vec();
    tokio::spawn(async move {
        let turn = seat.turn(plugins, bytes).await?;
        Some((seat, turn))
    })
}

async fn ask(admission: &Arc<Admission>, plugins: &[&'static str], bytes: u64) -> Asked {
    let asked = ask_from(one(admission).await, plugins, bytes);
    settle().await;
    asked
}

async fn has(asked: Asked) -> (Seat, Turn) {
    let turn = timeout(Duration::from_secs(1), asked).await.expect("it is not its turn");
    turn.unwrap().expect("nobody may wait any more")
}

#[tokio::test(start_paused = true)]
async fn there_are_as_many_seats_as_slots() {
    let admission = admission("slots = 3");
    let seats = admission.seats(2).await;
    assert_eq!(seats.len(), 2);
    let more = admission.seats(10).await;
    assert_eq!(more.len(), 1, "what is free, and not what was asked for");
    assert!(timeout(Duration::from_secs(9), admission.seats(10)).await.is_err());
    drop(seats);
    assert_eq!(admission.seats(10).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_plugin_gives_his_slot_back() {
    let admission = admission("slots = 2\n[plugin.slow]\nconcurrency = 1");
    let first = has(ask(&admission, &["slow"], 1).await).await;
    let second = ask(&admission, &["slow"], 1).await;
    assert!(!second.is_finished());
    // The second one sits in the room: its slot is there for others, who have their turn at once.
    let other = has(ask(&admission, &["quick"], 1).await).await;
    drop(first);
    let second = has(second).await;
    drop(other);
    assert_eq!(admission.seats(10).await.len(), 2, "nobody in the room takes a slot");
    drop(second);
    assert_eq!(admission.room.available_permits(), 2 * WAITING_PER_SLOT);
}

#[tokio::test(start_paused = true)]
async fn when_the_room_is_full_slots_are_waited_in_and_left_when_it_is_not() {
    let admission = admission("slots = 1");
    let working = has(ask(&admission, &["slow"], 1).await).await;
    assert!(timeout(Duration::from_secs(9), admission.seats(1)).await.is_err(), "who works keeps his slot");
    drop(working);

    let admission =
        super::Admission::new(&config("slots = 2\n[plugin.slow]\nconcurrency = 1"), CancellationToken::new());
    let working = has(ask(&admission, &["slow"], 1).await).await;
    let mut waiting = Vec::new();
    for _ in 0..2 * WAITING_PER_SLOT {
        waiting.push(ask(&admission, &["slow"], 1).await);
    }
    assert_eq!(admission.slots.available_permits(), 1);
    let last = ask(&admission, &["slow"], 1).await;
    assert!(timeout(Duration::from_secs(9), admission.seats(1)).await.is_err(), "nothing more is received");
    // Somebody in the room goes: the one in the slot takes his seat there.
    waiting.remove(7).abort();
    settle().await;
    assert_eq!(admission.slots.available_permits(), 1);
    drop(working);
    for asked in waiting.into_iter().chain([last]) {
        drop(has(asked).await);
    }
    assert_eq!((admission.slots.available_permits(), admission.room.available_permits()), (2, 2 * WAITING_PER_SLOT));
}

#[tokio::test(start_paused = true)]
async fn first_come_first_served() {
    let admission = admission("slots = 2\n[plugin.slow]\nconcurrency = 1");
    let mut current = has(ask(&admission, &["slow"], 1).await).await;
    let mut waiting = Vec::new();
    for bytes in [9, 1, 7, 3] {
        waiting.push(ask(&admission, &["slow"], bytes).await);
    }
    while !waiting.is_empty() {
        drop(current);
        settle().await;
        let done: Vec<bool> = waiting.iter().map(JoinHandle::is_finished).collect();
        assert_eq!(done.iter().position(|done| *done), Some(0));
        assert_eq!(done.iter().filter(|done| **done).count(), 1);
        current = has(waiting.remove(0)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn by_default_a_plugin_leaves_a_quarter_to_the_others() {
    let admission = admission("slots = 8");
    let mut slow = Vec::new();
    for _ in 0..20 {
        slow.push(ask(&admission, &["slow"], 1).await);
    }
    assert_eq!(slow.iter().filter(|asked| asked.is_finished()).count(), 6);
    let quick = [ask(&admission, &["quick"], 1).await, ask(&admission, &["quick"], 1).await];
    for asked in quick {
        has(asked).await;
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_in_flight_are_bounded() {
    const MIB: u64 = 1 << 20;
    let admission = admission("slots = 8\nbytes_in_flight = '8MiB'");
    let a = has(ask(&admission, &["a"], 3 * MIB).await).await;
    let b = has(ask(&admission, &["b"], 3 * MIB).await).await;
    let c = ask(&admission, &["c"], 3 * MIB).await;
    let d = ask(&admission, &["d"], MIB).await;
    assert!(!c.is_finished() && !d.is_finished(), "d would fit, but c was there before it");
    drop(a);
    let (c, d) = (has(c).await, has(d).await);
    // Larger than all of it: alone.
    let huge = ask(&admission, &["e"], 100 * MIB).await;
    drop((b, c));
    settle().await;
    assert!(!huge.is_finished());
    drop(d);
    let huge = has(huge).await;
    let small = ask(&admission, &["a"], 1).await;
    assert!(!small.is_finished());
    drop(huge);
    has(small).await;
}

#[tokio::test(start_paused = true)]
async fn one_plugin_does_not_take_all_bytes() {
    const MIB: u64 = 1 << 20;
    let admission = admission("slots = 8\nbytes_in_flight = '8MiB'");
    let first = has(ask(&admission, &["slow"], 4 * MIB).await).await;
    let second = ask(&admission, &["slow"], 3 * MIB).await;
    assert!(!second.is_finished(), "together more than three quarters");
    let quick = has(ask(&admission, &["quick"], 2 * MIB).await).await;
    drop((first, quick));
    has(second).await;
    // But a single one may have it all.
    has(ask(&admission, &["slow"], 8 * MIB).await).await;
}

#[tokio::test(start_paused = true)]
async fn who_needs_two_plugins_holds_up_nobody_and_is_not_overtaken_for_ever() {
    let admission = admission("slots = 8\n[plugin.slow]\nconcurrency = 1\n[plugin.quick]\nconcurrency = 2");
    let slow = has(ask(&admission, &["slow"], 1).await).await;
    let quick = [has(ask(&admission, &["quick"], 1).await).await, has(ask(&admission, &["quick"], 1).await).await];
    let both = ask(&admission, &["slow", "quick"], 1).await;
    let mut later: Vec<Asked> = Vec::new();
    for _ in 0..4 {
        later.push(ask(&admission, &["quick"], 1).await);
    }
    drop(quick);
    settle().await;
    let started = later.iter().filter(|asked| asked.is_finished()).count();
    assert_eq!(started, 1, "others go on, with one place less");
    assert!(!both.is_finished());
    drop(slow);
    let both = has(both).await;
    assert_eq!(later.iter().filter(|asked| asked.is_finished()).count(), 1);
    drop(both);
    for asked in later {
        drop(has(asked).await);
    }
}

#[tokio::test(start_paused = true)]
async fn each_plugin_is_given_back_when_it_is_done() {
    let admission = admission("slots = 8\n[plugin.a]\nconcurrency = 1\n[plugin.b]\nconcurrency = 1");
    let (_seat, mut turn) = has(ask(&admission, &["a", "b", "a"], 1).await).await;
    let (a, b) = (ask(&admission, &["a"], 1).await, ask(&admission, &["b"], 1).await);
    assert!(!a.is_finished() && !b.is_finished());
    turn.is_done_with("a");
    let _a = has(a).await;
    assert!(!b.is_finished());
    // A guest that was given up and has not ended yet.
    let hold = turn.hold("b");
    drop(turn);
    settle().await;
    assert!(!b.is_finished());
    drop(hold);
    has(b).await;
}

#[tokio::test(start_paused = true)]
async fn results_that_are_being_stored_count_as_work() {
    let admission = admission("slots = 1");
    let (seat, mut turn) = has(ask(&admission, &["a"], 1).await).await;
    turn.is_done_with("a");
    let second = ask_from(seat, &["b"], 1);
    settle().await;
    assert!(!second.is_finished());
    drop(turn);
    has(second).await;
}

#[tokio::test(start_paused = true)]
async fn when_it_closes_nobody_waits_any_more() {
    let closed = CancellationToken::new();
    let admission = Admission::new(&config("slots = 2\n[plugin.slow]\nconcurrency = 1"), closed.clone());
    let (seat, turn) = has(ask(&admission, &["slow"], 1).await).await;
    let waiting = [ask(&admission, &["slow"], 1).await, ask(&admission, &["slow"], 1).await];
    closed.cancel();
    for asked in waiting {
        assert!(asked.await.unwrap().is_none());
    }
    // What need not wait goes on.
    drop(turn);
    assert!(seat.turn(["slow"], 1).await.is_some());
}

/// What is under way, held against the bounds at every turn.
#[derive(Default)]
struct Watch {
    all: (usize, u64),
    plugins: HashMap<&'static str, usize>,
    most: usize,
    ended: usize,
}

#[derive(Debug, Clone)]
struct Visitor {
    plugins: Vec<&'static str>,
    bytes: u64,
    works: u64,
    stores: u64,
    /// Loses its lease so long after it was received.
    gives_up: Option<u64>,
}

const SLOTS: usize = 4;
const BYTES: u64 = 8 << 20;

fn visitor() -> impl Strategy<Value = Visitor> {
    let plugins = prop::sample::subsequence(vec!["a", "b", "c"], 1..=3).prop_shuffle();
    let bytes = prop_oneof![Just(0), 1..=BYTES / 2, Just(2 * BYTES)];
    (plugins, bytes, 0..50_u64, 0..50_u64, prop::option::weighted(0.2, 0..200_u64))
        .prop_map(|(plugins, bytes, works, stores, gives_up)| Visitor { plugins, bytes, works, stores, gives_up })
}

async fn visit(seat: Seat, visitor: Visitor, watch: Arc<Mutex<Watch>>) {
    let Visitor { plugins, bytes, works, stores, gives_up } = visitor;
    let asking = seat.turn(plugins.iter().copied(), bytes);
    let turn = match gives_up {
        Some(after) => timeout(Duration::from_millis(after), asking).await.ok().flatten(),
        None => asking.await,
    };
    if let Some(mut turn) = turn {
        {
            let mut watch = watch.lock().unwrap();
            watch.all.0 += 1;
            watch.all.1 += bytes;
            watch.most = watch.most.max(watch.all.0);
            assert!(watch.all.0 <= SLOTS, "more turns than slots");
            assert!(watch.all.1 <= BYTES || watch.all.1 == bytes, "{} bytes in flight", watch.all.1);
            for plugin in &plugins {
                let number = watch.plugins.entry(plugin).or_default();
                *number += 1;
                assert!(*number <= if *plugin == "a" { 1 } else { 3 }, "{number} objects with {plugin}");
            }
        }
        for plugin in &plugins {
            sleep(Duration::from_millis(works)).await;
            *watch.lock().unwrap().plugins.get_mut(plugin).unwrap() -= 1;
            turn.is_done_with(plugin);
        }
        sleep(Duration::from_millis(stores)).await;
        let mut watch = watch.lock().unwrap();
        watch.all.0 -= 1;
        watch.all.1 -= bytes;
        drop(watch);
        drop(turn);
    }
    watch.lock().unwrap().ended += 1;
}

proptest! {
    /// Whoever comes in whatever order, and however some of them leave: all of them come to their end.
    #[test]
    fn everything_drains(visitors in prop::collection::vec(visitor(), 1..150), batches in prop::collection::vec(1..=10_usize, 8)) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let number = visitors.len();
        let (watch, admission) = runtime.block_on(async {
            let admission = admission("slots = 4\nbytes_in_flight = '8MiB'\n[plugin.a]\nconcurrency = 1");
            let watch: Arc<Mutex<Watch>> = Arc::default();
            let work = async {
                let mut tasks = JoinSet::new();
                let (mut visitors, mut batches) = (visitors.into_iter().peekable(), batches.iter().cycle());
                while visitors.peek().is_some() {
                    let seats = admission.seats(*batches.next().unwrap()).await;
                    for (seat, visitor) in seats.into_iter().zip(visitors.by_ref()) {
                        tasks.spawn(visit(seat, visitor, Arc::clone(&watch)));
                    }
                }
                while let Some(ended) = tasks.join_next().await {
                    ended.unwrap();
                }
            };
            // A hundred and fifty of them, one after the other.
            timeout(Duration::from_secs(60), work).await.expect("somebody waits for ever");
            (watch, admission)
        });
        let watch = watch.lock().unwrap();
        prop_assert_eq!(watch.ended, number);
        prop_assert!(watch.most <= SLOTS);
        let (free, seats) = (admission.slots.available_permits(), admission.room.available_permits());
        prop_assert_eq!((free, seats), (SLOTS, SLOTS * WAITING_PER_SLOT));
        prop_assert!(admission.turns.is_idle());
    }
}
