//! Any bytes as a plugin file: a plugin or a reason, and no panic. Without a child, so that the fuzzer sees inside.

#![no_main]

use std::sync::LazyLock;

use gristmill::plugin::{Compiler, Engine, Plugin};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static ENGINE: LazyLock<std::sync::Arc<Engine>> = LazyLock::new(|| match Engine::new(1) {
        Ok(engine) => engine,
        Err(error) => panic!("{error}"),
    });
    if let Err(error) = Plugin::load(&ENGINE, &Compiler::in_process(), "fuzzed", bytes) {
        assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
    }
});
