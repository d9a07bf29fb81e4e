//! Modules in the text format, made into plugins.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::path::Path;

/// A core module that carries its WIT: the plugin's world with these imports in addition.
///
/// `imports` is WIT of statements `import wasi:cli/environment@0.2.0;` and of the packages that they name.
pub fn module(wat: &str, imports: &str) -> Vec<u8> {
    use wit_component::{DecodedWasm, StringEncoding, decode, embed_component_metadata};

    let (statements, packages) = imports.split_at(imports.find("package").unwrap_or(imports.len()));
    let wit =
        format!("package test:guest; {packages} world guest {{ include gristmill:plugin/plugin@0.1.0; {statements} }}");
    // The shortest way to a resolver without a dependency on wit-parser.
    let Ok(DecodedWasm::Component(mut resolve, _)) = decode(b"\0asm\x0d\0\x01\0") else {
        panic!("the empty component was not one")
    };
    let mut wit_of_plugins = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|folder| folder.join("wit"));
    // The fuzz targets are a package of their own, further down.
    resolve.push_dir(wit_of_plugins.find(|folder| folder.is_dir()).unwrap()).unwrap();
    let package = resolve.push_str("guest.wit", &wit).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    let mut module = wat::parse_str(wat).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    module
}
