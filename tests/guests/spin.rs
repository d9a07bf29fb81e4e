//! Never returns, and never calls the host.

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

fn process(_object: ObjectInfo, _input: Body) -> Processed {
    guests::spin()
}
