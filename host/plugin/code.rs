//! The one place that loads compiled code, which runs it as part of this process.
#![allow(unsafe_code, reason = "`Component::deserialize` trusts its bytes")]

use wasmtime::component::Component;

/// Machine code made by this program's compiler, or read back from the cache.
///
/// Only two make one: `compiler/`, from what this program's own compiler has just returned, and `cache.rs`, from an
/// entry that carries the code of authentication of this host's key.
pub(super) struct CompiledCode(pub(super) Vec<u8>);

impl CompiledCode {
    pub(super) fn load(&self, engine: &wasmtime::Engine) -> wasmtime::Result<Component> {
        // SAFETY: the bytes were produced by `Engine::precompile_component`, in this process or in a child that
        // runs the same program, and have since been only in this user's memory, or beside a MAC that only this
        // user can make; see the type's contract. wasmtime itself refuses bytes of another version or
        // configuration.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}
