//! The parent's side: a child process for one file, from its start to its end.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::{
        fd::OwnedFd,
        unix::{
            net::UnixStream,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{
    super::{LoadError, load::MAX_DETAIL},
    CompileLimits, MAX_CODE_BYTES, VERB,
    child::{Complaint, REFUSED, UNABLE},
};
use crate::text;

/// Between two looks at the clock and at whether anybody still wants the code.
const LOOK: Duration = Duration::from_millis(50);

/// Threads of a child: more of them need more memory, and gain little beside the work of the host.
const MAX_THREADS: usize = 4;

/// What is kept of a child's last words.
const MAX_WORDS: u64 = 8 << 10;

/// Why a child was ended before it had answered.
enum Cut {
    Time,
    Size,
    Stopped,
}

/// Compiles `bytes` in a child that runs `program`. Nothing of the child is left when this returns.
pub(super) fn compile(
    program: &Path,
    limits: &CompileLimits,
    bytes: &[u8],
    stopped: &AtomicBool,
) -> Result<Vec<u8>, LoadError> {
    let unable = |error: io::Error| LoadError::NoCompiler(format!("{}: {error}", program.display()));
    let (mut ours, theirs) = UnixStream::pair().map_err(unable)?;
    let (words, their_words) = UnixStream::pair().map_err(unable)?;
    for stream in [&ours, &words] {
        stream.set_read_timeout(Some(LOOK)).and_then(|()| stream.set_write_timeout(Some(LOOK))).map_err(unable)?;
    }
    let mut child = Running(start(program, limits, theirs, their_words).map_err(unable)?);
    let talked = talk(&mut ours, bytes, Instant::now() + limits.wall_time, stopped);
    let status = child.end().map_err(unable)?;
    match talked {
        Ok(answer) => read(answer, status, last_words(words), limits),
        Err(Cut::Time) => Err(LoadError::CompileTime(limits.wall_time)),
        Err(Cut::Size) => Err(LoadError::CodeSize(MAX_CODE_BYTES)),
        Err(Cut::Stopped) => Err(LoadError::Stopped),
    }
}

/// With nothing of ours but the three streams.
fn start(program: &Path, limits: &CompileLimits, talk: UnixStream, words: UnixStream) -> io::Result<Child> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    Command::new(program)
        .arg0("gristmill")
        .arg(VERB)
        .arg(format!("--memory={}", limits.memory))
        .arg(format!("--cpu-seconds={}", limits.cpu_time.as_secs()))
        .env_clear()
        .env("RAYON_NUM_THREADS", threads.to_string())
        .current_dir("/")
        // Out of reach of Ctrl-C, which is for the host to answer.
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(talk.try_clone()?)))
        .stdout(Stdio::from(OwnedFd::from(talk)))
        .stderr(Stdio::from(OwnedFd::from(words)))
        .spawn()
}

/// A child that does not outlive this.
struct Running(Child);

impl Running {
    /// Ends it, unless it has ended, and whatever it has started, and says how it ended.
    fn end(&mut self) -> io::Result<ExitStatus> {
        // Until it is waited for, its number is nobody else's. One that has ended keeps its exit code.
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        self.0.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            // There is nobody left to tell.
            let _ = self.end();
        }
    }
}

/// Sends the file and receives the answer. A child that stops listening or ends says why in another way.
fn talk(stream: &mut UnixStream, bytes: &[u8], deadline: Instant, stopped: &AtomicBool) -> Result<Vec<u8>, Cut> {
    let go_on = || {
        if stopped.load(Ordering::Relaxed) {
            return Err(Cut::Stopped);
        }
        if Instant::now() >= deadline { Err(Cut::Time) } else { Ok(()) }
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        go_on()?;
        match stream.write(rest) {
            Ok(sent) => rest = &rest[sent..],
            Err(error) if is_timeout(&error) => {}
            Err(_) => break,
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let mut chunk = vec![0; 256 << 10];
    loop {
        go_on()?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(answer),
            Ok(received) if (answer.len() + received) as u64 > MAX_CODE_BYTES => return Err(Cut::Size),
            Ok(received) => answer.extend_from_slice(&chunk[..received]),
            Err(error) if is_timeout(&error) => {}
            Err(_) => return Ok(answer),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// What there is of it, on one line.
fn last_words(words: UnixStream) -> String {
    let mut bytes = Vec::new();
    // An error leaves what was read before it.
    let _ = words.take(MAX_WORDS).read_to_end(&mut bytes);
    let words = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    text::printable(&lines.join(" "), MAX_DETAIL)
}

/// What a child that has ended by itself meant.
fn read(answer: Vec<u8>, status: ExitStatus, words: String, limits: &CompileLimits) -> Result<Vec<u8>, LoadError> {
    if status.success() {
        return Ok(answer);
    }
    if status.code() == Some(REFUSED.into())
        && let Ok(complaint) = serde_json::from_slice(&answer)
    {
        return Err(match complaint {
            Complaint::Componentize(detail) => LoadError::Componentize(text::printable(&detail, MAX_DETAIL)),
            Complaint::Invalid(detail) => LoadError::Invalid(text::printable(&detail, MAX_DETAIL)),
        });
    }
    if status.signal() == Some(Signal::XCPU.as_raw()) {
        return Err(LoadError::CompileCpuTime(limits.cpu_time));
    }
    if status.code() == Some(UNABLE.into()) {
        return Err(LoadError::NoCompiler(words));
    }
    // The words of Rust's own handler of allocations that fail, which then aborts.
    if words.contains("memory allocation of") {
        return Err(LoadError::CompileMemory(limits.memory));
    }
    let how = match (status.code(), status.signal()) {
        (_, Some(signal)) if words.is_empty() => format!("was ended by signal {signal}"),
        (_, Some(signal)) => format!("was ended by signal {signal}: {words}"),
        (Some(code), _) => format!("ended with code {code}: {words}"),
        _ => words,
    };
    Err(LoadError::CompilerFailed(how))
}
