//! Wants to be called again while the attempt is below the setting `until` (3), after writing half of
//! `{name}.copy`; from then on copies like `copy`. Settings: `until`; `after-ms` (0).

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

fn process(object: ObjectInfo, input: Body) -> Processed {
    if u64::from(object.attempt) >= guests::number("until", 3)? {
        return guests::copy(&object, &input);
    }
    let half = u32::try_from(object.size / 2).unwrap_or(u32::MAX);
    guests::output(&object, "copy")?.write(&input.read(half));
    let after_ms = guests::number("after-ms", 0)?;
    guests::retry(&format!("attempt {} fails", object.attempt), u32::try_from(after_ms).ok())
}
