//! Calls itself without end.

use std::hint::black_box;

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

fn process(object: ObjectInfo, _input: Body) -> Processed {
    let depth = dive(object.size);
    guests::survived(&object, &depth.to_string())
}

fn dive(depth: u64) -> u64 {
    // The sum keeps this from being a loop; the box keeps the compiler from seeing that it has no end.
    if black_box(depth) == u64::MAX { 0 } else { black_box(dive(depth + 1)) + depth }
}
