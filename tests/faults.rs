//! The worker over the SDK's own clients, and a server that fails, hangs up, forgets, or does half of what
//! it says. However bad it was: an auditor finds every object in exactly one of the places where it may be,
//! and what it took was not many more calls than without faults.

#[allow(dead_code, reason = "other tests use the rest")]
mod support {
    pub mod audited;
    pub mod cloud;
    pub mod ledger;
    pub mod remote;
    pub mod toys;
}
mod troubles {
    pub mod bodies;
    pub mod chance;
    pub mod leases;
    pub mod outages;
    pub mod rig;
}
