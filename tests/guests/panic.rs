//! Panics before it has written anything.

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

fn process(object: ObjectInfo, _input: Body) -> Processed {
    panic!("no luck with {}", object.key)
}
