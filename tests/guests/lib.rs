//! What the scenarios share: the bindings, and [`plugin!`], which makes a function a plugin.
//!
//! A scenario is one file with one `process` function. Each becomes a WASM module of its own, since a
//! Cargo example may be a `cdylib`: `make plugins` puts them into `target/guests/NAME.wasm`. The rules
//! are the same for all:
//!
//! - What a scenario does is in the doc comment on top of its file, with the settings it knows.
//! - A setting that is missing has the default named there; one that is no number is a rejection.
//! - A hostile scenario that the host failed to stop says so with [`survived`]: an output that no test
//!   may find.

#[allow(unsafe_code, missing_docs, clippy::all, reason = "generated from wit/plugin.wit")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "plugin",
        pub_export_macro: true,
        default_bindings_module: "guests::bindings",
    });
}

pub use bindings::{
    Body, Failure, Guest, ObjectInfo, Verdict,
    gristmill::plugin::{
        host::{LogLevel, create_output, log, setting, settings},
        types::{Output, OutputError, RetryLater},
    },
};

/// What a call returns.
pub type Processed = Result<Verdict, Failure>;

/// The bytes that the toys ask for in one call, and the hostile ones write in one.
pub const CHUNK: u32 = 64 << 10;

/// Makes `fn process(object: ObjectInfo, input: Body) -> Processed` the plugin of this file.
#[macro_export]
macro_rules! plugin {
    ($process:path) => {
        struct Plugin;

        impl $crate::Guest for Plugin {
            fn process(object: $crate::ObjectInfo, input: $crate::Body) -> $crate::Processed {
                $process(object, input)
            }
        }

        #[allow(unsafe_code, reason = "the generated export")]
        const _: () = {
    $crate::bindings::export!(Plugin with_types_in $crate::bindings);
        };
    };
}

/// Starts the output `{name}.{suffix}` of `object`.
pub fn output(object: &ObjectInfo, suffix: &str) -> Result<Output, Failure> {
    let name = format!("{}.{suffix}", object.name);
    create_output(&name, None, &[]).map_err(|error| Failure::Reject(format!("cannot create {name}: {error:?}")))
}

/// Makes `text` the output `{name}.{suffix}` of `object`, and is done.
pub fn answer(object: &ObjectInfo, suffix: &str, text: &str) -> Processed {
    output(object, suffix)?.write(text.as_bytes());
    Ok(Verdict::Done)
}

/// Copies the body to `{name}.copy`, and is done.
pub fn copy(object: &ObjectInfo, input: &Body) -> Processed {
    let copy = output(object, "copy")?;
    loop {
        let bytes = input.read(CHUNK);
        if bytes.is_empty() {
            return Ok(Verdict::Done);
        }
        copy.write(&bytes);
    }
}

/// The lines of the body.
pub fn lines(input: &Body) -> Vec<String> {
    let mut bytes = Vec::new();
    loop {
        let more = input.read(CHUNK);
        if more.is_empty() {
            return String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect();
        }
        bytes.extend(more);
    }
}

/// The number that the setting `name` holds, or `default`.
pub fn number(name: &str, default: u64) -> Result<u64, Failure> {
    setting(name).map_or(Ok(default), |text| {
        text.parse().map_err(|_| Failure::Reject(format!("the setting {name} is no number: {text:?}")))
    })
}

/// Gives up with "come back later".
pub fn retry(reason: &str, after_ms: Option<u32>) -> Processed {
    Err(Failure::Retry(RetryLater { reason: reason.into(), after_ms }))
}

/// The host let a hostile guest finish: says so in `{name}.survived`.
pub fn survived(object: &ObjectInfo, what: &str) -> Processed {
    answer(object, "survived", what)
}

/// Traps, as a failed assertion of compiled C does. Natively, where the scenarios are only checked, it
/// panics.
pub fn trap() -> ! {
    #[cfg(target_arch = "wasm32")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_arch = "wasm32"))]
    panic!("trapped")
}

/// Runs for ever without calling the host.
pub fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// `text` as a JSON string, quotes included.
pub fn json_string(text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            c if c.is_control() => json.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}
