//! From the bytes of a plugin file to machine code, wherever that happens.

use std::borrow::Cow;

use wit_component::ComponentEncoder;

use super::super::{
    LoadError,
    headroom::with_headroom,
    load::{MAX_DETAIL, detail},
};
use crate::text;

/// First bytes of a core module and of a component.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// Where tools put the WIT of a core module: a custom section of a name that starts like this.
const WIT_SECTION: &[u8] = b"component-type";

/// What can be said of a file without reading its structure.
pub fn glance(bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty);
    }
    if wasmtime::Engine::detect_precompiled(bytes).is_some() {
        return Err(LoadError::Precompiled);
    }
    if bytes.starts_with(COMPONENT) {
        return Ok(());
    }
    if !bytes.starts_with(CORE_MODULE) {
        let head = &bytes[..bytes.len().min(8)];
        return Err(LoadError::NotWasm(text::printable(&String::from_utf8_lossy(head), 32)));
    }
    if !bytes.windows(WIT_SECTION.len()).any(|window| window == WIT_SECTION) {
        return Err(LoadError::NoMetadata);
    }
    Ok(())
}

/// Machine code for an engine like this one.
pub fn translate(engine: &wasmtime::Engine, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    glance(bytes)?;
    let component = componentize(bytes)?;
    engine.precompile_component(&with_headroom(&component)).map_err(|error| LoadError::Invalid(detail(&error)))
}

/// A component as it is; a core module made into one from the WIT that it carries.
fn componentize(bytes: &[u8]) -> Result<Cow<'_, [u8]>, LoadError> {
    if bytes.starts_with(COMPONENT) {
        return Ok(bytes.into());
    }
    let encode = || ComponentEncoder::default().validate(true).module(bytes)?.encode();
    let component =
        encode().map_err(|error| LoadError::Componentize(text::printable(&format!("{error:#}"), MAX_DETAIL)))?;
    Ok(component.into())
}
