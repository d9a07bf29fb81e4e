//! Damaged files: whatever stands in them, loading ends with a plugin or a reason.

use std::sync::LazyLock;

use gristmill::plugin::{Compiler, Plugin};
use proptest::prelude::*;

use crate::support::guests::{bytes, engine, module};

/// A core module and a component, both small enough to be compiled in no time.
static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let wat = r#"(module
        (import "gristmill:plugin/host@0.1.0" "settings" (func (param i32)))
        (memory (export "memory") 2)
        (data (i32.const 0) "data")
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
        (func (export "process") (param i32) (result i32) (i32.const 1024)))"#;
    let core = module(wat, "");
    let encode = || wit_component::ComponentEncoder::default().module(&core)?.encode();
    let component = encode().unwrap();
    vec![core, component, bytes("nothing")]
});

#[derive(Debug, Clone)]
enum Mutation {
    Set(usize, u8),
    Remove(usize, usize),
    Repeat(usize, usize),
    Cut(usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    // Most of what matters stands at the start.
    let at = prop_oneof![8..64_usize, any::<usize>()];
    prop_oneof![
        4 => (at.clone(), any::<u8>()).prop_map(|(at, to)| Mutation::Set(at, to)),
        1 => (at.clone(), 1..20_usize).prop_map(|(at, len)| Mutation::Remove(at, len)),
        1 => (at.clone(), 1..200_usize).prop_map(|(at, len)| Mutation::Repeat(at, len)),
        1 => at.prop_map(Mutation::Cut),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let within = |at: usize| at % bytes.len().max(1);
    let range = |at: usize, len: usize| within(at)..(within(at) + len).min(bytes.len());
    match *mutation {
        Mutation::Set(at, to) => {
            let at = within(at);
            bytes.splice(at..(at + 1).min(bytes.len()), [to]);
        }
        Mutation::Remove(at, len) => drop(bytes.drain(range(at, len))),
        Mutation::Repeat(at, len) => bytes.extend_from_within(range(at, len)),
        Mutation::Cut(at) => bytes.truncate(within(at)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn loading_never_panics(seed in any::<prop::sample::Index>(), mutations in prop::collection::vec(mutation(), 1..4)) {
        let mut bytes = seed.get(&SEEDS).clone();
        for mutation in &mutations {
            mutate(&mut bytes, mutation);
        }
        if let Err(error) = Plugin::load(engine(), &Compiler::in_process(), "mutated", &bytes) {
            let text = error.to_string();
            prop_assert!(!text.chars().any(char::is_control), "{text:?}");
            prop_assert!(text.len() < 5_000, "{} bytes", text.len());
        }
    }
}
