//! Compiled code of plugins seen before, by the digest of the file and what compiled it.

use std::{
    fs,
    hash::{Hash as _, Hasher as _},
    io::{self, Read as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use wasmtime::component::Component;

use super::{Digest, Engine, code::CompiledCode, compiler::MAX_CODE_BYTES};
use crate::private::{self, NotPrivate};

/// Entries kept. A hundred versions are more than anybody goes back to.
const MAX_ENTRIES: usize = 128;

/// Bytes of all entries together. A plugin in Rust has less than a megabyte of code, a language runtime a hundred.
const MAX_BYTES: u64 = 1 << 30;

/// Bytes before the code: HMAC with SHA-256 (RFC 2104).
const MAC: usize = 32;

/// A block of SHA-256: a longer key would only be hashed to less.
const KEY: usize = 64;

/// Reading an entry back is as good as running it, so the folder must be this user's and closed to all others, and
/// each entry carries a MAC by a key that is kept elsewhere: a folder of caches is what people copy, restore, share
/// and mount. Nothing else depends on it. An entry that is missing, damaged or forged is compiled again.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
    key: Arc<Key>,
}

/// Its text is nobody's business.
struct Key([u8; KEY]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Cache {
    /// Opens the folder, and makes it when it is not there. The key is in a file elsewhere, in a folder of the
    /// host's state; it is made of random bytes when it is not there.
    ///
    /// # Errors
    /// When one of them cannot be had, is not what it should be, belongs to somebody else, or is open to others.
    pub fn open(folder: &Path, key: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let meta = fs::symlink_metadata(folder)?;
        if !meta.is_dir() {
            return Err(refuse(folder, "is not a folder"));
        }
        refuse_others(folder, &meta, "make it mode 0700")?;
        Ok(Self { folder: folder.to_owned(), key: Arc::new(Key::open(key)?) })
    }

    /// The code for a file with this digest.
    pub(super) fn get(&self, engine: &Engine, digest: Digest) -> Option<Component> {
        let path = self.path(engine, digest);
        let read = || -> io::Result<Option<Vec<u8>>> {
            let mut file = private::open(&path)?;
            let mut mac = [0; MAC];
            file.read_exact(&mut mac)?;
            let mut code = Vec::new();
            (&file).take(MAX_CODE_BYTES).read_to_end(&mut code)?;
            let is_ours = self.key.mac(&path, &code).verify_slice(&mac).is_ok();
            if is_ours {
                // What is used stays. Where that cannot be written down, the entry goes earlier than it should.
                let _ = file.set_modified(SystemTime::now());
            }
            Ok(is_ours.then_some(code))
        };
        let code = match read() {
            Ok(Some(code)) => Some(code),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Ok(None) | Err(_) => None,
        };
        let component = code.and_then(|code| CompiledCode(code).load(&engine.wasmtime).ok());
        if component.is_none() {
            tracing::warn!(path = %path.display(), "compiled code was damaged or is not ours, compiling it again");
        }
        component
    }

    /// Keeps code. A cache that cannot be written to is no reason to fail.
    pub(super) fn put(&self, engine: &Engine, digest: Digest, code: &CompiledCode) {
        let path = self.path(engine, digest);
        let write = || -> io::Result<()> {
            self.make_room((MAC + code.0.len()) as u64)?;
            // Of a name of its own, with mode 0600, and gone when it cannot be finished.
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(&self.key.mac(&path, &code.0).finalize().into_bytes())?;
            file.write_all(&code.0)?;
            file.persist(&path)?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::warn!(path = %path.display(), %error, "cannot keep compiled code");
        }
    }

    /// Removes what was not used for the longest time, until there is room for one more entry.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut entries: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Another host may have removed it in the meantime.
            let Ok(meta) = entry.metadata() else { continue };
            entries.push((meta.modified()?, entry.path(), meta.len()));
        }
        entries.sort_unstable();
        let (mut number, mut total) = (entries.len(), entries.iter().map(|(_, _, len)| len).sum::<u64>());
        for (_, path, len) in &entries {
            if number < MAX_ENTRIES && total.saturating_add(bytes) <= MAX_BYTES {
                break;
            }
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => (number, total) = (number - 1, total.saturating_sub(*len)),
            }
        }
        Ok(())
    }

    fn path(&self, engine: &Engine, digest: Digest) -> PathBuf {
        let mut compiler = std::hash::DefaultHasher::new();
        // The version of wasmtime is part of it.
        engine.wasmtime.precompile_compatibility_hash().hash(&mut compiler);
        env!("CARGO_PKG_VERSION").hash(&mut compiler);
        self.folder.join(format!("{digest}-{:016x}", compiler.finish()))
    }
}

impl Key {
    fn open(path: &Path) -> io::Result<Self> {
        match Self::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::make(path),
            read => read,
        }
    }

    fn read(path: &Path) -> io::Result<Self> {
        let mut file = private::open(path)?;
        refuse_others(path, &file.metadata()?, "make it mode 0600, or delete it for a new one")?;
        let (mut key, mut more) = ([0; KEY], [0]);
        let whole = file.read_exact(&mut key).is_ok() && file.read(&mut more)? == 0;
        if whole { Ok(Self(key)) } else { Err(refuse(path, "is no key; delete it for a new one")) }
    }

    fn make(path: &Path) -> io::Result<Self> {
        let folder = path.parent().unwrap_or(path);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut key = [0; KEY];
        getrandom::fill(&mut key)?;
        // With mode 0600, and whole from the moment when it has its name, whatever happens to this machine.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&key)?;
        file.as_file().sync_all()?;
        match file.persist_noclobber(path) {
            Ok(_) => Ok(Self(key)),
            // Another host was faster.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Self::read(path),
            Err(error) => Err(error.error),
        }
    }

    /// Over the entry's name, too: that says which file was compiled, by what, and an entry that has got the name
    /// of another is not ours.
    fn mac(&self, path: &Path, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new(&self.0.into());
        mac.update(path.file_name().unwrap_or_default().as_encoded_bytes());
        mac.update(code);
        mac
    }
}

fn refuse_others(path: &Path, meta: &fs::Metadata, mend: &str) -> io::Result<()> {
    private::check(meta).map_err(|error| match error {
        NotPrivate::Foreign => refuse(path, &error.to_string()),
        NotPrivate::Open => refuse(path, &format!("{error} ({mend})")),
    })
}

fn refuse(path: &Path, reason: &str) -> io::Error {
    let text = format!("{}: {reason}; compiled code is only kept in private", path.display());
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}
