//! A plugin that calls the host with whatever its object says, and what must hold for each such call.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

#[path = "modules.rs"]
mod modules;

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use gristmill::{
    config::Limits,
    io::{Body, BoxFuture, IoError, OutputMeta, Outputs},
    plugin::{Call, CallError, CallReport, Compiler, Engine, ObjectInfo, Plugin},
};

/// Numbers in a record of the script: the call and its arguments.
pub const RECORD: usize = 9;

/// Calls that a record can choose from. Others do nothing.
pub const CALLS: u32 = 14;

/// Calls at the same time.
const SLOTS: usize = 4;

/// Small, so that scripts reach them. A script ends by itself long before the deadline.
const LIMITS: Limits = Limits {
    memory: 8 << 20,
    deadline: Duration::from_secs(60),
    output_bytes: 1 << 20,
    outputs: 5,
    log_bytes: 4 << 10,
    log_lines: 5,
    handles: 8,
    http_requests: 0,
    http_bytes: 0,
};

/// Plays a script, and fails when the call ends in a way that has no name, goes beyond a limit, or leaves
/// something behind.
pub async fn play(script: &[u8]) -> CallReport {
    static PUPPET: LazyLock<Plugin> = LazyLock::new(|| {
        let module = modules::module(include_str!("../corpus/puppet.wat"), "");
        Plugin::load(&Engine::new(SLOTS).unwrap(), &Compiler::in_process(), "puppet", &module).unwrap()
    });
    let (alive, staged) = (Arc::new(()), Arc::new(Staged::default()));
    let body = Script { bytes: Bytes::copy_from_slice(script), position: 0, _alive: Arc::clone(&alive) };
    let report = PUPPET
        .call(Call {
            object: object(script.len()),
            body: Box::new(body),
            outputs: Arc::clone(&staged) as Arc<dyn Outputs>,
            destination: "processed/script".into(),
            settings: Arc::new(serde_json::Map::from_iter([("one".to_owned(), "x".repeat(100).into())])),
            limits: LIMITS,
        })
        .await;
    if let Err(error @ CallError::Io(_)) = &report.result {
        panic!("nothing is wrong with the store, but: {error}");
    }
    let created = staged.created.load(Ordering::Relaxed);
    assert_eq!(report.outputs.len(), created);
    assert!(created <= LIMITS.outputs as usize, "{report:?}");
    assert!(report.bytes_written <= LIMITS.output_bytes, "{report:?}");
    assert_eq!(report.outputs.iter().map(|output| output.size).sum::<u64>(), report.bytes_written);
    assert_eq!(staged.bytes.load(Ordering::Relaxed) as u64, report.bytes_written, "what is told is what is there");
    assert!(report.outputs.iter().all(|output| output.meta.key.starts_with("processed/")), "{report:?}");
    assert_eq!((Arc::strong_count(&alive), Arc::strong_count(&staged)), (1, 1), "something is left of the call");
    report
}

fn object(size: usize) -> ObjectInfo {
    ObjectInfo {
        bucket: "bucket".into(),
        key: "uploads/script".into(),
        name: "script".into(),
        stem: "script".into(),
        size: size as u64,
        etag: "0123456789abcdef".into(),
        version_id: None,
        content_type: None,
        metadata: Vec::new(),
        event_time: None,
        attempt: 1,
    }
}

struct Script {
    bytes: Bytes,
    position: usize,
    _alive: Arc<()>,
}

impl Script {
    fn slice(&self, offset: u64, len: usize) -> Bytes {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.slice(start..start.saturating_add(len).min(self.bytes.len()))
    }
}

impl Body for Script {
    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Bytes, IoError>> {
        let bytes = self.slice(self.position as u64, max);
        self.position += bytes.len();
        Box::pin(async { Ok(bytes) })
    }

    fn read_at(&mut self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, IoError>> {
        let bytes = self.slice(offset, len);
        Box::pin(async { Ok(bytes) })
    }
}

/// Counts what was staged.
#[derive(Default)]
struct Staged {
    created: AtomicUsize,
    bytes: AtomicUsize,
}

impl Outputs for Staged {
    fn create(&self, _: OutputMeta) {
        self.created.fetch_add(1, Ordering::Relaxed);
    }

    fn write(&self, index: usize, bytes: Bytes) -> BoxFuture<'_, Result<(), IoError>> {
        assert!(index < self.created.load(Ordering::Relaxed));
        self.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }
}
