//! One host per directory.

use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;

use super::STATE;

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
    /// another host: that is [`LockError::Held`].
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
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(LockError::Held { directory, holder: written_in(file) });
            }
            Err(reason) => return Err(LockError::io("lock", &path)(reason)),
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
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Some(written_in(file))),
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
fn written_in(file: File) -> String {
    let mut holder = String::new();
    let _ = file.take(32).read_to_string(&mut holder);
    holder.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

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
