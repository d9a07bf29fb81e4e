//! The real binary over a directory of its own: started, followed through its two streams, signalled, and
//! never left behind.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// How long anything may take before a test gives up on it. Only tests that fail wait so long.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Between two looks at what nobody tells of.
const LOOK: Duration = Duration::from_millis(5);

/// A directory that plays the bucket. It goes when this is dropped.
pub struct Bucket {
    folder: TempDir,
}

impl Bucket {
    /// With an empty `uploads/`.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("gristmill-test-").tempdir().unwrap();
        fs::create_dir(folder.path().join("uploads")).unwrap();
        Self { folder }
    }

    /// With these guests as plugins of the same name, and this text as `gristmill.toml`.
    pub fn with(guests: &[&str], configuration: &str) -> Self {
        let bucket = Self::new();
        for guest in guests {
            bucket.plugin(guest, guest);
        }
        bucket.write("gristmill.toml", configuration.as_bytes());
        bucket
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, key: &str) -> PathBuf {
        self.folder.path().join(key)
    }

    /// Writes a file at the key, and its folders.
    pub fn write(&self, key: &str, content: &[u8]) {
        let path = self.path(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// What is at the key, if it is a file.
    pub fn read(&self, key: &str) -> Option<Vec<u8>> {
        fs::read(self.path(key)).ok()
    }

    pub fn read_text(&self, key: &str) -> String {
        String::from_utf8(self.read(key).unwrap_or_else(|| panic!("there is no {key}"))).unwrap()
    }

    pub fn exists(&self, key: &str) -> bool {
        self.path(key).symlink_metadata().is_ok()
    }

    /// Puts a guest into the plugin directory under a name, and answers its digest.
    pub fn plugin(&self, guest: &str, name: &str) -> String {
        let (from, to) = (guest_file(guest), self.path(&format!("plugins/{name}.wasm")));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&from, &to).unwrap();
        // As `cp -p` does. The host waits for files that were written just now.
        File::options().write(true).open(&to).unwrap().set_modified(modified(&from)).unwrap();
        sha256(&fs::read(from).unwrap())
    }

    /// Serves this directory until the queue is empty.
    pub fn run_until_idle(&self) -> Finished {
        Host::dev(self, &["--until-idle", "--json"]).finish()
    }
}

/// A guest as `make plugins` built it.
pub fn guest_file(guest: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/guests").join(guest).with_extension("wasm");
    assert!(path.is_file(), "{} is missing: run `make plugins`", path.display());
    path
}

/// A plugin of the product as `make plugins` built it.
pub fn built_in_file(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/plugins").join(name).with_extension("wasm");
    assert!(path.is_file(), "{} is missing: run `make plugins`", path.display());
    path
}

pub fn modified(path: &Path) -> std::time::SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The binary, with nothing of the environment that could configure it.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gristmill"));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        // Where `gristmill plugin` keeps compiled code; the tests share it.
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .env("XDG_STATE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs the binary to its end.
pub fn gristmill(arguments: &[&str]) -> Finished {
    Host::spawn(&mut command(arguments)).finish()
}

/// A running host. Dropping it kills it.
pub struct Host {
    child: Child,
    out: Stream,
    err: Stream,
}

impl Host {
    pub fn spawn(command: &mut Command) -> Self {
        Self::following(command.spawn().unwrap())
    }

    /// A child whose streams, as far as they are left, are followed from now on.
    pub fn following(mut child: Child) -> Self {
        let out = child.stdout.take().map_or_else(|| Stream::follow(io::empty()), Stream::follow);
        let err = child.stderr.take().map_or_else(|| Stream::follow(io::empty()), Stream::follow);
        Self { child, out, err }
    }

    /// `gristmill dev`, with log lines in JSON.
    pub fn dev(bucket: &Bucket, flags: &[&str]) -> Self {
        let mut command = command(&["dev", "--log-format", "json"]);
        Self::spawn(command.args(flags).arg(bucket.root()))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for standard output to be so that `look` finds something in its lines.
    pub fn wait_for_output<T>(&self, what: &str, look: impl FnMut(&[String]) -> Option<T>) -> T {
        self.wait(&self.out, what, by_lines(look))
    }

    /// Waits for standard error to be so that `look` finds something in its lines.
    pub fn wait_for_log<T>(&self, what: &str, look: impl FnMut(&[String]) -> Option<T>) -> T {
        self.wait(&self.err, what, by_lines(look))
    }

    /// Waits until so many objects were finished.
    pub fn wait_for_objects(&self, number: usize) {
        self.wait_for_output(&format!("{number} finished objects"), |lines| (lines.len() >= number).then_some(()));
    }

    fn wait<T>(&self, stream: &Stream, what: &str, look: impl FnMut(&Lines) -> Option<T>) -> T {
        stream.wait(look).unwrap_or_else(|| {
            panic!("waited in vain for {what}\n--- output\n{}\n--- log\n{}", self.out.text(), self.err.text())
        })
    }

    /// How many lines standard error has so far.
    pub fn log_length(&self) -> usize {
        self.err.lines().len()
    }

    /// Asks it to drain.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// As Ctrl-C does.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// `kill -9`, and what it had said until then.
    pub fn kill(mut self) -> Finished {
        self.child.kill().unwrap();
        self.finish()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Finished {
        for stream in [&self.out, &self.err] {
            self.wait(stream, "its end", |lines| lines.ended.then_some(()));
        }
        let code = self.child.wait().unwrap().code();
        Finished { code, out: self.out.lines(), err: self.err.lines() }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Without effect when it was waited for: the id is then nobody's, and the standard library knows.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A host that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Absent after a signal.
    pub code: Option<i32>,
    pub out: Vec<String>,
    pub err: Vec<String>,
}

impl Finished {
    /// Checks the exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "--- output\n{}\n--- log\n{}", self.out.join("\n"), self.err.join("\n"));
        self
    }

    /// The JSON objects of `--json` before the summary.
    pub fn records(&self) -> Vec<Value> {
        let mut lines: Vec<Value> = self.out.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let last = lines.pop().unwrap();
        assert!(last.get("summary").is_some(), "the last line is no summary: {last}");
        lines
    }

    /// The record of the key's last end.
    #[track_caller]
    pub fn record(&self, key: &str) -> Value {
        let mut records = self.records();
        records.retain(|record| record["key"] == key);
        records.pop().unwrap_or_else(|| panic!("no record of {key} in {:#?}", self.out))
    }

    /// The counts of the last line.
    pub fn summary(&self) -> Value {
        let last: Value = serde_json::from_str(self.out.last().unwrap()).unwrap();
        last["summary"].clone()
    }

    /// Checks the counts that are named; all others have to be zero.
    #[track_caller]
    pub fn expect_counts(self, expected: &[(&str, u64)]) -> Self {
        let summary = self.summary();
        for name in ["processed", "skipped", "rejected", "dead", "retried"] {
            let wanted = expected.iter().find(|(count, _)| *count == name).map_or(0, |(_, number)| *number);
            assert_eq!(summary[name], wanted, "{name}, in {summary}\n{}", self.out.join("\n"));
        }
        self
    }

    /// All of standard error.
    pub fn log(&self) -> String {
        self.err.join("\n")
    }
}

/// The lines of a stream, as they come.
#[derive(Clone)]
struct Stream(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

fn by_lines<T>(mut look: impl FnMut(&[String]) -> Option<T>) -> impl FnMut(&Lines) -> Option<T> {
    move |lines| look(&lines.lines)
}

impl Stream {
    fn follow(stream: impl Read + Send + 'static) -> Self {
        let this = Self(Arc::default());
        let end = this.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                // A line that is not UTF-8 would be a bug of the host's: it is shown as such.
                let line = line.unwrap_or_else(|error| format!("unreadable line: {error}"));
                end.change(|lines| lines.lines.push(line));
            }
            end.change(|lines| lines.ended = true);
        });
        this
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn lines(&self) -> Vec<String> {
        self.0.0.lock().unwrap().lines.clone()
    }

    fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// Nothing once patience or the stream has ended.
    fn wait<T>(&self, mut look: impl FnMut(&Lines) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut lines = self.0.0.lock().unwrap();
        loop {
            if let Some(found) = look(&lines) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || lines.ended {
                return None;
            }
            lines = self.0.1.wait_timeout(lines, left).unwrap().0;
        }
    }
}

/// Waits for something that nobody tells of.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(LOOK);
    }
}
