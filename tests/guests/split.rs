//! Writes the first half of the body to `{name}.head` and the rest to `{name}.tail`.

use guests::{Body, ObjectInfo, Processed, Verdict};

guests::plugin!(process);

fn process(object: ObjectInfo, input: Body) -> Processed {
    let half = u32::try_from(object.size / 2).unwrap_or(u32::MAX);
    guests::output(&object, "head")?.write(&input.read_at(0, half));
    guests::output(&object, "tail")?.write(&input.read_at(half.into(), u32::MAX));
    Ok(Verdict::Done)
}
