//! The worker and its leases, on the fakes, under a clock that jumps.

mod deliveries {
    pub mod admission;
    pub mod lease;
    pub mod polling;
    pub mod rig;
    pub mod settling;
    pub mod shutdown;
}
#[allow(dead_code, reason = "the simulation uses more of it")]
mod support {
    pub mod faults;
    pub mod memory_queue;
    pub mod memory_store;
    pub mod toys;
}
