//! Writes the body to `{name}.upper` with its ASCII letters in upper case, as `text/plain`.

use guests::{Body, CHUNK, Failure, ObjectInfo, Processed, Verdict};

guests::plugin!(process);

fn process(object: ObjectInfo, input: Body) -> Processed {
    let name = format!("{}.upper", object.name);
    let upper = guests::create_output(&name, Some("text/plain"), &[("case".into(), "upper".into())])
        .map_err(|error| Failure::Reject(format!("cannot create {name}: {error:?}")))?;
    loop {
        let mut bytes = input.read(CHUNK);
        if bytes.is_empty() {
            return Ok(Verdict::Done);
        }
        bytes.make_ascii_uppercase();
        upper.write(&bytes);
    }
}
