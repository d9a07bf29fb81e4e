//! Counts its calls in a static and writes the count to `{name}.count`: "1" each time, since an instance
//! lives for one object.

use std::sync::atomic::{AtomicU32, Ordering};

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

static CALLS: AtomicU32 = AtomicU32::new(0);

fn process(object: ObjectInfo, _input: Body) -> Processed {
    let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    guests::answer(&object, "count", &calls.to_string())
}
