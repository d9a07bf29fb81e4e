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
mod open;
mod provenance;
mod staging;

use std::{
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
};

use rustix::io::Errno;

use self::{
    body::LocalBody,
    janitor::Janitor,
    provenance::{Record, Records},
    staging::Output,
};
pub use self::{open::OpenError, staging::LocalStaging};
use super::{Existing, Expect, ObjectMeta, OutputMeta, Provenance, Store, StoreError};
use crate::{
    directory::{Identity, Kind, Lock, Obstacle, STATE, Tree, sync},
    io::{Body, IoError},
    key::guess_content_type,
    sqlite,
};

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

impl Store for LocalStore {
    // The intake sends each version, once it is finished.
    const EVERY_VERSION_HAS_AN_EVENT: bool = true;

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

    async fn room(&self) -> u64 {
        let shared = Arc::clone(&self.shared);
        let free = blocking(move || {
            let stat = rustix::fs::fstatvfs(&shared.outputs);
            stat.map_err(|reason| shared.refused_staging("look at", ".", reason))
        });
        // Where that cannot be told, the first write will show.
        free.await.map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn staging(&self, provenance: &Provenance) -> LocalStaging {
        LocalStaging::new(&self.shared, provenance.clone())
    }

    async fn verify(&self, object: &LocalObject) -> Result<(), StoreError> {
        let (shared, key, pinned) = (Arc::clone(&self.shared), object.meta.key.clone(), object.identity);
        blocking(move || match shared.regular(&key)? {
            Some(identity) if identity == pinned => Ok(()),
            Some(_) => Err(StoreError::Superseded),
            None => Err(shared.superseded(&key)),
        })
        .await
    }

    async fn publish(&self, staging: &LocalStaging, index: usize, expect: &Expect) -> Result<(), StoreError> {
        let (OutputMeta { key, content_type, metadata }, output) = staging.output(index)?;
        let mut output = output.lock().await;
        let identity = staging.seal(&mut output, index).await?;
        let record = Record { provenance: staging.provenance().clone(), content_type: Some(content_type), metadata };
        // Two waits for the disk at the same time, both before anything is visible.
        tokio::try_join!(staging.settle(index), self.record(&key, &identity, &record, expect))?;

        let (shared, name) = (Arc::clone(&self.shared), staging.file_name(index));
        let expect = expect.clone();
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
        // Two waits for the disk at the same time, both before anything moves.
        tokio::try_join!(
            blocking(move || shared.settle(&key, &pinned)),
            self.record(to, &object.identity, &record, expect),
        )?;

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
            None => (guess_content_type(&key).map(str::to_owned), Vec::new()),
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
            Err(Obstacle::Missing { .. }) => return Err(self.superseded(key)),
            place => place?,
        };
        let file = match self.tree.open_file(&place) {
            Err(Errno::NOENT) => return Err(self.superseded(key)),
            Err(Errno::LOOP) => return Err(StoreError::Superseded),
            Err(reason @ (Errno::ACCESS | Errno::PERM)) => {
                let text = format!(
                    "cannot read `{}`: {reason}: let the user that gristmill runs as read it",
                    self.tree.display(key)
                );
                return Err(StoreError::Denied(text));
            }
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
        StoreError::Denied(reason) => IoError::Denied(reason),
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
