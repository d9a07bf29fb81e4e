//! Embeds the built-in plugins when `make plugins` has built them.

use std::{env, error::Error, fmt::Write as _, fs, path::PathBuf};

const NAMES: [&str; 3] = ["parse", "passthrough", "resize"];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("target/plugins");
    // Cargo looks at a watched folder's files too, so plugins that are built later are picked up.
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut code =
        String::from("/// Name and bytes of each built-in plugin.\nstatic BUILT_IN: &[(&str, &[u8])] = &[\n");
    for name in NAMES {
        let path = folder.join(name).with_extension("wasm");
        if path.is_file() {
            println!("cargo::rerun-if-changed={}", path.display());
            writeln!(code, "    ({name:?}, include_bytes!({:?})),", path.display().to_string())?;
        }
    }
    code.push_str("];\n");
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("built_in.rs"), code)?;
    Ok(())
}
