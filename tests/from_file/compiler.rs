//! The child process that compiles: what it may do, and every way in which it can end.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use gristmill::plugin::{CompileLimits, Compiler, LoadError, Plugin, Verdict};

use crate::support::guests::{Calling, PATIENCE, bytes, engine};

/// This program as it is installed.
pub const GRISTMILL: &str = env!("CARGO_BIN_EXE_gristmill");

fn stand_in(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compilers").join(name).with_extension("sh")
}

/// What loading comes to with this compiler.
fn loaded_by(program: PathBuf, limits: CompileLimits) -> LoadError {
    let compiler = Compiler::in_child(program, limits);
    Plugin::load(engine(), &compiler, "nothing", &bytes("nothing")).unwrap_err()
}

fn failure(name: &str) -> String {
    match loaded_by(stand_in(name), CompileLimits::default()) {
        error @ LoadError::CompilerFailed(_) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The command lines of all processes.
fn processes() -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cmdline"));
    all.filter_map(|path| fs::read(path).ok()).map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
}

#[tokio::test]
async fn code_from_a_child_runs() {
    let compiler = Compiler::in_child(GRISTMILL, CompileLimits::default());
    for guest in ["digest-a", "copy"] {
        let plugin = Plugin::load(engine(), &compiler, guest, &bytes(guest)).unwrap();
        let called = Calling::new("cat.jpg", "meow").run(&plugin).await;
        assert!(matches!(called.report.result, Ok(Verdict::Done)), "{:?}", called.report);
    }
}

#[test]
fn a_child_says_what_is_wrong_with_a_file_in_the_same_words() {
    let child = Compiler::in_child(GRISTMILL, CompileLimits::default());
    let copy = bytes("copy");
    let files = [
        b"".as_slice(),
        b"#!/bin/sh",
        b"\0asm\x01\0\0\0",
        // Of the WIT at its end the last bytes are missing.
        &copy[..copy.len() - 20],
        b"\0asm\x0d\0\x01\0",
        b"\0asm\x0d\0\x01\0\x01\x02\x03",
    ];
    for file in files {
        let by_child = Plugin::load(engine(), &child, "refused", file).unwrap_err();
        let by_us = Plugin::load(engine(), &Compiler::in_process(), "refused", file).unwrap_err();
        assert_eq!(by_child, by_us);
    }
}

#[test]
fn a_child_gives_up_what_compiling_does_not_need_before_it_reads() {
    let mut child = Command::new(GRISTMILL)
        .args(["compile-plugin", "--memory=1000000000", "--cpu-seconds=7"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let of_child = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", child.id())).unwrap();
    // The last of it is the priority, the nineteenth number of `stat`; the name before it has no space.
    eventually("the lowest priority", || of_child("stat").split(' ').nth(18) == Some("19"));
    let limits = of_child("limits");
    for (limit, soft, hard) in [
        ("Max cpu time", "7", "8"),
        ("Max address space", "1000000000", "1000000000"),
        ("Max file size", "0", "0"),
        ("Max core file size", "0", "0"),
    ] {
        let line = limits.lines().find(|line| line.starts_with(limit)).unwrap();
        let numbers: Vec<&str> = line[limit.len()..].split_whitespace().take(2).collect();
        assert_eq!(numbers, [soft, hard], "{line}");
    }
    assert_eq!(of_child("oom_score_adj").trim(), "1000");
    child.stdin.take().unwrap().write_all(b"no plugin").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(65));
    assert!(String::from_utf8(output.stdout).unwrap().contains("is not WebAssembly"));
}

#[test]
fn a_child_gets_nothing_of_the_environment() {
    assert!(std::env::vars().count() > 3, "there is one");
    let error = failure("environment");
    assert!(error.contains("ended with code 3"), "{error}");
    let words: Vec<&str> = error.split_whitespace().filter(|word| word.contains('=')).collect();
    // The shell sets some for itself.
    let known = ["RAYON_NUM_THREADS=", "PWD=/", "OLDPWD=/", "SHLVL=", "_="];
    assert!(words.iter().all(|word| known.iter().any(|known| word.starts_with(known))), "{words:?}");
    assert!(words.iter().any(|word| word.starts_with("RAYON_NUM_THREADS=")), "{words:?}");
}

#[test]
fn a_compiler_that_is_killed_or_panics_is_a_refusal_of_the_file() {
    let killed = failure("killed");
    assert!(killed.starts_with("made the compiler fail, which was ended by signal 9; `touch` the file"), "{killed}");
    let panicked = failure("panics");
    let says = "which ended with code 101: thread 'main' panicked at src/compile.rs:7:9: index out of bounds;";
    assert!(panicked.contains(says), "{panicked}");
    let chatty = failure("chatty");
    assert!(chatty.len() < 4_000 && !chatty.chars().any(char::is_control), "{chatty:?}");
}

#[test]
fn a_compiler_that_never_answers_is_ended_with_all_it_has_started() {
    let limits = CompileLimits { wall_time: Duration::from_millis(300), ..CompileLimits::default() };
    let error = loaded_by(stand_in("silent"), limits);
    assert_eq!(error, LoadError::CompileTime(limits.wall_time));
    assert!(error.to_string().starts_with("was not compiled within 300ms: "), "{error}");
    eventually("the end of its child", || !processes().iter().any(|line| line.contains("987654")));
}

#[test]
fn a_compiler_with_too_much_to_say_is_cut() {
    let error = loaded_by(stand_in("endless"), CompileLimits::default());
    assert!(matches!(error, LoadError::CodeSize(_)), "{error:?}");
    let error = loaded_by(stand_in("nonsense"), CompileLimits::default());
    assert!(matches!(error, LoadError::Invalid(_)), "{error:?}");
}

#[test]
fn a_compiler_that_cannot_work_is_not_the_file_s_fault() {
    for program in [stand_in("unable"), stand_in("missing"), PathBuf::from("/dev/null")] {
        let error = loaded_by(program, CompileLimits::default());
        assert!(matches!(error, LoadError::NoCompiler(_)), "{error:?}");
        assert!(error.may_pass());
    }
    assert!(!LoadError::Empty.may_pass());
}

#[test]
fn a_host_that_stops_does_not_wait_for_a_compiler() {
    let compiler = Compiler::in_child(stand_in("silent"), CompileLimits::default());
    let stopped = compiler.clone();
    let loading = thread::spawn(move || Plugin::load(engine(), &compiler, "nothing", &bytes("nothing")).unwrap_err());
    eventually("the compiler", || processes().iter().any(|line| line.contains("987655")));
    stopped.stop();
    assert_eq!(loading.join().unwrap(), LoadError::Stopped);
}
