//! Writes to one output, `{name}.flood`, without end. Setting: `bytes` of a call (65536); 0 makes it
//! calls that write nothing, without end.

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

fn process(object: ObjectInfo, _input: Body) -> Processed {
    let bytes = vec![b'x'; guests::number("bytes", guests::CHUNK.into())? as usize];
    let flood = guests::output(&object, "flood")?;
    loop {
        flood.write(&bytes);
    }
}
