//! What one call leaves to the next, in the same place of the pool: nothing. One plugin makes everything dirty and
//! ends in every way there is; another looks for traces of it.

use std::{sync::Arc, time::Duration};

use gristmill::plugin::{CallError, Engine, LimitHit, Plugin, Verdict};

use crate::support::guests::{Called, Calling, load, module};

const IMPORTS: &str = r#"
    (import "gristmill:plugin/types@0.1.0" "[method]body.read" (func $read (param i32 i32 i32)))
    (import "gristmill:plugin/types@0.1.0" "[method]output.write" (func $write (param i32 i32 i32)))
    (import "gristmill:plugin/host@0.1.0" "create-output"
        (func $create (param i32 i32 i32 i32 i32 i32 i32 i32)))
    (import "gristmill:plugin/host@0.1.0" "log" (func $log (param i32 i32 i32)))
    (memory (export "memory") 64)
    (global $mark (mut i64) (i64.const 0))
    (table $table 1000 funcref)
    (elem declare func $process)
    ;; What the host passes, the names and the results are in the last page, which nobody looks at.
    (data (i32.const 0x3ff000) "output-a")
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0x3f8000))
    ;; Creates `count` outputs of one letter's difference. Answers the first one's handle; traps where one is refused.
    (func $outputs (param $count i32) (result i32)
        (local $first i32)
        (loop $next
            (i32.store8 (i32.const 0x3ff007) (i32.add (i32.const 97) (local.get $count)))
            (call $create (i32.const 0x3ff000) (i32.const 8) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const 0x3ff100))
            (if (i32.load8_u (i32.const 0x3ff100)) (then unreachable))
            (if (i32.eqz (local.get $first)) (then (local.set $first (i32.load (i32.const 0x3ff104)))))
            (local.set $count (i32.sub (local.get $count) (i32.const 1)))
            (br_if $next (local.get $count)))
        (local.get $first))
    (func $logs (param $count i32)
        (loop $next
            (call $log (i32.const 0) (i32.const 0x3ff000) (i32.const 1))
            (local.set $count (i32.sub (local.get $count) (i32.const 1)))
            (br_if $next (local.get $count))))"#;

/// Traps at the first trace. The budgets are used up to the last: what another call used would be missing.
fn looking() -> String {
    format!(
        r#"(module {IMPORTS}
        (func $look (param $at i32) (param $to i32)
            (loop $next
                (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
                (i64.store (local.get $at) (i64.const 0x5ec2e75ec2e7))
                (local.set $at (i32.add (local.get $at) (i32.const 8)))
                (br_if $next (i32.lt_u (local.get $at) (local.get $to)))))
        (func $process (export "process") (param $arguments i32) (result i32)
            (local $slot i32)
            (call $look (i32.const 0) (i32.const 0x3f0000))
            (if (i32.ne (memory.grow (i32.const 128)) (i32.const 64)) (then unreachable))
            (call $look (i32.const 0x400000) (i32.const 0xc00000))
            (if (i64.ne (global.get $mark) (i64.const 0)) (then unreachable))
            (global.set $mark (i64.const 1))
            (loop $next
                (if (i32.eqz (ref.is_null (table.get $table (local.get $slot)))) (then unreachable))
                (table.set $table (local.get $slot) (ref.func $process))
                (local.set $slot (i32.add (local.get $slot) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $slot) (i32.const 1000))))
            (call $logs (i32.const 100))
            ;; The numbers of the handles tell of those that were there before.
            (i32.store (i32.const 0x3ff200) (i32.load (i32.add (local.get $arguments) (i32.const 96))))
            (i32.store (i32.const 0x3ff204) (call $outputs (i32.const 20)))
            (call $write (i32.load (i32.const 0x3ff204)) (i32.const 0x3ff200) (i32.const 8))
            (i32.const 0x3ff300)))"#
    )
}

/// Fills all that it can get, and then does this.
fn dirtying(then: &str) -> String {
    format!(
        r#"(module {IMPORTS}
        (func $process (export "process") (param $arguments i32) (result i32)
            (call $logs (i32.const 99))
            (call $write (call $outputs (i32.const 19)) (i32.const 0) (i32.const 65536))
            (call $read
                (i32.load (i32.add (local.get $arguments) (i32.const 96))) (i32.const 4096) (i32.const 0x3ff100))
            (drop (memory.grow (i32.const 128)))
            (memory.fill (i32.const 0) (i32.const 0xaa) (i32.const 0x3f0000))
            (memory.fill (i32.const 0x400000) (i32.const 0xaa) (i32.const 0x800000))
            (table.fill $table (i32.const 0) (ref.func $process) (i32.const 1000))
            (global.set $mark (i64.const -1))
            {then}
            (i32.const 0x3ff300)))"#
    )
}

const SOON: Duration = Duration::from_millis(30);

/// The ways in which the dirty one ends.
const ENDS: &[(&str, &str)] = &[
    ("done", ""),
    ("trap", "unreachable"),
    ("deadline", "(loop $forever (br $forever))"),
    ("limit", "(call $logs (i32.const 2))"),
    ("stack", "(drop (call $process (local.get $arguments)))"),
];

struct Pair {
    looks: Plugin,
    dirty: Vec<Plugin>,
}

fn pair(slots: usize) -> Pair {
    let engine = Engine::new(slots).unwrap();
    let dirty = ENDS.iter().map(|(name, then)| load(&engine, name, &module(&dirtying(then), ""))).collect();
    Pair { looks: load(&engine, "looks", &module(&looking(), "")), dirty }
}

impl Pair {
    async fn make_dirty(&self, round: usize) {
        let index = round % ENDS.len();
        let deadline = |limits: &mut gristmill::config::Limits| {
            if ENDS[index].0 == "deadline" {
                limits.deadline = SOON;
            }
        };
        let called = Calling::new("secret.bin", vec![0xaa; 4096]).limits(deadline).run(&self.dirty[index]).await;
        let ended = match &called.report.result {
            Ok(Verdict::Done) => "done",
            Err(CallError::Limit { limit: LimitHit::Deadline(_), .. }) => "deadline",
            // The second time round, its logs are used up.
            Err(CallError::Limit { limit: LimitHit::LogLines(100), .. }) if ENDS[index].0 == "stack" => "stack",
            Err(CallError::Limit { limit: LimitHit::LogLines(100), .. }) => "limit",
            Err(CallError::Trap { .. }) => "trap",
            other => panic!("{other:?}"),
        };
        assert_eq!(ended, ENDS[index].0, "{:?}", called.report.result);
    }

    async fn look(&self) -> Called {
        let called = Calling::new("cat.jpg", "meow").run(&self.looks).await;
        assert!(matches!(called.report.result, Ok(Verdict::Done)), "{:?}", called.report.result);
        assert_eq!((called.report.outputs.len(), called.report.bytes_read, called.report.bytes_written), (20, 0, 8));
        called
    }
}

/// What the first output has in it: the numbers of its handles.
fn handles(called: &Called) -> Vec<u8> {
    called.outputs()[0].1.to_vec()
}

#[tokio::test]
async fn nothing_survives_a_call_in_the_place_that_the_next_one_gets() {
    // With one slot that is always the same.
    let pair = pair(1);
    let first = handles(&pair.look().await);
    assert_eq!(first.len(), 8);
    for round in 0..100 {
        pair.make_dirty(round).await;
        assert_eq!(handles(&pair.look().await), first, "after {}", ENDS[round % ENDS.len()].0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_survives_a_call_among_many() {
    const TASKS: usize = 8;
    let pair = Arc::new(pair(TASKS));
    let first = handles(&pair.look().await);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (pair, first) = (Arc::clone(&pair), first.clone());
            tokio::spawn(async move {
                for round in 0..40 {
                    // Half of them out of step, so that each place sees both.
                    match (task + round) % 2 {
                        0 => pair.make_dirty(task + round / 2).await,
                        _ => assert_eq!(handles(&pair.look().await), first),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// So that the tests above can fail: what is looked for is found where it is.
#[tokio::test]
async fn traces_of_every_kind_are_found_where_there_are_some() {
    let engine = Engine::new(1).unwrap();
    for trace in [
        "(i32.store (i32.const 0x123450) (i32.const 1))",
        "(global.set $mark (i64.const 1))",
        "(table.set $table (i32.const 500) (ref.func $process))",
        "(call $logs (i32.const 1))",
        "(drop (call $outputs (i32.const 1)))",
    ] {
        let local = "(local $slot i32)";
        let wat = looking().replace(local, &format!("{local} {trace}"));
        let called = Calling::new("cat.jpg", "meow").run(&load(&engine, "left", &module(&wat, ""))).await;
        assert!(called.report.result.is_err(), "{trace} is not found");
    }
}
