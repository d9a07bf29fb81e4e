//! A directory as the bucket.
//!
//! Keys are paths below the directory, entity tags are [`Identity`]s, a move is a rename, and everything that
//! was answered is on disk. `.gristmill/` in it is the host's own:
//!
//! ```text
//! .gristmill/lock                one host at a time
//! .gristmill/provenance.db       where files came from, their content types and metadata
//! .gristmill/staging/outputs/    outputs that are not yet visible
//! .gristmill/staging/moving/     originals on their way, each under its key
//! ```
//!
//! Directories that a move leaves empty stay: they are the user's. Symbolic links are followed nowhere below
//! the directory. The source, the destinations and `.gristmill` must be on one file system, since a rename
//! cannot leave it.

mod body;
mod janitor;
mod moving;
mod provenance;
mod staging;

use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use rustix::{fs::AtFlags, io::Errno};

pub use self::staging::LocalStaging;
use self::{
    body::LocalBody,
    janitor::Janitor,
    provenance::{Record, Records},
    staging::Output,
};
use super::{Existing, Expect, ObjectMeta, OutputMeta, Provenance, Store, StoreError};
use crate::{
    directory::{Identity, Kind, Lock, Obstacle, STATE, Tree, sync},
    io::{Body, IoError},
    key::guess_content_type,
    sqlite,
};

/// Why a directory could not be opened as a bucket.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A rename could not get from one to the other.
    #[error(
        "`{directory}` is on another file system than `{state}`, and files cannot be moved between the two: keep \
         them on one",
        directory = directory.display(), state = state.display()
    )]
    OtherFileSystem {
        /// Of the source or a destination.
        directory: PathBuf,
        /// The host's own.
        state: PathBuf,
    },
    /// The source or a destination cannot be a directory.
    #[error(transparent)]
    Prefix(#[from] Obstacle),
    /// The provenance database.
    #[error(transparent)]
    Database(#[from] sqlite::OpenError),
    /// What the last run left over could not be cleared up.
    #[error("cannot clear up after the last run: {0}")]
    Recovery(StoreError),
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

impl OpenError {
    fn io<E: Into<std::io::Error>>(doing: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |reason| Self::Io { doing, path: path.to_owned(), reason: reason.into() }
    }
}

/// A directory as a bucket. Clones share it.
#[derive(Debug, Clone)]
pub struct LocalStore {
    shared: Arc<Shared>,
}

/// A file as it was when it was opened. It holds no descriptor.
#[derive(Debug, Clone)]
pub struct LocalObject {
    meta: ObjectMeta,
    identity: Identity,
}

#[derive(Debug)]
struct Shared {
    tree: Tree,
    /// Below it are originals on their way, each under its key.
    moving: Tree,
    outputs: OwnedFd,
    outputs_path: PathBuf,
    records: Records,
    janitor: Janitor,
    next_staging: AtomicU64,
    /// Nobody else may touch what is in `moving` and `outputs`.
    _lock: Arc<Lock>,
}

impl LocalStore {
    /// Opens the locked directory as a bucket, makes the directories of `prefixes` (the source's and the
    /// destinations') and clears up what a crash may have left: files on their way go back to their keys,
    /// staged outputs go away. Blocks.
    pub fn open(lock: &Arc<Lock>, prefixes: &[&str]) -> Result<Self, OpenError> {
        let state = lock.state();
        let (outputs_path, moving_path) = (state.join("staging/outputs"), state.join("staging/moving"));
        let opened = |path: &Path| Tree::open(path).map_err(OpenError::io("open", path));
        for path in [&outputs_path, &moving_path] {
            std::fs::create_dir_all(path).map_err(OpenError::io("create", path))?;
        }
        let tree = opened(lock.directory())?;
        one_file_system(lock, &tree, prefixes)?;

        let outputs = opened(&outputs_path)?;
        empty(&outputs, &outputs_path)?;
        let outputs = outputs.root().try_clone_to_owned().map_err(OpenError::io("open", &outputs_path))?;
        let janitor =
            outputs.try_clone().and_then(Janitor::start).map_err(OpenError::io("start a thread for", &outputs_path))?;
        let records = Records::open(&state.join("provenance.db"))?;
        sync(opened(&state)?.root()).map_err(OpenError::io("write through to disk", &state))?;

        let shared = Arc::new(Shared {
            tree,
            moving: opened(&moving_path)?,
            outputs,
            outputs_path,
            records,
            janitor,
            next_staging: AtomicU64::new(0),
            _lock: Arc::clone(lock),
        });
        match shared.recover().map_err(OpenError::Recovery)? {
            0 => {}
            files => tracing::info!(files, "put back what was on its way when the last run ended"),
        }
        Ok(Self { shared })
    }
}

fn one_file_system(lock: &Lock, tree: &Tree, prefixes: &[&str]) -> Result<(), OpenError> {
    let state = rustix::fs::stat(lock.state()).map_err(OpenError::io("look at", &lock.state()))?;
    for prefix in prefixes {
        // Resolving a name in it makes the directory itself.
        let inside = format!("{}/x", prefix.trim_end_matches('/'));
        let place = tree.place_or_create(inside.trim_start_matches('/'))?;
        let directory = lock.directory().join(prefix);
        let stat = rustix::fs::fstat(&place.directory).map_err(OpenError::io("look at", &directory))?;
        if stat.st_dev != state.st_dev {
            return Err(OpenError::OtherFileSystem { directory, state: lock.state() });
        }
    }
    Ok(())
}

fn empty(outputs: &Tree, path: &Path) -> Result<(), OpenError> {
    let mut names = Vec::new();
    outputs.list("", |name, _| {
        names.push(name.to_owned());
        std::ops::ControlFlow::Continue(())
    })?;
    for name in names {
        rustix::fs::unlinkat(outputs.root(), &name, AtFlags::empty())
            .map_err(OpenError::io("remove", &path.join(&name)))?;
    }
    Ok(())
}

impl Store for LocalStore {
    type Object = LocalObject;
    type Staging = LocalStaging;

    async fn open(&self, key: &str) -> Result<LocalObject, StoreError> {
        let (shared, key) = (Arc::clone(&self.shared), key.to_owned());
        blocking(move || shared.open(key)).await
    }

    fn meta<'a>(&self, object: &'a LocalObject) -> &'a ObjectMeta {
        &object.meta
    }

    fn body(&self, object: &LocalObject) -> Box<dyn Body> {
        Box::new(LocalBody::new(&self.shared, object))
    }

    fn staging(&self) -> LocalStaging {
        LocalStaging::new(&self.shared)
    }

    async fn verify(&self, object: &LocalObject) -> Result<(), StoreError> {
        let (shared, key, pinned) = (Arc::clone(&self.shared), object.meta.key.clone(), object.identity);
        blocking(move || match shared.regular(&key)? {
            Some(identity) if identity == pinned => Ok(()),
            _ => Err(StoreError::Superseded),
        })
        .await
    }

    async fn publish(
        &self,
        staging: &LocalStaging,
        index: usize,
        meta: &OutputMeta,
        provenance: &Provenance,
        expect: &Expect,
    ) -> Result<(), StoreError> {
        let output = staging.output(index);
        let mut output = output.lock().await;
        let identity = staging.seal(&mut output, index).await?;
        let record = Record {
            provenance: provenance.clone(),
            content_type: Some(meta.content_type.clone()),
            metadata: meta.metadata.clone(),
        };
        self.record(&meta.key, &identity, &record, expect).await?;

        let (shared, name) = (Arc::clone(&self.shared), staging.file_name(index));
        let (key, expect) = (meta.key.clone(), expect.clone());
        blocking(move || shared.publish(&name, &key, &expect)).await?;
        *output = Output::Published;
        Ok(())
    }

    async fn relocate(
        &self,
        object: &LocalObject,
        to: &str,
        provenance: &Provenance,
        expect: &Expect,
    ) -> Result<(), StoreError> {
        let record = Record {
            provenance: provenance.clone(),
            content_type: object.meta.content_type.clone(),
            metadata: object.meta.metadata.clone(),
        };
        let (shared, key, pinned) = (Arc::clone(&self.shared), object.meta.key.clone(), object.identity);
        blocking(move || shared.settle(&key, &pinned)).await?;
        self.record(to, &object.identity, &record, expect).await?;

        let (shared, key, pinned) = (Arc::clone(&self.shared), object.meta.key.clone(), object.identity);
        let (to, expect) = (to.to_owned(), expect.clone());
        blocking(move || shared.relocate(&key, &pinned, &to, &expect)).await
    }

    async fn inspect(&self, key: &str) -> Result<Option<Existing>, StoreError> {
        let (shared, key) = (Arc::clone(&self.shared), key.to_owned());
        blocking(move || {
            let Some(stat) = shared.tree.look(&key)? else { return Ok(None) };
            let etag = Identity::of(&stat).to_string();
            let provenance = shared.records.find(&key, &etag)?.map(|record| record.provenance);
            Ok(Some(Existing { etag, provenance }))
        })
        .await
    }
}

impl LocalStore {
    /// Before the rename, so that no file of ours is ever seen without its record.
    async fn record(&self, key: &str, identity: &Identity, record: &Record, expect: &Expect) -> Result<(), StoreError> {
        let current = match expect {
            Expect::Absent => None,
            Expect::Etag(etag) => Some(etag.as_str()),
        };
        Ok(self.shared.records.keep(key, &identity.to_string(), current, record).await?)
    }
}

impl Shared {
    fn open(&self, key: String) -> Result<LocalObject, StoreError> {
        let Some(identity) = self.regular(&key)? else { return Err(self.gone(&key)) };
        let etag = identity.to_string();
        let (content_type, metadata) = match self.records.find(&key, &etag)? {
            Some(record) => (record.content_type, record.metadata),
            None => (crate::key::guess_content_type(&key).map(str::to_owned), Vec::new()),
        };
        let meta = ObjectMeta {
            key,
            size: identity.size,
            etag,
            version_id: None,
            content_type,
            metadata,
            modified: identity.modified_time(),
        };
        Ok(LocalObject { meta, identity })
    }

    /// The identity of the regular file at the key, if anything is there.
    fn regular(&self, key: &str) -> Result<Option<Identity>, StoreError> {
        match self.tree.look(key)? {
            None => Ok(None),
            Some(stat) if Kind::of(&stat) == Kind::File => Ok(Some(Identity::of(&stat))),
            Some(stat) => Err(StoreError::Impossible(format!(
                "`{}` is {}: only regular files are objects",
                self.tree.display(key),
                Kind::of(&stat)
            ))),
        }
    }

    fn open_pinned(&self, key: &str, pinned: &Identity) -> Result<OwnedFd, StoreError> {
        let place = match self.tree.place(key) {
            Err(Obstacle::Missing { .. }) => return Err(StoreError::Superseded),
            place => place?,
        };
        let file = match self.tree.open_file(&place) {
            Err(Errno::NOENT | Errno::LOOP) => return Err(StoreError::Superseded),
            file => file.map_err(|reason| self.refused("read", key, reason))?,
        };
        let stat = rustix::fs::fstat(&file).map_err(|reason| self.refused("look at", key, reason))?;
        if Kind::of(&stat) == Kind::File && Identity::of(&stat) == *pinned {
            Ok(file)
        } else {
            Err(StoreError::Superseded)
        }
    }

    /// Brings the file's bytes to disk. Whoever dropped it may have left that to the system, but once its
    /// message is acknowledged nobody would do the work again.
    fn settle(&self, key: &str, pinned: &Identity) -> Result<(), StoreError> {
        if self.regular(key)?.is_none() {
            return Err(self.gone(key));
        }
        let file = self.open_pinned(key, pinned)?;
        sync(&file).map_err(|reason| self.refused("write through to disk", key, reason))
    }

    fn publish(&self, name: &str, key: &str, expect: &Expect) -> Result<(), StoreError> {
        let to = self.tree.place_or_create(key)?;
        self.place_at((self.outputs.as_fd(), name), &to, key, expect)?;
        self.durable(&to, key)
    }

    fn refused(&self, doing: &'static str, key: &str, reason: Errno) -> StoreError {
        self.tree.refused(doing, key, reason).into()
    }

    fn refused_staging(&self, doing: &'static str, name: &str, reason: Errno) -> StoreError {
        Obstacle::Refused { doing, path: self.outputs_path.join(name).display().to_string(), reason }.into()
    }
}

/// Tells what can never work from what may work later.
impl From<Obstacle> for StoreError {
    fn from(obstacle: Obstacle) -> Self {
        let Obstacle::Refused { reason, .. } = &obstacle else {
            return match obstacle {
                Obstacle::Missing { .. } => Self::Unavailable(obstacle.to_string()),
                _ => Self::Impossible(obstacle.to_string()),
            };
        };
        match *reason {
            Errno::NAMETOOLONG => {
                Self::Impossible(format!("{obstacle}: file systems allow mostly 255 bytes between two slashes"))
            }
            Errno::XDEV => Self::Impossible(format!("{obstacle}: it has to be on the same file system as `{STATE}`")),
            Errno::ISDIR | Errno::NOTDIR | Errno::NOTEMPTY | Errno::LOOP | Errno::INVAL | Errno::ILSEQ => {
                Self::Impossible(obstacle.to_string())
            }
            Errno::NOSPC | Errno::DQUOT => Self::Unavailable(format!("{obstacle}: free some space")),
            Errno::ACCESS | Errno::PERM | Errno::ROFS => {
                Self::Unavailable(format!("{obstacle}: let the user that gristmill runs as read and write there"))
            }
            _ => Self::Unavailable(obstacle.to_string()),
        }
    }
}

impl From<sqlite::Unavailable> for StoreError {
    fn from(error: sqlite::Unavailable) -> Self {
        Self::Unavailable(error.0)
    }
}

fn into_io_error(error: StoreError) -> IoError {
    match error {
        StoreError::NotFound(_) | StoreError::Superseded => IoError::Superseded,
        error => IoError::Unavailable(error.to_string()),
    }
}

/// Runs what may wait for the disk away from the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|stopped| Err(StoreError::Unavailable(format!("file work was stopped: {stopped}"))))
}

#[cfg(test)]
mod tests;
