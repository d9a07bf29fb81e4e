//! Modules that no compiler would make: valid ones of every shape, inside of a component and as plugins. Whatever
//! stands in them, loading ends with a plugin or a reason.

use arbitrary::Unstructured;
use gristmill::plugin::{Compiler, Plugin};
use proptest::prelude::*;
use wasm_smith::{Config, Module};

use super::bombs::wrapped;
use crate::support::guests::{engine, module};

/// With all that the engine has turned on, and for one half with what it has turned off.
fn config(everything: bool) -> Config {
    Config {
        max_memories: 2,
        generate_custom_sections: true,
        allow_invalid_funcs: everything,
        gc_enabled: everything,
        exceptions_enabled: everything,
        threads_enabled: everything,
        tail_call_enabled: everything,
        relaxed_simd_enabled: everything,
        ..Config::default()
    }
}

/// The WIT of a plugin, as it stands behind a module.
fn wit() -> Vec<u8> {
    let bytes = module("(module)", "");
    // What comes before it is the empty module.
    bytes[8..].to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn loading_ends_with_a_plugin_or_a_reason(seed in prop::collection::vec(any::<u8>(), 0..4096), everything: bool) {
        let Ok(made) = Module::new(config(everything), &mut Unstructured::new(&seed)) else { return Ok(()) };
        let made = made.to_bytes();
        for bytes in [wrapped(&made), [made, wit()].concat()] {
            let error = Plugin::load(engine(), &Compiler::in_process(), "made", &bytes).unwrap_err().to_string();
            prop_assert!(!error.chars().any(char::is_control), "{error:?}");
            prop_assert!(error.len() < 5_000, "{} bytes", error.len());
        }
    }
}
