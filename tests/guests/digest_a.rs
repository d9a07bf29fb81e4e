//! Version a of a plugin that says which version it is: writes "a" to `{name}.version`. The tests of
//! reloading put it where its sister was.

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

fn process(object: ObjectInfo, _input: Body) -> Processed {
    guests::answer(&object, "version", "a")
}
