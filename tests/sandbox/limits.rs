//! One guest for each limit.

use std::time::Duration;

use gristmill::plugin::LimitHit;

use crate::{
    among_others, assert_limit, assert_trap, backtrace,
    support::guests::{Called, Calling, guest, on_one_thread},
};

/// Runs the guest among others on one thread, and looks at what came of it.
fn run(name: &'static str, call: impl FnOnce(Calling) -> Calling + Send + 'static, check: fn(&Called)) {
    on_one_thread(async move || {
        let call = call(Calling::new("cat.jpg", vec![b'x'; 200_000]));
        check(&among_others(&guest(name), call).await);
    });
}

fn soon(call: Calling) -> Calling {
    call.limits(|limits| limits.deadline = SOON)
}

const SOON: Duration = Duration::from_millis(60);

fn assert_deadline(called: &Called) {
    assert_limit(called, LimitHit::Deadline(SOON), "limit `deadline` of 60ms");
}

#[test]
fn an_infinite_loop_ends_at_the_deadline() {
    run("spin", soon, assert_deadline);
}

#[test]
fn an_infinite_loop_in_the_initialiser_ends_at_the_deadline() {
    run("spin-start", soon, assert_deadline);
}

#[test]
fn calling_the_host_for_ever_ends_at_the_deadline() {
    run("spin-in-host", soon, assert_deadline);
}

#[test]
fn writing_nothing_for_ever_ends_at_the_deadline() {
    run("output-flood", |call| soon(call).setting("bytes", 0), assert_deadline);
}

#[test]
fn taking_memory_for_ever_ends_at_the_limit() {
    run(
        "memory-hog",
        |call| call,
        |called| {
            assert_limit(called, LimitHit::Memory(16 << 20), "limit `memory` of 16.0 MiB");
            assert!(backtrace(called).ends_with("malloc <- process"), "{}", backtrace(called));
        },
    );
}

#[test]
fn taking_much_memory_at_once_ends_at_the_limit() {
    run(
        "memory-grab",
        |call| call,
        |called| assert_limit(called, LimitHit::Memory(16 << 20), "limit `memory` of 16.0 MiB"),
    );
}

#[test]
fn memory_that_is_there_from_the_start_counts_too() {
    run(
        "nothing",
        |call| call.limits(|limits| limits.memory = 64 << 10),
        |called| assert_limit(called, LimitHit::Memory(64 << 10), "limit `memory` of 64.0 KiB"),
    );
}

#[test]
fn an_endless_recursion_ends_with_the_stack() {
    run(
        "stack-overflow",
        |call| call,
        |called| {
            assert_limit(called, LimitHit::Stack, "overflowed its stack");
            assert!(backtrace(called).contains("stack_overflow::dive"), "{}", backtrace(called));
        },
    );
}

#[test]
fn a_panic_is_a_trap_with_a_backtrace_in_the_names_of_the_source() {
    run(
        "panic",
        |call| call,
        |called| {
            assert_trap(called, "panic");
            assert!(backtrace(called).ends_with("core::panicking::panic_fmt <- process"), "{}", backtrace(called));
        },
    );
}

#[test]
fn a_trap_in_the_initialiser_is_a_trap() {
    run(
        "trap-start",
        |call| call,
        |called| {
            assert_trap(called, "unreachable");
            assert!(backtrace(called).contains("_initialize"), "{}", backtrace(called));
        },
    );
}

#[test]
fn a_trap_in_the_middle_of_writing_leaves_what_was_staged_to_the_host() {
    run(
        "trap-mid-write",
        |call| call,
        |called| {
            assert_trap(called, "unreachable");
            assert_eq!(called.report.bytes_written, 100_000);
            assert_eq!(called.report.bytes_read, 100_000);
            let [(created, bytes)] = called.outputs()[..] else { panic!("{called:?}") };
            assert_eq!(
                (created.meta.key.as_str(), created.size, bytes.len()),
                ("processed/cat.jpg.copy", 100_000, 100_000)
            );
        },
    );
}

#[test]
fn logging_for_ever_ends_at_the_bytes() {
    run(
        "log-flood",
        |call| call,
        |called| assert_limit(called, LimitHit::LogBytes(64 << 10), "limit `log_bytes` of 64.0 KiB"),
    );
}

#[test]
fn logging_nothing_for_ever_ends_at_the_lines() {
    run(
        "log-flood",
        |call| call.setting("bytes", 0),
        |called| assert_limit(called, LimitHit::LogLines(100), "limit `log_lines` of 100"),
    );
}

#[test]
fn one_giant_log_line_ends_at_the_bytes() {
    run(
        "giant-strings",
        |call| call.setting("bytes", 1 << 20).setting("where", "log"),
        |called| assert_limit(called, LimitHit::LogBytes(64 << 10), "limit `log_bytes` of 64.0 KiB"),
    );
}

#[test]
fn writing_for_ever_ends_at_the_bytes_and_nothing_more_is_staged() {
    run(
        "output-flood",
        |call| call.limits(|limits| limits.output_bytes = 1 << 20),
        |called| {
            assert_limit(called, LimitHit::OutputBytes(1 << 20), "limit `output_bytes` of 1.0 MiB");
            assert_eq!(called.outputs()[0].1.len(), 1 << 20);
            assert_eq!(called.report.bytes_written, 1 << 20, "counts what was staged");
        },
    );
}

#[test]
fn creating_outputs_for_ever_ends_at_their_number() {
    run(
        "output-count-flood",
        |call| call,
        |called| {
            assert_limit(called, LimitHit::Outputs(20), "limit `outputs` of 20");
            assert_eq!(called.report.outputs.len(), 20);
        },
    );
}

#[test]
fn keeping_handles_for_ever_ends_at_their_number() {
    run(
        "handle-flood",
        |call| call.limits(|limits| limits.outputs = 1_000),
        |called| {
            assert_limit(called, LimitHit::Handles(50), "limit `handles` of 50");
            assert_eq!(called.report.outputs.len(), 49, "one of the handles is the body");
        },
    );
}

#[test]
fn one_giant_write_ends_at_the_bytes_of_a_call() {
    run(
        "giant-write",
        |call| call.limits(|limits| limits.memory = 256 << 20),
        |called| {
            assert_limit(called, LimitHit::CallBytes, "passed more than 16.0 MiB to the host in one call");
            assert_eq!(called.outputs()[0].1, b"");
        },
    );
}

#[test]
fn the_largest_write_that_the_interface_promises_works() {
    run(
        "giant-write",
        |call| call.limits(|limits| limits.memory = 64 << 20).setting("bytes", 16 << 20),
        |called| {
            assert!(called.report.result.is_ok(), "{:?}", called.report.result);
            assert_eq!(called.outputs()[0].1, vec![b'x'; 16 << 20]);
        },
    );
}

#[test]
fn giant_strings_end_at_the_bytes_of_a_call_wherever_they_go() {
    for place in ["name", "content-type", "metadata-key", "metadata-value", "log", "setting", "reject", "retry", "skip"]
    {
        run(
            "giant-strings",
            move |call| {
                let call = call.setting("where", place).setting("bytes", 17 << 20);
                call.limits(|limits| limits.memory = 64 << 20)
            },
            |called| assert_limit(called, LimitHit::CallBytes, "16.0 MiB to the host in one call"),
        );
    }
}
