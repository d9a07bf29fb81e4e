//! Makes the inputs of `make demo`: `demo-inputs DIR` fills `DIR` with a handful of files of the kinds that
//! land in real buckets, the same bytes each time.
//!
//! A file that is there already is replaced. Each is written beside `DIR` and renamed into it, so that a
//! host which is watching never sees half of one.

mod picture;
mod table;

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(directory), None) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        eprintln!("usage: demo-inputs DIR");
        std::process::exit(64);
    };
    let photograph = picture::photograph()?;
    let inputs = [
        // An upload that broke off, inside the tables before the first pixel.
        ("photos/broken.jpg", photograph[..300].to_vec()),
        ("photos/harvest.jpg", photograph),
        ("photos/badge.png", picture::badge()?),
        ("tables/deliveries.csv", table::deliveries().into_bytes()),
        ("tables/sensors.ndjson", table::sensors().into_bytes()),
        ("notes for the miller.txt", NOTES.as_bytes().to_vec()),
    ];
    for (name, bytes) in inputs {
        put(&directory, name, &bytes).map_err(|error| format!("cannot write {name}: {error}"))?;
    }
    Ok(())
}

const NOTES: &str = "Grind the wheat fine and the rye coarse.\nThe sacks by the door are paid for.\n";

fn put(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let part = directory.with_extension("part");
    let file = directory.join(name);
    fs::create_dir_all(file.parent().unwrap_or(directory))?;
    fs::write(&part, bytes)?;
    fs::rename(part, file)
}
