//! Asks for 3 GiB of memory in one step. Where the host only says no, instead of ending the call, it goes
//! on as if nothing had happened: `{name}.survived` says "refused" or "granted".

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

fn process(object: ObjectInfo, _input: Body) -> Processed {
    guests::survived(&object, if grow(3 << 14) { "granted" } else { "refused" })
}

#[cfg(target_arch = "wasm32")]
fn grow(pages: usize) -> bool {
    core::arch::wasm32::memory_grow::<0>(pages) != usize::MAX
}

#[cfg(not(target_arch = "wasm32"))]
fn grow(_pages: usize) -> bool {
    false
}
