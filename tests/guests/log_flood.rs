//! Logs without end. Setting: `bytes` of a line (1024); 0 makes the lines empty.

use guests::{Body, LogLevel, ObjectInfo, Processed};

guests::plugin!(process);

fn process(_object: ObjectInfo, _input: Body) -> Processed {
    let line = "x".repeat(guests::number("bytes", 1024)? as usize);
    loop {
        guests::log(LogLevel::Info, &line);
    }
}
