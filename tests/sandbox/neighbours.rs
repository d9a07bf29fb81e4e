//! What a hostile guest leaves to others: the thread, its slot in the pool, and nothing of itself.

use std::{future::Future as _, pin::pin, task::Poll};

use gristmill::plugin::{CallError, Engine, LimitHit, Verdict};

use crate::{
    among_others,
    support::guests::{Calling, MemoryBody, guest, hand_written, load, module, on_one_thread},
};

/// The calls of a hostile guest that goes on for as long as the others need, and then some.
async fn while_it_runs(name: &str, others: impl Future<Output = ()>) {
    let hostile = guest(name);
    let forever = Calling::new("cat.jpg", "meow").run(&hostile);
    tokio::select! {
        biased;
        called = forever => panic!("ended before the others: {:?}", called.report.result),
        () = others => {}
    }
}

async fn copies() {
    let copy = guest("copy");
    for round in 0..20 {
        let body = vec![round; 200_000];
        let called = Calling::new("other.bin", body.clone()).run(&copy).await;
        assert_eq!(called.report.result.as_ref().ok(), Some(&Verdict::Done), "{:?}", called.report);
        assert_eq!(called.outputs()[0].1, body);
    }
}

#[test]
fn guests_that_never_end_give_way_to_others_on_their_only_thread() {
    for name in ["spin", "spin-start", "spin-in-host"] {
        on_one_thread(move || while_it_runs(name, copies()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_guests_that_never_end_give_way_to_others_on_two_threads() {
    let hostile: Vec<_> = ["spin", "spin-start", "spin-in-host", "spin"]
        .into_iter()
        .map(|name| tokio::spawn(async move { Calling::new("cat.jpg", "meow").run(&guest(name)).await }))
        .collect();
    tokio::spawn(copies()).await.unwrap();
    for task in hostile {
        assert!(!task.is_finished());
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
}

#[test]
fn a_host_call_that_never_answers_ends_at_the_deadline() {
    on_one_thread(async || {
        let deadline = std::time::Duration::from_millis(60);
        let call = Calling::new("cat.jpg", "meow")
            .body(MemoryBody::new("meow").silent_at(2))
            .limits(|limits| limits.deadline = deadline);
        let called = among_others(&guest("copy"), call).await;
        assert!(
            matches!(called.report.result, Err(CallError::Limit { limit: LimitHit::Deadline(of), .. }) if of == deadline),
            "{:?}",
            called.report
        );
    });
}

/// Two slots, so that a slot that is not given back is missed at once.
const SLOTS: usize = 2;

#[test]
fn dropping_a_call_ends_the_guest_and_frees_its_slot() {
    on_one_thread(async || {
        let engine = Engine::new(SLOTS).unwrap();
        let plugin = |name: &str| load(&engine, name, &crate::support::guests::bytes(name));
        let (spin, copy) = (plugin("spin"), plugin("copy"));
        for _ in 0..2 * SLOTS {
            // One while it computes, the other while it waits in the host.
            let mut computing = pin!(Calling::new("cat.jpg", "meow").run(&spin));
            let silent = MemoryBody::new("meow").silent_at(0);
            let mut waiting = pin!(Calling::new("cat.jpg", "meow").body(silent).run(&copy));
            std::future::poll_fn(|cx| {
                assert!(computing.as_mut().poll(cx).is_pending());
                assert!(waiting.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        for _ in 0..2 * SLOTS {
            let one = Calling::new("cat.jpg", "meow").run(&copy);
            let two = Calling::new("dog.jpg", "woof").run(&copy);
            let (one, two) = tokio::join!(one, two);
            assert_eq!((one.text(), two.text()), ("meow", "woof"));
        }
    });
}

#[tokio::test]
async fn a_static_counts_from_the_start_in_each_call() {
    let remember = guest("remember");
    for _ in 0..20 {
        assert_eq!(Calling::new("cat.jpg", "meow").run(&remember).await.text(), "1");
    }
}

/// Leaves a mark wherever a guest can leave one, and traps where it finds one: in the memory that it
/// starts with (as far as pages stay mapped between instances, and beyond), in memory that it takes, in a
/// global and in a table.
const TRACES: &str = r#"(module
    (memory (export "memory") 64)
    (global $mark (mut i64) (i64.const 0))
    (table $table 1000 funcref)
    (elem declare func $process)
    (func $look (param $at i32) (param $to i32)
        (loop $next
            (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
            (i64.store (local.get $at) (i64.const 0x5ec2e75ec2e7))
            (local.set $at (i32.add (local.get $at) (i32.const 8)))
            (br_if $next (i32.lt_u (local.get $at) (local.get $to)))))
    ;; What the host passes goes to the last page, which is left alone.
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (i32.const 0x3ff000))
    (func $process (export "process") (param i32) (result i32)
        (call $look (i32.const 0) (i32.const 0x3f0000))
        (if (i32.ne (memory.grow (i32.const 16)) (i32.const 64)) (then unreachable))
        (call $look (i32.const 0x400000) (i32.const 0x500000))
        (if (i64.ne (global.get $mark) (i64.const 0)) (then unreachable))
        (global.set $mark (i64.const 1))
        (if (i32.eqz (ref.is_null (table.get $table (i32.const 999)))) (then unreachable))
        (table.set $table (i32.const 999) (ref.func $process))
        (i32.const 0x3f8000)))"#;

#[tokio::test]
async fn nothing_of_one_call_is_there_in_the_next() {
    // With one slot each call gets the place of the one before.
    let engine = Engine::new(1).unwrap();
    let traces = load(&engine, "traces", &module(TRACES, ""));
    for round in 0..20 {
        let called = Calling::new("cat.jpg", "meow").run(&traces).await;
        assert!(matches!(called.report.result, Ok(Verdict::Done)), "round {round}: {:?}", called.report);
    }
}

/// So that the test above can fail: what it looks for is there when it looks twice in one call.
#[tokio::test]
async fn traces_are_found_where_there_are_some() {
    let look = "(call $look (i32.const 0) (i32.const 0x3f0000))";
    let twice = hand_written(&TRACES.replace(look, &look.repeat(2)));
    let called = Calling::new("cat.jpg", "meow").run(&twice).await;
    assert!(matches!(called.report.result, Err(CallError::Trap { .. })), "{:?}", called.report);
}
