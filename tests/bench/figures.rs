//! `make bench`: what the host costs, in figures. Each line says what was measured; README.md quotes them.
//!
//! `cargo bench -- NAME` runs only the measurements whose name contains NAME.

mod aws;
mod calls;
#[allow(dead_code, reason = "tests use the rest")]
#[path = "../support/cloud/mod.rs"]
mod cloud;
#[allow(dead_code, reason = "tests use the rest")]
#[path = "../support/remote.rs"]
mod remote;
mod start;

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use gristmill::{
    config::Limits,
    io::{Body, BoxFuture, IoError, OutputMeta, Outputs},
    plugin::{Call, CallReport, Compiler, Engine, ObjectInfo, Plugin, Verdict},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

type Measure = fn() -> Result<()>;

fn main() -> Result<()> {
    let wanted = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let all: [(&str, Measure); 11] = [
        ("overhead", calls::overhead),
        ("threads", calls::threads),
        ("alive", calls::alive),
        ("fairness", calls::fairness),
        ("start", start::start),
        ("stream", stream),
        ("local", local),
        ("resize", resize),
        ("aws", aws::aws),
        ("aws-idle", aws::idle),
        ("aws-memory", aws::memory),
    ];
    for (name, measure) in all.into_iter().filter(|(name, _)| name.contains(&wanted)) {
        println!("\n== {name}");
        measure()?;
    }
    Ok(())
}

/// 8 GiB through a plugin that copies its body in chunks of 64 KiB.
fn stream() -> Result<()> {
    const SIZE: u64 = 8 << 30;
    let runtime = runtime(1)?;
    let engine = Engine::new(8)?;
    let plugin = plugin(&engine, "guests", "copy")?;
    let idle = resident("VmRSS")?;
    let written = Arc::new(Discard::default());
    let limits = Limits { deadline: Duration::from_secs(600), ..Limits::default() };
    let started = Instant::now();
    done(&runtime.block_on(plugin.call(call(Zeros::of(SIZE), written.clone(), limits))))?;
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(written.0.load(Ordering::Relaxed), SIZE);
    println!(
        "8 GiB copied: {:.0} MB/s, peak RSS {:.1} MiB over idle ({:.1} MiB)",
        SIZE as f64 / 1e6 / seconds,
        (resident("VmHWM")? - idle) / 1024.0,
        idle / 1024.0
    );
    Ok(())
}

/// The real binary over 10,000 small files, to the end.
fn local() -> Result<()> {
    const FILES: usize = 10_000;
    let folder = tempfile::tempdir()?;
    let uploads = folder.path().join("uploads");
    fs::create_dir_all(&uploads)?;
    for i in 0..FILES {
        fs::write(uploads.join(format!("{i}.txt")), format!("file {i}\n"))?;
    }
    let started = Instant::now();
    let run = Command::new(env!("CARGO_BIN_EXE_gristmill"))
        .args(["dev", "--until-idle", "--json"])
        .arg(folder.path())
        .output()?;
    let seconds = started.elapsed().as_secs_f64();
    let last = String::from_utf8(run.stdout)?.lines().last().unwrap_or_default().to_owned();
    let summary: serde_json::Value = serde_json::from_str(&last)?;
    assert_eq!(summary["summary"]["processed"], FILES, "{summary}");
    println!(
        "{FILES} files of 10 bytes, passthrough: {:.0} objects/s, {:.0} us each, start included",
        FILES as f64 / seconds,
        seconds * 1e6 / FILES as f64
    );
    Ok(())
}

/// A 12-megapixel photograph to 320 and to 1280 pixels, against Pillow on the same file in the same run.
fn resize() -> Result<()> {
    const ROUNDS: usize = 15;
    let folder = tempfile::tempdir()?;
    let inputs = Command::new(manifest("target/debug/demo-inputs")).arg(folder.path()).status();
    if !inputs.is_ok_and(|status| status.success()) {
        return Err("cannot make the photograph: run `make bench`, which builds demo-inputs first".into());
    }
    let photo = folder.path().join("photos/harvest.jpg");
    let bytes = Bytes::from(fs::read(&photo)?);
    let runtime = runtime(1)?;
    let engine = Engine::new(8)?;
    let plugin = plugin(&engine, "plugins", "resize")?;
    for size in [320, 1280] {
        let settings: Arc<serde_json::Map<_, _>> =
            Arc::new([("sizes".to_owned(), serde_json::json!([size]))].into_iter().collect());
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let mut call = call(Box::new(InMemory(bytes.clone(), 0)), Arc::new(Discard::default()), Limits::default());
            call.object.size = bytes.len() as u64;
            call.settings = Arc::clone(&settings);
            let started = Instant::now();
            done(&runtime.block_on(plugin.call(call)))?;
            times.push(started.elapsed());
        }
        times.sort_unstable();
        let ours = times[ROUNDS / 2].as_secs_f64() * 1e3;
        let pillow = pillow(&photo, size, ROUNDS)?;
        for (name, theirs) in [("full decode", pillow.0), ("draft()", pillow.1)] {
            println!(
                "{size} px: {ours:.0} ms in the sandbox, Pillow with {name} {theirs:.0} ms, ratio {:.2}",
                ours / theirs
            );
        }
    }
    Ok(())
}

/// Medians in milliseconds, of a full decode and of one with `draft()`.
fn pillow(photo: &Path, size: u32, rounds: usize) -> Result<(f64, f64)> {
    let out = Command::new(manifest(".venv/bin/python"))
        .arg(manifest("tests/bench/pillow.py"))
        .arg(photo)
        .args([size.to_string(), rounds.to_string()])
        .output()?;
    let text = String::from_utf8(out.stdout)?;
    let mut numbers = text.split_whitespace().map(str::parse::<f64>);
    match (numbers.next(), numbers.next()) {
        (Some(full), Some(draft)) => Ok((full?, draft?)),
        _ => Err(format!("Pillow failed: {}", String::from_utf8_lossy(&out.stderr)).into()),
    }
}

fn manifest(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn plugin(engine: &Arc<Engine>, folder: &str, name: &str) -> Result<Plugin> {
    let path = manifest("target").join(folder).join(name).with_extension("wasm");
    let bytes = fs::read(&path).map_err(|error| format!("{}: {error}; run `make plugins`", path.display()))?;
    Ok(Plugin::load(engine, &Compiler::in_process(), name, &bytes)?)
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?)
}

fn call(body: Box<dyn Body>, outputs: Arc<dyn Outputs>, limits: Limits) -> Call {
    let object = ObjectInfo {
        bucket: "bench".into(),
        key: "uploads/x.jpg".into(),
        name: "x.jpg".into(),
        stem: "x".into(),
        size: 0,
        etag: "e".into(),
        version_id: None,
        content_type: None,
        metadata: Vec::new(),
        event_time: None,
        attempt: 1,
    };
    Call { object, body, outputs, destination: "processed/x.jpg".into(), settings: Arc::default(), limits }
}

fn done(report: &CallReport) -> Result<()> {
    match &report.result {
        Ok(Verdict::Done) => Ok(()),
        other => Err(format!("the plugin ended with {other:?}").into()),
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// In KiB.
fn resident(field: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(field)).ok_or("no such field")?;
    Ok(line.split_whitespace().nth(1).ok_or("no value")?.parse()?)
}

/// A body of zeros, without memory of its own.
struct Zeros {
    chunk: Bytes,
    left: u64,
}

impl Zeros {
    fn of(size: u64) -> Box<dyn Body> {
        static CHUNK: [u8; 1 << 20] = [0; 1 << 20];
        Box::new(Self { chunk: Bytes::from_static(&CHUNK), left: size })
    }
}

impl Body for Zeros {
    fn read(&mut self, max: usize) -> BoxFuture<'_, std::result::Result<Bytes, IoError>> {
        let len = (max as u64).min(self.left).min(self.chunk.len() as u64);
        self.left -= len;
        Box::pin(std::future::ready(Ok(self.chunk.slice(..len as usize))))
    }

    fn read_at(&mut self, _: u64, _: usize) -> BoxFuture<'_, std::result::Result<Bytes, IoError>> {
        Box::pin(std::future::ready(Ok(Bytes::new())))
    }
}

struct InMemory(Bytes, usize);

impl Body for InMemory {
    fn read(&mut self, max: usize) -> BoxFuture<'_, std::result::Result<Bytes, IoError>> {
        let end = self.0.len().min(self.1 + max);
        let bytes = self.0.slice(self.1..end);
        self.1 = end;
        Box::pin(std::future::ready(Ok(bytes)))
    }

    fn read_at(&mut self, offset: u64, len: usize) -> BoxFuture<'_, std::result::Result<Bytes, IoError>> {
        let start = (offset as usize).min(self.0.len());
        let end = (start + len).min(self.0.len());
        Box::pin(std::future::ready(Ok(self.0.slice(start..end))))
    }
}

/// Counts what it is given.
#[derive(Default)]
struct Discard(AtomicU64);

impl Outputs for Discard {
    fn create(&self, _: OutputMeta) {}

    fn write(&self, _: usize, bytes: Bytes) -> BoxFuture<'_, std::result::Result<(), IoError>> {
        self.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Box::pin(std::future::ready(Ok(())))
    }
}
