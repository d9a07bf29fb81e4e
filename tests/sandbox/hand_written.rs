//! What no compiler produces: modules that break the rules of the interface itself.

use std::time::Duration;

use gristmill::plugin::{CallError, LimitHit, Verdict};

use crate::{
    among_others, assert_limit, assert_trap,
    support::guests::{Called, Calling, engine, hand_written, load, module, on_one_thread},
};

const DEADLINE: Duration = Duration::from_millis(60);

/// A plugin whose `process` is `body`, between these definitions. Its object's `body` handle is the
/// local `$body`; `$done` is where an `ok(done)` lies, and `$free` where the host may put what it returns.
pub(super) fn plugin(definitions: &str, body: &str) -> String {
    format!(
        r#"(module
            (import "gristmill:plugin/types@0.1.0" "[method]body.read" (func $read (param i32 i32 i32)))
            (import "gristmill:plugin/types@0.1.0" "[resource-drop]body" (func $drop-body (param i32)))
            (import "gristmill:plugin/types@0.1.0" "[method]output.write" (func $write (param i32 i32 i32)))
            (import "gristmill:plugin/types@0.1.0" "[resource-drop]output" (func $drop-output (param i32)))
            (import "gristmill:plugin/host@0.1.0" "create-output"
                (func $create (param i32 i32 i32 i32 i32 i32 i32 i32)))
            (import "gristmill:plugin/host@0.1.0" "log" (func $log (param i32 i32 i32)))
            (import "gristmill:plugin/host@0.1.0" "setting" (func $setting (param i32 i32 i32)))
            (global $done i32 (i32.const 1024))
            (global $result i32 (i32.const 2048))
            (global $free (mut i32) (i32.const 65536))
            (data (i32.const 3072) "out.txt")
            {definitions}
            (func $output (result i32)
                (call $create (i32.const 3072) (i32.const 7) (i32.const 0) (i32.const 0) (i32.const 0)
                    (i32.const 0) (i32.const 0) (global.get $result))
                (i32.load (i32.add (global.get $result) (i32.const 4))))
            (func (export "process") (param $arguments i32) (result i32)
                (local $body i32)
                (local.set $body (i32.load (i32.add (local.get $arguments) (i32.const 96))))
                {body}))"#
    )
}

pub(super) const MEMORY: &str = r#"(memory (export "memory") 20)"#;
pub(super) const REALLOC: &str = r#"(func $realloc (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32)
    (global.get $free)
    (global.set $free (i32.and
        (i32.add (i32.add (global.get $free) (local.get $size)) (i32.const 7)) (i32.const -8))))"#;

pub(super) fn ordinary(body: &str) -> String {
    plugin(&format!("{MEMORY} {REALLOC}"), &format!("{body} (global.get $done)"))
}

fn run(
    wat: String,
    change: impl FnOnce(Calling) -> Calling + Send + 'static,
    check: impl FnOnce(&Called) + Send + 'static,
) {
    on_one_thread(async move || {
        let call = change(Calling::new("cat.jpg", "meow"));
        check(&among_others(&hand_written(&wat), call).await);
    });
}

fn same(call: Calling) -> Calling {
    call
}

fn trap(wat: String, says: &'static str) {
    run(wat, same, move |called| assert_trap(called, says));
}

/// Without this the others could fail for want of a working frame.
#[test]
fn the_frame_of_these_plugins_works() {
    let body = "(call $read (local.get $body) (i32.const 100) (global.get $result))
        (call $write (call $output)
            (i32.load (global.get $result)) (i32.load (i32.add (global.get $result) (i32.const 4))))";
    // `$output` uses the place of the result as well.
    let body = body.replace("(call $write (call $output)", "(call $write (global.get $out)");
    let definitions = format!("{MEMORY} {REALLOC} (global $out (mut i32) (i32.const 0))");
    let wat = plugin(&definitions, &format!("(global.set $out (call $output)) {body} (global.get $done)"));
    run(wat, same, |called| {
        assert_eq!(called.report.result.as_ref().ok(), Some(&Verdict::Done), "{:?}", called.report);
        assert_eq!(called.text(), "meow");
        assert_eq!(called.report.outputs[0].meta.key, "processed/out.txt");
    });
}

#[test]
fn dropping_a_handle_twice_is_a_trap() {
    trap(ordinary("(call $drop-body (local.get $body)) (call $drop-body (local.get $body))"), "unknown handle index");
}

#[test]
fn using_a_handle_after_dropping_it_is_a_trap() {
    let read = "(call $read (local.get $body) (i32.const 1) (global.get $result))";
    trap(ordinary(&format!("(call $drop-body (local.get $body)) {read}")), "unknown handle index");
}

#[test]
fn using_a_handle_that_was_never_given_is_a_trap() {
    for handle in ["0", "77", "-1"] {
        trap(
            ordinary(&format!("(call $read (i32.const {handle}) (i32.const 1) (global.get $result))")),
            "handle index",
        );
    }
}

#[test]
fn using_a_handle_as_one_of_another_kind_is_a_trap() {
    trap(ordinary("(call $write (local.get $body) (i32.const 0) (i32.const 0))"), "handle index");
    trap(ordinary("(call $read (call $output) (i32.const 1) (global.get $result))"), "handle index");
    trap(ordinary("(call $drop-output (local.get $body))"), "handle index");
}

#[test]
fn every_handle_that_is_allowed_can_be_used() {
    // Two handles at most: the body and one output, both used, and the output's dropped.
    let body = "(local.set $arguments (call $output))
        (call $write (local.get $arguments) (i32.const 3072) (i32.const 3))
        (call $read (local.get $body) (i32.const 1) (global.get $result))
        (call $drop-output (local.get $arguments))";
    run(
        ordinary(body),
        |call| call.limits(|limits| limits.handles = 2),
        |called| assert_eq!(called.text(), "out", "{:?}", called.report),
    );
    // One is the least that can be configured.
    run(
        ordinary("(call $read (local.get $body) (i32.const 1) (global.get $result))"),
        |call| call.limits(|limits| limits.handles = 1),
        |called| assert_eq!(called.report.result.as_ref().ok(), Some(&Verdict::Done), "{:?}", called.report),
    );
    run(
        ordinary("(drop (call $output))"),
        |call| call.limits(|limits| limits.handles = 1),
        |called| assert_limit(called, LimitHit::Handles(1), "limit `handles` of 1"),
    );
}

#[test]
fn pointers_out_of_bounds_are_traps() {
    for (pointer, length) in [("-4", "4"), ("0", "-1"), ("-1", "-1"), ("1310720", "1")] {
        trap(
            ordinary(&format!("(call $log (i32.const 1) (i32.const {pointer}) (i32.const {length}))")),
            "out of bounds",
        );
    }
    trap(ordinary("(call $read (local.get $body) (i32.const 1) (i32.const -4))"), "out of bounds");
}

#[test]
fn text_that_is_not_utf8_is_a_trap() {
    let wat = ordinary(
        "(i32.store (i32.const 4096) (i32.const -1)) (call $log (i32.const 1) (i32.const 4096) (i32.const 4))",
    );
    trap(wat, "utf-8");
}

#[test]
fn a_level_that_does_not_exist_is_a_trap() {
    trap(ordinary("(call $log (i32.const 4) (i32.const 0) (i32.const 0))"), "discriminant");
}

#[test]
fn an_allocator_that_lies_is_a_trap() {
    for pointer in ["-8", "1310720", "3"] {
        let realloc =
            format!(r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const {pointer}))"#);
        run(plugin(&format!("{MEMORY} {realloc}"), "(global.get $done)"), same, |called| {
            let result = &called.report.result;
            assert!(
                matches!(result, Err(CallError::Trap { message, .. }) if message.contains("realloc")),
                "{result:?}"
            );
        });
    }
}

#[test]
fn an_allocator_that_traps_is_a_trap() {
    let realloc = r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)"#;
    trap(plugin(&format!("{MEMORY} {realloc}"), "(global.get $done)"), "unreachable");
}

#[test]
fn an_allocator_that_never_returns_ends_at_the_deadline() {
    let realloc =
        r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (loop $l (br $l)) unreachable)"#;
    run(
        plugin(&format!("{MEMORY} {realloc}"), "(global.get $done)"),
        |call| call.limits(|limits| limits.deadline = DEADLINE),
        |called| assert_limit(called, LimitHit::Deadline(DEADLINE), "limit `deadline` of 60ms"),
    );
}

#[test]
fn an_allocator_that_calls_the_host_back_is_a_trap() {
    let realloc = r#"(func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
        (call $log (i32.const 1) (i32.const 0) (i32.const 0)) (global.get $free))"#;
    trap(plugin(&format!("{MEMORY} {realloc}"), "(global.get $done)"), "cannot leave component instance");
}

#[test]
fn a_start_function_that_never_returns_ends_at_the_deadline() {
    let start = "(func $start (loop $l (br $l))) (start $start)";
    run(
        plugin(&format!("{MEMORY} {REALLOC} {start}"), "(global.get $done)"),
        |call| call.limits(|limits| limits.deadline = DEADLINE),
        |called| assert_limit(called, LimitHit::Deadline(DEADLINE), "limit `deadline` of 60ms"),
    );
}

#[test]
fn a_result_that_is_none_is_a_trap() {
    for (pointer, says) in [("-8", "out of bounds"), ("1310720", "out of bounds"), ("1025", "aligned")] {
        trap(plugin(&format!("{MEMORY} {REALLOC}"), &format!("(i32.const {pointer})")), says);
    }
    for value in ["2", "255", "0x200"] {
        let store = format!("(i32.store (global.get $done) (i32.const {value}))");
        run(ordinary(&store), same, move |called| match value {
            // Only the first byte says which case it is.
            "0x200" => assert!(called.report.result.is_ok(), "{:?}", called.report),
            _ => assert_trap(called, "discriminant"),
        });
    }
}

#[test]
fn a_memory_that_may_not_grow_is_no_limit_hit() {
    // The module itself says "21 pages at most": asking for more, again and again, just fails.
    let memory = r#"(memory (export "memory") 20 21)"#;
    let grow = "(if (i32.ne (memory.grow (i32.const 200)) (i32.const -1)) (then unreachable))";
    let wat = plugin(&format!("{memory} {REALLOC}"), &format!("{} (global.get $done)", grow.repeat(10)));
    run(wat, same, |called| assert!(called.report.result.is_ok(), "{:?}", called.report));
}

#[test]
fn an_arithmetic_error_is_named() {
    trap(ordinary("(drop (i32.div_u (i32.const 1) (i32.const 0)))"), "integer divide by zero");
    trap(ordinary("(drop (i32.load (i32.const -4)))"), "out of bounds memory access");
}

#[test]
fn a_call_of_nothing_is_named() {
    let definitions = format!("{MEMORY} {REALLOC} (table 1 funcref) (type $f (func))");
    let wat = plugin(&definitions, "(call_indirect (type $f) (i32.const 0)) (global.get $done)");
    trap(wat, "uninitialized element");
}

/// A plugin that imports from WASI, too: `imports` as WIT and as a field of the module.
fn with_wasi(wit: &str, field: &str, body: &str) -> Vec<u8> {
    module(&ordinary(body).replacen("(module", &format!("(module {field}"), 1), wit)
}

fn run_wasi(wasm: Vec<u8>, change: fn(Calling) -> Calling, check: impl FnOnce(&Called) + Send + 'static) {
    on_one_thread(async move || {
        let plugin = load(engine(), "wasi", &wasm);
        check(&among_others(&plugin, change(Calling::new("cat.jpg", "meow"))).await);
    });
}

#[test]
fn wasi_gives_randomness_in_small_amounts_only() {
    let wit = "import wasi:random/random@0.2.0; \
        package wasi:random@0.2.0 { interface random { get-random-bytes: func(len: u64) -> list<u8>; } }";
    let field = r#"(import "wasi:random/random@0.2.0" "get-random-bytes" (func $random (param i64 i32)))"#;
    let ask = |bytes| with_wasi(wit, field, &format!("(call $random (i64.const {bytes}) (global.get $result))"));
    run_wasi(ask(32), same, |called| assert!(called.report.result.is_ok(), "{:?}", called.report));
    for bytes in [64 << 20, -1] {
        run_wasi(ask(bytes), same, |called| assert_trap(called, "exceeds limit 1048576"));
    }
}

/// Waits for the end of time, on as many handles of that one moment as are passed.
fn wait(times: u32) -> Vec<u8> {
    let wit = "import wasi:io/poll@0.2.0; import wasi:clocks/monotonic-clock@0.2.0; \
        package wasi:io@0.2.0 { interface poll { \
            resource pollable; poll: func(in: list<borrow<pollable>>) -> list<u32>; } } \
        package wasi:clocks@0.2.0 { interface monotonic-clock { \
            use wasi:io/poll@0.2.0.{pollable}; subscribe-duration: func(when: u64) -> pollable; } }";
    let fields = r#"
        (import "wasi:io/poll@0.2.0" "poll" (func $poll (param i32 i32 i32)))
        (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $subscribe (param i64) (result i32)))"#;
    let body = format!(
        "(local.set $body (call $subscribe (i64.const -1)))
        (loop $next
            (i32.store (i32.add (i32.const 4096) (local.get $arguments)) (local.get $body))
            (local.set $arguments (i32.add (local.get $arguments) (i32.const 4)))
            (br_if $next (i32.lt_u (local.get $arguments) (i32.const {}))))
        (call $poll (i32.const 4096) (i32.const {times}) (global.get $result))",
        times * 4
    );
    with_wasi(wit, fields, &format!("(local.set $arguments (i32.const 0)) {body}"))
}

#[test]
fn waiting_for_a_clock_of_wasi_ends_at_the_deadline() {
    run_wasi(
        wait(1),
        |call| call.limits(|limits| limits.deadline = DEADLINE),
        |called| assert_limit(called, LimitHit::Deadline(DEADLINE), "limit `deadline` of 60ms"),
    );
}

#[test]
fn lending_handles_without_end_ends_at_their_number() {
    run_wasi(wait(10_000), same, |called| assert_limit(called, LimitHit::Handles(50), "limit `handles` of 50"));
}
