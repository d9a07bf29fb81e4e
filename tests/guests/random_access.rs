//! Reads the body from start to end in chunks of 1 to 64 KiB, with a `read-at` somewhere between each
//! two, then compares what both saw. All the same: writes "N reads agree" to `{name}.checked`. Else:
//! rejects, naming the first offset that differs. Keeps the body in memory: not for large objects.

use guests::{Body, CHUNK, Failure, ObjectInfo, Processed};

guests::plugin!(process);

fn process(object: ObjectInfo, input: Body) -> Processed {
    let mut whole = Vec::new();
    let mut peeks = Vec::new();
    let mut random = Random(object.size | 1);
    loop {
        let chunk = input.read(random.below(CHUNK.into()) as u32 + 1);
        // Offsets and lengths that also reach past the end.
        let (offset, len) = (random.below(object.size + 10), random.below(100_000));
        peeks.push((offset, len, input.read_at(offset, len as u32)));
        if chunk.is_empty() {
            break;
        }
        whole.extend_from_slice(&chunk);
    }
    if whole.len() as u64 != object.size {
        return Err(Failure::Reject(format!("read {} of {} bytes", whole.len(), object.size)));
    }
    if !input.read(CHUNK).is_empty() {
        return Err(Failure::Reject("bytes after the end".into()));
    }
    for (offset, len, bytes) in &peeks {
        let end = offset.saturating_add(*len).min(object.size) as usize;
        let expected = whole.get(*offset as usize..end).unwrap_or_default();
        if bytes != expected {
            return Err(Failure::Reject(format!("read-at {offset}, {len} differs: {} bytes", bytes.len())));
        }
    }
    guests::answer(&object, "checked", &format!("{} reads agree", peeks.len()))
}

/// Xorshift: the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
