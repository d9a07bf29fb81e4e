//! Creates outputs without end, and keeps every handle.

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

fn process(object: ObjectInfo, _input: Body) -> Processed {
    let mut handles = Vec::new();
    for number in 0_u64.. {
        handles.push(guests::output(&object, &number.to_string())?);
    }
    guests::survived(&object, &handles.len().to_string())
}
