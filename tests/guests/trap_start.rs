//! Never gets as far as `process`: its initialiser traps.

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

#[allow(unsafe_code, reason = "the name that makes it the initialiser of a module")]
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    guests::trap();
}

fn process(object: ObjectInfo, _input: Body) -> Processed {
    guests::survived(&object, "the initialiser was not called")
}
