//! The worker on an unreliable queue and an unreliable bucket, under a clock that jumps.
//!
//! `seeds` draws uploads, faults and crashes from a number: thousands of short lives of a host, each of which
//! has to end with everything accounted for. `crash_points` crashes at every single call instead.

mod lives {
    pub mod crash_points;
    pub mod life;
    pub mod seeds;
    pub mod switch;
}
#[allow(dead_code, reason = "other tests use the rest")]
mod support {
    pub mod faults;
    pub mod ledger;
    pub mod memory_queue;
    pub mod memory_store;
    pub mod toys;
}
