//! From a file to a plugin: what is refused and with which words, the compiler and its cache, and the plugin
//! directory.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

mod from_file {
    mod bombs;
    mod cache;
    mod compiler;
    mod directory;
    mod errors;
    mod guests;
    mod mutations;
    mod signatures;
    mod smith;
    mod trust;
}
#[allow(dead_code, reason = "other tests use more of it")]
mod support {
    pub mod guests;
}
