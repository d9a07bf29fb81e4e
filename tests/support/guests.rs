//! Plugins to call in tests, the guests of `make plugins` and hand-written ones, and what a call needs.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

#[path = "modules.rs"]
mod modules;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::DirBuilderExt as _,
    panic,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use gristmill::{
    config::Limits,
    io::{Body, BoxFuture, IoError, OutputMeta, Outputs},
    key,
    plugin::{Cache, Call, CallReport, Compiler, CreatedOutput, Engine, ObjectInfo, Plugin},
};

pub use modules::module;

/// After so long something hangs. Far beyond what the slowest machine needs.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// More than the calls of all tests that run at the same time.
const SLOTS: usize = 512;

/// The engine that tests share.
pub fn engine() -> &'static Arc<Engine> {
    static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| Engine::new(SLOTS).unwrap());
    &ENGINE
}

/// Keeps the code of the guests from one run of the tests to the next.
fn compiler() -> &'static Compiler {
    static COMPILER: LazyLock<Compiler> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let cache = Cache::open(&folder.join("compiled-guests"), &folder.join("compiled-guests.key")).unwrap();
        Compiler::in_process().with_cache(Some(cache))
    });
    &COMPILER
}

/// Where `make plugins` puts the guest `NAME.wasm`.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guests").join(name).with_extension("wasm")
}

/// The file of a guest.
pub fn bytes(name: &str) -> Vec<u8> {
    let path = path(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run `make plugins`", path.display()))
}

/// A guest on the shared engine, compiled once.
pub fn guest(name: &str) -> Arc<Plugin> {
    static LOADED: Mutex<BTreeMap<String, Arc<Plugin>>> = Mutex::new(BTreeMap::new());
    // A test that panicked in here has left the map as it was.
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let load = || Arc::new(load(engine(), name, &bytes(name)));
    Arc::clone(loaded.entry(name.to_owned()).or_insert_with(load))
}

/// Compiles a plugin, or takes it from the tests' cache.
pub fn load(engine: &Arc<Engine>, name: &str, bytes: &[u8]) -> Plugin {
    Plugin::load(engine, compiler(), name, bytes).unwrap_or_else(|error| panic!("{name} {error}"))
}

/// A plugin written as a core module in the text format, on the shared engine.
pub fn hand_written(wat: &str) -> Plugin {
    load(engine(), "hand-written", &module(wat, ""))
}

/// Runs a test on a runtime of one thread, where a guest that does not give way stops everybody. Fails
/// when that is what happens, which a timeout inside of the runtime could not.
pub fn on_one_thread<F: Future>(test: impl FnOnce() -> F + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(test());
        done.send(())
    });
    if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("hangs");
    }
    if let Err(panicked) = thread.join() {
        panic::resume_unwind(panicked);
    }
}

/// A folder as the cache wants it.
pub fn private_folder(parent: &Path) -> PathBuf {
    let folder = parent.join("cache");
    fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
    folder
}

/// Limits that a hostile guest reaches soon and a toy never does.
pub fn small_limits() -> Limits {
    Limits {
        memory: 16 << 20,
        // Never reached but by those tests that set it.
        deadline: PATIENCE * 10,
        output_bytes: 64 << 20,
        outputs: 20,
        log_bytes: 64 << 10,
        log_lines: 100,
        handles: 50,
        http_requests: 20,
        http_bytes: 1 << 20,
    }
}

/// One call in the making.
pub struct Calling {
    object: ObjectInfo,
    body: Box<dyn Body>,
    outputs: Arc<MemoryOutputs>,
    settings: serde_json::Map<String, serde_json::Value>,
    limits: Limits,
}

impl Calling {
    /// An object of this name, that is `uploads/NAME`, and these bytes.
    pub fn new(name: &str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let object = ObjectInfo {
            bucket: "bucket".into(),
            key: format!("uploads/{name}"),
            name: key::name(name).into(),
            stem: key::stem(key::name(name)).into(),
            size: body.len() as u64,
            etag: "0123456789abcdef".into(),
            version_id: None,
            content_type: None,
            metadata: Vec::new(),
            event_time: None,
            attempt: 1,
        };
        Self {
            object,
            body: Box::new(MemoryBody::new(body)),
            outputs: Arc::default(),
            settings: serde_json::Map::new(),
            limits: small_limits(),
        }
    }

    pub fn setting(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.settings.insert(name.into(), value.into());
        self
    }

    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// Changes what the plugin is told.
    pub fn told(mut self, change: impl FnOnce(&mut ObjectInfo)) -> Self {
        change(&mut self.object);
        self
    }

    pub fn body(mut self, body: impl Body + 'static) -> Self {
        self.body = Box::new(body);
        self
    }

    /// Every write fails like this.
    pub fn failing_outputs(mut self, error: IoError) -> Self {
        self.outputs = Arc::new(MemoryOutputs { written: Mutex::default(), failure: Some(error) });
        self
    }

    pub async fn run(self, plugin: &Plugin) -> Called {
        let Self { object, body, outputs, settings, limits } = self;
        let destination = object.key.replacen("uploads/", "processed/", 1);
        let staged = Arc::clone(&outputs) as Arc<dyn Outputs>;
        let settings = Arc::new(settings);
        let report = plugin.call(Call { object, body, outputs: staged, destination, settings, limits }).await;
        assert_eq!(Arc::strong_count(&outputs), 1, "something of the call is still there");
        Called { report, written: outputs.take() }
    }
}

/// What came of a call.
#[derive(Debug)]
pub struct Called {
    pub report: CallReport,
    /// The bytes of each output, by its number. Not one of them was committed.
    written: BTreeMap<usize, Vec<u8>>,
}

impl Called {
    /// Every output with its bytes, in the order of creation.
    pub fn outputs(&self) -> Vec<(&CreatedOutput, &[u8])> {
        let bytes = |index| self.written.get(&index).map(Vec::as_slice).unwrap_or_default();
        self.report.outputs.iter().enumerate().map(|(index, created)| (created, bytes(index))).collect()
    }

    /// The text of the only output.
    pub fn text(&self) -> &str {
        match self.outputs().as_slice() {
            [(_, bytes)] => str::from_utf8(bytes).unwrap(),
            outputs => panic!("expected one output, not {outputs:?}; {:?}", self.report.result),
        }
    }
}

/// An object in memory, which may fail, or never answer, from some position on.
pub struct MemoryBody {
    bytes: Bytes,
    position: usize,
    failure: Option<(usize, Failure)>,
    /// The longest read that was asked for.
    pub longest: Arc<AtomicUsize>,
}

#[derive(Clone)]
enum Failure {
    Error(IoError),
    Silence,
}

impl MemoryBody {
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), position: 0, failure: None, longest: Arc::default() }
    }

    /// Reads that reach this offset fail.
    pub fn failing_at(self, offset: usize, error: IoError) -> Self {
        Self { failure: Some((offset, Failure::Error(error))), ..self }
    }

    /// Reads that reach this offset never answer.
    pub fn silent_at(self, offset: usize) -> Self {
        Self { failure: Some((offset, Failure::Silence)), ..self }
    }

    async fn slice(&self, offset: u64, len: usize) -> Result<Bytes, IoError> {
        self.longest.fetch_max(len, Ordering::Relaxed);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.bytes.len());
        let end = start.saturating_add(len).min(self.bytes.len());
        match self.failure.clone() {
            Some((from, Failure::Error(error))) if end > from => Err(error),
            Some((from, Failure::Silence)) if end > from => std::future::pending().await,
            _ => Ok(self.bytes.slice(start..end)),
        }
    }
}

impl Body for MemoryBody {
    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Bytes, IoError>> {
        Box::pin(async move {
            // As a store that has to fetch them: others go on meanwhile.
            tokio::task::yield_now().await;
            let bytes = self.slice(self.position as u64, max).await?;
            self.position += bytes.len();
            Ok(bytes)
        })
    }

    fn read_at(&mut self, offset: u64, len: usize) -> BoxFuture<'_, Result<Bytes, IoError>> {
        Box::pin(self.slice(offset, len))
    }
}

/// Keeps what is written, by the output's number.
#[derive(Default)]
pub struct MemoryOutputs {
    written: Mutex<BTreeMap<usize, Vec<u8>>>,
    failure: Option<IoError>,
}

impl MemoryOutputs {
    fn take(&self) -> BTreeMap<usize, Vec<u8>> {
        std::mem::take(&mut self.written.lock().unwrap())
    }
}

impl Outputs for MemoryOutputs {
    fn create(&self, _: OutputMeta) {}

    fn write(&self, index: usize, bytes: Bytes) -> BoxFuture<'_, Result<(), IoError>> {
        if let Some(error) = self.failure.clone() {
            return Box::pin(async { Err(error) });
        }
        self.written.lock().unwrap().entry(index).or_default().extend_from_slice(&bytes);
        Box::pin(async { Ok(()) })
    }
}
