//! The lanes with clocks that stand still, so that nothing depends on how fast this machine is.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::atomic::{AtomicBool, Ordering},
    task::Waker,
};

use tokio::time::advance;

use super::{turns::TURN, *};

fn now<T>(poll: Poll<T>) -> Option<T> {
    match poll {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Whether it is this one's turn.
fn turn(waiting: &mut Waiting) -> Option<turns::Turn> {
    now(waiting.poll(&mut Context::from_waker(Waker::noop())))
}

/// Computes for so long, gives way, and so on; each time it says so.
async fn computes(times: usize, each: Duration, log: Arc<Mutex<String>>, name: char) {
    for _ in 0..times {
        log.lock().unwrap().push(name);
        advance(each).await;
        tokio::task::yield_now().await;
    }
}

fn names(plugin: &str) -> Arc<str> {
    plugin.into()
}

#[test]
fn plugins_get_the_same_time_however_many_of_them_wait_and_however_long_their_turns_are() {
    const CALLS: usize = 4;
    let turns = Turns::new(1);
    let [spin, other] = ["spin", "other"].map(names);
    let mut spins: VecDeque<Waiting> = (0..CALLS).map(|_| turns.ask(&spin)).collect();
    let mut waiting = turns.ask(&other);
    let (mut spun, mut others) = (0, 0);
    for _ in 0..301 {
        if let Some(granted) = turn(&mut waiting) {
            others += 1;
            waiting = turns.ask(&other);
            granted.end(TURN / 2);
        } else {
            // First come, first served among the calls of one plugin.
            let granted = turn(&mut spins.pop_front().unwrap()).unwrap();
            spun += 1;
            spins.push_back(turns.ask(&spin));
            granted.end(TURN);
        }
    }
    // The first one was there alone.
    assert_eq!((spun - 1, others), (100, 200));
}

#[test]
fn a_turn_under_way_counts_before_it_ends() {
    let turns = Turns::new(2);
    let [spin, other] = ["spin", "other"].map(names);
    let mut spins: Vec<Waiting> = (0..4).map(|_| turns.ask(&spin)).collect();
    let [one, two] = [0, 1].map(|index| turn(&mut spins[index]).unwrap());
    let mut waiting = turns.ask(&other);
    one.end(TURN);
    let granted = turn(&mut waiting).unwrap();
    // Each has one of the two turns from here on.
    two.end(TURN);
    let spinning = turn(&mut spins[2]).unwrap();
    let mut again = turns.ask(&other);
    granted.end(TURN);
    let granted = turn(&mut again).unwrap();
    assert!(turn(&mut spins[3]).is_none());
    drop((spinning, granted));
}

#[test]
fn who_comes_back_has_saved_nothing_up() {
    let turns = Turns::new(1);
    let [long, late] = ["long", "late"].map(names);
    let mut waiting = turns.ask(&long);
    for _ in 0..100 {
        let granted = turn(&mut waiting).unwrap();
        waiting = turns.ask(&long);
        granted.end(TURN);
    }
    let mut latest = turns.ask(&late);
    let mut had = String::new();
    for _ in 0..6 {
        if let Some(granted) = turn(&mut waiting) {
            had.push('o');
            waiting = turns.ask(&long);
            granted.end(TURN);
        } else {
            had.push('a');
            let granted = turn(&mut latest).unwrap();
            latest = turns.ask(&late);
            granted.end(TURN);
        }
    }
    assert_eq!(had, "oaoaoa");
}

#[test]
fn who_leaves_gives_everything_back() {
    let turns = Turns::new(1);
    let [a, b] = ["a", "b"].map(names);
    let mut first = turns.ask(&a);
    let granted = turn(&mut first).unwrap();
    // One leaves the line while it waits, one with a turn that it has not taken yet.
    drop(turns.ask(&b));
    let unaware = turns.ask(&b);
    drop(granted);
    drop(unaware);
    assert!(turns.is_idle(1));
    assert!(turn(&mut turns.ask(&a)).is_some());
    assert!(turns.is_idle(1));
}

#[tokio::test(start_paused = true)]
async fn a_short_call_needs_no_turn() {
    let lanes = Lanes::on(&Handle::current());
    let plugin = names("some");
    let taken = turn(&mut lanes.turns.ask(&plugin)).unwrap();
    let log = Arc::default();
    lanes.run("some", computes(4, SHORT / 8, Arc::clone(&log), 'x')).await.unwrap();
    assert_eq!(*log.lock().unwrap(), "xxxx");
    assert!(lanes.long_ones().is_empty());
    drop(taken);
}

#[tokio::test(start_paused = true)]
async fn a_long_call_waits_for_a_turn_and_the_next_of_its_plugin_from_the_start() {
    let lanes = Lanes::on(&Handle::current());
    let taken = turn(&mut lanes.turns.ask(&names("other"))).unwrap();
    let log = Arc::default();
    let run = |log: &Arc<_>| {
        let (lanes, call) = (Arc::clone(&lanes), computes(3, SHORT, Arc::clone(log), 'x'));
        tokio::spawn(async move { lanes.run("slow", call).await })
    };
    let first = run(&log);
    until(|| lanes.long_ones().contains("slow")).await;
    let second = run(&log);
    idle().await;
    assert_eq!(*log.lock().unwrap(), "x");
    taken.end(Duration::ZERO);
    for call in [first, second] {
        call.await.unwrap().unwrap();
    }
    assert!(lanes.turns.is_idle(1));
    assert!(lanes.long_ones().contains("slow"));
    // One that was quick clears the plugin's name.
    lanes.run("slow", async {}).await.unwrap();
    assert!(lanes.long_ones().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_the_host_has_no_turn_meanwhile() {
    let lanes = Lanes::on(&Handle::current());
    let waits = Arc::new(AtomicBool::new(false));
    let (answer, answered) = tokio::sync::oneshot::channel::<()>();
    let call = {
        let (lanes, waits) = (Arc::clone(&lanes), Arc::clone(&waits));
        let call = async move {
            computes(2, SHORT, Arc::default(), 'x').await;
            waits.store(true, Ordering::Relaxed);
            answered.await.unwrap();
        };
        tokio::spawn(async move { lanes.run("slow", call).await })
    };
    until(|| waits.load(Ordering::Relaxed) && lanes.turns.is_idle(1)).await;
    answer.send(()).unwrap();
    call.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_ends_in_either_lane() {
    let lanes = Lanes::on(&Handle::current());
    for steps in [0, 2] {
        let alive = Arc::new(());
        let call = {
            let (lanes, alive) = (Arc::clone(&lanes), Arc::clone(&alive));
            let call = async move {
                let _alive = alive;
                computes(steps, SHORT, Arc::default(), 'x').await;
                poll_fn(|_| Poll::<()>::Pending).await;
            };
            tokio::spawn(async move { lanes.run("slow", call).await })
        };
        until(|| lanes.long_ones().contains("slow") == (steps > 0)).await;
        idle().await;
        call.abort();
        until(|| Arc::strong_count(&alive) == 1).await;
        assert!(lanes.turns.is_idle(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_comes_out_of_either_lane() {
    let lanes = Lanes::on(&Handle::current());
    for steps in [0, 2] {
        let call = async move {
            computes(steps, SHORT, Arc::default(), 'x').await;
            panic!("on purpose");
        };
        assert!(lanes.run::<_>("slow", call).await.unwrap_err().is_panic());
        assert!(lanes.turns.is_idle(1));
    }
}

/// Lets the other tasks of this thread go as far as they can.
async fn idle() {
    const LOOKS: usize = 100;
    for _ in 0..LOOKS {
        tokio::task::yield_now().await;
    }
}

async fn until(is_so: impl Fn() -> bool) {
    const LOOKS: usize = 10_000;
    for _ in 0..LOOKS {
        if is_so() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("that never came");
}
