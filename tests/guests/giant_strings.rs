//! Passes one giant string to the host. Settings: `bytes` of it (16777216), and `where` it goes:
//!
//! - `name` (the default), `content-type`, `metadata-key`, `metadata-value`: to `create-output`. When that
//!   refuses, `{name}.refused` says how, cut to 200 characters; else the object is rejected.
//! - `log`: to the log, then writes "logged" to `{name}.went-on`.
//! - `setting`: as the name of a setting, then writes whether there was one to `{name}.went-on`.
//! - `reject`, `retry`, `skip`: as the reason of that.

use guests::{Body, Failure, LogLevel, ObjectInfo, OutputError, Processed, Verdict};

guests::plugin!(process);

fn process(object: ObjectInfo, _input: Body) -> Processed {
    let giant = "x".repeat(guests::number("bytes", 16 << 20)? as usize);
    let target = guests::setting("where").unwrap_or_else(|| "name".into());
    let name = format!("{}.giant", object.name);
    let created = match target.as_str() {
        "name" => guests::create_output(&giant, None, &[]),
        "content-type" => guests::create_output(&name, Some(&format!("text/{giant}")), &[]),
        "metadata-key" => guests::create_output(&name, None, &[(giant, "value".into())]),
        "metadata-value" => guests::create_output(&name, None, &[("key".into(), giant)]),
        "log" => {
            guests::log(LogLevel::Info, &giant);
            return guests::answer(&object, "went-on", "logged");
        }
        "setting" => {
            let found = guests::setting(&giant).is_some();
            return guests::answer(&object, "went-on", &format!("found: {found}"));
        }
        "reject" => return Err(Failure::Reject(giant)),
        "retry" => return guests::retry(&giant, Some(0)),
        "skip" => return Ok(Verdict::Skipped(giant)),
        other => return Err(Failure::Reject(format!("the setting where is {other:?}"))),
    };
    let refusal = match created {
        Ok(_) => return Err(Failure::Reject(format!("a giant {target} was accepted"))),
        Err(OutputError::InvalidName(why)) => format!("invalid-name: {why}"),
        Err(OutputError::InvalidMetadata(why)) => format!("invalid-metadata: {why}"),
        Err(OutputError::DuplicateName) => "duplicate-name".into(),
    };
    guests::answer(&object, "refused", &refusal.chars().take(200).collect::<String>())
}
