//! What the README shows is what there is.

use std::{fs, path::Path, process::Command};

const README: &str = include_str!("../README.md");

#[test]
fn the_first_plugin_is_the_example_and_it_works() {
    let source = include_str!("../examples/shout/src/lib.rs");
    assert!(README.contains(&format!("```rust\n{source}```")), "README.md and examples/shout/src/lib.rs differ");

    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("note.txt");
    fs::write(&input, "mill the grist\n").unwrap();
    let plugin = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/examples/shout.wasm");
    let run = Command::new(env!("CARGO_BIN_EXE_gristmill"))
        .args(["plugin", "run"])
        .args([&plugin, &input])
        .arg("-o")
        .arg(folder.path())
        .env("XDG_CACHE_HOME", folder.path())
        .env("XDG_STATE_HOME", folder.path().join("state"))
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(fs::read_to_string(folder.path().join("note.txt.loud")).unwrap(), "MILL THE GRIST\n");
}

#[test]
fn every_file_that_the_documents_link_to_is_there() {
    for (name, text) in [
        ("README.md", README),
        ("ARCHITECTURE.md", include_str!("../ARCHITECTURE.md")),
        ("CONTRIBUTING.md", include_str!("../CONTRIBUTING.md")),
    ] {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let is_file = !link.starts_with('#') && !link.contains("://");
            assert!(!is_file || Path::new(env!("CARGO_MANIFEST_DIR")).join(link).exists(), "{name} links to {link}");
        }
    }
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let mut named = 0;
    for claim in include_str!("../docs/threat-model.md").split('`').filter(|code| code.starts_with("tests/")) {
        let (file, test) = claim.split_once(": ").map_or((claim, ""), |(file, test)| (file, test));
        let source = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
        let source = source.unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(source.contains(&format!("fn {test}")), "{file} has no test `{test}`");
        named += 1;
    }
    assert!(named > 20, "{named} are left");
}
