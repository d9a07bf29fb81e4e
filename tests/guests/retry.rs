//! Writes the output `{name}.thrown-away`, then wants to be called again, each time, with the reason
//! "not yet". Setting: `after-ms` (none: the host's own back-off).

use guests::{Body, ObjectInfo, Processed};

guests::plugin!(process);

fn process(object: ObjectInfo, _input: Body) -> Processed {
    guests::answer(&object, "thrown-away", "no test may find this")?;
    let after_ms = guests::number("after-ms", u64::MAX)?;
    guests::retry("not yet", u32::try_from(after_ms).ok())
}
