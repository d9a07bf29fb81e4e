//! Any bytes as a script of calls of the host: no panic, no limit exceeded, nothing left of a call.

#![no_main]

use std::cell::LazyCell;

use tokio::runtime::{Builder, Runtime};

#[path = "../../support/puppet.rs"]
mod puppet;

thread_local! {
    static RUNTIME: LazyCell<Runtime> =
        LazyCell::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));
}

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    RUNTIME.with(|runtime| runtime.block_on(puppet::play(script)));
});
