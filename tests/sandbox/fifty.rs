//! Hostile modules that only differ in what they do wrong, each fifty times, several at once and beside plugins that
//! behave: each is named correctly each time, the others' outputs are right, and the process stays small.

use std::{collections::BTreeSet, fs, sync::Arc, time::Duration};

use gristmill::plugin::{CallError, LimitHit, Plugin};

use super::hand_written::{MEMORY, REALLOC, ordinary, plugin};
use crate::support::guests::{Calling, guest, hand_written, on_one_thread};

const RUNS: usize = 50;

/// Runs of one module at the same time.
const AT_ONCE: usize = 5;

/// All memory of the test's process, with a dozen guests of at most 16 MiB at the same time, and everything that was
/// compiled.
const MEMORY_CAP: u64 = 768 << 20;

const SOON: Duration = Duration::from_millis(20);

#[derive(Clone, Copy)]
enum Ends {
    /// The message contains this.
    Trap(&'static str),
    Limit(LimitHit),
    Fine,
}

use Ends::{Fine, Limit, Trap};

/// `process` in the usual frame.
fn body(body: &str) -> String {
    ordinary(body)
}

/// With definitions beside the usual ones.
fn beside(definitions: &str, body: &str) -> String {
    plugin(&format!("{MEMORY} {REALLOC} {definitions}"), &format!("{body} (global.get $done)"))
}

/// `body` for ever.
fn forever(body: &str) -> String {
    ordinary(&format!("(loop $forever {body} (br $forever))"))
}

/// Rejects its object with the text that is there, in a place where there is none.
fn rejects(pointer: i32, length: i32) -> String {
    ordinary(&format!(
        "(i32.store (i32.const 4096) (i32.const -1))
        (i32.store8 (global.get $done) (i32.const 1))
        (i32.store8 offset=4 (global.get $done) (i32.const 1))
        (i32.store offset=8 (global.get $done) (i32.const {pointer}))
        (i32.store offset=12 (global.get $done) (i32.const {length}))"
    ))
}

/// Creates an output of a new name each time: its first four bytes count.
const CREATE_ANOTHER: &str = "(i32.store8 (i32.const 3072) (i32.add (i32.const 97)
        (i32.rem_u (local.get $arguments) (i32.const 26))))
    (i32.store8 (i32.const 3073) (i32.add (i32.const 97) (i32.div_u (local.get $arguments) (i32.const 26))))
    (local.set $arguments (i32.add (local.get $arguments) (i32.const 1)))";

fn modules() -> Vec<(&'static str, String, Ends)> {
    let deadline = Limit(LimitHit::Deadline(SOON));
    vec![
        // Floods of calls.
        (
            "logs without end",
            forever("(call $log (i32.const 0) (i32.const 0) (i32.const 0))"),
            Limit(LimitHit::LogLines(100)),
        ),
        (
            "logs much without end",
            forever("(call $log (i32.const 0) (i32.const 0) (i32.const 4096))"),
            Limit(LimitHit::LogBytes(64 << 10)),
        ),
        (
            "asks for settings without end",
            forever("(call $setting (i32.const 3072) (i32.const 7) (global.get $result))"),
            deadline,
        ),
        (
            "asks for the name of a megabyte without end",
            forever("(call $setting (i32.const 0x20000) (i32.const 0x100000) (global.get $result))"),
            deadline,
        ),
        (
            "reads nothing without end",
            forever(
                "(call $read (local.get $body) (i32.const -1) (global.get $result))
                (global.set $free (i32.const 65536))",
            ),
            deadline,
        ),
        (
            "reads without an allocator that frees",
            forever(
                "(global.set $free (i32.add (global.get $free) (i32.const 65536)))
            (call $read (local.get $body) (i32.const -1) (global.get $result))
            (i32.store (global.get $free) (i32.const 1))",
            ),
            Trap("realloc"),
        ),
        // Leaks.
        (
            "keeps an output of each name",
            body(&format!(
                "(local.set $arguments (i32.const 0)) (loop $forever {CREATE_ANOTHER}
                (drop (call $output)) (br $forever))"
            )),
            Limit(LimitHit::Outputs(20)),
        ),
        (
            "drops an output of each name",
            body(&format!(
                "(local.set $arguments (i32.const 0)) (loop $forever {CREATE_ANOTHER}
                (call $drop-output (call $output)) (br $forever))"
            )),
            Limit(LimitHit::Outputs(20)),
        ),
        ("is refused the same name without end", forever("(drop (call $output))"), deadline),
        (
            "writes without end",
            body(
                "(local.set $arguments (call $output)) (loop $forever
                (call $write (local.get $arguments) (i32.const 0) (i32.const 0x100000)) (br $forever))",
            ),
            Limit(LimitHit::OutputBytes(1 << 20)),
        ),
        ("drops its body and goes on", body("(call $drop-body (local.get $body))"), Fine),
        ("leaves everything open", body("(drop (call $output))"), Fine),
        // Memory and tables.
        ("takes memory page by page", forever("(drop (memory.grow (i32.const 1)))"), Limit(LimitHit::Memory(16 << 20))),
        ("takes memory at once", body("(drop (memory.grow (i32.const 60000)))"), Limit(LimitHit::Memory(16 << 20))),
        (
            "touches all the memory that it may have",
            body(
                "(drop (memory.grow (i32.const 236)))
                (memory.fill (i32.const 4096) (i32.const 1) (i32.const 0xffe000))",
            ),
            Fine,
        ),
        (
            "takes a table without end",
            beside(
                "(table $t 1 funcref)",
                "(loop $more
                    (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))",
            ),
            Fine,
        ),
        ("calls itself without end", beside("(func $dive (call $dive))", "(call $dive)"), Limit(LimitHit::Stack)),
        // Re-entrance.
        (
            "calls the host from its allocator",
            plugin(
                &format!(
                    "{MEMORY} (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32)
                    (call $log (i32.const 1) (i32.const 0) (i32.const 0)) (global.get $free))"
                ),
                "(global.get $done)",
            ),
            Trap("cannot leave component instance"),
        ),
        (
            "calls `process` from its allocator",
            plugin(
                &format!(
                    "{MEMORY}
                    (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (call $again (i32.const 0)))
                    (func $again (param i32) (result i32)
                        (call $read (i32.const 1) (i32.const 1) (i32.const 0)) (i32.const 0))"
                ),
                "(global.get $done)",
            ),
            Trap("cannot leave component instance"),
        ),
        // What runs when the answer has been read.
        (
            "traps after its answer",
            beside("(func (export \"cabi_post_process\") (param i32) unreachable)", ""),
            Trap("unreachable"),
        ),
        (
            "runs for ever after its answer",
            beside("(func (export \"cabi_post_process\") (param i32) (loop $forever (br $forever)))", ""),
            deadline,
        ),
        (
            "calls the host after its answer",
            beside(
                "(func (export \"cabi_post_process\") (param i32)
                    (call $log (i32.const 1) (i32.const 0) (i32.const 0)))",
                "",
            ),
            Trap("cannot leave component instance"),
        ),
        (
            "takes memory after its answer",
            beside("(func (export \"cabi_post_process\") (param i32) (drop (memory.grow (i32.const 60000))))", ""),
            Limit(LimitHit::Memory(16 << 20)),
        ),
        (
            "drops its body after its answer",
            beside("(func (export \"cabi_post_process\") (param i32) (call $drop-body (i32.const 1)))", ""),
            Trap("cannot leave component instance"),
        ),
        // Answers.
        ("answers with a reason beyond its memory", rejects(1024, -1), Trap("out of bounds")),
        ("answers with a reason that is no text", rejects(4096, 4), Trap("utf-8")),
        ("divides by nothing", body("(drop (i64.rem_s (i64.const 1) (i64.const 0)))"), Trap("divide by zero")),
        ("overflows a number", body("(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))"), Trap("overflow")),
        ("makes a whole number of none", body("(drop (i32.trunc_f64_s (f64.const nan)))"), Trap("integer")),
    ]
}

/// The hostile guests, as compilers make them.
const GUESTS: &[(&str, Ends)] = &[
    ("bad-names", Fine),
    ("giant-write", Limit(LimitHit::Memory(16 << 20))),
    ("handle-flood", Limit(LimitHit::Handles(50))),
    ("log-flood", Limit(LimitHit::LogBytes(64 << 10))),
    ("memory-grab", Limit(LimitHit::Memory(16 << 20))),
    ("memory-hog", Limit(LimitHit::Memory(16 << 20))),
    ("output-count-flood", Limit(LimitHit::Outputs(20))),
    ("output-flood", Limit(LimitHit::OutputBytes(1 << 20))),
    ("panic", Trap("panic")),
    ("spin", Limit(LimitHit::Deadline(SOON))),
    ("spin-in-host", Limit(LimitHit::Deadline(SOON))),
    ("spin-start", Limit(LimitHit::Deadline(SOON))),
    ("stack-overflow", Limit(LimitHit::Stack)),
    ("trap-start", Trap("unreachable")),
];

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// What is wrong with how it ended.
async fn run(hostile: Arc<Plugin>, ends: Ends) -> Option<String> {
    let limits = |limits: &mut gristmill::config::Limits| {
        match ends {
            Limit(LimitHit::Deadline(deadline)) => limits.deadline = deadline,
            Limit(LimitHit::OutputBytes(bytes)) => limits.output_bytes = bytes,
            // Each handle is an output.
            Limit(LimitHit::Handles(handles)) => limits.outputs = 2 * handles,
            _ => {}
        }
    };
    let called = Calling::new("cat.jpg", "meow").limits(limits).run(&hostile).await;
    let is_right = match (&called.report.result, ends) {
        (Ok(_), Fine) => true,
        (Err(CallError::Limit { limit, .. }), Limit(expected)) => *limit == expected,
        (Err(error @ CallError::Trap { .. }), Trap(says)) => error.to_string().contains(says),
        _ => false,
    };
    (!is_right).then(|| format!("{:?}", called.report.result))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_named_each_time_beside_others() {
    let copy = guest("copy");
    let mut wrong = BTreeSet::new();
    let compiled = GUESTS.iter().map(|(name, ends)| (*name, guest(name), *ends));
    let written = modules().into_iter().map(|(name, wat, ends)| (name, Arc::new(hand_written(&wat)), ends));
    let hostile: Vec<_> = compiled.chain(written).collect();
    assert!(hostile.len() >= 40, "{} are left", hostile.len());
    for (name, hostile, ends) in hostile {
        for round in 0..RUNS / AT_ONCE {
            let runs: Vec<_> = (0..AT_ONCE).map(|_| tokio::spawn(run(Arc::clone(&hostile), ends))).collect();
            let body = vec![round as u8; 100_000];
            let called = Calling::new("other.bin", body.clone()).run(&copy).await;
            assert_eq!(called.outputs()[0].1, body, "beside the one that {name}");
            for run in runs {
                wrong.extend(run.await.unwrap().map(|ended| format!("{name}: {ended}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let resident = resident();
    assert!(resident < MEMORY_CAP, "{resident} bytes");
}

/// Time of this thread on a core, which does not pass while others have it.
fn time_on_core() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

/// How much more of a core than its deadline a guest may have.
const GRACE: Duration = Duration::from_millis(100);

#[test]
fn a_guest_that_never_ends_has_no_more_of_a_core_than_its_deadline() {
    on_one_thread(async || {
        let deadline = Duration::from_millis(60);
        for name in ["spin", "spin-start", "spin-in-host", "output-flood"] {
            let hostile = guest(name);
            let call = Calling::new("cat.jpg", "meow").setting("bytes", 0).limits(|limits| limits.deadline = deadline);
            let before = time_on_core();
            let called = call.run(&hostile).await;
            let had = time_on_core() - before;
            let limit = match called.report.result {
                Err(CallError::Limit { limit, .. }) => limit,
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(limit, LimitHit::Deadline(deadline), "{name}");
            assert!(had <= deadline + GRACE, "{name} had {had:?} of a core");
        }
    });
}
