//! The one place that loads compiled code, which runs it as part of this process.
#![allow(unsafe_code, reason = "`Component::deserialize` trusts its bytes")]

use wasmtime::component::Component;

/// Machine code made by this process, or read back from the cache.
///
/// Only `compile.rs` makes one: from what the compiler has just returned, or from a file of the private
/// cache folder, whose owner and mode it has checked.
pub(super) struct CompiledCode(pub(super) Vec<u8>);

impl CompiledCode {
    pub(super) fn load(&self, engine: &wasmtime::Engine) -> wasmtime::Result<Component> {
        // SAFETY: the bytes were produced by `Engine::precompile_component` and have since been only in
        // this process's memory or in a folder that nobody else can write to; see the type's contract.
        // wasmtime itself refuses bytes of another version or configuration.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}
