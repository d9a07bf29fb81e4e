//! Works for a while, then copies the body to `{name}.copy`. Setting: `rounds`, in millions (1000: about
//! a quarter of a second).

use std::hint::black_box;

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

fn process(object: ObjectInfo, input: Body) -> Processed {
    for round in 0..guests::number("rounds", 1000)? * 1_000_000 {
        black_box(round);
    }
    guests::copy(&object, &input)
}
