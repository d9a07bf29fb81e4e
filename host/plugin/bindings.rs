//! What `wit/plugin.wit` looks like from the host, generated.
#![allow(missing_docs, reason = "the documentation is in wit/plugin.wit")]

wasmtime::component::bindgen!({
    path: "wit",
    world: "plugin",
    imports: { default: async | trappable },
    exports: { default: async },
    with: {
        "gristmill:plugin/types.body": super::imports::BodyHandle,
        "gristmill:plugin/types.output": super::imports::OutputHandle,
    },
});
