//! Writes the first half of the body to `{name}.copy`, then traps.

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

fn process(object: ObjectInfo, input: Body) -> Processed {
    let half = u32::try_from(object.size / 2).unwrap_or(u32::MAX);
    guests::output(&object, "copy")?.write(&input.read(half));
    guests::trap()
}
