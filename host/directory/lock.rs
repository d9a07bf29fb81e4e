//! One host per directory.

use std::{
    fs::File,
    io::{Read, Seek as _, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::FlockOperation,
    io::Errno,
    process::{Pid, test_kill_process},
};

use super::STATE;

/// For how long the lock of a host that was killed may be held after it: by a child that it was just starting, until
/// that runs its program. Only a machine without a moment to spare takes any time for that.
const ORPHANED: Duration = Duration::from_secs(10);

/// Between two looks at such a lock.
const LOOK: Duration = Duration::from_millis(10);

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another host works on it.
    #[error(
        "another gristmill (process {holder}) is at work on `{directory}`: stop that one, or choose another directory",
        directory = directory.display()
    )]
    Held {
        /// What was to be locked.
        directory: PathBuf,
        /// The other's process id, as far as is known.
        holder: String,
    },
    /// The system refused.
    #[error("cannot {doing} `{path}`: {reason}", path = path.display())]
    Io {
        /// A verb.
        doing: &'static str,
        /// What it was to be done to.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
}

impl LockError {
    fn io<E: Into<std::io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |reason| Self::Io { doing, path: path.to_owned(), reason: reason.into() }
    }
}

/// Holds a directory for this process until it is dropped or the process ends, however it ends.
///
/// Whoever holds it knows that no other host is alive, so what looks in flight is left over.
#[derive(Debug)]
pub struct Lock {
    /// The lock is on the open file, so it lives as long as this.
    _file: File,
    directory: PathBuf,
}

impl Lock {
    /// Locks `directory`, which must exist, creating the host's own directory in it. Blocks, but never for
    /// another host that is alive: that is [`LockError::Held`].
    pub fn acquire(directory: &Path) -> Result<Self, LockError> {
        let directory = directory.canonicalize().map_err(LockError::io("open", directory))?;
        let state = directory.join(STATE);
        std::fs::create_dir_all(&state).map_err(LockError::io("create", &state))?;

        let path = state.join("lock");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(LockError::io("open", &path))?;
        let started = Instant::now();
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) => {}
                Err(reason) => return Err(LockError::io("lock", &path)(reason)),
            }
            let holder = written_in(&file);
            if !has_ended(&holder) || started.elapsed() >= ORPHANED {
                return Err(LockError::Held { directory, holder });
            }
            thread::sleep(LOOK);
            file.rewind().map_err(LockError::io("read", &path))?;
        }
        file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(LockError::io("write", &path))?;
        Ok(Self { _file: file, directory })
    }

    /// The process that holds a directory, as far as is known; nothing when none does. Makes nothing, and is in
    /// the way of a host that starts for no longer than the look takes.
    pub fn holder(directory: &Path) -> Result<Option<String>, LockError> {
        let path = directory.join(STATE).join("lock");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(reason) => return Err(LockError::io("open", &path)(reason)),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(Errno::WOULDBLOCK) => Ok(Some(written_in(&file))),
            Err(reason) => Err(LockError::io("lock", &path)(reason)),
        }
    }

    /// The locked directory, absolute and without symbolic links.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The host's own directory in it.
    pub fn state(&self) -> PathBuf {
        self.directory.join(STATE)
    }
}

/// Who holds it, for a message: what cannot be read is left out.
fn written_in(file: &File) -> String {
    let mut holder = String::new();
    let _ = file.take(32).read_to_string(&mut holder);
    holder.trim().to_owned()
}

/// Whether the process of this number is gone. One that cannot be told is not.
fn has_ended(holder: &str) -> bool {
    let pid = holder.parse().ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_of_a_host_that_was_killed_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        assert!(has_ended(&ended.id().to_string()));
        assert!(!has_ended(&std::process::id().to_string()) && !has_ended(""));

        let held = Lock::acquire(folder.path()).unwrap();
        std::fs::write(held.state().join("lock"), ended.id().to_string()).unwrap();
        let (asked, asks) = std::sync::mpsc::channel();
        let next = thread::spawn({
            let folder = folder.path().to_owned();
            move || {
                asked.send(()).unwrap();
                Lock::acquire(&folder).map(drop)
            }
        });
        asks.recv().unwrap();
        // Whether it has found the lock held by now or not: it gets it.
        drop(held);
        next.join().unwrap().unwrap();
    }

    #[test]
    fn a_second_host_is_refused_until_the_first_has_gone() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::acquire(folder.path()).unwrap();
        let error = Lock::acquire(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&*folder.path().canonicalize().unwrap().to_string_lossy()), "{error}");
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(first);
        Lock::acquire(folder.path()).unwrap();
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = Lock::acquire(Path::new("/nowhere/at/all")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all"), "{error}");
    }
}
