//! Copies the body to `{name}.copy` in chunks of 64 KiB.

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

fn process(object: ObjectInfo, input: Body) -> Processed {
    guests::copy(&object, &input)
}
