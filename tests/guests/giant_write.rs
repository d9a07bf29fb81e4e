//! Writes one giant chunk to `{name}.giant` in a single call, and is done. Setting: `bytes` of it
//! (67108864; the most for one call is 16777216).

use guests::{Body, ObjectInfo, Processed, Verdict};

guests::plugin!(process);

fn process(object: ObjectInfo, _input: Body) -> Processed {
    let bytes = vec![b'x'; guests::number("bytes", 64 << 20)? as usize];
    guests::output(&object, "giant")?.write(&bytes);
    Ok(Verdict::Done)
}
