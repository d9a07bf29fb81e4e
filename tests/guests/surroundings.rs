//! Looks at what there is of WASI, as its object says, one thing a line, and tells in `{name}.found`:
//!
//! - `environment`, `folders`: what there is.
//! - `wall`, `monotonic`: the clocks, in nanoseconds. `sleep MS`: waits.
//! - `random`, `insecure`, `seed`: 16 bytes of each.
//! - `read PATH`, `create PATH`, `overwrite PATH`, `mkdir PATH`, `unlink PATH`, `rename PATH`, `symlink PATH`: in the
//!   first folder.

use guests::{Body, ObjectInfo, Processed, Verdict};

#[allow(unsafe_code, missing_docs, clippy::all, reason = "generated from surroundings.wit")]
mod bindings {
    wit_bindgen::generate!({ path: "surroundings.wit", world: "surroundings", generate_all });
}

use bindings::wasi::{
    cli::environment::{get_arguments, get_environment},
    clocks::{monotonic_clock, wall_clock},
    filesystem::{
        preopens::get_directories,
        types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags},
    },
    random::{insecure::get_insecure_random_bytes, insecure_seed::insecure_seed, random::get_random_bytes},
};

guests::plugin!(process);

fn process(object: ObjectInfo, input: Body) -> Processed {
    let found = guests::output(&object, "found")?;
    for line in guests::lines(&input) {
        let (what, argument) = line.split_once(' ').unwrap_or((&line, ""));
        found.write(format!("{what} {}\n", look(what, argument)).as_bytes());
    }
    Ok(Verdict::Done)
}

fn look(what: &str, argument: &str) -> String {
    match what {
        "environment" => format!("{:?} {:?}", get_environment(), get_arguments()),
        "folders" => get_directories().iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(" "),
        "wall" => {
            let now = wall_clock::now();
            (u128::from(now.seconds) * 1_000_000_000 + u128::from(now.nanoseconds)).to_string()
        }
        "monotonic" => monotonic_clock::now().to_string(),
        "sleep" => {
            let milliseconds: u64 = argument.parse().unwrap_or_default();
            monotonic_clock::subscribe_duration(milliseconds * 1_000_000).block();
            "slept".into()
        }
        "random" => format!("{:02x?}", get_random_bytes(16)),
        "insecure" => format!("{:02x?}", get_insecure_random_bytes(16)),
        "seed" => format!("{:x?}", insecure_seed()),
        _ => match get_directories().first() {
            Some((folder, _)) => in_folder(folder, what, argument).unwrap_or_else(|error| format!("{error:?}")),
            None => "no folder".into(),
        },
    }
}

fn in_folder(folder: &Descriptor, what: &str, path: &str) -> Result<String, ErrorCode> {
    let open = |open, flags| folder.open_at(PathFlags::SYMLINK_FOLLOW, path, open, flags);
    match what {
        "read" => {
            let (bytes, _) = open(OpenFlags::empty(), DescriptorFlags::READ)?.read(1000, 0)?;
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        "create" => drop(open(OpenFlags::CREATE, DescriptorFlags::WRITE)?),
        "overwrite" => drop(open(OpenFlags::empty(), DescriptorFlags::READ)?.write(b"x", 0)?),
        "mkdir" => folder.create_directory_at(path)?,
        "unlink" => folder.unlink_file_at(path)?,
        "rename" => folder.rename_at(path, folder, "renamed")?,
        "symlink" => folder.symlink_at("target", path)?,
        other => return Ok(format!("what is {other}?")),
    }
    Ok("done".into())
}
