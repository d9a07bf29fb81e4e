//! Writes the output `{name}.thrown-away`, then finds that there is nothing to do.

use guests::{Body, ObjectInfo, Processed, Verdict};

guests::plugin!(process);

fn process(object: ObjectInfo, _input: Body) -> Processed {
    guests::answer(&object, "thrown-away", "no test may find this")?;
    Ok(Verdict::Skipped("nothing to do".into()))
}
