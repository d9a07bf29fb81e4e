//! Asks for more than it may have, and for odd amounts, and writes what came back to `{name}.reads`, a
//! line each:
//!
//! - `read-at 0 4294967295: N` (N is how many bytes came)
//! - `read-at 18446744073709551615 4294967295: N`
//! - `read-at SIZE 1: N`, `read-at 0 0: N`
//! - `read 0: N`: the first bytes, 1 at least unless the object is empty
//! - `read 4294967295: most N, sum M`: the longest of the reads to the end, and the sum of all `read`s
//! - `read after the end: N`

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

fn process(object: ObjectInfo, input: Body) -> Processed {
    let mut lines = String::new();
    for (offset, len) in [(0, u32::MAX), (u64::MAX, u32::MAX), (object.size, 1), (0, 0)] {
        let bytes = input.read_at(offset, len);
        lines.push_str(&format!("read-at {offset} {len}: {}\n", bytes.len()));
    }
    let mut sum = input.read(0).len();
    lines.push_str(&format!("read 0: {sum}\n"));
    let mut most = 0;
    loop {
        let bytes = input.read(u32::MAX);
        if bytes.is_empty() {
            break;
        }
        most = most.max(bytes.len());
        sum += bytes.len();
    }
    lines.push_str(&format!("read {}: most {most}, sum {sum}\n", u32::MAX));
    lines.push_str(&format!("read after the end: {}\n", input.read(u32::MAX).len()));
    guests::answer(&object, "reads", &lines)
}
