//! A guest that no test calls is one that nobody would miss when it no longer does what it says.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_guest_has_a_test_that_calls_it() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let guests = tests.join("guests");
    let is_source = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let folders = files(&tests).into_iter().filter(|path| path.is_dir() && *path != guests);
    let sources: String = folders
        .flat_map(|folder| files(&folder))
        .chain(files(&tests))
        .filter(is_source)
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let scenarios: Vec<PathBuf> =
        files(&guests).into_iter().filter(is_source).filter(|path| !path.ends_with("lib.rs")).collect();
    assert!(scenarios.len() > 20, "{scenarios:?}");
    for scenario in scenarios {
        let name = scenario.file_stem().unwrap().to_str().unwrap().replace('_', "-");
        assert!(sources.contains(&format!("\"{name}\"")), "no test names the guest {name}");
        assert!(crate::support::guests::path(&name).is_file(), "{name} is not built; run `make plugins`");
    }
}
