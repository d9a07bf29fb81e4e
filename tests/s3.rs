//! What is special about a bucket in S3: broken answers, parts, conditions, errors inside a 200.
//!
//! What it has in common with other stores is in `contract_store`.

mod bucket {
    pub mod moving;
    pub mod outputs;
    pub mod reading;
    pub mod refusals;
    pub mod rig;
}
#[allow(dead_code, reason = "other tests use the rest")]
mod support {
    pub mod cloud;
    pub mod faults;
    pub mod memory_store;
    pub mod toys;
}
