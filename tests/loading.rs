//! From a file to a plugin: what is refused and with which words, the cache of compiled code, and the plugin
//! directory.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

mod from_file {
    mod cache;
    mod directory;
    mod errors;
    mod guests;
    mod mutations;
}
#[allow(dead_code, reason = "other tests use more of it")]
mod support {
    pub mod guests;
}
