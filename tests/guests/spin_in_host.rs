//! Never returns, and spends its time in the host: reads the first byte again and again.

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

fn process(_object: ObjectInfo, input: Body) -> Processed {
    loop {
        input.read_at(0, 1);
    }
}
