//! Creates empty outputs without end, `{name}.0`, `{name}.1` and so on, and keeps none of the handles.

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

fn process(object: ObjectInfo, _input: Body) -> Processed {
    for number in 0_u64.. {
        guests::output(&object, &number.to_string())?;
    }
    guests::survived(&object, "every number was used")
}
