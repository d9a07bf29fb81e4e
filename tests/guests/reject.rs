//! Writes the output `{name}.thrown-away`, then rejects the object. Setting: `reason` ("always").

use guests::{Body, Failure, ObjectInfo, Processed};

guests::plugin!(process);

fn process(object: ObjectInfo, _input: Body) -> Processed {
    guests::answer(&object, "thrown-away", "no test may find this")?;
    Err(Failure::Reject(guests::setting("reason").unwrap_or_else(|| "always".into())))
}
