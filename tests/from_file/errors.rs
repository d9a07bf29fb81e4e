//! Each way in which a file can be no plugin, and what a person is told.

use gristmill::plugin::{Cache, Compiler, Digest, LoadError, Plugin, Verdict};

use crate::support::guests::{Calling, bytes, engine, hand_written, load, module, private_folder};

fn refused(bytes: &[u8]) -> LoadError {
    match Plugin::load(engine(), &Compiler::in_process(), "refused", bytes) {
        Ok(plugin) => panic!("{plugin:?} was loaded"),
        Err(error) => error,
    }
}

fn refused_wat(wat: &str) -> LoadError {
    refused(&wat::parse_str(wat).unwrap())
}

/// A component with these parts and a `process` of a wrong type.
fn component(parts: &str) -> String {
    format!(
        r#"(component {parts}
            (core module $m (func (export "f") (result i32) (i32.const 1)))
            (core instance $i (instantiate $m))
            (func (export "process") (result u32) (canon lift (core func $i "f"))))"#
    )
}

#[test]
fn an_empty_file() {
    assert_eq!(refused(b""), LoadError::Empty);
}

#[test]
fn text() {
    let error = refused("#!/bin/sh\nrm -rf\n".as_bytes());
    assert_eq!(error, LoadError::NotWasm("#!/bin/s".into()));
    assert_eq!(error.to_string(), "is not WebAssembly: it starts with `#!/bin/s`, not with `\\0asm`");
    // What is shown of it cannot steer a terminal.
    assert_eq!(refused(b"\x1b[2J\xff\n"), LoadError::NotWasm("\\u{1b}[2J\u{fffd}\\n".into()));
    // Text of a module is text.
    assert_eq!(refused(b"(module)"), LoadError::NotWasm("(module)".into()));
    // A version of the format that nobody knows.
    assert!(matches!(refused(b"\0asm\x07\0\0\0"), LoadError::NotWasm(_)));
}

#[test]
fn a_truncated_plugin() {
    let whole = bytes("copy");
    let cuts = (1..20).chain((1..=20).map(|part| whole.len() * part / 21)).chain([whole.len() - 1]);
    for cut in cuts {
        let error = refused(&whole[..cut]);
        let fits = match cut {
            // The magic number is not whole.
            ..8 => matches!(error, LoadError::NotWasm(_)),
            // The WIT stands at the end, so most cuts leave none of it.
            _ => matches!(error, LoadError::NoMetadata | LoadError::Componentize(_)),
        };
        assert!(fits, "cut at {cut} of {}: {error:?}", whole.len());
    }
}

#[test]
fn a_truncated_component() {
    let whole = wat::parse_str(component("")).unwrap();
    for cut in 8..whole.len() {
        let error = refused(&whole[..cut]);
        // Between two sections a part of a component is one.
        let fits = matches!(error, LoadError::Invalid(_) | LoadError::NoProcess(_) | LoadError::Misfit(_));
        assert!(fits, "cut at {cut}: {error:?}");
    }
}

#[test]
fn compiled_code() {
    let parent = tempfile::tempdir().unwrap();
    let folder = private_folder(parent.path());
    let cache = Cache::open(&folder, &parent.path().join("cache.key")).unwrap();
    let compiler = Compiler::in_process().with_cache(Some(cache));
    Plugin::load(engine(), &compiler, "nothing", &bytes("nothing")).unwrap();
    let entry = folder.read_dir().unwrap().next().unwrap().unwrap().path();
    let code = std::fs::read(entry).unwrap().split_off(super::cache::MAC);
    let error = refused(&code);
    assert_eq!(error, LoadError::Precompiled);
    assert!(error.to_string().starts_with("is already compiled code"), "{error}");
}

#[test]
fn a_core_module_without_wit() {
    assert_eq!(refused_wat(r#"(module (func (export "process")))"#), LoadError::NoMetadata);
}

#[test]
fn a_core_module_that_does_not_do_what_its_wit_says() {
    let error = refused(&module("(module)", ""));
    assert!(matches!(&error, LoadError::Componentize(detail) if detail.contains("process")), "{error:?}");
    assert!(error.to_string().starts_with("cannot be made a component: "), "{error}");
    let import = r#"(module (import "env" "system" (func (param i32) (result i32))))"#;
    let error = refused(&module(import, ""));
    assert!(matches!(&error, LoadError::Componentize(detail) if detail.contains("env")), "{error:?}");
}

#[test]
fn a_component_without_process() {
    let error = refused_wat("(component)");
    assert!(matches!(&error, LoadError::NoProcess(detail) if detail.contains("`process`")), "{error:?}");
    assert!(error.to_string().starts_with("exports no `process`, so it is not a plugin: "), "{error}");
}

#[test]
fn an_import_that_is_not_there() {
    for wat in [
        r#"(component (import "acme:gpu/blit" (instance (export "blit" (func)))))"#.to_owned(),
        component(r#"(import "acme:gpu/blit" (instance (export "blit" (func))))"#),
    ] {
        let error = refused_wat(&wat);
        let LoadError::MissingImport { import, detail } = &error else { panic!("{error:?}") };
        assert_eq!(import, "acme:gpu/blit");
        // wasmtime's own words come after.
        assert!(detail.contains("acme:gpu/blit"), "{detail}");
        assert_eq!(error.to_string(), format!("imports `acme:gpu/blit`, which this host does not offer: {detail}"));
    }
    for import in ["wasi:http/outgoing-handler@0.2.0", "wasi:keyvalue/store@0.2.0-draft"] {
        let error = refused_wat(&component(&format!(r#"(import "{import}" (instance (export "f" (func))))"#)));
        assert!(matches!(&error, LoadError::MissingImport { import: named, .. } if named == import), "{error:?}");
    }
}

#[test]
fn the_import_that_is_named_is_the_one_that_is_missing() {
    // One that begins with the name of another, and one that a patch of the interface has nothing to do with.
    let compatible = r#"(import "gristmill:plugin/types@0.1.7" (instance (export "body" (type (sub resource)))))"#;
    let environment = r#"(import "wasi:cli/environment@0.2.0" (instance
        (export "get-arguments" (func (result (list string))))))"#;
    for missing in ["acme:gpu/blit", "zoo:gpu/blit", "wasi:cli/environment@0.2.0-x"] {
        let import = format!(r#"(import "{missing}" (instance (export "blit" (func))))"#);
        let error = refused_wat(&component(&format!("{compatible} {environment} {import}")));
        assert!(matches!(&error, LoadError::MissingImport { import, .. } if import == missing), "{error:?}");
    }
}

#[test]
fn another_version_of_the_interface() {
    let error = refused_wat(
        r#"(component (import "gristmill:plugin/types@9.0.0" (instance (export "body" (type (sub resource))))))"#,
    );
    assert!(matches!(&error, LoadError::WrongVersion { built_for, .. } if built_for == "9.0.0"), "{error:?}");
    let expected = "was built for version 9.0.0 of gristmill:plugin, and this host serves 0.1.0: ";
    assert!(error.to_string().starts_with(expected), "{error}");
}

#[test]
fn right_names_with_wrong_types() {
    let error = refused_wat(&component(""));
    assert!(matches!(&error, LoadError::Misfit(_)), "{error:?}");
    assert!(error.to_string().starts_with("does not fit the interface of this host: "), "{error}");
    let import = r#"(import "gristmill:plugin/host@0.1.0" (instance (export "settings" (func (param "x" u32)))))"#;
    let error = refused_wat(&component(import));
    assert!(matches!(&error, LoadError::Misfit(detail) if detail.contains("settings")), "{error:?}");
}

#[test]
fn features_that_are_turned_off() {
    for (feature, wat) in [
        ("memory64", "(module (memory i64 1))"),
        ("threads", "(module (memory 1 1 shared))"),
        ("gc", "(module (type (struct (field i32))))"),
        ("function references", "(module (type $f (func)) (func (param (ref $f))))"),
        ("exceptions", "(module (tag))"),
        ("multi-memory", "(module (memory 1) (memory 1))"),
        ("tail calls", "(module (func $f return_call $f))"),
        (
            "relaxed SIMD",
            "(module (func (result v128) (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0))))",
        ),
    ] {
        let error = refused_wat(&component(&wat.replacen("(module", "(core module", 1)));
        assert!(matches!(error, LoadError::Invalid(_)), "{feature}: {error:?}");
        assert!(error.to_string().starts_with("is not valid WebAssembly for this host: "), "{feature}: {error}");
    }
}

#[test]
fn more_than_the_pool_can_hold() {
    for module in [
        // 2 GiB at the start.
        "(core module (memory 32768))".to_owned(),
        "(core module (table 1000000 funcref))".to_owned(),
    ] {
        let error = refused_wat(&component(&format!("{module} (core instance (instantiate 0))")));
        assert!(matches!(error, LoadError::Invalid(_)), "{module}: {error:?}");
    }
    let many = "(core instance (instantiate 0))".repeat(40);
    let error = refused_wat(&component(&format!("(core module) {many}")));
    assert!(matches!(error, LoadError::Invalid(_)), "{error:?}");
}

#[test]
fn what_the_tools_say_is_cut_and_escaped() {
    let name = format!("a{}", "b".repeat(10_000));
    let error = refused_wat(&component(&format!(r#"(import "{name}:x/y" (instance (export "f" (func))))"#)));
    assert!(error.to_string().len() < 10_000, "{} bytes", error.to_string().len());
    assert!(!error.to_string().contains('\n'), "{error}");
}

#[test]
fn a_plugin_says_what_it_is() {
    let plugin = load(engine(), "copy", &bytes("copy"));
    assert_eq!((plugin.name.as_str(), plugin.interface.as_str()), ("copy", "0.1.0"));
    assert_eq!(plugin.size, bytes("copy").len() as u64);
    assert_eq!(plugin.digest, Digest::of(&bytes("copy")));
    assert_eq!(plugin.imports, ["gristmill:plugin/host@0.1.0", "gristmill:plugin/types@0.1.0"]);
    assert_eq!(plugin.version().digest, plugin.digest.to_string());
}

/// Asks WASI for the environment and traps when it is not empty.
const ENVIRONMENT: &str = r#"(module
    (import "wasi:cli/environment@0.2.0" "get-environment" (func $environment (param i32)))
    (import "wasi:cli/environment@0.2.0" "get-arguments" (func $arguments (param i32)))
    (memory (export "memory") 2)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
    (func (export "process") (param i32) (result i32)
        (call $environment (i32.const 0))
        (call $arguments (i32.const 8))
        (if (i32.load (i32.const 4)) (then unreachable))
        (if (i32.load (i32.const 12)) (then unreachable))
        (i32.const 1024)))"#;

const ENVIRONMENT_WIT: &str = "import wasi:cli/environment@0.2.0; package wasi:cli@0.2.0 { interface environment { \
    get-environment: func() -> list<tuple<string, string>>; get-arguments: func() -> list<string>; } }";

#[tokio::test]
async fn a_plugin_whose_runtime_needs_wasi_gets_an_empty_one() {
    let plugin = load(engine(), "environment", &module(ENVIRONMENT, ENVIRONMENT_WIT));
    assert!(plugin.imports.contains(&"wasi:cli/environment@0.2.0".to_owned()), "{:?}", plugin.imports);
    assert!(std::env::vars().next().is_some(), "the host itself has one");
    let called = Calling::new("cat.jpg", "meow").run(&plugin).await;
    assert!(matches!(called.report.result, Ok(Verdict::Done)), "{:?}", called.report);
}

#[tokio::test]
async fn a_plugin_may_import_nothing_at_all() {
    let plugin = hand_written(
        r#"(module (memory (export "memory") 2)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
            (func (export "process") (param i32) (result i32) (i32.const 1024)))"#,
    );
    let called = Calling::new("cat.jpg", "meow").run(&plugin).await;
    assert!(matches!(called.report.result, Ok(Verdict::Done)), "{:?}", called.report);
}
