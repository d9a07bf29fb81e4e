//! The side that the host sees.

use std::io::{self, Read, Write};

use self::bindings::gristmill::plugin::host::{self, OutputError};
use self::bindings::gristmill::plugin::types::{Body, Failure, ObjectInfo, Output, Verdict};
use crate::{Object, Outputs};

#[allow(unsafe_code, reason = "the generated bindings speak the canonical ABI")]
mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "plugin" });
    export!(Plugin with_types_in self);

    use super::Plugin;
}

/// The most that one call of `write` takes.
const WRITE_BYTES: usize = 16 << 20;

struct Plugin;

impl bindings::Guest for Plugin {
    fn process(object: ObjectInfo, input: Body) -> Result<Verdict, Failure> {
        let known = Object { name: &object.name, content_type: object.content_type.as_deref() };
        match crate::run(known, &host::settings(), BodyReader(input), &mut HostOutputs) {
            Ok(crate::Verdict::Done) => Ok(Verdict::Done),
            Ok(crate::Verdict::Skipped(reason)) => Ok(Verdict::Skipped(reason)),
            Err(reject) => Err(Failure::Reject(reject.0)),
        }
    }
}

/// The object as a reader.
struct BodyReader(Body);

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.read(u32::try_from(buffer.len()).unwrap_or(u32::MAX));
        // The host gives no more than it was asked for.
        let count = bytes.len().min(buffer.len());
        buffer[..count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }
}

struct HostOutputs;

impl Outputs for HostOutputs {
    type Output = OutputWriter;

    fn create(&mut self, name: &str, content_type: &str) -> Result<OutputWriter, String> {
        match host::create_output(name, Some(content_type), &[]) {
            Ok(output) => Ok(OutputWriter(output)),
            Err(OutputError::InvalidName(reason) | OutputError::InvalidMetadata(reason)) => Err(reason),
            Err(OutputError::DuplicateName) => Err("it was made already".to_owned()),
        }
    }
}

/// An output as a writer.
struct OutputWriter(Output);

impl Write for OutputWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(WRITE_BYTES);
        self.0.write(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
