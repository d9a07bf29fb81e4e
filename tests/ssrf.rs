//! Requests of plugins: they go to the servers that were granted, at addresses that may be had, and nowhere else,
//! whatever a plugin, a server or a resolver makes of it.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

mod outbound {
    mod addresses;
    mod bounds;
    mod rig;
    mod servers;
    mod whole;
}
#[allow(dead_code, reason = "other tests use more of it")]
mod support {
    pub mod guests;
    pub mod host;
}
