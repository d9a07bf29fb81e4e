//! What a plugin finds around it, with and without a grant: time, randomness, files, sockets.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

#[allow(dead_code, reason = "other tests use more of it")]
mod support {
    pub mod guests;
}

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::Path, time::Duration};

use gristmill::{
    config::Grants,
    plugin::{Answer, CallError, Capability, Compiler, Engine, Granted, LoadError, Plugin},
};
use support::guests::{Calling, bytes, engine, load, module};

/// 2026-11-22T09:30:00Z, in nanoseconds.
const EVENT: u128 = 1_795_339_800_000_000_000;

fn surroundings(grants: Grants) -> Plugin {
    let granted = Granted::new(BTreeMap::from([("surroundings".to_owned(), grants)])).unwrap();
    load(&Engine::granting(2, granted).unwrap(), "surroundings", &bytes("surroundings"))
}

/// What each of these looks found.
async fn look(plugin: &Plugin, etag: &str, looks: &[&str]) -> Vec<String> {
    let call = Calling::new("looks", looks.join("\n")).told(|object| {
        object.etag = etag.into();
        object.event_time = Some("2026-11-22T09:30:00.000Z".into());
    });
    let called = call.run(plugin).await;
    assert!(called.report.result.is_ok(), "{:?}", called.report);
    called.text().lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

fn numbers(found: &[String]) -> Vec<u128> {
    found.iter().map(|text| text.parse().unwrap()).collect()
}

const RANDOM: &[&str] = &["random", "random", "insecure", "seed"];

#[tokio::test]
async fn without_a_grant_there_is_nothing_of_the_world_and_each_run_is_the_same() {
    let plugin = surroundings(Grants::default());
    let looks = ["environment", "folders", "read x", "wall", "wall", "monotonic", "random", "insecure", "seed"];
    let first = look(&plugin, "one", &looks).await;
    assert_eq!(first[..3], ["[] []", "", "no folder"]);
    let [wall, later, monotonic] = numbers(&first[3..6])[..] else { panic!("{first:?}") };
    assert!(wall == EVENT && (1..1_000_000).contains(&(later - wall)) && monotonic < 1_000_000, "{first:?}");
    assert_eq!(look(&plugin, "one", &looks).await, first, "a second delivery makes the same of it");
    assert_eq!(look(&surroundings(Grants::default()), "one", &looks).await, first, "and so does another host");
}

#[tokio::test]
async fn randomness_without_a_grant_is_of_the_object_and_its_parts_differ() {
    let plugin = surroundings(Grants::default());
    let (one, two) = (look(&plugin, "one", RANDOM).await, look(&plugin, "two", RANDOM).await);
    let mut all: Vec<String> = one.into_iter().chain(two).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 2 * RANDOM.len(), "{all:?}");
}

#[tokio::test]
async fn randomness_that_is_granted_is_another_one_each_time() {
    let plugin = surroundings(Grants { randomness: true, ..Grants::default() });
    let (one, two) = (look(&plugin, "one", RANDOM).await, look(&plugin, "one", RANDOM).await);
    assert!(one.iter().zip(&two).all(|(one, two)| one != two), "{one:?} {two:?}");
}

/// A runtime that sleeps until a moment looks at the clock until it has come.
#[tokio::test]
async fn a_clock_of_one_s_own_passes_while_it_waits() {
    let plugin = surroundings(Grants::default());
    let found = look(&plugin, "one", &["monotonic", "sleep 20", "monotonic", "wall"]).await;
    let [before, after, wall] = numbers(&[&found[..1], &found[2..]].concat())[..] else { panic!("{found:?}") };
    assert!((20_000_000..21_000_000).contains(&(after - before)), "{found:?}");
    assert!((20_000_000..21_000_000).contains(&(wall - EVENT)), "{found:?}");
}

#[tokio::test]
async fn a_clock_that_is_granted_is_the_host_s() {
    let plugin = surroundings(Grants { clocks: true, ..Grants::default() });
    let since_epoch = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    let before = since_epoch();
    let found = look(&plugin, "one", &["wall", "monotonic", "sleep 20", "monotonic", "wall"]).await;
    let [first, start, end, last] = numbers(&[&found[..2], &found[3..]].concat())[..] else { panic!("{found:?}") };
    assert!(before <= first && first <= last && last <= since_epoch(), "{found:?}");
    assert!(end - start >= Duration::from_millis(20).as_nanos(), "{found:?}");
}

/// A folder with a file, and files outside that links inside of it lead to.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (data, secret) = (folder.path().join("data"), folder.path().join("secret"));
    fs::create_dir_all(data.join("deep")).unwrap();
    fs::write(&secret, "secret").unwrap();
    fs::write(data.join("table"), "known").unwrap();
    fs::write(data.join("deep/table"), "deep").unwrap();
    symlink("table", data.join("inside")).unwrap();
    symlink("../secret", data.join("outside")).unwrap();
    symlink(&secret, data.join("absolute")).unwrap();
    symlink("/", data.join("root")).unwrap();
    folder
}

fn with_data(folder: &Path) -> Plugin {
    surroundings(Grants { data: Some(folder.join("data")), ..Grants::default() })
}

#[tokio::test]
async fn a_folder_that_is_granted_can_be_read_and_nothing_beside_it() {
    let folder = folder();
    let plugin = with_data(folder.path());
    let inside = ["folders", "read table", "read deep/table", "read deep/../table", "read inside"];
    assert_eq!(look(&plugin, "one", &inside).await, ["/data", "known", "deep", "known", "known"]);
    let secret = folder.path().join("secret").display().to_string();
    for path in [
        "../secret",
        "deep/../../secret",
        "outside",
        "absolute",
        "root/etc/hostname",
        "/etc/hostname",
        "/data/table",
        "..",
        "/proc/self/environ",
        secret.as_str(),
        "table/../../secret",
        "missing",
    ] {
        let found = look(&plugin, "one", &[&format!("read {path}")]).await;
        assert!(found[0].starts_with("ErrorCode "), "{path}: {found:?}");
    }
}

#[tokio::test]
async fn a_folder_that_is_granted_cannot_be_changed() {
    let folder = folder();
    let plugin = with_data(folder.path());
    for attempt in
        ["create new", "create table", "overwrite table", "mkdir new", "unlink table", "rename table", "symlink new"]
    {
        let found = look(&plugin, "one", &[attempt]).await;
        assert!(found[0].starts_with("ErrorCode "), "{attempt}: {found:?}");
    }
    assert_eq!(fs::read_to_string(folder.path().join("data/table")).unwrap(), "known");
    assert_eq!(fs::read_dir(folder.path().join("data")).unwrap().count(), 6);
}

#[tokio::test]
async fn a_folder_is_looked_for_at_each_call() {
    let folder = folder();
    let plugin = with_data(folder.path());
    fs::rename(folder.path().join("data"), folder.path().join("old")).unwrap();
    let called = Calling::new("looks", "read table").run(&plugin).await;
    let Err(error @ CallError::Trap { .. }) = called.report.result else { panic!("{:?}", called.report) };
    assert!(error.to_string().contains("data` (`data`) cannot be opened"), "{error}");
    fs::create_dir(folder.path().join("data")).unwrap();
    fs::write(folder.path().join("data/table"), "new").unwrap();
    assert_eq!(look(&plugin, "one", &["read table"]).await, ["new"]);
}

/// A plugin of the interface that also imports this.
fn importing(wit: &str) -> Vec<u8> {
    let wat = r#"(module
        (memory (export "memory") 1)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
        (import "IMPORT" "f" (func))
        (func (export "process") (param i32) (result i32) (i32.const 0)))"#;
    let (interface, version) = wit.split_once('@').unwrap();
    let (package, name) = interface.split_once('/').unwrap();
    let imports = format!("import {wit}; package {package}@{version} {{ interface {name} {{ f: func(); }} }}");
    // Imports come first in a module.
    let line = r#"(import "IMPORT" "f" (func))"#;
    let wat = wat.replace(line, "").replacen("(module", &format!("(module {}", line.replace("IMPORT", wit)), 1);
    module(&wat, &imports)
}

#[test]
fn sockets_are_refused_whatever_is_granted() {
    for import in ["wasi:sockets/tcp@0.2.0", "wasi:sockets/udp@0.2.9", "wasi:sockets/ip-name-lookup@0.2.3"] {
        for read in [Plugin::load, Plugin::examine] {
            let refused = read(engine(), &Compiler::in_process(), "dials", &importing(import)).unwrap_err();
            assert_eq!(refused, LoadError::Sockets { import: import.to_owned() });
            assert!(refused.to_string().contains("no plugin gets sockets"), "{refused}");
        }
    }
}

#[test]
fn what_a_plugin_asks_for_is_told_with_what_comes_of_it() {
    let plugin = surroundings(Grants { clocks: true, ..Grants::default() });
    let asks: Vec<_> = plugin.asks.iter().map(|ask| (ask.capability, ask.answer)).collect();
    let expected = [
        (Capability::Clocks, Answer::Granted),
        (Capability::Clocks, Answer::Granted),
        (Capability::Data, Answer::Nothing),
        (Capability::Data, Answer::Nothing),
        (Capability::Randomness, Answer::Nothing),
        (Capability::Randomness, Answer::Nothing),
        (Capability::Randomness, Answer::Nothing),
    ];
    assert_eq!(asks, expected, "{:?}", plugin.asks);
    assert_eq!(load(engine(), "copy", &bytes("copy")).asks, []);
}
