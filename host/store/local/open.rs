//! Opening a directory as a bucket, and clearing up after a crash.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use rustix::fs::AtFlags;

use super::{LocalStore, Shared, janitor::Janitor, provenance::Records};
use crate::{
    directory::{Lock, Obstacle, Tree, sync},
    sqlite,
    store::StoreError,
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
        ControlFlow::Continue(())
    })?;
    for name in names {
        rustix::fs::unlinkat(outputs.root(), &name, AtFlags::empty())
            .map_err(OpenError::io("remove", &path.join(&name)))?;
    }
    Ok(())
}
