//! What the host does when a guest calls it.
//!
//! An error from here ends the call: the guest never sees it, and `invoke.rs` finds it again as the
//! cause of the trap.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::{HasSelf, Linker, Resource, ResourceTable, ResourceType};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::{
    INTERFACE_VERSION,
    bindings::{
        self,
        gristmill::plugin::{
            host::{Host, LogLevel},
            types::OutputError,
        },
    },
    clock::{Clock, ClockView},
    http::Requests,
    invoke::CreatedOutput,
    limits::Budget,
};
use crate::{
    io::{Body, OutputMeta, Outputs},
    key, text,
};

/// The most that one `read` or `read-at` gives. Large enough that the call costs nothing beside the copy.
pub const MAX_READ: u32 = 1 << 20;

/// What is kept of one log line.
const MAX_LOG_LINE: usize = 4 << 10;

/// What is kept of an error that repeats a guest's own words.
const MAX_ERROR: usize = 2 << 10;

/// The state of one call, kept in the wasmtime store.
pub struct Guest {
    pub(super) table: ResourceTable,
    pub(super) wasi: WasiCtx,
    pub(super) clock: Clock,
    pub(super) requests: Requests,
    pub(super) budget: Budget,
    pub(super) bytes_read: u64,
    pub(super) created: Vec<CreatedOutput>,
    pub(super) outputs: Arc<dyn Outputs>,
    pub(super) settings: Arc<serde_json::Map<String, serde_json::Value>>,
    /// The key that the object will be moved to; output names are relative to its folder.
    pub(super) destination: String,
    /// For the log.
    pub(super) plugin: Arc<str>,
    pub(super) key: Arc<str>,
}

/// Behind the guest's `body`.
pub struct BodyHandle(pub(super) Box<dyn Body>);

/// Behind the guest's `output`: its number in `Guest::created`.
pub struct OutputHandle(usize);

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl Guest {
    pub(super) fn monotonic_clock(&mut self) -> ClockView<'_> {
        ClockView { clock: &self.clock, table: &mut self.table }
    }
}

/// Offers `gristmill:plugin` to components.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    bindings::gristmill::plugin::host::add_to_linker::<_, HasSelf<Guest>>(linker, |guest| guest)?;
    // By hand, as bindgen passes bytes as `Vec<u8>`, which costs one more copy of each chunk.
    let mut types = linker.instance(&format!("gristmill:plugin/types@{INTERFACE_VERSION}"))?;
    types.resource("body", ResourceType::host::<BodyHandle>(), |mut store, handle| {
        store.data_mut().table.delete(Resource::<BodyHandle>::new_own(handle))?;
        Ok(())
    })?;
    types.func_wrap_async("[method]body.read", |mut store, (body, max): (Resource<BodyHandle>, u32)| {
        Box::new(async move { Ok((store.data_mut().read(body, max).await?,)) })
    })?;
    types.func_wrap_async(
        "[method]body.read-at",
        |mut store, (body, offset, len): (Resource<BodyHandle>, u64, u32)| {
            Box::new(async move { Ok((store.data_mut().read_at(body, offset, len).await?,)) })
        },
    )?;
    types.resource("output", ResourceType::host::<OutputHandle>(), |mut store, handle| {
        store.data_mut().table.delete(Resource::<OutputHandle>::new_own(handle))?;
        Ok(())
    })?;
    types.func_wrap_async("[method]output.write", |mut store, (output, bytes): (Resource<OutputHandle>, Bytes)| {
        Box::new(async move { store.data_mut().write(output, bytes).await })
    })
}

impl Guest {
    async fn read(&mut self, body: Resource<BodyHandle>, max: u32) -> wasmtime::Result<Bytes> {
        let body = self.table.get_mut(&body)?;
        let bytes = body.0.read(max.clamp(1, MAX_READ) as usize).await?;
        self.bytes_read = self.bytes_read.saturating_add(bytes.len() as u64);
        Ok(bytes)
    }

    async fn read_at(&mut self, body: Resource<BodyHandle>, offset: u64, len: u32) -> wasmtime::Result<Bytes> {
        let body = self.table.get_mut(&body)?;
        let bytes = body.0.read_at(offset, len.min(MAX_READ) as usize).await?;
        self.bytes_read = self.bytes_read.saturating_add(bytes.len() as u64);
        Ok(bytes)
    }

    async fn write(&mut self, output: Resource<OutputHandle>, bytes: Bytes) -> wasmtime::Result<()> {
        let index = self.table.get(&output)?.0;
        self.budget.write(bytes.len())?;
        if let Some(created) = self.created.get_mut(index) {
            created.size = created.size.saturating_add(bytes.len() as u64);
        }
        if !bytes.is_empty() {
            self.outputs.write(index, bytes).await?;
        }
        Ok(())
    }
}

impl Host for Guest {
    async fn create_output(
        &mut self,
        name: String,
        content_type: Option<String>,
        metadata: Vec<(String, String)>,
    ) -> wasmtime::Result<Result<Resource<OutputHandle>, OutputError>> {
        self.budget.create(self.created.len())?;
        let key = match key::output_key(&self.destination, &name) {
            Ok(key) => key,
            Err(error) => return Ok(Err(OutputError::InvalidName(text::printable(&error.to_string(), MAX_ERROR)))),
        };
        if self.created.iter().any(|created| created.meta.key == key) {
            return Ok(Err(OutputError::DuplicateName));
        }
        let checked = key::metadata(metadata).and_then(|metadata| match content_type {
            Some(content_type) => key::content_type(&content_type).map(|()| (metadata, content_type)),
            None => Ok((metadata, key::guess_content_type(&key).unwrap_or("application/octet-stream").to_owned())),
        });
        let (metadata, content_type) = match checked {
            Ok(checked) => checked,
            Err(error) => return Ok(Err(OutputError::InvalidMetadata(text::printable(&error.to_string(), MAX_ERROR)))),
        };
        let handle = self.table.push(OutputHandle(self.created.len()))?;
        let meta = OutputMeta { key, content_type, metadata };
        self.outputs.create(meta.clone());
        self.created.push(CreatedOutput { meta, size: 0 });
        Ok(Ok(handle))
    }

    async fn log(&mut self, level: LogLevel, message: String) -> wasmtime::Result<()> {
        self.budget.log(message.len())?;
        let line = text::printable(&message, MAX_LOG_LINE);
        let (plugin, key) = (&*self.plugin, &*self.key);
        match level {
            LogLevel::Debug => tracing::debug!(target: "plugin", plugin, key, line, "plugin says"),
            LogLevel::Info => tracing::info!(target: "plugin", plugin, key, line, "plugin says"),
            LogLevel::Warn => tracing::warn!(target: "plugin", plugin, key, line, "plugin says"),
            LogLevel::Error => tracing::error!(target: "plugin", plugin, key, line, "plugin says"),
        }
        Ok(())
    }

    async fn setting(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self.settings.get(&name).map(|value| match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        }))
    }

    async fn settings(&mut self) -> wasmtime::Result<String> {
        Ok(serde_json::to_string(&*self.settings)?)
    }
}
