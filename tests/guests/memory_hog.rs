//! Allocates and touches 1 MiB after the other, without end.

use std::hint::black_box;

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

fn process(_object: ObjectInfo, _input: Body) -> Processed {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(vec![1u8; 1 << 20]));
    }
}
