//! Done at once: reads nothing, writes nothing.

use guests::{Body, ObjectInfo, Processed, Verdict};

guests::plugin!(process);

fn process(_object: ObjectInfo, _input: Body) -> Processed {
    Ok(Verdict::Done)
}
